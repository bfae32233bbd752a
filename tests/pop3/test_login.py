"""From a name and a password to an open maildrop."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pop3.auth import Identity
from pop3.errors import AuthFailed, PermanentFailure, TemporaryFailure
from pop3.lock import MaildropLock
from pop3.session import Session
from tests.pop3.fakes import (
    LOGIN,
    FakeConnection,
    Mail,
    POP3Erasable,
    POP3Memory,
    make_server,
    replies,
    talk,
)

PLAIN = b"Subject: s\n\nbody\n"


# -- login ---------------------------------------------------------------------------------------


def test_login_order(tmp_path: Path) -> None:
    """Open, then list, once each; closed once; a refused login opens nothing."""
    server = make_server(tmp_path, [PLAIN])
    talk(server, b"USER joe\r\nPASS no\r\n")
    assert server.store.calls == []
    replies(server, b"QUIT\r\n")
    assert server.store.calls == ["open_box", "list_messages", "close_box"]


def test_another_spelling_does_not_get_past_a_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that takes JOE for joe lets nobody in for whom others decide (--auth-for)."""
    (tmp_path / "strict").write_text("joe:{PLAIN}other\n")
    (tmp_path / "strict").chmod(0o600)
    server = make_server(tmp_path, [PLAIN], auth_for=(f"joe=passwd-file:{tmp_path}/strict",))
    assert server.chain is not None
    (backend,) = server.chain.backends
    monkeypatch.setattr(backend, "verify", lambda *_: Identity("joe"))
    said = bytes(talk(server, b"USER JOE\r\nPASS secret\r\n").out)
    assert b"-ERR [AUTH] authentication failed" in said
    assert bytes(talk(server, b"USER joe\r\nPASS other\r\n").out).endswith(b"logged in\r\n")


@pytest.mark.parametrize(
    ("method", "error", "reply"),
    [
        ("open_box", OSError("disk"), b"-ERR [SYS/TEMP] mailbox cannot be opened\r\n"),
        ("list_messages", OSError("disk"), b"-ERR [SYS/TEMP] mailbox cannot be opened\r\n"),
        ("open_box", TemporaryFailure("far end is down"), b"-ERR [SYS/TEMP] far end is down\r\n"),
        ("list_messages", PermanentFailure("no mailbox"), b"-ERR [SYS/PERM] no mailbox\r\n"),
        ("open_box", AuthFailed(), b"-ERR [AUTH] authentication failed\r\n"),
        ("list_messages", KeyError("bug"), b"-ERR [SYS/TEMP] internal error\r\n"),
    ],
)
def test_a_maildrop_that_does_not_open(
    tmp_path: Path, method: str, error: Exception, reply: bytes
) -> None:
    """The class of the error decides the reply; nothing stays open; nobody is logged in."""
    server = make_server(tmp_path, [PLAIN])
    server.store.fail[method] = error
    out = talk(server, LOGIN + b"STAT\r\n").out
    assert reply in out
    assert b"+OK 1 " not in out
    assert server.store.calls.count("close_box") == server.store.calls.count("list_messages")
    server.store.fail.clear()
    assert replies(server, b"STAT\r\n") == b"+OK 1 20\r\n"


def test_a_second_try_after_a_failed_one(tmp_path: Path) -> None:
    """The session is as new: other user, other log, no leftovers."""
    server = make_server(tmp_path, [PLAIN])
    connection = talk(server, b"USER jane\r\nPASS x\r\n" + LOGIN + b"STAT\r\n")
    assert connection.out.endswith(b"+OK 1 20\r\n")
    assert connection.log.fields("session")["user"] == "joe"
    assert talk(server, b"USER jane\r\nPASS x\r\n").log.fields("session")["user"] == ""
    assert connection.log.fields("login failed") == {
        "code": "AUTH",
        "user": "jane",
        "reason": "authentication failed",
    }


def test_a_second_try_after_a_broken_one(tmp_path: Path) -> None:
    """A list that fails leaves neither the lock nor the box behind in a session that goes on."""
    server = make_server(tmp_path, [PLAIN])
    server.store.fail["list_messages"] = PermanentFailure("no mailbox")
    connection = FakeConnection(LOGIN + LOGIN + b"STAT\r\n")
    connection.on_write = lambda data: server.store.fail.clear() if b"SYS/PERM" in data else None
    server.process_request(connection)  # type: ignore[arg-type]
    assert connection.out.endswith(b"+OK logged in\r\n+OK 1 20\r\n")
    assert server.store.calls.count("close_box") == 2


def test_timers(tmp_path: Path) -> None:
    """A limit for all of the login, then the idle time of RFC 1939."""
    server = make_server(tmp_path, login_timeout=7.0, timeout=700.0)
    connection = talk(server, LOGIN)
    assert connection.phases == [7.0, None]
    assert connection.idle_timeout == 700
    without = talk(make_server(tmp_path, login_timeout=0.0, timeout=0.0), LOGIN)
    assert without.phases == [None, None]
    assert without.idle_timeout == math.inf


def test_the_timer_of_rfc_1939_is_the_default(tmp_path: Path) -> None:
    """A2.17: ten minutes; less warns once."""
    assert make_server(tmp_path).settings.timeout == 600
    warned: Any = make_server(tmp_path, timeout=30.0).log
    assert [level for level, event, _ in warned.events if "timeout" in event] == ["warning"]
    silent: Any = make_server(tmp_path).log
    assert silent.events == []


