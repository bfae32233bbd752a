"""Login, lock, views, hiding, limits; and what is refused at start."""

import hashlib
import math
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netserver.connection import Connection
from netserver.errors import ConfigError
from netserver.waiting import Waiter
from pop3.errors import AuthFailed, PermanentFailure, TemporaryFailure
from pop3.lock import MaildropLock
from pop3.message import Listing, Message
from pop3.session import Session
from tests.pop3.fakes import (
    LOGIN,
    FakeConnection,
    Log,
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
        "user": "joe", "tls": None, "messages": 2, "retr": 1, "top": 1, "dele": 1, "octets": 20,
        "octets_in": 0, "octets_out": 0, "reason": "quit",
    }  # fmt: skip


def test_sessions_of_one_user(tmp_path: Path) -> None:
    """Over the limit is [IN-USE], with a text that does not say wrong password."""
    server = make_server(tmp_path, [PLAIN])
    asked: list[str] = []
    clients = SimpleNamespace(claim_user=lambda _, user: asked.append(user))
    object.__setattr__(server, "clients", clients)
    out = talk(server, b"USER joe@EXAMPLE.org\r\nPASS secret\r\n").out
    assert out.endswith(b"-ERR [IN-USE] too many sessions of this user\r\n")
    assert asked == ["joe@example.org"]


# -- delays --------------------------------------------------------------------------------------


def test_wrong_passwords_wait(tmp_path: Path) -> None:
    """Longer each time, on one connection and on a new one; the right password clears the user."""
    server = make_server(tmp_path, auth_failure_delay=2.0)
    first = talk(server, b"USER joe\r\nPASS a\r\nUSER joe\r\nPASS b\r\n")
    assert first.pauses == [2.0, 4.0]
    again = talk(server, LOGIN)
    assert again.pauses == [4.0]
    assert talk(server, LOGIN).pauses == [2.0]


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


# -- hiding --------------------------------------------------------------------------------------


def uids(server: POP3Memory, user: bytes = b"joe") -> list[bytes]:
    """Return what UIDL lists in a new session."""
    out = talk(server, b"USER %b\r\nPASS secret\r\nUIDL\r\n" % user).out
    return re.findall(rb"(?m)^\d+ (\S+)\r$", out)


def test_a_source_that_cannot_delete_hides(tmp_path: Path) -> None:
    """A message deleted by its user is never seen again, and renumbering follows."""
    server = make_server(tmp_path, [PLAIN] * 3, kind=POP3Memory)
    replies(server, b"DELE 2\r\nQUIT\r\n")
    assert uids(server) == [b"u1", b"u3"]
    assert len(server.store.mail["joe"]) == 3
    assert replies(server, b"STAT\r\n") == b"+OK 2 40\r\n"


def test_hiding_needs_quit(tmp_path: Path) -> None:
    """As deleting does."""
    server = make_server(tmp_path, [PLAIN] * 3, kind=POP3Memory)
    replies(server, b"DELE 2\r\n")
    assert len(uids(server)) == 3


def test_a_view_hides_for_itself(tmp_path: Path) -> None:
    """DELE in a view never reaches the source or another view."""
    server = make_server(tmp_path, [PLAIN] * 3)
    talk(server, b"USER joe~phone\r\nPASS secret\r\nDELE 1\r\nQUIT\r\n")
    assert uids(server, b"joe~phone") == [b"u2", b"u3"]
    assert uids(server, b"joe~desk") == uids(server) == [b"u1", b"u2", b"u3"]
    assert "delete_messages" not in server.store.calls
    replies(server, b"DELE 3\r\nQUIT\r\n")
    assert uids(server, b"joe~phone") == [b"u2"]


def test_hide_by_option(tmp_path: Path) -> None:
    """A source that could delete does not have to."""
    server = make_server(tmp_path, [PLAIN] * 2, delete="hide")
    replies(server, b"DELE 1\r\nQUIT\r\n")
    assert uids(server) == [b"u2"]
    assert "delete_messages" not in server.store.calls


def test_ignore(tmp_path: Path) -> None:
    """Nothing is deleted or hidden, in views neither."""
    server = make_server(tmp_path, [PLAIN] * 2, delete="ignore")
    for user in (b"joe", b"joe~view"):
        out = talk(server, b"USER %b\r\nPASS secret\r\nDELE 1\r\nQUIT\r\n" % user).out
        assert out.endswith(b"+OK bye\r\n")
        assert uids(server, user) == [b"u1", b"u2"]


def test_uids_that_are_none_can_be_hidden(tmp_path: Path) -> None:
    """Any bytes a source has in its names."""
    server = make_server(tmp_path, kind=POP3Memory)
    server.store.mail["joe"] = [Mail(uid, PLAIN, None) for uid in ("a b", "\udcff", "é", "x", "x")]
    out = replies(server, b"LIST\r\nDELE 1\r\nDELE 2\r\nDELE 5\r\nQUIT\r\n")
    assert out.endswith(b"+OK bye\r\n")
    assert uids(server)[1:] == [b"x"]
    assert len(uids(server)) == 2


