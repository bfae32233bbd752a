"""A connection whose other end is octets in memory, cut as the input says."""

import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from netserver.connection import Connection
from netserver.waiting import Waiter
from tests.pop3.fakes import Log


class MemorySocket:
    """Brings these pieces, one at each `recv`, then the end; keeps what was sent.

    A send takes at most `takes` octets, 0: all.
    """

    family = socket.AF_INET

    def __init__(self, chunks: Sequence[bytes], takes: int = 0) -> None:
        """Begin with the first piece."""
        self._chunks = [chunk for chunk in reversed(chunks) if chunk]
        self._takes = takes
        self.sent = bytearray()

    def recv(self, size: int) -> bytes:
        """Bring the next octets."""
        if not self._chunks:
            return b""
        chunk = self._chunks.pop()
        if len(chunk) > size:
            self._chunks.append(chunk[size:])
        return chunk[:size]

    def send(self, data: bytes) -> int:
        """Take some."""
        taken = data[: self._takes] if self._takes else data
        self.sent += taken
        return len(taken)

    def fileno(self) -> int:
        """Return the number of no descriptor."""
        return -1

    def getsockname(self) -> tuple[str, int]:
        """Return our own end."""
        return "127.0.0.1", 110

    def setsockopt(self, *_: object) -> None:
        """Take any option."""

    def close(self) -> None:
        """Do nothing."""


class NoWait(Waiter):
    """All is ready at once."""

    def readable(self, connection: Connection) -> None:
        """Go on."""

    def writable(self, connection: Connection) -> None:
        """Go on."""

    def pause(self, connection: Connection, seconds: float) -> None:
        """Go on."""

    def run_blocking(self, pool: str, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return function(*args, **kwargs)


def connection_of(chunks: Sequence[bytes], takes: int = 0) -> tuple[Connection, MemorySocket, Log]:
    """Return a connection, its socket and its log."""
    near = MemorySocket(chunks, takes)
    log = Log()
    listener: Any = SimpleNamespace(options={}, tls=False, spec=None, address="test")
    far: Any = near
    logger: Any = log
    return Connection(far, ("127.0.0.1", 4711), listener, NoWait(), logger), near, log
