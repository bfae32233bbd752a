"""TLS over memory buffers: bytes in, bytes out, no socket (PEP 546)."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netserver.client_hello import (
    NO_APPLICATION_PROTOCOL,
    HelloReader,
    HelloRefused,
    alert_record,
)
from netserver.errors import ConnectionLost
from netserver.tls import ServerContext

if TYPE_CHECKING:
    from collections.abc import Mapping

# one TLS record's worth of plain text and a bit: bigger pieces gain nothing
READ_SIZE = 65536


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What a handshake agreed on."""

    version: str
    cipher: str
    server_name: str | None
    alpn: str | None
    client_names: tuple[str, ...] = ()
    """Whom the client's certificate names: its mail addresses, else its common name."""
    bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    """Channel bindings by type (RFC 5929)."""


class TLSLayer:
    """The server's side of one TLS connection.

    A ``ServerContext`` shows the certificate of the name that the client asks for, and a client
    that offers only other protocols is refused (RFC 7301 §3.2).
    """

    __slots__ = ("_context", "_hello", "_incoming", "_object", "_outgoing", "_server_name")

    _object: ssl.SSLObject  # from the whole ClientHello on

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._hello: HelloReader | None = HelloReader()
        self._server_name: str | None = None

    def feed(self, data: bytes) -> None:
        """Take what the network brought; b"" is its end.

        Raises ``ConnectionLost`` for a begin that cannot become a handshake; an alert may wait in
        ``pull``.
        """
        if not data:
            if self._hello is not None:
                raise ConnectionLost("TLS handshake failed: closed by the client")
            self._incoming.write_eof()
        elif self._hello is None:
            self._incoming.write(data)
        else:
            try:
                self._meet(self._hello, data)
            except HelloRefused as error:
                self._outgoing.write(alert_record(error.alert))
                raise ConnectionLost(f"TLS handshake failed: {error}") from None

    def _meet(self, reader: HelloReader, data: bytes) -> None:
        hello = reader.feed(data)
        if hello is None:
            return
        context = self._context
        if isinstance(context, ServerContext):
            if hello.alpn and context.alpn and not context.alpn.intersection(hello.alpn):
                raise HelloRefused(NO_APPLICATION_PROTOCOL, "the client speaks other protocols")
            context = context.for_name(hello.server_name)
        self._server_name = hello.server_name
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(reader.records)
        self._hello = None

    def pull(self) -> bytes:
        """Return what is to be sent now."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Go one step on; False while the other side has to say more.

        Raises ``ConnectionLost`` when no agreement was reached; an alert may wait in ``pull``.
        """
        if self._hello is not None:
            return False
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, OSError) as error:
            raise ConnectionLost(f"TLS handshake failed: {_reason(error)}") from None
        return True

    def info(self) -> TLSInfo:
        """Return what was agreed on; only after the handshake."""
        cipher = self._object.cipher()
        return TLSInfo(
            version=self._object.version() or "?",
            cipher=cipher[0] if cipher else "?",
            server_name=self._server_name,
            alpn=self._object.selected_alpn_protocol(),
            client_names=_names(self._object.getpeercert() or {}),
            bindings=self._bindings(),
        )

    def _bindings(self) -> dict[str, bytes]:
        found = {"tls-server-end-point": getattr(self._object.context, "end_point", None)}
        if self._object.version() == "TLSv1.2":  # undefined from 1.3 on (RFC 8446 appendix C.5)
            found["tls-unique"] = self._object.get_channel_binding("tls-unique")
        return {kind: octets for kind, octets in found.items() if octets}

    def decrypt(self) -> bytes | None:
        """Return plain text, None while there is none yet, b"" at the other side's orderly end.

        Raises ``ConnectionLost`` for anything that is no TLS record, and for an end without
        close_notify.
        """
        try:
            return self._object.read(READ_SIZE)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except (ssl.SSLError, OSError) as error:
            raise ConnectionLost(f"TLS: {_reason(error)}") from None

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Return the records that carry ``data``."""
        view = memoryview(data)
        while view:
            # a memory buffer takes all of it; the loop is for OpenSSL's right to take less
            view = view[self._object.write(view) :]
        return self._outgoing.read()

    def close_notify(self) -> bytes:
        """Return the record that says we will send no more."""
        with suppress(ssl.SSLError, OSError, ValueError):
            self._object.unwrap()  # the answer to it is not waited for
        return self._outgoing.read()


def _names(certificate: dict[str, Any]) -> tuple[str, ...]:
    """Return the names in a verified certificate, as `getpeercert` tells them."""
    mail = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "email"]
    if not mail:
        attributes = [pair for relative in certificate.get("subject", ()) for pair in relative]
        mail = [value for key, value in attributes if key == "commonName"]
    return tuple(dict.fromkeys(mail))


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error.__class__.__name__).lower().replace("_", " ")
