"""What a client says first in TLS (RFC 8446 §4.1.2), read before OpenSSL has to do anything.

It tells which certificate is wanted and which protocols the client speaks, neither of which the
standard library shows before the handshake; and it is the one message a stranger can make large.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Octets of a ClientHello with its record headers; those with post-quantum keys have about 2,000.
LIMIT = 16384

# alerts (RFC 8446 §6.2)
UNEXPECTED_MESSAGE = 10
ILLEGAL_PARAMETER = 47
DECODE_ERROR = 50
NO_APPLICATION_PROTOCOL = 120

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_MAJOR_VERSION = 3
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_LONGEST_FRAGMENT = 1 << 14
_SERVER_NAME = 0
_ALPN = 16
_HOST_NAME = 0


class HelloRefused(Exception):
    """No handshake with this client; ``alert`` is the number that tells it why."""

    def __init__(self, alert: int, why: str) -> None:
        super().__init__(why)
        self.alert = alert


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What counts of it here."""

    server_name: str | None
    """The host the client wants (RFC 6066 §3), in lower case, IDNA names in their ASCII form."""
    alpn: tuple[bytes, ...]
    """The protocols it offers (RFC 7301)."""


class HelloReader:
    """Collects records until the message is whole."""

    __slots__ = ("_at", "_message", "records")

    def __init__(self) -> None:
        self.records = bytearray()  # all that came, for OpenSSL
        self._at = 0  # of the next record
        self._message = bytearray()

    def feed(self, data: bytes) -> ClientHello | None:
        """Take octets from the network; return the message when it is whole.

        Raises ``HelloRefused`` as soon as it cannot become one.
        """
        self.records += data
        while self._take_record():
            pass
        message = self._message
        if message and message[0] != _CLIENT_HELLO:
            raise HelloRefused(UNEXPECTED_MESSAGE, "no ClientHello")
        end = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
        if max(end, self._at) > LIMIT or (self._missing() and len(self.records) > LIMIT):
            raise HelloRefused(ILLEGAL_PARAMETER, "ClientHello too long")
        return None if self._missing() else _parse(bytes(message[_MESSAGE_HEADER:end]))

    def _take_record(self) -> bool:
        header = bytes(self.records[self._at : self._at + _RECORD_HEADER])
        if header and (header[0] != _HANDSHAKE or header[1:2] not in (b"", b"\x03")):
            raise HelloRefused(UNEXPECTED_MESSAGE, "not TLS")
        if len(header) < _RECORD_HEADER:
            return False
        size = int.from_bytes(header[3:], "big")
        if not 0 < size <= _LONGEST_FRAGMENT:
            raise HelloRefused(DECODE_ERROR, "a record of a wrong size")
        begin = self._at + _RECORD_HEADER
        if len(self.records) < begin + size:
            return False
        self._message += self.records[begin : begin + size]
        self._at = begin + size
        return self._missing()

    def _missing(self) -> bool:
        """Whether more records belong to the message."""
        message = self._message
        size = int.from_bytes(message[1:_MESSAGE_HEADER], "big")
        return len(message) < _MESSAGE_HEADER or len(message) < _MESSAGE_HEADER + size


class _Vectors:
    """Reads length-prefixed fields, one after the other (RFC 8446 §3.4)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def octets(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise HelloRefused(DECODE_ERROR, "malformed ClientHello")
        octets = self._data[self._at : end]
        self._at = end
        return octets

    def number(self, size: int) -> int:
        return int.from_bytes(self.octets(size), "big")

    def vector(self, size: int) -> bytes:
        return self.octets(self.number(size))


def _parse(body: bytes) -> ClientHello:
    fields = _Vectors(body)
    fields.octets(2 + 32)  # version, random
    fields.vector(1)  # session id
    fields.vector(2)  # cipher suites
    fields.vector(1)  # compression methods
    extensions = _Vectors(fields.vector(2) if fields else b"")
    server_name: str | None = None
    alpn: tuple[bytes, ...] = ()
    while extensions:
        kind = extensions.number(2)
        content = _Vectors(extensions.vector(2))
        if kind == _SERVER_NAME:
            server_name = _host_name(_Vectors(content.vector(2)))
        elif kind == _ALPN:
            names = _Vectors(content.vector(2))
            found = []
            while names:
                found.append(names.vector(1))
            alpn = tuple(found)
    return ClientHello(server_name, alpn)


def _host_name(names: _Vectors) -> str | None:
    while names:
        kind = names.number(1)
        name = names.vector(2)
        if kind == _HOST_NAME:
            if not name.isascii() or b"\0" in name:
                raise HelloRefused(ILLEGAL_PARAMETER, "a server name that is none")
            return name.decode("ascii").lower().removesuffix(".") or None
    return None


def alert_record(number: int) -> bytes:
    """Return the record with that fatal alert, as it is sent before anything is agreed on."""
    return bytes((21, _MAJOR_VERSION, 3, 0, 2, 2, number))
