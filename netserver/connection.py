"""One client: bounded reads, coalesced writes, deadlines and TLS."""

from __future__ import annotations

import os
import socket as socket_module
import struct
import time
from contextlib import contextmanager, suppress
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from netserver.errors import ConnectionLost, LineTooLong
from netserver.listeners import Address

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from netserver.entries import Entry
    from netserver.listeners import Listener
    from netserver.logs import Log
    from netserver.tls_layer import TLSInfo, TLSLayer
    from netserver.waiting import Waiter

P = ParamSpec("P")
T = TypeVar("T")

# what one recv asks for: a pipelined batch of commands fits, an idle client costs no buffer
RECEIVE_SIZE = 8192
# written data is sent when this much waits: big enough to spare system calls, small enough for the
# caches
SEND_SIZE = 65536
# octets of one overlong line that are read and dropped before the client is
DISCARD_LIMIT = 65536
# octets sent without a wait before other clients get a turn
BREATH = 1 << 20
TLS_HANDSHAKE_SECONDS = 10.0

_numbers = count(1)


class Connection:
    """A client's connection, on a non-blocking socket.

    What is written is kept until the client has to say something or 64 KiB are together, so that
    the answers to a batch of commands leave in one send.  ``deadline`` (monotonic seconds) belongs
    to the present wait.
    """

    __slots__ = (
        "_address",
        "_breath",
        "_in",
        "_log",
        "_out",
        "_out_size",
        "_peer",
        "_phase_end",
        "_server_log",
        "_socket",
        "_tls_layer",
        "_torn",
        "_waiter",
        "_wrote",
        "closed",
        "committing",
        "deadline",
        "entry",
        "idle_timeout",
        "listener",
        "number",
        "octets_in",
        "octets_out",
        "opened",
        "reader",
        "slot",
        "tls",
        "waiting",
        "writer",
    )

    def __init__(  # noqa: PLR0917 - one call in each of two personalities
        self,
        socket: socket_module.socket,
        address: object,
        listener: Listener,
        waiter: Waiter,
        log: Log,
        idle_timeout: float = 600.0,
    ) -> None:
        self._socket = socket
        self._address = address
        self._waiter = waiter
        self._server_log = log
        self._log: Log | None = None
        self._peer: Address | None = None
        self._in = b""
        self._out: list[bytes] = []
        self._out_size = 0
        self._wrote = False
        self._breath = 0
        self._phase_end = inf
        self._tls_layer: TLSLayer | None = None
        self._torn = False  # something was sent in part: nothing may follow it
        self.listener = listener
        self.tls: TLSInfo | None = None
        self.slot: int | None = None  # this client's place in the client table
        self.entry: Entry | None = None  # where others see it
        self.closed = False
        self.committing = False
        # the waiter's own: who waits now, and what it waits with
        self.waiting: Any = None
        self.reader: Any = None
        self.writer: Any = None
        self.idle_timeout = idle_timeout or inf
        self.opened = time.monotonic()
        self.deadline = self.opened + self.idle_timeout
        self.octets_in = 0
        self.octets_out = 0
        self.number = next(_numbers)

    # -- who ------------------------------------------------------------------------------------

    @property
    def peer(self) -> Address:
        """The client's address."""
        if self._peer is None:
            self._peer = Address.of(self._address, self._socket.family)
        return self._peer

    @peer.setter
    def peer(self, address: Address) -> None:
        self._peer = address
        self._log = None

    @property
    def local(self) -> Address:
        """Our own address that the client connected to."""
        try:
            name = self._socket.getsockname()
        except OSError:
            name = None
        return Address.of(name, self._socket.family)

    @property
    def log(self) -> Log:
        """A logger bound to this connection, made when first used."""
        if self._log is None:
            session = f"{os.getpid():x}-{self.number:x}"
            self._log = self._server_log.bind(peer=str(self.peer), session=session)
        return self._log

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    # -- reading --------------------------------------------------------------------------------

    def read_line(self, limit: int = 255) -> bytes:
        """Return the next line without its CRLF (or LF); ``limit`` octets with it (RFC 2449 §4).

        What was written is sent first if the line is not here yet.  Raises ``LineTooLong`` when the
        limit is passed (the line is gone, the connection can go on), ``ConnectionLost``,
        ``IdleTimeout``, ``ServerStopping``.
        """
        data = self._in
        end = data.find(b"\n")
        while end < 0:
            if len(data) >= limit:
                self._discard_line()
            known = len(data)
            data += self._receive()
            self._in = data
            end = data.find(b"\n", known)
        self._in = data[end + 1 :]
        if end >= limit:
            raise LineTooLong
        if end and data[end - 1] == 13:  # noqa: PLR2004 - CR
            end -= 1
        return data[:end]

    def read_octets(self, count: int) -> bytes:
        """Return exactly so many octets; raises what ``read_line`` raises but ``LineTooLong``."""
        while len(self._in) < count:
            self._in += self._receive()
        octets, self._in = self._in[:count], self._in[count:]
        return octets

    def _discard_line(self) -> None:
        dropped = len(self._in)
        while dropped < DISCARD_LIMIT:
            self._in = b""
            data = self._receive()
            end = data.find(b"\n")
            if end >= 0:
                self._in = data[end + 1 :]
                raise LineTooLong
            dropped += len(data)
        raise ConnectionLost("a line without end")

    def _receive(self) -> bytes:
        """Return what the client sent, at least one octet."""
        if self._out:
            self.flush()
        layer = self._tls_layer
        if layer is None:
            data = self._receive_raw()
        else:
            while (plain := layer.decrypt()) is None:
                if answer := layer.pull():
                    self._send_raw(answer)
                layer.feed(self._receive_raw(at_end=b""))
                # records without text must not keep us from waiting, where the deadlines are
                self._wrote = True
            data = plain
        if not data:
            raise ConnectionLost("closed by the client")
        self.octets_in += len(data)
        return data

    def _receive_raw(self, at_end: bytes | None = None) -> bytes:
        # after a send the answer is not here yet: wait before the first try and spare it
        self.deadline = min(time.monotonic() + self.idle_timeout, self._phase_end)
        wait = self._wrote
        self._wrote = False
        while True:
            if wait:
                self._waiter.readable(self)
                self._breath = 0
            try:
                data = self._socket.recv(RECEIVE_SIZE)
            except BlockingIOError:
                wait = True
                continue
            except OSError as error:
                raise ConnectionLost(_why(error)) from None
            if not data and at_end is None:
                raise ConnectionLost("closed by the client")
            return data

    # -- writing --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Keep ``data`` to be sent with what follows; sends when 64 KiB are together.

        Raises what ``flush`` raises.
        """
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= SEND_SIZE:
            self.flush()

    def flush(self) -> None:
        """Send what was written.

        Raises ``ConnectionLost``; ``IdleTimeout`` when the client takes nothing for
        ``idle_timeout`` seconds; ``ServerStopping``.
        """
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        self._out = []
        self._out_size = 0
        self.octets_out += len(data)
        if self._tls_layer is not None:
            data = self._tls_layer.encrypt(data)
        self._send_raw(data)

    def _send_raw(self, data: bytes) -> None:
        if self._torn:
            raise ConnectionLost("an answer was cut short")
        self._wrote = True
        rest: bytes | memoryview = data
        while True:
            try:
                sent = self._socket.send(rest)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise ConnectionLost(_why(error)) from None
            if sent == len(rest):
                break
            rest = memoryview(rest)[sent:]
            self.deadline = min(time.monotonic() + self.idle_timeout, self._phase_end)
            self._torn = True
            self._waiter.writable(self)
            self._breath = 0
        self._torn = False
        self._breath += len(data)
        if self._breath >= BREATH:
            self._breath = 0
            self._waiter.breathe(self)

    # -- time -----------------------------------------------------------------------------------

    def limit_phase(self, seconds: float | None) -> None:
        """Let all reads from now on take ``seconds`` together, or None: as long as each likes."""
        self._phase_end = inf if seconds is None else time.monotonic() + seconds

    def pause(self, seconds: float) -> None:
        """Do nothing for ``seconds``; sends what was written first.

        Raises ``ServerStopping``.
        """
        self.flush()
        self._waiter.pause(self, seconds)

    def run_blocking(
        self, pool: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``function`` where it holds up nobody else.

        ``pool`` is what it waits for: "hash", "disk", "dns" or "auth".  Under gevent it runs in a
        thread of that pool: it must not log, nor wait for other clients.
        """
        return self._waiter.run_blocking(pool, function, *args, **kwargs)

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Keep ``ServerStopping`` out while something is made durable."""
        self.committing = True
        try:
            yield
        finally:
            self.committing = False

    # -- TLS ------------------------------------------------------------------------------------

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands; whatever the client said before in clear is forgotten (RFC 2595 §4).

        Raises ``ConnectionLost`` when it fails, ``IdleTimeout`` after 10 s.
        """
        from netserver.tls_layer import TLSLayer  # noqa: PLC0415 - ssl is loaded only where used

        self.flush()
        self._in = b""
        layer = TLSLayer(context)
        phase_end = self._phase_end
        self._phase_end = min(phase_end, time.monotonic() + TLS_HANDSHAKE_SECONDS)
        try:
            while not layer.handshake():
                if answer := layer.pull():
                    self._send_raw(answer)
                layer.feed(self._receive_raw(at_end=b""))
                self._wrote = True
        except ConnectionLost:
            if answer := layer.pull():  # the alert that tells why not
                self._send_raw(answer)
            raise
        finally:
            self._phase_end = phase_end
        # the last flight goes with what is said next: alone it would hold that up for 40 ms, until
        # the client's delayed acknowledgement (Nagle)
        self._tls_layer = layer
        self.tls = layer.info()

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what is left and close; never raises, never waits for the client.

        By a reset where something was sent in part, so that it cannot be taken for the whole.
        """
        if self._torn:
            self.abort()
        if self.closed:
            return
        with suppress(ConnectionLost):
            if self._out or self._tls_layer is not None:
                self._last_words()
        if not self.closed:
            self._shut()

    def _last_words(self) -> None:
        data = b"".join(self._out)
        self._out = []
        self.octets_out += len(data)
        if self._tls_layer is not None:
            data = self._tls_layer.encrypt(data) + self._tls_layer.close_notify()
        sent = 0
        with suppress(OSError):
            sent = self._socket.send(data)
        if sent < len(data):
            self.abort()  # no time to wait: better no end than one that is not the end

    def _shut(self) -> None:
        self.closed = True
        self._waiter.forget(self)
        # unread input would turn the close into a reset, and the client might lose our last reply
        with suppress(OSError):
            for _ in range(8):
                if not self._socket.recv(RECEIVE_SIZE):
                    break
        with suppress(OSError):
            self._socket.close()

    def abort(self) -> None:
        """Close by a reset: what the client got is not to be taken for the whole; never raises."""
        if self.closed:
            return
        self.closed = True
        self._waiter.forget(self)
        self._out = []
        with suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_LINGER, linger)
        with suppress(OSError):
            self._socket.close()


def _why(error: OSError) -> str:
    return (error.strerror or error.__class__.__name__).lower()
