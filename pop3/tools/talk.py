"""A POP3 dialogue on the terminal: every line both ways, passwords masked, controls escaped."""

import re
import socket
import ssl
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from getpass import getpass
from types import TracebackType
from typing import Self, TextIO

LINE_LIMIT = 1 << 20
"""Octets in one line of a reply: far over RFC 5322's 998, and a bound all the same."""
SHOWN_LINES = 12
"""Lines of a long reply that are shown."""
MASK = b"********"

_MULTILINE = re.compile(rb"(?:CAPA|TOP .*|RETR .*|(?:LIST|UIDL) *|AUTH *)", re.IGNORECASE)


class DialogueError(Exception):
    """The connection could not be made, ended early, or the server did not speak POP3."""


@dataclass
class Reply:
    """One reply: the status line and the lines below it, if any, with dots unstuffed."""

    status: bytes
    lines: list[bytes] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the server agreed."""
        return self.status.startswith(b"+OK")

    @property
    def wants_more(self) -> bool:
        """Whether this is a SASL challenge (RFC 5034 §4): the next line answers it."""
        return self.status.startswith(b"+ ") or self.status == b"+"


def printable(raw: bytes) -> str:
    """Return a line as text that cannot steer a terminal."""
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def octets(text: str) -> bytes:
    """Return what was typed or given as an argument as octets, also if it is no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def masked(command: bytes) -> bytes:
    """Return a command as it may be shown: without what PASS, APOP or AUTH prove with it."""
    verb, _, rest = command.partition(b" ")
    if verb.upper() == b"PASS":
        return verb + b" " + MASK
    if verb.upper() in {b"APOP", b"AUTH"} and b" " in rest:
        return b" ".join([verb, rest.partition(b" ")[0], MASK])
    return command


