"""The Received header of --add-received: who fetched a message, when, and how well protected.

It is made once, at login, and stands before every message of that session. So all messages grow by
the same number of octets, and STAT, LIST and RETR agree with what is sent (RFC 1939 §11).
"""

import os
import re
import socket
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pop3.extras import host_name

if TYPE_CHECKING:
    from netserver.endpoints import Address
    from pop3.session import Session

_LONGEST_USER = 50
_WORD = re.compile(r"[A-Za-z0-9._-]{1,30}")
_PLAIN_USER = (
    "@!#$&'*+/=?^`{|}~"  # beside letters, digits and "_.-": no blank, quote or parenthesis
)


def own_name() -> str:
    """Return this machine's name as far as a header can hold it."""
    try:
        return host_name(socket.gethostname())
    except (OSError, ValueError):
        return "localhost"


def received_header(
    session: "Session[Any]", name: str, *, authenticated: bool = True, now: float | None = None
) -> bytes:
    """Return the field, folded to 78 octets a line, with the CRLF after it (RFC 5321 §4.4).

    `name` is what the client received from, `now` in seconds since 1970. Nothing a client said can
    begin a line or end a comment: the user's name is written in %XX where it is not plain.
    """
    connection = session.connection
    tls = connection.tls
    how = "POP3" if tls is None else "POP3S"
    facts = "" if tls is None else f" ({_words(tls.version, tls.cipher)})"
    user = quote(session.user, safe=_PLAIN_USER, errors="surrogatepass")
    if len(user) > _LONGEST_USER:
        user = user[: _LONGEST_USER - 3] + "..."
    who = f"authenticated as {user}" if authenticated else f"for anybody as {user}"
    date = formatdate(time.time() if now is None else now, localtime=True)
    lines = (
        f"Received: from {name}",
        f" by {_by(connection.peer)} with {how}{facts}",
        f" ({who})",
        f" id {os.getpid():x}-{connection.number:x}; {date}",
    )
    return "\r\n".join((*lines, "")).encode("ascii")


def _by(peer: "Address") -> str:
    """Return the client as a domain or an address literal (RFC 5321 §4.1.3)."""
    if peer.port is None:  # a UNIX socket, or inetd on a pipe
        return "localhost"
    return f"[IPv6:{peer.host}]" if ":" in peer.host else f"[{peer.host}]"


def _words(*values: object) -> str:
    return " ".join([str(value) for value in values if _WORD.fullmatch(str(value))])
