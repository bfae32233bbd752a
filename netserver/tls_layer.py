"""TLS over memory buffers: bytes in, bytes out, no socket (PEP 546)."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass

from netserver.errors import ConnectionLost

# one TLS record's worth of plain text and a bit: bigger pieces gain nothing
READ_SIZE = 65536


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What a handshake agreed on."""

    version: str
    cipher: str
    server_name: str | None
    alpn: str | None


class TLSLayer:
    """The server's side of one TLS connection."""

    __slots__ = ("_incoming", "_object", "_outgoing")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def feed(self, data: bytes) -> None:
        """Take what the network brought; b"" is its end."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def pull(self) -> bytes:
        """Return what is to be sent now."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Go one step on; False while the other side has to say more.

        Raises ``ConnectionLost`` when no agreement was reached; an alert may wait in ``pull``.
        """
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
            server_name=getattr(self._object, "indicated_name", None),
            alpn=self._object.selected_alpn_protocol(),
        )

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


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error.__class__.__name__).lower().replace("_", " ")
