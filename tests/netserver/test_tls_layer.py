"""TLS over memory buffers: alone, and in a connection whose network cuts it as it likes."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from netserver.connection import TLS_HANDSHAKE_SECONDS, Connection
from netserver.errors import ConnectionLost, IdleTimeout
from netserver.tls import server_context
from netserver.tls_layer import TLSLayer
from netserver.waiting import Waiter
from tests.netserver.certs import make_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Maker = Callable[..., tuple[Connection, "Client"]]

NOBODY: Any = None
MIB = 1 << 20


class Client(Waiter):
    """A TLS client whose octets reach the server ``chunk`` at a time, and that keeps all it gets.

    ``chunk`` 0 sends what there is.  ``to_say`` is sent after the handshake.
    """

    def __init__(self, far: socket.socket, chunk: int = 0, to_say: bytes = b"") -> None:
        self.far = far
        self.chunk = chunk
        self.to_say = to_say
        self.heard = bytearray()
        self.ended = False  # by close_notify
        self.shaken = False
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["pop3"])
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="mail.test")
        self.unsent = b""

    def step(self) -> None:
        """Take what the server sent and decide what to send."""
        self.far.setblocking(False)
        with suppress(BlockingIOError):
            while data := self.far.recv(1 << 16):
                self.incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
                self.tls.write(self.to_say)
            while piece := self.tls.read(1 << 16):
                self.heard += piece
            self.ended = True
        self.unsent += self.outgoing.read()

    def readable(self, connection: Connection) -> None:
        """Send a chunk."""
        if not self.unsent:
            self.step()
        if not self.unsent:
            self.far.shutdown(socket.SHUT_WR)
            return
        size = self.chunk or len(self.unsent)
        with suppress(BlockingIOError):
            sent = self.far.send(self.unsent[:size])
            self.unsent = self.unsent[sent:]

    def writable(self, connection: Connection) -> None:
        """Take some."""
        self.step()

    def pause(self, connection: Connection, seconds: float) -> None:
        """Go on at once."""

    def run_blocking(self, pool: str, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return function(*args, **kwargs)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Return a server's context."""
    cert, key = make_certificate(tmp_path_factory.mktemp("tls"))
    return server_context([(str(cert), str(key))], alpn=("pop3",))


@pytest.fixture
def connect() -> Iterator[Maker]:
    """Return a maker of connections and their clients."""
    made: list[tuple[Connection, Client]] = []

    def make(chunk: int = 0, to_say: bytes = b"") -> tuple[Connection, Client]:
        near, far = socket.socketpair()
        near.setblocking(False)
        client = Client(far, chunk, to_say)
        made.append((Connection(near, near.getpeername(), NOBODY, client, NOBODY), client))
        return made[-1]

    yield make
    for connection, client in made:
        connection.close()
        client.far.close()


