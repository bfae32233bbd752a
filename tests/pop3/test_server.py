"""Views, hiding, sources of other kinds; and what is refused at start."""

import hashlib
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
from pop3.errors import AuthFailed, TemporaryFailure
from pop3.message import Listing, Message
from pop3.session import Session
from tests.pop3.fakes import (
    LOGIN,
    Log,
    Mail,
    POP3Erasable,
    POP3Memory,
    make_server,
    replies,
    talk,
)

PLAIN = b"Subject: s\n\nbody\n"


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
    assert wrong.pauses == pytest.approx([1.0], abs=0.5)
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


def test_apop_by_the_users_file(tmp_path: Path) -> None:
    """A source without passwords leaves it to the backends."""
    server = make_server(tmp_path, [PLAIN], apop=True)
    stamp = b"<1896@localhost>"
    digest = hashlib.md5(stamp + b"secret").hexdigest().encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.token_hex", lambda _: "1896")
        said = talk(server, b"APOP joe %b\r\n" % digest).out
        assert said.endswith(b"+OK logged in\r\n")
        for name in (b"nobody", b"joe@example.net"):
            said = talk(server, b"APOP %b %b\r\n" % (name, digest)).out
            assert said.endswith(b"-ERR [AUTH] authentication failed\r\n")


def test_apop_is_off(tmp_path: Path) -> None:
    """Unless asked for, and unless the source or a backend can do it."""
    assert talk(make_server(tmp_path), b"APOP joe " + b"0" * 32 + b"\r\n").out == (
        b"+OK POP3 ready\r\n-ERR APOP is off\r\n"
    )
    with pytest.raises(ConfigError, match="--apop"):
        make_server(tmp_path, apop=True, auth=("any",), delete="ignore")


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