def test_a_hide_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QUIT is -ERR."""
    server = make_server(tmp_path, [PLAIN], kind=POP3Memory)

    def fail(*_: object) -> None:
        raise TemporaryFailure("the server's state cannot be read or written")

    monkeypatch.setattr(server.state, "hide", fail)
    out = replies(server, b"DELE 1\r\nQUIT\r\n")
    assert out.endswith(b"-ERR [SYS/TEMP] the server's state cannot be read or written\r\n")


# -- sources that ask elsewhere, APOP ------------------------------------------------------------


class POP3Upstream(POP3Erasable):
    """The far end knows the passwords."""

    authenticates_upstream = True

    def open_box(self, session: Session[list[Mail]]) -> list[Mail]:
        """Ask it."""
        assert session.secret is not None
        if not session.secret.equals(b"far secret"):
            raise AuthFailed
        return super().open_box(session)

    def list_messages(self, session: Session[list[Mail]]) -> Iterable[Message] | Listing:
        """See no password any more."""
        assert session.secret is None
        return super().list_messages(session)


def test_a_source_may_ask_the_far_end(tmp_path: Path) -> None:
    """It gets the password while it opens the box; a refusal is a failed login like any other."""
    server = make_server(tmp_path, [PLAIN], kind=POP3Upstream, auth=(), auth_failure_delay=1.0)
    wrong = talk(server, b"USER joe\r\nPASS wrong\r\n")
    assert wrong.out.endswith(b"-ERR [AUTH] authentication failed\r\n")
    assert wrong.pauses == [1.0]
    assert talk(server, b"USER joe\r\nPASS far secret\r\nSTAT\r\n").out.endswith(b"+OK 1 20\r\n")


def test_others_never_see_a_password(tmp_path: Path) -> None:
    """Without the flag there is none in the session."""
    seen: list[object] = []

    class POP3Curious(POP3Memory):
        def open_box(self, session: Session[list[Mail]]) -> list[Mail]:
            seen.append(session.secret)
            return super().open_box(session)

    replies(make_server(tmp_path, kind=POP3Curious), b"QUIT\r\n")
    assert seen == [None]


def test_a_source_may_refuse_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right password does not help, and the reply does not tell."""
    monkeypatch.setattr(POP3Memory, "valid_user", lambda _self, user: user != "joe")
    out = talk(make_server(tmp_path), LOGIN).out
    assert out.endswith(b"-ERR [AUTH] authentication failed\r\n")


class POP3Apop(POP3Memory):
    """Knows one password."""

    def apop_secret(self, session: Session[list[Mail]]) -> str | None:
        """Return joe's."""
        return {"joe": "tanstaaf"}.get(session.user)


def test_apop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 1939 §7, with a timestamp that is new for each connection."""
    server = make_server(tmp_path, [PLAIN], kind=POP3Apop, apop=True)
    stamps = [re.findall(rb"<[!-~]+@[!-~]+>", talk(server, b"").out)[0] for _ in range(2)]
    assert stamps[0] != stamps[1]
    monkeypatch.setattr("secrets.token_hex", lambda _: "1896")
    digest = hashlib.md5(b"<1896@localhost>tanstaaf").hexdigest().encode()
    assert talk(server, b"APOP joe %b\r\nSTAT\r\n" % digest).out.endswith(b"+OK 1 20\r\n")
    for line in (b"joe " + b"0" * 32, b"jane " + digest, b"../x " + digest):
        out = talk(server, b"APOP " + line + b"\r\n").out
        assert out.endswith(b"-ERR [AUTH] authentication failed\r\n")
    for line in (b"APOP", b"APOP joe", b"APOP joe " + digest.upper() + b"x"):
        assert talk(server, line + b"\r\n").out.endswith(b"-ERR APOP takes a name and a digest\r\n")


def test_apop_is_off(tmp_path: Path) -> None:
    """Unless asked for, and unless the source can do it."""
    assert talk(make_server(tmp_path), b"APOP joe " + b"0" * 32 + b"\r\n").out == (
        b"+OK POP3 ready\r\n-ERR APOP is off\r\n"
    )
    with pytest.raises(ConfigError, match="--apop"):
        make_server(tmp_path, apop=True)


# -- what is refused at start --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"auth": ()}, "no --auth given"),
        ({"auth": ("any",)}, "--auth any"),
        ({"delete": "trash"}, "--delete trash"),
        ({"sasl": "KERBEROS"}, "KERBEROS"),
        ({"listen": ("127.0.0.1:0?plaintext-auth=maybe",)}, "plaintext-auth"),
        ({"state": "sqlite:////dev/null/x/state.sqlite"}, "--state"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    """One line that names the option."""
    with pytest.raises(ConfigError, match=re.escape(text)) as error:
        make_server(tmp_path, **options)
    assert "\n" not in str(error.value)


def test_anybody_only_where_nothing_can_be_deleted(tmp_path: Path) -> None:
    """--auth any is fine for a source that cannot delete, or does not."""
    for arguments in ({"kind": POP3Memory}, {"delete": "hide"}, {"delete": "ignore"}):
        server = make_server(tmp_path, [PLAIN], auth=("any",), **arguments)
        assert talk(server, b"USER joe\r\nPASS x\r\nSTAT\r\n").out.endswith(b"+OK 1 20\r\n")


def test_policies_follow_from_the_source(tmp_path: Path) -> None:
    """Expunge where it can, else hide; a class may add trash."""

    class POP3Trashing(POP3Erasable):
        delete_policies = frozenset({"expunge", "trash"})

    assert make_server(tmp_path).delete_policy == "expunge"
    assert make_server(tmp_path, kind=POP3Memory).delete_policy == "hide"
    assert make_server(tmp_path, kind=POP3Trashing, delete="trash").delete_policy == "trash"
    with pytest.raises(ConfigError, match="hide, ignore"):
        make_server(tmp_path, kind=POP3Memory, delete="expunge")


def test_paths_are_filled_in(tmp_path: Path) -> None:
    """A pattern gets the user's names."""
    seen: list[Path] = []

    class POP3Finding(POP3Memory):
        def open_box(self, session: Session[list[Mail]]) -> list[Mail]:
            seen.append(self.path("/mail/{domain}/{localpart}", session))
            return []

    talk(make_server(tmp_path, kind=POP3Finding), b"USER joe@Example.ORG\r\nPASS secret\r\n")
    assert seen == [Path("/mail/example.org/joe")]