# -- in a connection ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "chunk"),
    [(1, 1), (100, 1), (5000, 7), (16384, 100), (16385, 16384), (70_000, 1500), (MIB, 4096)],
)
def test_what_is_said_comes_back(
    connect: Maker, context: ssl.SSLContext, size: int, chunk: int
) -> None:
    """Any size, from one octet to one MiB, and any cut of the records."""
    text = bytes(range(32, 127)) * (size // 95 + 1)
    connection, client = connect(chunk, text[:size] + b"\r\n")
    connection.start_tls(context)
    line = connection.read_line(size + 2)
    assert line == text[:size]
    connection.write(line)
    connection.close()
    client.step()
    assert client.heard == line
    assert (connection.octets_in, connection.octets_out) == (size + 2, size)


def test_the_handshake_tells_what_was_agreed_on(connect: Maker, context: ssl.SSLContext) -> None:
    """Version, cipher, the server's name and the protocol."""
    connection, _ = connect()
    assert connection.tls is None
    connection.start_tls(context)
    assert connection.tls is not None
    assert connection.tls.version == "TLSv1.3"
    assert connection.tls.cipher.startswith("TLS_")
    assert connection.tls.alpn == "pop3"


def test_what_was_said_in_clear_is_forgotten(connect: Maker, context: ssl.SSLContext) -> None:
    """Commands behind STLS, whole or half, never reach the encrypted session (RFC 2595 4)."""
    connection, client = connect(to_say=b"CAPA\r\n")
    client.far.sendall(b"STLS\r\nUSER injected\r\nPASS in")
    assert connection.read_line() == b"STLS"
    connection.write(b"+OK begin\r\n")
    connection.flush()
    assert client.far.recv(100) == b"+OK begin\r\n"
    connection.start_tls(context)
    assert connection.read_line() == b"CAPA"


def test_clear_text_in_place_of_a_handshake_fails(connect: Maker, context: ssl.SSLContext) -> None:
    """What comes after STLS and is no TLS ends the connection; TLS is not on."""
    connection, client = connect()
    client.unsent = b"USER anna\r\nPASS secret\r\n" * 10
    with pytest.raises(ConnectionLost, match="handshake failed"):
        connection.start_tls(context)
    assert connection.tls is None


def test_a_client_that_leaves_amid_the_handshake(connect: Maker, context: ssl.SSLContext) -> None:
    """Its end is a lost connection wherever it comes."""
    connection, client = connect(10)
    client.step()
    client.unsent = client.unsent[:20]
    client.step = lambda: None  # type: ignore[method-assign]
    with pytest.raises(ConnectionLost, match="handshake failed"):
        connection.start_tls(context)


def test_a_handshake_has_its_own_time(connect: Maker, context: ssl.SSLContext) -> None:
    """Ten seconds at most, however long a client may be idle; afterwards the phase is as before."""
    connection, client = connect(100)
    connection.idle_timeout = 600
    left = []
    send = client.readable

    def watched(connection: Connection) -> None:
        left.append(connection.deadline - connection.opened)
        send(connection)

    client.readable = watched  # type: ignore[method-assign]
    connection.start_tls(context)
    assert 0 < max(left) < 30
    del left[:]
    with pytest.raises(ConnectionLost):
        connection.read_line()
    assert max(left) > 500


def test_garbage_amid_tls_is_a_lost_connection(connect: Maker, context: ssl.SSLContext) -> None:
    """One wrong octet and nothing more is believed."""
    connection, client = connect(to_say=b"NOOP\r\n")
    connection.start_tls(context)
    assert connection.read_line() == b"NOOP"
    client.tls.write(b"DELE 1\r\n")
    record = bytearray(client.outgoing.read())
    record[-1] ^= 1
    client.unsent = bytes(record)
    with pytest.raises(ConnectionLost, match="TLS"):
        connection.read_line()


@pytest.mark.parametrize("orderly", [True, False])
def test_the_end_of_the_client(connect: Maker, context: ssl.SSLContext, *, orderly: bool) -> None:
    """By close_notify it has left; without, somebody may have cut the line, and it says so."""
    connection, client = connect(to_say=b"QUIT")
    connection.start_tls(context)
    if orderly:
        client.step()
        with suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
        client.unsent += client.outgoing.read()
    with pytest.raises(ConnectionLost, match="closed by the client" if orderly else "eof"):
        connection.read_line()


def test_last_words_and_the_end_are_encrypted(connect: Maker, context: ssl.SSLContext) -> None:
    """close() sends what was written and says that it was all."""
    connection, client = connect()
    connection.start_tls(context)
    connection.write(b"+OK bye\r\n")
    connection.close()
    client.step()
    assert (bytes(client.heard), client.ended) == (b"+OK bye\r\n", True)


def test_the_end_is_said_also_when_nothing_is_left(connect: Maker, context: ssl.SSLContext) -> None:
    """A client must be able to tell the end from a line that was cut (RFC 8446 6.1)."""
    connection, client = connect()
    connection.start_tls(context)
    connection.write(b"+OK bye\r\n")
    connection.flush()
    connection.close()
    client.step()
    assert (bytes(client.heard), client.ended) == (b"+OK bye\r\n", True)


def test_an_aborted_connection_does_not_say_the_end(
    connect: Maker, context: ssl.SSLContext
) -> None:
    """What the client got is not to be taken for the whole."""
    connection, client = connect()
    connection.start_tls(context)
    connection.write(b"+OK message follows\r\n")
    connection.flush()
    connection.abort()
    client.step()
    assert (bytes(client.heard), client.ended) == (b"+OK message follows\r\n", False)


def test_the_last_flight_goes_with_the_first_words(connect: Maker, context: ssl.SSLContext) -> None:
    """Alone it would hold them up until the client's delayed acknowledgement: 40 ms a login."""
    connection, client = connect()
    connection.start_tls(context)
    client.far.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.far.recv(1, socket.MSG_PEEK)  # TLS 1.3: the ticket waits
    connection.write(b"+OK hello\r\n")
    connection.flush()
    client.step()
    assert bytes(client.heard) == b"+OK hello\r\n"


class Slow(Client):
    """Sends an octet of its ClientHello whenever it is asked, until the time is over."""

    def readable(self, connection: Connection) -> None:
        """Send one; the deadline must not move."""
        self.deadlines.add(connection.deadline)
        if len(self.deadlines) > 1 or self.count == 200:
            raise IdleTimeout
        self.count += 1
        if not self.unsent:
            self.step()
        self.far.send(self.unsent[:1])
        self.unsent = self.unsent[1:]

    count = 0
    deadlines: set[float] = set()  # noqa: RUF012 - of one test


def test_slow_handshakes_have_one_deadline(context: ssl.SSLContext) -> None:
    """An octet now and then does not prolong the 10 seconds."""
    near, far = socket.socketpair()
    near.setblocking(False)
    client = Slow(far)
    connection = Connection(near, near.getpeername(), NOBODY, client, NOBODY)
    with pytest.raises(IdleTimeout):
        connection.start_tls(context)
    assert (client.count, len(client.deadlines)) == (200, 1)
    assert client.deadlines.pop() - time.monotonic() <= TLS_HANDSHAKE_SECONDS
    connection.close()
    far.close()


# -- alone ----------------------------------------------------------------------------------------


def test_nothing_is_read_before_a_record_is_whole(context: ssl.SSLContext) -> None:
    """None means: not yet."""
    near, far = socket.socketpair()
    with near, far:
        client = Client(far)
        layer = TLSLayer(context)
        for _ in range(4):
            client.step()
            if client.unsent:
                layer.feed(client.unsent)
            client.unsent = b""
            layer.handshake()
            near.sendall(layer.pull())
        assert layer.decrypt() is None
        client.tls.write(b"NOOP\r\n")
        record = client.outgoing.read()
        layer.feed(record[:-1])
        assert layer.decrypt() is None
        layer.feed(record[-1:])
        assert layer.decrypt() == b"NOOP\r\n"
        assert layer.encrypt(b"") == b""
        near.sendall(layer.encrypt(memoryview(b"+OK")))
        client.step()
        assert client.heard == b"+OK"


def test_an_old_client_is_told_by_an_alert(tmp_path: Path) -> None:
    """A handshake that fails leaves the reason to be sent."""
    cert, key = make_certificate(tmp_path)
    layer = TLSLayer(server_context([(str(cert), str(key))], min_version="TLSv1.3"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    layer.feed(outgoing.read())
    with pytest.raises(ConnectionLost, match="unsupported protocol"):
        layer.handshake()
    assert layer.pull()[0] == 21  # an alert record
