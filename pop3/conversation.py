"""Greeting, then one reply to each line until the session ends: here replies are written."""

import time
from typing import TYPE_CHECKING, Any

from netserver.errors import ConnectionLost, IdleTimeout, Kicked, LineTooLong, ServerStopping
from pop3 import commands, commands_auth, user_log, wire
from pop3.auth.sasl import cram
from pop3.errors import AuthFailed, CommandError, POP3Error
from pop3.session import Session, State

if TYPE_CHECKING:
    from netserver.connection import Connection
    from pop3.server import POP3Server

BAD_COMMANDS_BEFORE_LOGIN = 3
BAD_COMMANDS_AFTER_LOGIN = 20
AUTH_FAILURES = 3
_LONGEST_LINE = 255  # RFC 2449 §4


def hold(server: "POP3Server[Any]", session: Session[Any]) -> None:
    """Talk with a client to the end; `session.reason` tells what that was. Raises no Exception."""
    try:
        _converse(server, session)
    except ConnectionLost as lost:
        # an idle timeout closes without a word (RFC 1939 §3)
        if session.state is not State.UPDATE:
            session.end("timeout" if isinstance(lost, IdleTimeout) else "lost")
    except Kicked:
        session.end("kicked")
        _say_last(session.connection, "session ended by the operator")
    except ServerStopping:
        session.end("stopping")
        _say_last(session.connection, "server is stopping")
    except Exception:
        session.end("error")
        session.log.exception("session failed")
        _say_last(session.connection, "internal error")


def _converse(server: "POP3Server[Any]", session: Session[Any]) -> None:
    connection = session.connection
    connection.limit_phase(server.settings.login_timeout or None)
    connection.write(_greeting(server, session))
    while session.state is not State.UPDATE:
        before_login = session.state is State.AUTHORIZATION
        try:
            line = connection.read_line(
                commands_auth.LONGEST_RESPONSE if before_login else _LONGEST_LINE
            )
            reply = commands.execute(server, session, line)
        except LineTooLong:
            line = b""
            reply = _refuse(session, CommandError("line too long"))
        except POP3Error as error:
            reply = _refuse(session, error)
        if session.user_log is not None and not before_login:
            command = user_log.safe_command(line, commands.VERBS)
            reply = session.user_log.answered(command, reply)
        _send(connection, reply)
    connection.flush()


def _greeting(server: "POP3Server[Any]", session: Session[Any]) -> bytes:
    if not server.settings.apop:
        return server.replies.greeting()
    session.challenge = cram.timestamp()
    return server.replies.greeting(session.challenge.decode("ascii"))


def _refuse(session: Session[Any], error: POP3Error) -> bytes:
    """Count what must not go on for ever, and answer."""
    session.errors += 1
    if isinstance(error, CommandError):
        session.bad_commands += 1
        before_login = session.state is State.AUTHORIZATION
        limit = BAD_COMMANDS_BEFORE_LOGIN if before_login else BAD_COMMANDS_AFTER_LOGIN
        if session.bad_commands >= limit:
            session.end("too many errors")
            return wire.err("too many errors")
    elif isinstance(error, AuthFailed):
        session.auth_failures += 1
        if session.auth_failures >= AUTH_FAILURES:
            session.end("too many failed logins")
    return wire.err(error.text, error.code)


def _send(connection: "Connection", reply: commands.Reply) -> None:
    """Write one reply; one that cannot be finished ends in a reset, never in an early "."."""
    try:
        if isinstance(reply, bytes):
            if reply:
                connection.write(reply)
        else:
            for block in reply:
                connection.write(block)
    except ConnectionLost:
        raise
    except BaseException:
        connection.abort()
        raise


def _say_last(connection: "Connection", text: str) -> None:
    """Answer what can be answered before the connection is closed."""
    if connection.closed:
        return
    try:
        connection.write(wire.err(text, "SYS/TEMP"))
        connection.flush()
    except (ConnectionLost, ServerStopping):
        pass


def log_end(session: Session[Any]) -> None:
    """Write the one line that tells what happened in a session."""
    connection = session.connection
    maildrop = session.maildrop
    connection.log.info(
        "session",
        user=session.user,
        tls=connection.tls.version if connection.tls else None,
        messages=len(maildrop.listing) if maildrop else 0,
        retr=session.retrieved,
        top=session.topped,
        dele=session.deleted,
        errors=session.errors,
        octets=session.octets,
        octets_in=connection.octets_in,
        octets_out=connection.octets_out,
        seconds=round(time.monotonic() - connection.opened, 3),
        reason=session.reason,
    )
    if session.user_log is not None:
        session.user_log.end()
