"""The verbs before login: USER PASS APOP AUTH STLS UTF8 (RFC 1939, 2595, 5034, 6856)."""

import hmac
import re
from hashlib import md5
from typing import TYPE_CHECKING, Any

from pop3 import wire
from pop3.auth import sasl
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, CommandError, POP3Error
from pop3.session import Session

if TYPE_CHECKING:
    from pop3.commands import Handler
    from pop3.server import POP3Server

LONGEST_RESPONSE = 8192
"""Octets of one line of AUTH: OAuth tokens are far longer than the 255 of a command."""

_APOP = re.compile(rb"([^ ]+) ([0-9a-f]{32})")
_OK = wire.ok()
_LOGGED_IN = wire.ok("logged in")


def _demand_plaintext(server: "POP3Server[Any]", session: Session[Any]) -> None:
    """Refuse before the password is sent, and without a look at it if it was sent anyway."""
    if not server.plaintext_allowed(session.connection):
        raise POP3Error("TLS required first")


def _user(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    """Take any name: whether it exists is nobody's business."""
    if not argument:
        raise CommandError("user name is missing")
    _demand_plaintext(server, session)
    session.name = argument
    return _OK


def _pass(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    """Take all after the first blank as the password, blanks included."""
    name, session.name = session.name, None
    _demand_plaintext(server, session)
    if name is None:
        raise CommandError("USER first")
    if not argument:
        raise CommandError("password is missing")
    server.log_in(session, name, Secret(argument))
    return _LOGGED_IN


def _apop(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    if not session.challenge:
        raise CommandError("APOP is off")
    parts = _APOP.fullmatch(argument or b"")
    if parts is None:
        raise CommandError("APOP takes a name and a digest")
    server.log_in(session, parts[1], Secret(parts[2]), apop=True)
    return _LOGGED_IN


def check_apop(challenge: bytes, shared: str | None, digest: Secret) -> None:
    """Compare an APOP digest (RFC 1939 §7) with ours; the same work is done without a secret."""
    ours = md5(challenge + (shared or "").encode(), usedforsecurity=False).hexdigest()
    equal = hmac.compare_digest(ours.encode("ascii"), digest.reveal())
    if not equal or shared is None:
        raise AuthFailed


def _auth(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    """Run a SASL exchange, or list the mechanisms if none is named, as old clients ask."""
    allowed = server.plaintext_allowed(session.connection)
    if argument is None:
        names = server.mechanisms if allowed else ()
        return b"+OK\r\n%b.\r\n" % b"".join([name + b"\r\n" for name in names])
    mechanism, blank, initial = argument.partition(b" ")
    if blank and not initial:
        raise CommandError("the initial response is missing")
    exchange = None
    if mechanism.upper() in server.mechanisms:
        _demand_plaintext(server, session)
        exchange = sasl.exchange(mechanism, server.chain)
    if exchange is None:
        raise CommandError("no such mechanism")
    data = sasl.decode(initial) if blank else None
    while isinstance(step := exchange.respond(data), sasl.Challenge):
        session.connection.write(b"+ %b\r\n" % sasl.encode(step))
        line = session.connection.read_line(LONGEST_RESPONSE)
        if line == b"*":
            raise CommandError("authentication cancelled")
        data = sasl.decode(line)
    server.log_in(session, step.login, step.secret)
    return _LOGGED_IN


def _stls(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    """Start TLS; what was said before is forgotten, pipelined commands too (RFC 2595 §4)."""
    if argument is not None:
        raise CommandError("this command takes no argument")
    if session.connection.tls is not None:
        raise CommandError("TLS is active already")
    if session.utf8:
        raise CommandError("STLS must come before UTF8")  # RFC 6856 §2.1
    context = server.stls_context(session.connection)
    if context is None:
        raise CommandError("TLS is not available")
    session.name = None
    session.connection.write(wire.ok("begin TLS now"))
    session.connection.start_tls(context)
    return b""


def _utf8(_: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    """Allow UTF-8 in mail: it is sent as stored in any case (see DESIGN, a bent rule)."""
    if argument is not None:
        raise CommandError("this command takes no argument")
    session.utf8 = True
    return wire.ok("UTF-8 it is")


def _http(_server: "POP3Server[Any]", session: Session[Any], _argument: bytes | None) -> bytes:
    """Let no web browser talk to us in the name of somebody else."""
    session.end("http")
    return wire.err("this is a POP3 server")


HANDLERS: "dict[bytes, Handler]" = {
    b"APOP": _apop,
    b"AUTH": _auth,
    b"PASS": _pass,
    b"STLS": _stls,
    b"USER": _user,
    b"UTF8": _utf8,
} | dict.fromkeys(
    (
        b"GET",
        b"POST",
        b"PUT",
        b"HEAD",
        b"OPTIONS",
        b"CONNECT",
        b"DELETE",
        b"PATCH",
        b"TRACE",
        b"PRI",
    ),
    _http,
)
