"""The verbs before login: USER PASS APOP AUTH STLS UTF8 (RFC 1939, 2595, 5034, 6856)."""

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pop3 import wire
from pop3.auth import sasl
from pop3.auth.backend import Identity
from pop3.auth.sasl import cram
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, CommandError, POP3Error
from pop3.session import Session

if TYPE_CHECKING:
    from pop3.auth.names import LoginName
    from pop3.commands import Handler
    from pop3.server import POP3Server

LONGEST_RESPONSE = 8192
"""Octets of one line of AUTH: OAuth tokens are far longer than the 255 of a command."""

_APOP = re.compile(rb"([^ ]+) ([0-9a-f]{32})")


def _demand_plaintext(server: "POP3Server[Any]", session: Session[Any]) -> None:
    """Refuse before the password is sent, and without a look at it if it was sent anyway."""
    if not server.plaintext_allowed(session.connection):
        raise POP3Error("TLS required first")


def _user(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    """Take any name: whether it exists is nobody's business."""
    if not argument:
        raise CommandError("user name is missing")
    _demand_plaintext(server, session)
    if server.settings.reject_bogus_user:
        server.demand_known(session, argument)
    session.name = argument
    return server.replies.user


def _pass(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    """Take all after the first blank as the password, blanks included."""
    name, session.name = session.name, None
    _demand_plaintext(server, session)
    if name is None:
        raise CommandError("USER first")
    if not argument:
        raise CommandError("password is missing")
    server.log_in(session, name, Secret(argument))
    return server.replies.login(session.user)


def _apop(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    if not session.challenge:
        raise CommandError("APOP is off")
    parts = _APOP.fullmatch(argument or b"")
    if parts is None:
        raise CommandError("APOP takes a name and a digest")
    digest = Secret(parts[2])

    def identify_by_digest(login: "LoginName") -> "Identity":
        return _by_apop(server, session, login, digest)

    server.log_in(session, parts[1], digest, proof=sasl.Proof(parts[1], digest, identify_by_digest))
    return server.replies.login(session.user)


def _by_apop(
    server: "POP3Server[Any]", session: Session[Any], login: "LoginName", digest: Secret
) -> "Identity":
    """Compare the digest with that of the source's password, else of the backends'."""
    run_blocking = session.connection.run_blocking
    found = None if server.chain is None else server.chain.stored(login, run_blocking)
    shared = None if found is None else found.secret
    if not server.apop_by_chain:
        text = server.apop_secret(session)
        shared = None if text is None else Secret(text.encode())
    cram.check_apop(session.challenge, shared, digest)
    if found is not None and found.locked:
        raise AuthFailed
    return Identity(login.user) if found is None else found.identity


def _auth(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    """Run a SASL exchange, or list the mechanisms if none is named, as old clients ask."""
    offered = server.mechanisms_for(session.connection)
    if argument is None:
        return b"+OK\r\n%b.\r\n" % b"".join([name + b"\r\n" for name in offered])
    mechanism, blank, initial = argument.partition(b" ")
    if blank and not initial:
        raise CommandError("the initial response is missing")
    exchange = None
    if mechanism.upper() in offered:
        exchange = sasl.exchange(mechanism, _surroundings(server, session, offered))
    if exchange is None:
        if mechanism.upper() in server.mechanisms and sasl.reveals(mechanism):
            _demand_plaintext(server, session)
        raise CommandError("no such mechanism")
    data = sasl.decode(initial) if blank else None
    while isinstance(step := exchange.respond(data), sasl.Challenge):
        data = sasl.decode(_ask(session, step))
    if isinstance(step, sasl.Proof):
        server.log_in(session, step.login, step.attempt, proof=step)
    else:
        server.log_in(session, step.login, step.secret)
    return server.replies.login(session.user)


def _surroundings(
    server: "POP3Server[Any]", session: Session[Any], offered: tuple[bytes, ...]
) -> sasl.Surroundings:
    return sasl.Surroundings(
        chain=server.chain,
        tls=session.connection.tls,
        parse=lambda name: server.parse_login(session, name),
        run_blocking=session.connection.run_blocking,
        salt_key=server.salt_key,
        offered=offered,
    )


def _ask(session: Session[Any], challenge: sasl.Challenge) -> bytes:
    """Send a challenge, return the line that answers it. Raises CommandError for a cancel."""
    session.connection.write(b"+ %b\r\n" % sasl.encode(challenge))
    line = session.connection.read_line(LONGEST_RESPONSE)
    if line == b"*":
        raise CommandError("authentication cancelled")
    return line


def identify(session: Session[Any], name: "LoginName", proof: sasl.Proof) -> Identity:
    """Judge a proof; a client that is refused may be told more before its -ERR (RFC 7628 §3.2.3).

    Raises AuthFailed, TemporaryFailure.
    """
    try:
        return proof.identify(name)
    except AuthFailed as error:
        if proof.refusal is not None:
            with suppress(CommandError):
                _ask(session, proof.refusal(error))
        raise AuthFailed from None


def say_last(session: Session[Any], challenge: sasl.Challenge) -> None:
    """Send data that goes with success; the answer is empty. Raises AuthFailed, CommandError."""
    if sasl.decode(_ask(session, challenge)):
        raise AuthFailed


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
