"""Serve one client on any two file handles, inside a program that is no server."""

from __future__ import annotations

import os
import select
import socket as socket_module
import stat
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from netserver import logs, native
from netserver.connection import Connection
from netserver.daemon import Rights
from netserver.endpoints import Address, ListenSpec
from netserver.errors import IdleTimeout
from netserver.personalities.single import Single
from netserver.scoreboard import ClientTable
from netserver.waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from netserver.server import NetServer

P = ParamSpec("P")
T = TypeVar("T")

Handle = object
"""A descriptor's number, a socket, or a binary file object, with a descriptor or without."""

# what a pipe that is ready takes without a wait (POSIX)
PIPE_SIZE = 4096
# flags for sockets that may be blocking ones: they are not ours to change
_NO_WAIT = getattr(socket_module, "MSG_DONTWAIT", 0) | getattr(socket_module, "MSG_NOSIGNAL", 0)

_preparing = threading.Lock()


def serve(server: NetServer, reader: Handle, writer: Handle, peer: str | None = None) -> None:
    """Serve one client; see ``NetServer.serve``."""
    begin(server)
    ends = Ends(reader, writer)
    try:
        ends.address = _address(ends, peer)
        connection = Connection(
            cast("socket_module.socket", ends),
            None,
            cast("Any", _HERE),
            EndsWaiter(ends),
            server.log,
            server.settings.timeout,
        )
        connection.peer = ends.address
        server.run_client_connection(connection)
    finally:
        ends.close()


def begin(server: NetServer) -> None:
    """Go through the steps of a start that have a meaning here; once for each server."""
    with _preparing:
        if server.embedded:
            return
        server.embedded = True
        try:
            server.configure_hook()
            server.configure()
            server.post_configure()
            server.post_configure_hook()
            server.pre_loop_hook()
            server.child_init()
        except BaseException:
            server.unseal()
            server.embedded = False
            raise


def prepare(server: NetServer) -> None:
    """Do what ``post_configure`` does: no listeners, no rights, no signals, nothing shared."""
    settings = server.settings
    server.log = logs.configure(
        level=settings.log_level,
        format=settings.log_format,
        file=settings.log_file,
        name=server.prog,
        hook=server.write_to_log_hook,
    )
    server.rights = Rights()
    server.boards[:] = []
    server.clients = ClientTable(server.boards)
    server.personality = Single(server)
    server.prepare_clients([_HERE.spec])


class _Here:
    """Stands for the listener that there is not."""

    spec = ListenSpec.parse("stdin")
    options: Mapping[str, str] = spec.options
    tls = False


_HERE = _Here()


def _address(ends: Ends, peer: str | None) -> Address:
    """Return the client's address: as given, else as a socket tells, else this machine's.

    Raises ``ValueError`` for what is no address.
    """
    if peer is None:
        return ends.peer() or Address("127.0.0.1", 0)
    if peer == "unix":
        return Address("unix", None)
    family = socket_module.AF_INET6 if ":" in peer else socket_module.AF_INET
    try:
        socket_module.inet_pton(family, peer)
    except (OSError, ValueError):
        raise ValueError(f"peer={peer!r} is no IP address, and not 'unix'") from None
    return Address.of((peer, 0), family)


# -- two handles in the place of a socket -----------------------------------------------------


class _End(Protocol):
    number: int  # the descriptor, -1 without one

    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes | memoryview) -> int: ...
    def close(self) -> None: ...


class Ends:
    """What ``Connection`` asks of its socket, on a handle for each direction.

    Handles stay open, and stay blocking or not as they are: whose they are may go on with them.
    """

    family = -1  # none: the address is told, not asked for

    def __init__(self, reader: Handle, writer: Handle) -> None:
        self.reader = _end_of(reader)
        try:
            self.writer = _end_of(writer)
        except BaseException:
            self.reader.close()
            raise
        self.address: Address | None = None

    def fileno(self) -> int:
        """Return the descriptor that is read."""
        return self.reader.number

    def peer(self) -> Address | None:
        """Return who is at the far end of the socket that is read, None where that is unknown."""
        if isinstance(self.reader, _Socket):
            return self.reader.peer()
        return None

    def recv(self, size: int) -> bytes:
        """Return what is there, b"" at the end. Raises ``BlockingIOError`` as a socket does."""
        return self.reader.read(size)

    def send(self, data: bytes | memoryview) -> int:
        """Write what can be written without a wait."""
        return self.writer.write(data)

    def getsockname(self) -> object:
        """Tell that there is no address."""
        raise OSError("no socket of our own")

    def setsockopt(self, *option: Any) -> None:
        """Set an option of a socket: one that is to end by a reset will, when it is closed."""
        if isinstance(self.writer, _Socket):
            self.writer.socket.setsockopt(*option)

    def close(self) -> None:
        """Give back what was opened here; the handles stay open."""
        self.reader.close()
        self.writer.close()


