"""The verbs after login, and those of both states (RFC 1939, 2449, 6856).

A handler returns its reply, whole or (a message over 64 KiB) in blocks, or raises POP3Error. It
never writes a reply: the conversation does, in one place.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from pop3 import commands_auth, spool, wire
from pop3.errors import CommandError, POP3Error, TemporaryFailure
from pop3.message import UNKNOWN
from pop3.session import Session, State

if TYPE_CHECKING:
    from pop3.maildrop import Maildrop
    from pop3.server import POP3Server

Reply: TypeAlias = bytes | Iterator[bytes]
Handler: TypeAlias = Callable[["POP3Server[Any]", Session[Any], bytes | None], Reply]

LONGEST_COMMAND = 253
"""Octets of a command line without its CRLF (RFC 2449 §4)."""

_TOP_BLOCK = 16 * 1024  # a header and a few lines rarely need more
_TOP_ARGUMENTS = 2
_OK = wire.ok()
_LANGUAGES = wire.ok("languages follow") + b"en English\r\ni-default Default language\r\n.\r\n"


def execute(server: "POP3Server[Any]", session: Session[Any], line: bytes) -> Reply:
    """Run one command line. Raises POP3Error, and whatever a source raised."""
    if len(line) > LONGEST_COMMAND and not _is_auth(session, line):
        raise CommandError("line too long")
    verb, argument = wire.parse_command(line)
    if session.state is State.TRANSACTION:
        here, elsewhere = TRANSACTION, AUTHORIZATION
    else:
        here, elsewhere = AUTHORIZATION, TRANSACTION
    handler = here.get(verb)
    if handler is None:
        raise CommandError("not in this state" if verb in elsewhere else "unknown command")
    return handler(server, session, argument)


def _is_auth(session: Session[Any], line: bytes) -> bool:
    """Tell a command that may be longer: clients put long tokens behind it, against the RFC."""
    return session.state is State.AUTHORIZATION and line[:5].upper() == b"AUTH "


def _maildrop(session: Session[Any]) -> "Maildrop":
    assert session.maildrop is not None  # it is there in the TRANSACTION state
    return session.maildrop


def _none(argument: bytes | None) -> None:
    if argument is not None:
        raise CommandError("this command takes no argument")


def _one(argument: bytes | None) -> bytes:
    if argument is None:
        raise CommandError("message number is missing")
    return argument


def _stat(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    _none(argument)
    maildrop = _maildrop(session)
    server.find_sizes(session, maildrop.unknown())
    return b"+OK %d %d\r\n" % maildrop.stat()


def _list(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    maildrop = _maildrop(session)
    if argument is None:
        server.find_sizes(session, maildrop.unknown())
        return b"+OK %d messages\r\n%b.\r\n" % (maildrop.stat()[0], maildrop.scan_listing())
    index = maildrop.number(argument)
    if maildrop.listing.sizes[index] == UNKNOWN:
        server.find_sizes(session, [index])
    return b"+OK %d %d\r\n" % (index + 1, maildrop.size(index))


def _uidl(_: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    maildrop = _maildrop(session)
    if argument is None:
        return b"+OK\r\n%b.\r\n" % maildrop.unique_ids()
    index = maildrop.number(argument)
    return b"+OK %d %b\r\n" % (index + 1, maildrop.listing.uids[index])


@contextmanager
def _reading(session: Session[Any]) -> Iterator[None]:
    """Tell the client that a message cannot be read, before the first octet of the reply."""
    try:
        yield
    except FileNotFoundError as error:
        raise TemporaryFailure("message is gone") from error
    except OSError as error:
        session.log.exception("message not readable")
        raise TemporaryFailure("message cannot be read") from error


def _retr(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> Reply:
    maildrop = _maildrop(session)
    index = maildrop.number(_one(argument))
    with _reading(session):
        stream = server.read_message(session, maildrop.listing.message(index))
        blocks = wire.read_blocks(stream)
        data = next(blocks, b"")
        more = next(blocks, None)
        if more is not None:
            return _long_message(server, session, index, chain((data, more), blocks))
    data = wire.crlf(data)
    size = len(data)
    if size != maildrop.listing.sizes[index]:
        server.note_size(session, index, size)
    if session.received:
        data = session.received + data
        size = len(data)
    session.retrieved += 1
    if session.fetched is not None:
        session.fetched.add(index)
    session.octets += size
    return b"+OK %d octets\r\n%b.\r\n" % (size, wire.stuff(data))


def _long_message(
    server: "POP3Server[Any]", session: Session[Any], index: int, blocks: Iterator[bytes]
) -> Iterator[bytes]:
    """Send in blocks. Without a known size all is read before, since the reply tells it."""
    size = _maildrop(session).listing.sizes[index]
    if size == UNKNOWN:
        size, copy = spool.hold(blocks)
        server.note_size(session, index, size)
        blocks = wire.read_blocks(copy)
    return _retrieve(server, session, index, size, blocks)


def _retrieve(
    server: "POP3Server[Any]", session: Session[Any], index: int, size: int, blocks: Iterator[bytes]
) -> Iterator[bytes]:
    encoder = wire.Encoder()
    added = len(session.received)
    begun = [b"+OK %d octets\r\n" % (size + added), encoder.feed(session.received)]
    yield from _encoded(encoder, begun, blocks)
    session.retrieved += 1
    if session.fetched is not None:
        session.fetched.add(index)
    session.octets += encoder.octets
    if encoder.octets != size + added:
        server.note_size(session, index, encoder.octets - added)


def _encoded(
    encoder: wire.Encoder, begun: Iterable[bytes], blocks: Iterable[bytes]
) -> Iterator[bytes]:
    yield from begun
    for block in blocks:
        yield encoder.feed(block)
    yield encoder.finish() + wire.END


def _top(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> Reply:
    maildrop = _maildrop(session)
    arguments = _one(argument).split(b" ")
    if len(arguments) != _TOP_ARGUMENTS:
        raise CommandError("TOP takes a message number and a count of lines")
    index = maildrop.number(arguments[0])
    lines = wire.parse_number(arguments[1])
    session.topped += 1
    encoder = wire.Encoder()
    begun = [_OK, encoder.feed(session.received)]
    with _reading(session):
        stream = server.read_top(session, maildrop.listing.message(index), lines)
        cut = wire.top(wire.read_blocks(stream, _TOP_BLOCK), lines)
        for block in cut:
            begun.append(encoder.feed(block))
            if encoder.octets > wire.BLOCK:
                return _encoded(encoder, begun, cut)
    return b"".join((*begun, encoder.finish(), wire.END))


def _dele(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    maildrop = _maildrop(session)
    maildrop.delete(maildrop.number(_one(argument)))
    return server.replies.deleted


def _rset(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    _none(argument)
    _maildrop(session).undelete_all()
    return server.replies.reset


def _noop(server: "POP3Server[Any]", _session: Session[Any], argument: bytes | None) -> bytes:
    _none(argument)
    return server.replies.noop


def _quit(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    """Delete what is marked, then answer; the session ends whatever comes of it (RFC 1939 §6)."""
    _none(argument)
    logged_in = session.state is State.TRANSACTION
    session.end("quit")
    if not logged_in:
        return server.replies.leave
    try:
        server.commit(session)
    finally:
        server.close_maildrop(session)
    if session.debug:
        return wire.ok("bye, nothing deleted (debug)")
    return server.replies.quit(session.user)


def _capa(server: "POP3Server[Any]", session: Session[Any], argument: bytes | None) -> bytes:
    _none(argument)
    return server.capabilities(session)


def _lang(_server: "POP3Server[Any]", _session: Session[Any], argument: bytes | None) -> bytes:
    """There is English, and i-default is English too (RFC 6856 §3)."""
    if argument is None:
        return _LANGUAGES
    tag = argument.lower()
    if tag == b"en" or tag.startswith(b"en-"):
        return wire.ok("en English it is")
    if tag in (b"*", b"i-default"):
        return wire.ok("i-default English it is")
    raise POP3Error("no such language")


_BOTH: dict[bytes, Handler] = {b"CAPA": _capa, b"LANG": _lang, b"QUIT": _quit}

TRANSACTION: dict[bytes, Handler] = _BOTH | {
    b"DELE": _dele,
    b"LIST": _list,
    b"NOOP": _noop,
    b"RETR": _retr,
    b"RSET": _rset,
    b"STAT": _stat,
    b"TOP": _top,
    b"UIDL": _uidl,
}

AUTHORIZATION: dict[bytes, Handler] = _BOTH | commands_auth.HANDLERS

VERBS = TRANSACTION.keys() | AUTHORIZATION.keys()
"""All that are known anywhere."""
