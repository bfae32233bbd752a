"""A POP3 client on raw sockets that keeps every octet and forgives nothing.

It shares no code with the server: what it does not like is a failed assertion.
"""

import contextlib
import socket
import ssl
import struct
import time
from types import TracebackType
from typing import Final, Self

from tests.support.maildirs import undo_dots

LINE_LIMIT: Final = 512  # RFC 2449 section 4: a response line with its CRLF
TIMEOUT: Final = 15.0


class Wire:
    """One connection; `received` holds all that ever came, in order."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout: float = TIMEOUT,
        greeted: bool = True,
        tls: ssl.SSLContext | None = None,
        source: str | None = None,
    ) -> None:
        """Connect; read the greeting unless `greeted` is false."""
        self.timeout = timeout
        self.received = bytearray()
        self.at = 0
        self.greeting = b""
        bound = (source, 0) if source else None
        self.socket = socket.create_connection((host, port), timeout, source_address=bound)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if tls is not None:
                self.start_tls(tls)
            if greeted:
                self.greeting = self.line()
                assert self.greeting.startswith(b"+OK"), self.greeting
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the connection itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close without QUIT."""
        self.close()

    # -- octets ------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send exactly these octets."""
        self.socket.settimeout(self.timeout)
        self.socket.sendall(data)

    def _receive(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no more input; so far {bytes(self.received[self.at :])[:200]!r}")
        self.socket.settimeout(left)
        data = self.socket.recv(65536)
        self.received += data
        return data

    def line(self) -> bytes:
        """Return the next line without its CRLF; check its form."""
        deadline = time.monotonic() + self.timeout
        start = self.at
        while (end := self.received.find(b"\n", start)) < 0:
            start = max(self.at, len(self.received) - 1)
            if not self._receive(deadline):
                raise EOFError(f"end after {bytes(self.received[self.at :])[:200]!r}")
        whole = bytes(self.received[self.at : end + 1])
        self.at = end + 1
        assert whole.endswith(b"\r\n"), f"line without CRLF: {whole!r}"
        return whole[:-2]

    def reply(self) -> bytes:
        """Return the next status line; check that it is one."""
        line = self.line()
        assert len(line) + 2 <= LINE_LIMIT, f"{len(line) + 2} octets in a reply: {line[:80]!r}"
        assert line[:3] == b"+OK" or line[:4] == b"-ERR" or line[:2] == b"+ ", line
        assert b"\r" not in line, line
        return line

    def rest_of_reply(self) -> bytes:
        """Return the lines of a multi-line reply as they came, dots still doubled."""
        deadline = time.monotonic() + self.timeout
        start = self.at
        while True:
            if self.received[self.at : self.at + 3] == b".\r\n":
                self.at += 3
                return b""
            end = self.received.find(b"\r\n.\r\n", start)
            if end >= 0:
                break
            start = max(self.at, len(self.received) - 4)
            if not self._receive(deadline):
                raise EOFError(f"end within a reply: {bytes(self.received[self.at :])[-200:]!r}")
        text = bytes(self.received[self.at : end + 2])
        self.at = end + 5
        return text

    def read_to_end(self) -> bytes:
        """Return all octets until the server closes (a reset counts as the end)."""
        deadline = time.monotonic() + self.timeout
        with contextlib.suppress(ConnectionError):
            while self._receive(deadline):
                pass
        rest = bytes(self.received[self.at :])
        self.at = len(self.received)
        return rest

    def ended(self) -> bool:
        """Whether the server closes without another octet."""
        return self.read_to_end() == b""

    def read_to_end_or(self, last: bytes) -> bytes:
        """Send `last` if the connection still takes it, return all octets until its end."""
        with contextlib.suppress(OSError):
            self.send(last)
        return self.read_to_end()

    # -- commands ----------------------------------------------------------------

    def command(self, line: bytes) -> bytes:
        """Send one command, return its one-line reply."""
        self.send(line + b"\r\n")
        return self.reply()

    def ok(self, line: bytes) -> bytes:
        """Send a command that must succeed, return its reply."""
        answer = self.command(line)
        assert answer.startswith(b"+OK"), (line, answer)
        return answer

    def err(self, line: bytes) -> bytes:
        """Send a command that must fail, return its reply."""
        answer = self.command(line)
        assert answer.startswith(b"-ERR"), (line, answer)
        return answer

    def lines(self, line: bytes) -> list[bytes]:
        """Send a command with a multi-line answer, return its lines (dots undone)."""
        self.ok(line)
        text = undo_dots(self.rest_of_reply())
        return text.split(b"\r\n")[:-1]

    def message(self, line: bytes) -> bytes:
        """Send RETR or TOP, return the octets a client would store."""
        self.ok(line)
        return undo_dots(self.rest_of_reply())

    def login(self, user: str = "anna", password: str = "secret") -> bytes:
        """USER and PASS that must succeed; return the reply to PASS."""
        self.ok(b"USER " + user.encode())
        return self.ok(b"PASS " + password.encode())

    def quit(self) -> bytes:
        """QUIT, and the end of the connection after its reply."""
        answer = self.command(b"QUIT")
        rest = self.read_to_end()
        assert rest == b"", rest
        self.close()
        return answer

    # -- TLS, ends ---------------------------------------------------------------

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands on the present connection."""
        plain = self.socket
        plain.settimeout(self.timeout)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")

    def half_close(self) -> None:
        """Send end of file, keep reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close without QUIT."""
        self.socket.close()

    def reset(self) -> None:
        """End by RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def converse(host: str, port: int, chunks: list[bytes], *, pause: float = 0.0) -> bytes:
    """Send the chunks, each in its own packet, then return everything the server ever sent."""
    with Wire(host, port, greeted=False) as wire:
        for chunk in chunks:
            wire.send(chunk)
            if pause:
                time.sleep(pause)
        wire.half_close()
        wire.read_to_end()
        return bytes(wire.received)