def test_the_password_is_in_no_event(tmp_path: Path) -> None:
    """Right, wrong, or behind a bug."""
    server = make_server(tmp_path, [PLAIN])
    server.store.fail["open_box"] = KeyError("bug")
    connection = talk(server, b"USER joe\r\nPASS hunter2\r\n" + LOGIN)
    assert "hunter2" not in repr(connection.log.events)
    assert "secret" not in repr(connection.log.events).replace("<secret>", "")
    assert b"hunter2" not in connection.out


def test_the_last_line(tmp_path: Path) -> None:
    """One event tells what happened."""
    server = make_server(tmp_path, [PLAIN, PLAIN])
    connection = talk(server, LOGIN + b"RETR 1\r\nTOP 2 0\r\nDELE 2\r\nQUIT\r\n")
    fields = connection.log.fields("session")
    assert fields.pop("seconds") >= 0
    assert fields == {
        "user": "joe", "tls": None, "messages": 2, "retr": 1, "top": 1, "dele": 1, "errors": 0,
        "octets": 20, "octets_in": 0, "octets_out": 0, "reason": "quit",
    }  # fmt: skip


def test_sessions_of_one_user(tmp_path: Path) -> None:
    """Over the limit is [IN-USE], with a text that does not say wrong password."""
    server = make_server(tmp_path, [PLAIN])
    asked: list[str] = []
    released: list[object] = []
    clients = SimpleNamespace(
        claim_user=lambda _, user: asked.append(user), release_user=released.append
    )
    object.__setattr__(server, "clients", clients)
    out = talk(server, b"USER joe@EXAMPLE.org\r\nPASS secret\r\n").out
    assert out.endswith(b"-ERR [IN-USE] too many sessions of this user\r\n")
    assert asked == ["joe@example.org"]
    assert len(released) == 1  # what came to nothing counts no longer


# -- delays --------------------------------------------------------------------------------------


def test_wrong_passwords_wait(tmp_path: Path) -> None:
    """Longer each time, on one connection and on a new one, until the right password came."""
    server = make_server(tmp_path, auth_failure_delay=2.0)
    first = talk(server, b"USER joe\r\nPASS a\r\nUSER joe\r\nPASS b\r\n")
    assert first.pauses == pytest.approx([2.0, 4.0], abs=0.5)  # the work is a part of it
    again = talk(server, LOGIN)
    assert again.pauses == [4.0]
    assert talk(server, LOGIN).pauses == []  # known from there
    guesses = talk(server, b"USER joe\r\nPASS c\r\nUSER joe\r\nPASS d\r\n").pauses
    assert guesses == pytest.approx([4.0, 8.0], abs=0.5)
    assert talk(server, LOGIN).pauses == [8.0]  # guessed at since


def test_no_delay_when_it_is_off(tmp_path: Path) -> None:
    """0 turns it off."""
    assert talk(make_server(tmp_path), b"USER joe\r\nPASS a\r\n" * 3).pauses == []


# -- lock ----------------------------------------------------------------------------------------


def lock_of(server: POP3Memory, tmp_path: Path) -> MaildropLock:
    """Return the lock of joe's maildrop."""
    return MaildropLock(tmp_path / "state/locks" / f"{type(server).__name__}%2Fjoe")


def test_a_maildrop_in_use(tmp_path: Path) -> None:
    """A login waits as long as it may, in growing steps, and gets [IN-USE]; nothing was opened."""
    server = make_server(tmp_path, [PLAIN], lock_wait=1.0)
    held = lock_of(server, tmp_path)
    assert held.acquire()
    connection = talk(server, LOGIN)
    held.release()
    assert connection.out.endswith(b"-ERR [IN-USE] mailbox is in use by another session\r\n")
    assert math.isclose(sum(connection.pauses), 1.0)
    assert connection.pauses[0] == 0.05
    assert max(connection.pauses) == 0.25
    assert server.store.calls == []


def test_a_maildrop_that_becomes_free(tmp_path: Path) -> None:
    """The one who waits gets it."""
    server = make_server(tmp_path, [PLAIN], lock_wait=1.0)
    held = lock_of(server, tmp_path)
    assert held.acquire()
    connection = FakeConnection(LOGIN + b"STAT\r\n")
    connection.on_pause = held.release
    server.process_request(connection)  # type: ignore[arg-type]
    assert connection.out.endswith(b"+OK 1 20\r\n")
    assert len(connection.pauses) == 1


def test_the_lock_is_held_to_the_end_and_then_free(tmp_path: Path) -> None:
    """Until the deletions are done."""
    server = make_server(tmp_path, [PLAIN])
    held: list[bool] = []

    class POP3Looking(POP3Erasable):
        def delete_messages(self, session: Session[list[Mail]], messages: Any) -> None:
            held.append(lock_of(self, tmp_path).acquire())

    server = make_server(tmp_path, [PLAIN], kind=POP3Looking)
    replies(server, b"DELE 1\r\nQUIT\r\n")
    assert held == [False]
    after = lock_of(server, tmp_path)
    assert after.acquire()
    after.release()


def test_a_source_may_do_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock_path None: any number of sessions at once."""
    monkeypatch.setattr(POP3Memory, "lock_path", lambda *_: None)
    server = make_server(tmp_path, [PLAIN])
    replies(server, b"STAT\r\n")
    assert list((tmp_path / "state/locks").iterdir()) == []


def test_a_lock_that_cannot_be_tried(tmp_path: Path) -> None:
    """Is [SYS/TEMP], not [IN-USE]."""
    server = make_server(tmp_path, [PLAIN])
    (tmp_path / "state/locks").rmdir()
    assert talk(server, LOGIN).out.endswith(b"-ERR [SYS/TEMP] mailbox cannot be opened\r\n")
