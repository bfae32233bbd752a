"""CAPA: what is true for this client at this moment (RFC 2449), computed and never configured."""

from functools import lru_cache

from pop3 import wire


@lru_cache(maxsize=64)
def capa_reply(
    *,
    logged_in: bool,
    plaintext: bool,
    stls: bool,
    mechanisms: tuple[bytes, ...],
    release: str,
) -> bytes:
    """Make the whole reply to CAPA.

    `plaintext` tells whether a password may be sent on this connection, `stls` whether TLS can be
    started. Before login nothing tells what software this is.
    """
    lines = [b"TOP", b"UIDL"]
    if plaintext:
        lines.append(b"USER")
        if mechanisms:
            lines.append(b"SASL " + b" ".join(mechanisms))
    lines += [b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING"]
    if stls:
        lines.append(b"STLS")
    # UTF8 USER: names and passwords may be UTF-8, with or without the UTF8 command (RFC 6856 §2.2)
    lines += [b"UTF8 USER", b"LANG", b"EXPIRE NEVER"]
    if logged_in:
        lines.append(b"IMPLEMENTATION pop3-server-" + release.encode("ascii"))
    return wire.ok("capability list follows") + b"\r\n".join(lines) + b"\r\n" + wire.END
