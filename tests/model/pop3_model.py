"""What a POP3 session must answer, octet by octet, in the plainest code there is.

It shares nothing with the server but the RFCs and the texts of its replies.  A message is what the
maildrop holds, octets as stored; `with_crlf` and the others of `tests.support.maildirs` say what
becomes of it on the wire.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from tests.support.maildirs import stuff_dots, top, with_crlf

GREETING: Final = b"+OK POP3 ready\r\n"
LONGEST_COMMAND: Final = 253  # RFC 2449 section 4, without CRLF
BAD_BEFORE_LOGIN: Final = 3
BAD_AFTER_LOGIN: Final = 20
FAILED_LOGINS: Final = 3

HTTP: Final = b"GET POST PUT HEAD OPTIONS CONNECT DELETE PATCH TRACE PRI".split()
BEFORE: Final = {*b"CAPA LANG QUIT USER PASS APOP AUTH STLS UTF8".split(), *HTTP}
AFTER: Final = {*b"CAPA LANG QUIT STAT LIST RETR DELE NOOP RSET TOP UIDL".split()}

AUTH_FAILED: Final = b"-ERR [AUTH] authentication failed\r\n"
BYE: Final = b"+OK bye\r\n"
GONE: Final = b"-ERR [SYS/TEMP] message is gone; it was removed by another program\r\n"

_NAME: Final = re.compile(rb"([a-z0-9]+)(?:~(?!\.)[A-Za-z0-9._-]{1,32})?")  # user~view


@dataclass(frozen=True)
class Mail:
    """A message: its unique id and the octets that are stored."""

    uid: bytes
    stored: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """The octets that LIST announces."""
        return _sent(self.stored)[0]


class Refused(Exception):
    """An -ERR that counts as a bad command."""


@dataclass
class SessionModel:
    """One session.  `drops` are the maildrops at login, `passwords` those of their users.

    `mechanisms` are what AUTH offers; of these only PLAIN is understood here.  `gone` are the ids
    of messages that somebody else takes away while the session goes on.  After the session
    `deleted` holds what QUIT has deleted from the drop of `user`.
    """

    drops: Mapping[bytes, Sequence[Mail]]
    passwords: Mapping[bytes, bytes]
    mechanisms: tuple[bytes, ...] = (b"PLAIN",)
    release: bytes = b"0.1.0"
    gone: set[bytes] = field(default_factory=set, init=False)
    ended: bool = field(default=False, init=False)
    user: bytes | None = field(default=None, init=False)
    deleted: list[Mail] = field(default_factory=list, init=False)
    commands: int = field(default=0, init=False)
    _named: bytes | None = field(default=None, init=False)
    _marks: set[int] = field(default_factory=set, init=False)
    _bad: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)
    _utf8_is_on: bool = field(default=False, init=False)
    _is_asked: bool = field(default=False, init=False)  # AUTH PLAIN waits for its response
    _rest: bytes = field(default=b"", init=False)

    # -- octets -----------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """Take octets of the client, return the answers to all lines that are whole now."""
        out = b""
        self._rest += data
        while not self.ended:
            line, end, rest = self._rest.partition(b"\n")
            if not end:
                break
            self._rest = rest
            out += self.line(line.removesuffix(b"\r"))
        return out

    def line(self, line: bytes) -> bytes:
        """Answer one line, given without its end."""
        self.commands += 1
        try:
            if self._is_asked:
                self._is_asked = False
                return self._response(line)
            return self._command(line)
        except Refused as refused:
            self._bad += 1
            if self._bad >= (BAD_BEFORE_LOGIN if self.user is None else BAD_AFTER_LOGIN):
                self.ended = True
                return b"-ERR too many errors\r\n"
            return b"-ERR %b\r\n" % str(refused).encode("ascii")

    def _command(self, line: bytes) -> bytes:
        is_auth = self.user is None and line[:5].upper() == b"AUTH "
        if len(line) > LONGEST_COMMAND and not is_auth:
            raise Refused("line too long")
        if any(octet < 32 or octet == 127 for octet in line):
            raise Refused("control character in command")
        verb, blank, rest = line.partition(b" ")
        verb = verb.upper()
        argument = rest if blank else None
        here, other = (BEFORE, AFTER) if self.user is None else (AFTER, BEFORE)
        if verb not in here:
            raise Refused("not in this state" if verb in other else "unknown command")
        if verb in HTTP:
            self.ended = True
            return b"-ERR this is a POP3 server\r\n"
        answer: Callable[[bytes | None], bytes] = getattr(self, "_" + verb.decode().lower())
        return answer(argument)

    # -- both states ------------------------------------------------------------------------------

    def _capa(self, argument: bytes | None) -> bytes:
        _none(argument)
        lines = [b"TOP", b"UIDL", b"USER"]
        if self.user is None and self.mechanisms:
            lines.append(b"SASL " + b" ".join(self.mechanisms))
        lines += [b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"UTF8 USER", b"LANG"]
        lines.append(b"EXPIRE NEVER")
        if self.user is not None:
            lines.append(b"IMPLEMENTATION pop3-server-" + self.release)
        return (
            b"+OK capability list follows\r\n" + b"".join(one + b"\r\n" for one in lines) + b".\r\n"
        )

    def _lang(self, argument: bytes | None) -> bytes:
        if argument is None:
            return b"+OK languages follow\r\nen English\r\ni-default Default language\r\n.\r\n"
        tag = argument.lower()
        if tag == b"en" or tag.startswith(b"en-"):
            return b"+OK en English it is\r\n"
        if tag in (b"*", b"i-default"):
            return b"+OK i-default English it is\r\n"
        return b"-ERR no such language\r\n"

    def _quit(self, argument: bytes | None) -> bytes:
        _none(argument)
        self.ended = True
        self.deleted = [self._drop[index] for index in sorted(self._marks)]
        return BYE

    # -- before login -----------------------------------------------------------------------------

    def _user(self, argument: bytes | None) -> bytes:
        if not argument:
            raise Refused("user name is missing")
        self._named = argument
        return b"+OK\r\n"

    def _pass(self, argument: bytes | None) -> bytes:
        name, self._named = self._named, None
        if name is None:
            raise Refused("USER first")
        if not argument:
            raise Refused("password is missing")
        return self._log_in(name, argument)

    def _log_in(self, name: bytes, password: bytes) -> bytes:
        found = _NAME.fullmatch(name)
        user = name if found is None or ".." in name.decode() else found[1]
        if self.passwords.get(user) != password:
            self._failed += 1
            self.ended = self._failed >= FAILED_LOGINS
            return AUTH_FAILED
        self.user = user
        self._bad = 0
        return b"+OK logged in\r\n"

    def _apop(self, _: bytes | None) -> bytes:
        raise Refused("APOP is off")

    def _auth(self, argument: bytes | None) -> bytes:
        if argument is None:
            return b"+OK\r\n" + b"".join(one + b"\r\n" for one in self.mechanisms) + b".\r\n"
        name, blank, initial = argument.partition(b" ")
        if blank and not initial:
            raise Refused("the initial response is missing")
        if name.upper() != b"PLAIN" or b"PLAIN" not in self.mechanisms:
            raise Refused("no such mechanism")
        if blank:
            return self._plain(initial)
        self._is_asked = True
        return b"+ \r\n"

    def _response(self, line: bytes) -> bytes:
        if line == b"*":
            raise Refused("authentication cancelled")
        return self._plain(line)

    def _plain(self, text: bytes) -> bytes:
        octets = _base64(text)
        parts = [] if octets is None or len(octets) > 3 * 255 + 2 else octets.split(b"\0")
        if len(parts) != 3 or not parts[1] or not parts[2] or parts[0] not in (b"", parts[1]):
            return self._log_in(b"", b"-")
        return self._log_in(parts[1], parts[2])

    def _stls(self, argument: bytes | None) -> bytes:
        _none(argument)
        raise Refused("STLS must come before UTF8" if self._utf8_is_on else "TLS is not available")

    def _utf8(self, argument: bytes | None) -> bytes:
        _none(argument)
        self._utf8_is_on = True
        return b"+OK UTF-8 it is\r\n"

    # -- after login ------------------------------------------------------------------------------

    @property
    def _drop(self) -> Sequence[Mail]:
        return () if self.user is None else self.drops[self.user]

    @property
    def _left(self) -> list[tuple[int, Mail]]:
        return [(n, mail) for n, mail in enumerate(self._drop, 1) if n - 1 not in self._marks]

    def _stat(self, argument: bytes | None) -> bytes:
        _none(argument)
        return b"+OK %d %d\r\n" % (len(self._left), sum(mail.size for _, mail in self._left))

    def _list(self, argument: bytes | None) -> bytes:
        if argument is not None:
            number = self._number(argument)
            return b"+OK %d %d\r\n" % (number, self._drop[number - 1].size)
        lines = b"".join(b"%d %d\r\n" % (n, mail.size) for n, mail in self._left)
        return b"+OK %d messages\r\n%b.\r\n" % (len(self._left), lines)

    def _uidl(self, argument: bytes | None) -> bytes:
        if argument is not None:
            number = self._number(argument)
            return b"+OK %d %b\r\n" % (number, self._drop[number - 1].uid)
        return b"+OK\r\n" + b"".join(b"%d %b\r\n" % (n, m.uid) for n, m in self._left) + b".\r\n"

    def _retr(self, argument: bytes | None) -> bytes:
        mail = self._drop[self._number(_given(argument)) - 1]
        if mail.uid in self.gone:
            return GONE
        return b"+OK %d octets\r\n%b.\r\n" % _sent(mail.stored)

    def _top(self, argument: bytes | None) -> bytes:
        words = _given(argument).split(b" ")
        if len(words) != 2:
            raise Refused("TOP takes a message number and a count of lines")
        mail = self._drop[self._number(words[0]) - 1]
        lines = min(_digits(words[1]), len(mail.stored))
        if mail.uid in self.gone:
            return GONE
        return b"+OK\r\n" + _top_of(mail.stored, lines) + b".\r\n"

    def _dele(self, argument: bytes | None) -> bytes:
        self._marks.add(self._number(_given(argument)) - 1)
        return b"+OK message deleted\r\n"

    def _rset(self, argument: bytes | None) -> bytes:
        _none(argument)
        self._marks.clear()
        return b"+OK\r\n"

    def _noop(self, argument: bytes | None) -> bytes:
        _none(argument)
        return b"+OK\r\n"

    def _number(self, argument: bytes) -> int:
        number = _digits(argument)
        if not 0 < number <= len(self._drop):
            raise Refused("no such message")
        if number - 1 in self._marks:
            raise Refused("message is deleted")
        return number


@lru_cache(maxsize=256)
def _sent(stored: bytes) -> tuple[int, bytes]:
    plain = with_crlf(stored)
    return len(plain), stuff_dots(plain)


@lru_cache(maxsize=256)
def _top_of(stored: bytes, lines: int) -> bytes:
    return stuff_dots(top(stored, lines))


def _none(argument: bytes | None) -> None:
    if argument is not None:
        raise Refused("this command takes no argument")


def _given(argument: bytes | None) -> bytes:
    if argument is None:
        raise Refused("message number is missing")
    return argument


def _digits(argument: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,10}", argument):
        raise Refused("not a number")
    return int(argument)


def _base64(text: bytes) -> bytes | None:
    """Decode the one right spelling."""
    if text == b"=":
        return b""
    try:
        octets = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return octets if base64.b64encode(octets) == text else None