class ScriptedWaiter(Waiter):
    """Sends the client's next piece when the server waits for one, so each recv gets one piece."""

    def __init__(self, client: socket.socket, pieces: Iterator[bytes]) -> None:
        """Take what the client will say."""
        self.client = client
        self.pieces = pieces

    def readable(self, connection: Connection) -> None:
        """Let the client speak, or leave when it has said all."""
        try:
            self.client.sendall(next(self.pieces))
        except StopIteration:
            self.client.shutdown(socket.SHUT_WR)

    def writable(self, connection: Connection) -> None:
        """Never needed: the replies fit."""
        raise AssertionError

    def pause(self, connection: Connection, seconds: float) -> None:
        """Do not wait."""

    def run_blocking(
        self, pool: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call it."""
        return function(*args, **kwargs)


def over_a_socket(server: POP3Memory, pieces: list[bytes]) -> bytes:
    """Let a client say this in pieces over a real connection; returns all it got."""
    ours, client = socket.socketpair()
    with ours, client:
        ours.setblocking(False)
        client.settimeout(10)
        listener: Any = SimpleNamespace(options={}, tls=False, spec=None)
        waiter = ScriptedWaiter(client, iter(pieces))
        log: Any = Log()
        connection = Connection(ours, "", listener, waiter, log)
        server.process_request(connection)
        connection.close()
        got = b""
        while data := client.recv(65536):
            got += data
    return got


def test_pieces_make_no_difference(tmp_path: Path) -> None:
    """Cut anywhere, or octet by octet, the same is said and answered."""
    said = (
        b"CAPA\r\nUSER joe\r\nPASS secret\r\nSTAT\r\nRETR 1\nbad line\r\nTOP 1 0\r\n" + b"x" * 300
        + b"\r\nUIDL\r\nQUIT\r\nNOOP\r\n"
    )  # fmt: skip
    server = make_server(tmp_path, [b"Subject: s\n\n.body\n"])
    whole = over_a_socket(server, [said])
    assert whole.endswith(b"-ERR line too long\r\n+OK\r\n1 u1\r\n.\r\n+OK bye\r\n")
    assert over_a_socket(server, [said[n : n + 1] for n in range(len(said))]) == whole
    for place in range(1, len(said)):
        assert over_a_socket(server, [said[:place], said[place:]]) == whole


@pytest.mark.parametrize("cut", [0, 1, 5, 20, 40])
def test_a_client_that_is_gone(tmp_path: Path, cut: int) -> None:
    """Wherever the connection ends, the session ends quietly and the maildrop is free."""
    server = make_server(tmp_path, [PLAIN])
    over_a_socket(server, [(LOGIN + b"DELE 1\r\nRETR 1\r\nQUIT")[:cut]])
    assert len(server.store.mail["joe"]) == 1
    assert replies(server, b"STAT\r\n") == b"+OK 1 20\r\n"


def test_an_idle_session_is_small(tmp_path: Path) -> None:
    """No dictionary, and what there is stays under 3 KiB without the listing."""
    server = make_server(tmp_path, [PLAIN])
    sessions: list[Session[Any]] = []

    class POP3Keeping(POP3Memory):
        def close_box(self, session: Session[Any]) -> None:
            sessions.append(session)

    server = make_server(tmp_path, [PLAIN], kind=POP3Keeping)
    replies(server, b"")
    (session,) = sessions
    assert not hasattr(session, "__dict__")
    assert session.secret is None
    parts = [
        session,
        *(getattr(session, name) for name in Session.__slots__ if name != "connection"),
    ]
    parts += [session.maildrop.listing, session.maildrop.deleted]  # type: ignore[union-attr]
    ours = [part for part in parts if part is not None and not hasattr(part, "events")]
    assert sum(map(sys.getsizeof, ours)) < 3072
