"""A mail source in memory, and a connection that is a list of octets."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, TypeVar

from netserver.daemon import Rights
from netserver.endpoints import Address
from netserver.errors import ConnectionLost, LineTooLong
from netserver.tls_layer import TLSInfo
from pop3.message import Listing, Message
from pop3.server import POP3Server
from pop3.session import Session
from pop3.settings import POP3Settings

T = TypeVar("T")
REMOTE = Address("192.0.2.1", 4711)
LOOPBACK = Address("127.0.0.1", 4711)


class Log:
    """Keeps events; a bound logger is the same one."""

    def __init__(self) -> None:
        """Start with no events."""
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def bind(self, **_: object) -> "Log":
        """Forget what is bound."""
        return self

    def __getattr__(self, level: str) -> Callable[..., None]:
        """Note an event of any level."""
        return lambda event, **fields: self.events.append((level, event, fields))

    def fields(self, event: str) -> dict[str, Any]:
        """Return the fields of the last event of this name."""
        return [fields for _, name, fields in self.events if name == event][-1]


class FakeConnection:
    """All that the client says is there at the start; what comes after it is `at_end`."""

    def __init__(
        self,
        said: bytes,
        *,
        peer: Address = LOOPBACK,
        at_end: Exception | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        """Let the client say this and then `at_end`: leave, or an exception of our side."""
        self.said = said
        self.peer = peer
        self.at_end = at_end or ConnectionLost("closed by the client")
        self.listener = SimpleNamespace(options=options or {}, tls=False, spec=None)
        self.tls: Any = None
        self.tls_said = b""  # what the client says after the handshake
        self.log = Log()
        self.out = bytearray()
        self.octets_in = self.octets_out = 0
        self.opened = time.monotonic()
        self.number = 1
        self.idle_timeout = 600.0
        self.phases: list[float | None] = []
        self.pauses: list[float] = []
        self.on_pause: Callable[[], None] = lambda: None
        self.committing = False
        self.closed = False
        self.aborted = False
        self.on_write: Callable[[bytes], None] = lambda _: None

    def read_line(self, limit: int = 255) -> bytes:
        """Return the next line."""
        line, end, rest = self.said.partition(b"\n")
        if not end:
            raise self.at_end
        self.said = rest
        if len(line) + 1 > limit:
            raise LineTooLong
        return line.removesuffix(b"\r")

    def write(self, data: bytes) -> None:
        """Keep what the client gets."""
        self.on_write(data)
        self.out += data

    def flush(self) -> None:
        """Do nothing: the client has it already."""

    def limit_phase(self, seconds: float | None) -> None:
        """Note the limit."""
        self.phases.append(seconds)

    def pause(self, seconds: float) -> None:
        """Note the pause and do not make it."""
        self.pauses.append(seconds)
        self.on_pause()

    def run_blocking(
        self, pool: str, function: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> T:
        """Call it."""
        assert pool in ("hash", "disk", "dns")
        return function(*args, **kwargs)

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Show that a commit runs."""
        self.committing = True
        yield
        self.committing = False

    def start_tls(self, context: object) -> None:
        """Forget what was said in clear and go on with `tls_said`."""
        self.tls = TLSInfo("TLSv1.3", "x", server_name=None, alpn=None)
        self.said = self.tls_said

    def abort(self) -> None:
        """Reset."""
        self.closed = self.aborted = True


@dataclass(frozen=True)
class Mail:
    """One message of the source in memory."""

    uid: str
    data: bytes
    size: int | None


@dataclass
class Store:
    """What the source's server object holds: mail by user, and what was called."""

    mail: dict[str, list[Mail]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fail: dict[str, BaseException] = field(default_factory=dict)
    streams: list[BytesIO] = field(default_factory=list)

    def called(self, name: str) -> None:
        """Note a call, and raise what the test wants it to."""
        self.calls.append(name)
        if name in self.fail:
            raise self.fail[name]


class POP3Memory(POP3Server[list[Mail]]):
    """Serves what is in `store`."""

    store: Store

    def open_box(self, session: Session[list[Mail]]) -> list[Mail]:
        """Return the user's mail."""
        self.store.called("open_box")
        return list(self.store.mail.get(session.user, ()))

    def list_messages(self, session: Session[list[Mail]]) -> Iterable[Message] | Listing:
        """List it."""
        self.store.called("list_messages")
        return [Message(mail.uid, mail.size) for mail in session.box]

    def read_message(self, session: Session[list[Mail]], message: Message) -> BinaryIO:
        """Open a message."""
        self.store.called("read_message")
        stream = BytesIO(next(mail.data for mail in session.box if mail.uid == message.uid))
        self.store.streams.append(stream)
        return stream

    def close_box(self, session: Session[list[Mail]]) -> None:
        """Note it."""
        self.store.called("close_box")


class POP3Erasable(POP3Memory):
    """Can delete too."""

    def delete_messages(self, session: Session[list[Mail]], messages: Sequence[Message]) -> None:
        """Delete from the store."""
        assert session.connection.committing
        self.store.called("delete_messages")
        gone = {message.uid for message in messages}
        mail = self.store.mail
        mail[session.user] = [one for one in mail[session.user] if one.uid not in gone]


def make_server(
    tmp_path: Path,
    messages: Iterable[bytes] = (),
    *,
    kind: type[Any] = POP3Erasable,
    known: bool = True,
    **options: Any,
) -> POP3Memory:
    """Return a server of user "joe" with password "secret", ready to serve but with no sockets."""
    users = tmp_path / "users"
    users.write_text("joe:{PLAIN}secret\njoe@example.org:{PLAIN}secret\n")
    users.chmod(0o600)
    defaults: dict[str, Any] = {
        "auth": (f"passwd-file:{users}",),
        "state": f"sqlite:///{tmp_path}/state/state.sqlite",
        "auth_failure_delay": 0.0,
        "lock_wait": 0.0,
    }
    settings = POP3Settings(**(defaults | options))
    server: POP3Memory = object.__new__(kind)
    for name, value in {
        "settings": settings,
        "log": Log(),
        "clients": SimpleNamespace(
            claim_user=lambda _connection, _user: True, release_user=lambda _connection: None
        ),
        "rights": Rights(),
        "personality": SimpleNamespace(name="single"),
        "_tls": SimpleNamespace(context=lambda _spec: None),
        "_trusted_file": None,
        "store": Store(),
    }.items():
        object.__setattr__(server, name, value)
    server._prepare()
    server.store.mail["joe"] = [
        Mail(f"u{n}", data, with_crlf_size(data) if known else None)
        for n, data in enumerate(messages, 1)
    ]
    return server


def with_crlf_size(data: bytes) -> int:
    """Return the size of a message whose line ends are LF, or which has none."""
    return len(data) + data.count(b"\n") - data.count(b"\r\n") + 2 * (not data.endswith(b"\n"))


def talk(server: POP3Memory, said: bytes, **arguments: Any) -> FakeConnection:
    """Let a client say this; returns the connection when the session has ended."""
    connection = FakeConnection(said, **arguments)
    server.process_request(connection)  # type: ignore[arg-type]
    return connection


LOGIN = b"USER joe\r\nPASS secret\r\n"
LOGGED_IN = b"+OK POP3 ready\r\n+OK\r\n+OK logged in\r\n"


def replies(server: POP3Memory, said: bytes, **arguments: Any) -> bytes:
    """Log in, say this, and return what came after the reply to PASS."""
    connection = talk(server, LOGIN + said, **arguments)
    out = bytes(connection.out)
    assert out.startswith(LOGGED_IN), out
    return out[len(LOGGED_IN) :]
