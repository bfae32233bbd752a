"""Connections on real sockets within one process: alone with a scripted client, or served."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from netserver.connection import Connection
from netserver.errors import IdleTimeout
from netserver.settings import ServerSettings
from netserver.waiting import PollWaiter, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from netserver.server import NetServer

NOBODY: Any = None  # a listener or a logger that is never asked


class Script(Waiter):
    """Plays the client: each wait for input brings the next chunk, then the end."""

    def __init__(self, far: socket.socket, chunks: Iterable[bytes] = ()) -> None:
        self.far = far
        self.chunks = iter(chunks)
        self.reads = 0
        self.taken = bytearray()
        self.breaths = 0
        self.before: Callable[[], None] = lambda: None  # runs in each wait for input

    def readable(self, connection: Connection) -> None:
        """Send what comes next."""
        self.reads += 1
        self.before()
        if connection.deadline <= time.monotonic():
            raise IdleTimeout
        chunk = next(self.chunks, None)
        if chunk is None:
            self.far.shutdown(socket.SHUT_WR)
        else:
            self.far.sendall(chunk)

    def writable(self, connection: Connection) -> None:
        """Take some of what the server sent."""
        assert connection.deadline > time.monotonic()
        self.taken += self.far.recv(1 << 16)

    def pause(self, connection: Connection, seconds: float) -> None:
        """Go on at once."""

    def breathe(self, connection: Connection) -> None:
        """Count."""
        self.breaths += 1

    def run_blocking(self, pool: str, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return function(*args, **kwargs)


class Counting:
    """A socket that remembers the size of each send."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.sends: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def send(self, data: bytes) -> int:
        """Send as the real one does."""
        sent = self._inner.send(data)
        self.sends.append(sent)
        return sent


class Pair:
    """A connection on one end of a pair of sockets, and the other end."""

    def __init__(self, chunks: Iterable[bytes] = (), *, tcp: bool = False) -> None:
        near, self.far = tcp_pair() if tcp else socket.socketpair()
        near.setblocking(False)
        self.far.settimeout(10)
        self.socket = Counting(near)
        self.waiter = Script(self.far, chunks)
        address = near.getpeername()
        self.connection = Connection(self.socket, address, NOBODY, self.waiter, NOBODY)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close both ends."""
        self.connection.close()
        self.far.close()

    def rest(self) -> bytes:
        """Return all that the client still gets, up to an orderly end."""
        data = bytearray(self.waiter.taken)
        while piece := self.far.recv(1 << 16):
            data += piece
        return bytes(data)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a loopback connection with small buffers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    return near, far


def reset(sock: socket.socket) -> None:
    """Close by RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def until_reset(far: socket.socket) -> bytes:
    """Return what came before the reset that must come."""
    got, reset_seen = _all_of(far)
    assert reset_seen, f"an orderly end after {len(got)} octets"
    return got


class Process:
    """A server of that class in this process, brought as far as its first client."""

    def __init__(self, server_class: type[NetServer], log: Path, **settings: Any) -> None:
        self.log = log
        self.server = server_class(
            ServerSettings(log_file=str(log), log_format="json", log_level="debug", **settings)
        )
        self.server.configure()
        self.server.post_configure()
        row = self.server.boards[0].row(0)
        row.begin(time.monotonic())
        self.server.clients.use(row)
        self.server.seal()
        self.stop = False
        self.listener: Any = SimpleNamespace(
            tls=False, spec=self.server._specs[0], options={}, address="test"
        )

    def serve(self, said: bytes = b"", *, leave: bool = True) -> Answer:
        """Serve one client that says this and, if ``leave``, nothing more."""
        near, far = tcp_pair()
        near.setblocking(False)
        far.settimeout(10)
        far.sendall(said)
        if leave:
            far.shutdown(socket.SHUT_WR)
        waiter = PollWaiter(self.server.signals, lambda: self.stop)
        connection = Connection(
            near, near.getpeername(), self.listener, waiter, self.server.log, 10.0
        )
        with far:
            self.server.run_client_connection(connection)
            return Answer(connection, *_all_of(far))

    def events(self) -> list[dict[str, Any]]:
        """Return what was logged."""
        return [json.loads(line) for line in self.log.read_text().split("\n") if line]

    def close(self) -> None:
        """Give its descriptors back."""
        self.server.boards[0].close()
        os.close(self.server.signals._reader)
        os.close(self.server.signals._writer)


@dataclass(frozen=True)
class Answer:
    """What a client got, and whether by a reset it knows that this is not all."""

    connection: Connection
    text: bytes
    reset: bool


def _all_of(far: socket.socket) -> tuple[bytes, bool]:
    got = bytearray()
    try:
        while piece := far.recv(1 << 16):
            got += piece
    except ConnectionResetError:
        return bytes(got), True
    return bytes(got), False