def _end_of(handle: Handle) -> _End:
    if isinstance(handle, int):
        return _of_descriptor(handle)
    if "ssl" in sys.modules and isinstance(handle, sys.modules["ssl"].SSLSocket):
        raise TypeError("an SSLSocket's descriptor would bypass its TLS; let the server do TLS")
    with suppress(AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        handle.flush()  # type: ignore[attr-defined] # else what was written before comes after us
    try:
        number: int = handle.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return _Stream(handle)
    return _of_descriptor(number)


def _of_descriptor(number: int) -> _End:
    if stat.S_ISSOCK(os.fstat(number).st_mode):
        return _Socket(number)
    return _Descriptor(number)


class _Descriptor:
    """A pipe, a terminal or a file; waited for by ``poll``, as it may be a blocking one."""

    def __init__(self, number: int) -> None:
        self.number = number

    def read(self, size: int) -> bytes:
        if not _ready(self.number, 0.0, writing=False):
            raise BlockingIOError
        return os.read(self.number, size)

    def write(self, data: bytes | memoryview) -> int:
        if not _ready(self.number, 0.0, writing=True):
            raise BlockingIOError
        return os.write(self.number, data[:PIPE_SIZE])

    def close(self) -> None:
        """Leave it open."""


class _Socket:
    """A socket, by a copy of its descriptor."""

    def __init__(self, number: int) -> None:
        self.socket = native.socket(fileno=os.dup(number))
        self.number = self.socket.fileno()

    def peer(self) -> Address | None:
        try:
            return Address.of(self.socket.getpeername(), self.socket.family)
        except OSError:
            return None

    def read(self, size: int) -> bytes:
        return self.socket.recv(size, _NO_WAIT)

    def write(self, data: bytes | memoryview) -> int:
        return self.socket.send(data, _NO_WAIT)

    def close(self) -> None:
        self.socket.close()


class _Stream:
    """A file object without a descriptor, such as ``io.BytesIO``: never waited for."""

    number = -1

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        read = getattr(self._stream, "read1", None) or self._stream.read
        data: bytes | None = read(size)
        if data is None:
            raise OSError("a stream without a descriptor must not be a non-blocking one")
        return data

    def write(self, data: bytes | memoryview) -> int:
        written: int | None = self._stream.write(data)
        return len(data) if written is None else written

    def close(self) -> None:
        """Leave it open."""
        with suppress(AttributeError, OSError, ValueError):
            self._stream.flush()


class EndsWaiter(Waiter):
    """Waits for one of two handles; knows no signals, since those are the program's."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends

    def readable(self, connection: Connection) -> None:
        """Return when there is something to read."""
        self._wait(connection, self._ends.reader.number, writing=False)

    def writable(self, connection: Connection) -> None:
        """Return when something can be written."""
        self._wait(connection, self._ends.writer.number, writing=True)

    def _wait(self, connection: Connection, number: int, *, writing: bool) -> None:
        left = connection.deadline - time.monotonic()
        if left <= 0 or (number >= 0 and not _ready(number, left, writing=writing)):
            raise IdleTimeout

    def pause(self, connection: Connection, seconds: float) -> None:
        """Return after ``seconds``."""
        del connection
        time.sleep(seconds)

    def run_blocking(
        self,
        pool: str,
        function: Any,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Call it."""
        del pool
        return function(*args, **kwargs)


def _ready(number: int, seconds: float, *, writing: bool) -> bool:
    """Tell whether a descriptor can be read, or written, within that time (which may be inf)."""
    if not hasattr(select, "poll"):  # Windows
        reads, writes = ([], [number]) if writing else ([number], [])
        return any(select.select(reads, writes, [], min(seconds, 86400.0)))
    poll = select.poll()
    poll.register(number, select.POLLOUT if writing else select.POLLIN)
    # one millisecond more than asked, so that a deadline has passed when the wait for it is over
    milliseconds = int(min(seconds, 86400.0) * 1000) + 1 if seconds else 0
    return bool(poll.poll(milliseconds))