class Dialogue:
    """A connection that prints what goes over it: ``C:`` lines sent, ``S:`` lines received."""

    def __init__(self, sock: socket.socket, out: TextIO) -> None:
        self._socket = sock
        self._out = out
        self._unread = bytearray()
        self._waiting: list[bytes] = []

    @classmethod
    def connect(cls, host: str, port: int, seconds: float, out: TextIO) -> Self:
        """Connect; every wait is bounded by so many seconds. Raises DialogueError."""
        try:
            return cls(socket.create_connection((host, port), timeout=seconds), out)
        except OSError as error:
            raise DialogueError(f"cannot connect to {host} port {port}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    @property
    def private(self) -> bool:
        """Whether nobody on the way can read along: TLS, or the same machine."""
        peer = str(self._socket.getpeername()[0]).removeprefix("::ffff:")
        return isinstance(self._socket, ssl.SSLSocket) or peer == "::1" or peer.startswith("127.")

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Do the TLS handshake.

        Raises DialogueError, also when plain octets came where TLS should have begun.
        """
        if self._unread:
            raise DialogueError("the server sent something before TLS began: not to be trusted")
        try:
            secured = context.wrap_socket(self._socket, server_hostname=host)
        except (OSError, ValueError) as error:
            raise DialogueError(f"no TLS: {error}") from error
        self._socket = secured
        name, _, bits = secured.cipher() or ("?", "", 0)
        self.note(f"{secured.version()}, {name}, {bits} bits")

    def note(self, text: str) -> None:
        """Print a remark of the program's own."""
        print(f"-- {text}", file=self._out, flush=True)

    def _show(self, who: str, line: bytes) -> None:
        print(f"{who}: {printable(line)}", file=self._out, flush=True)

    def send(self, commands: Iterable[bytes], *, secret: bool = False) -> None:
        """Send commands in one write (several: RFC 2449 §6.6); `secret` ones are not shown."""
        commands = list(commands)
        for command in commands:
            self._show("C", MASK if secret else masked(command))
        self._waiting += commands
        try:
            self._socket.sendall(b"".join(command + b"\r\n" for command in commands))
        except OSError as error:
            raise DialogueError(f"cannot send: {error}") from error

    def greeting(self) -> Reply:
        """Read what the server says first."""
        self._waiting.append(b"")
        return self.reply()

    def reply(self, shown: int = SHOWN_LINES, until: bytes | None = None) -> Reply:
        """Read the reply to the oldest unanswered command.

        At most `shown` of its lines are shown, and none from the line `until` on.
        """
        command = self._waiting.pop(0)
        reply = Reply(self._read_line())
        self._show("S", reply.status)
        if not reply.ok or not _MULTILINE.fullmatch(command):
            return reply
        hidden = 0
        while (line := self._read_line()) != b".":
            if line == until:
                shown = 0
            if len(reply.lines) < shown:
                self._show("S", line)
            elif line:
                hidden += 1
            reply.lines.append(line[1:] if line.startswith(b".") else line)
        if hidden:
            self.note(f"and {hidden} more")
        self._show("S", b".")
        return reply

    def _read_line(self) -> bytes:
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            if searched > LINE_LIMIT:
                raise DialogueError(f"a line of more than {LINE_LIMIT} octets")
            try:
                block = self._socket.recv(65536)
            except OSError as error:
                raise DialogueError(f"no answer: {error}") from error
            if not block:
                raise DialogueError("the server closed the connection")
            self._unread += block
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line.removesuffix(b"\r")


def capabilities(reply: Reply) -> set[bytes]:
    """Return the names in a CAPA reply, in upper case."""
    return {line.partition(b" ")[0].upper() for line in reply.lines}


def look_around(dialogue: Dialogue, user: str, password: str) -> bool:
    """Log in, look at STAT, LIST, UIDL and the first message's header, and leave.

    Returns whether all of it was answered +OK.
    """
    dialogue.send([b"CAPA"])
    announced = capabilities(dialogue.reply())
    dialogue.send([b"USER " + octets(user)])
    if not dialogue.reply().ok:
        return False
    dialogue.send([b"PASS " + octets(password)])
    if not dialogue.reply().ok:
        return False
    questions = [b"STAT", b"LIST", b"UIDL"]
    replies = ask(dialogue, questions, pipelined=b"PIPELINING" in announced)
    counted = re.match(rb"\+OK ([0-9]{1,10}) ", replies[0].status)
    if counted and int(counted[1]) > 0:
        first = b"TOP 1 0" if b"TOP" in announced else b"RETR 1"
        dialogue.send([first])
        replies.append(dialogue.reply(shown=100, until=b""))
    dialogue.send([b"QUIT"])
    replies.append(dialogue.reply())
    return all(reply.ok for reply in replies)


def ask(dialogue: Dialogue, commands: Sequence[bytes], *, pipelined: bool) -> list[Reply]:
    """Send commands, all at once if the server can take it, and return their replies."""
    if pipelined:
        dialogue.note(f"{len(commands)} commands in one go, since PIPELINING is announced")
        dialogue.send(commands)
        return [dialogue.reply() for _ in commands]
    replies = []
    for command in commands:
        dialogue.send([command])
        replies.append(dialogue.reply())
    return replies


def converse(dialogue: Dialogue, context: ssl.SSLContext, host: str, source: TextIO) -> None:
    """Send what is typed, line by line, and show each whole reply, until QUIT or the end of input.

    STLS is followed by the handshake; a bare PASS asks for the password without showing it.
    """
    by_hand = source.isatty()
    if by_hand:
        dialogue.note("type commands; PASS alone asks for the password unseen; QUIT ends")
    challenged = False
    for typed in source:
        command = octets(typed.rstrip("\r\n"))
        verb = b"" if challenged else command.upper()
        if verb == b"PASS" and by_hand:
            command = b"PASS " + octets(getpass("password: "))
        dialogue.send([command], secret=challenged)
        reply = dialogue.reply(shown=sys.maxsize)
        challenged = reply.wants_more
        if reply.ok and verb == b"STLS":
            dialogue.start_tls(context, host)
        if verb == b"QUIT":
            return
