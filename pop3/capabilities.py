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
    login_delay: int = 0,
    expire: int | None = None,
) -> bytes:
    """Make the whole reply to CAPA.

    `plaintext` tells whether a password may be sent on this connection, `stls` whether TLS can be
    started, `mechanisms` are those of AUTH that work. Before login nothing tells what this is.
    `login_delay` (seconds) and `expire` (days) hold for all users: neither has the USER form.
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
    lines += [b"UTF8 USER", b"LANG"]
    if login_delay:
        lines.append(b"LOGIN-DELAY %d" % login_delay)
    lines.append(b"EXPIRE NEVER" if expire is None else b"EXPIRE %d" % expire)
    if logged_in:
        lines.append(b"IMPLEMENTATION pop3-server-" + release.encode("ascii"))
    return wire.ok("capability list follows") + b"\r\n".join(lines) + b"\r\n" + wire.END
