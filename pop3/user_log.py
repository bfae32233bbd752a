"""Logs of single users (--user-log): a file for each, opened anew for each line.

A line cannot hold a secret: it is made of the name of a known verb, of numbers, and of the first
line of our own answer. A UserLog is never given what a client typed, only what `safe_command` made
of it, and there is none before the login is through.
"""

import json
import os
import re
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from netserver import native
from pop3.lock import lock_name

if TYPE_CHECKING:
    from pop3.commands import Reply
    from pop3.session import Session

LEVELS = ("brief", "full")
FORMATS = ("text", "json")
SUFFIX = ".log"

_FLAGS = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO without a reader must not hold the session
)
_NUMBERED = frozenset({b"DELE", b"LIST", b"RETR", b"TOP", b"UIDL"})
_NUMBERS = re.compile(rb"[0-9]{1,10}( [0-9]{1,10})?")
_SIZE = re.compile(rb"\+OK ([0-9]{1,19}) octets")
_BARE = re.compile(r'[^\s"=\\\x00-\x1f\x7f-\x9f]+')
_LONGEST_ANSWER = 512


def file_name(user: str) -> str:
    """Return the name of a user's file: no slash, no leading dot, never two users in one."""
    return lock_name(user) + SUFFIX


def safe_command(line: bytes, verbs: Collection[bytes]) -> str:
    """Return a command as far as it may be logged: a verb of `verbs`, and numbers of messages.

    All else becomes "?", also digits behind a verb that takes none: they may be a password.
    """
    verb, blank, argument = line.partition(b" ")
    name = verb.upper()
    if name not in verbs:
        return "?"
    if not blank:
        return name.decode("ascii")
    shown = argument if name in _NUMBERED and _NUMBERS.fullmatch(argument) else b"?"
    return (name + b" " + shown).decode("ascii")


def line_of(fields: Mapping[str, object], form: str) -> bytes:
    """Return one line of a log, with its LF; `fields` begin with timestamp, session and event."""
    if form == "json":
        return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
    timestamp, session, event, *_ = fields.values()
    pairs = [f" {key}={_word(value)}" for key, value in list(fields.items())[3:]]
    return f"{timestamp} {session} {event}{''.join(pairs)}\n".encode("utf-8", "backslashreplace")


def _word(value: object) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


class UserLog:
    """The log of one session, once the user is known. Its methods never raise."""

    __slots__ = ("_broken", "_form", "_full", "_path", "_session", "_session_id")

    def __init__(
        self,
        session: "Session[Any]",
        directory: str | os.PathLike[str],
        *,
        full: bool,
        form: str,
    ) -> None:
        """Begin with the line of the login."""
        self._session = session
        self._session_id = f"{os.getpid():x}-{session.connection.number:x}"
        self._path = os.path.join(directory, file_name(session.user))
        self._form = form
        self._broken = False
        self._full = full
        tls = session.connection.tls
        self._write(
            "connect",
            user=session.user,
            peer=str(session.connection.peer),
            tls="-" if tls is None else tls.version,
        )

    def answered(self, command: str, reply: "Reply") -> "Reply":
        """Note a command, made by `safe_command`, and its answer; returns the reply to send."""
        retrieved = command.startswith("RETR ")
        if not retrieved and not self._full:
            return reply
        if isinstance(reply, bytes):
            self._note(command, reply)
            if retrieved:
                self._note_retrieved(command, reply)
            return reply
        return self._passed_on(command, reply, retrieved=retrieved)

    def _passed_on(
        self, command: str, reply: Iterator[bytes], *, retrieved: bool
    ) -> Iterator[bytes]:
        """Pass the blocks of a long message on; it counts as retrieved when all have gone."""
        first = next(reply, b"")
        self._note(command, first)
        yield first
        yield from reply
        if retrieved:
            self._note_retrieved(command, first)

    def _note(self, command: str, answer: bytes) -> None:
        if self._full:
            text = answer.partition(b"\r\n")[0][:_LONGEST_ANSWER]
            self._write("command", command=command, answer=text.decode("utf-8", "replace"))

    def _note_retrieved(self, command: str, answer: bytes) -> None:
        if size := _SIZE.match(answer):
            self._write("retrieved", number=int(command.split(" ")[1]), octets=int(size[1]))

    def end(self) -> None:
        """Write the last line."""
        session = self._session
        self._write(
            "disconnect",
            retr=session.retrieved,
            top=session.topped,
            dele=session.deleted,
            errors=session.errors,
            octets=session.octets,
            seconds=round(time.monotonic() - session.connection.opened, 3),
            reason=session.reason,
        )

    def _write(self, event: str, **values: object) -> None:
        if self._broken:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        fields = {"timestamp": stamp, "session": self._session_id, "event": event, **values}
        try:
            _append(self._path, line_of(fields, self._form))
        except OSError as error:  # a log that fails must not cost anybody the mail
            self._broken = True
            self._session.log.warning("user log not writable", reason=error.strerror)


def _append(path: str, data: bytes) -> None:
    """Add one line to a regular file that nobody else has a name for. Raises OSError."""
    descriptor = os.open(path, _FLAGS, 0o600)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OSError(0, "not a plain file of its own")
        os.write(descriptor, data)
    finally:
        native.close(descriptor)
