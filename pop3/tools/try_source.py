"""pop3-try source: a mail source without a server around it, and whether it keeps its promises.

The source's own server class answers a real dialogue, over a socket pair in this process. Nobody is
asked for a password, nothing is deleted, and what it would keep is thrown away.
"""

import argparse
import io
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netserver.errors import ConfigError
from pop3.tools.talk import Dialogue, DialogueError, Reply, octets, printable
from pop3.tools.try_trial import Trial
from pop3.tools.try_trial import server as trial_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pop3.server import POP3Server

_VALID_UID = re.compile(rb"[\x21-\x7e]{1,70}")
_SECONDS = 600.0
_LONGEST = {"From": 28, "Subject": 50}


def add_to(kinds: Any) -> None:
    """Add the command line of `source`."""
    source = kinds.add_parser(
        "source",
        help="show what a mail source gives a user",
        description="Open a mail source in this process, list what a user would get, read the "
        "messages, and check sizes and ids. All options of pop3-server are taken as well; USER "
        "comes last. No password is asked for, nothing is deleted, the state is temporary.",
        usage="pop3-try source [--source NAME] [option of pop3-server ...] [--message N] USER",
        epilog="Exit status: 0 the source keeps its promises, 1 it does not or cannot be read, 2 "
        "wrong usage.",
        allow_abbrev=False,
    )
    source.add_argument("--message", metavar="N", type=number, help="show this message, whole")
    source.add_argument(
        "--limit", metavar="N", type=number, default=100, help="messages to read, default 100"
    )
    source.add_argument(
        "--as-login",
        action="store_true",
        help="take the maildrop's lock and use the server's own state, as a login does",
    )
    source.add_argument(
        "--password-file", metavar="FILE", type=Path, help="for a source that logs in elsewhere"
    )


def number(text: str) -> int:
    """Return a message number, or raise what argparse turns into a message."""
    if re.fullmatch(r"[1-9][0-9]{0,8}", text) is None:
        raise argparse.ArgumentTypeError(f"not a number from 1: {text}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Do what the options say; return the exit status. Raises ConfigError."""
    more = list(options.more)
    if not more or more[-1].startswith("-"):
        raise ConfigError("source: USER is missing; it comes last")
    user = more.pop()
    with ExitStack() as stack:
        if not options.as_login:
            state = stack.enter_context(tempfile.TemporaryDirectory(prefix="pop3-try-"))
            more += ["--state", f"sqlite:///{state}/state.sqlite"]
        trial = Trial()
        server = stack.enter_context(trial_server(more, trial, as_login=options.as_login))
        secret = _password(options, user) if server.authenticates_upstream else "-"
        try:
            return _show(server, trial, user, secret, options)
        except DialogueError as error:
            print(f"pop3-try: {error}", file=sys.stderr)
            return 1


def _password(options: argparse.Namespace, user: str) -> str:
    try:
        if options.password_file:
            with options.password_file.open(encoding="utf-8") as lines:
                return str(lines.readline()).rstrip("\r\n")
        return getpass(f"password of {user}: ")
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"--password-file: {error}") from None


# -- a login -----------------------------------------------------------------------------------


@contextmanager
def _logged_in(server: "POP3Server[Any]", user: str, secret: str) -> "Iterator[Dialogue]":
    """Talk to the source as a client does. Raises DialogueError, ConfigError."""
    here, there = socket.socketpair()
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve(there, there, peer="127.0.0.1")
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            failed.append(error)
        finally:
            there.close()

    thread = threading.Thread(target=serve, name="source", daemon=True)
    here.settimeout(_SECONDS)
    thread.start()
    try:
        with Dialogue(here, io.StringIO()) as dialogue:
            dialogue.greeting()
            _agreed(dialogue, b"USER " + octets(user))
            _agreed(dialogue, b"PASS " + octets(secret))
            yield dialogue
    except DialogueError:
        thread.join(5)
        if failed:
            raise failed[0] from None
        raise
    finally:
        here.close()
        thread.join(5)


def _agreed(dialogue: Dialogue, command: bytes) -> Reply:
    dialogue.send([command], secret=True)
    reply = dialogue.reply(shown=0)
    if not reply.ok:
        verb = command.partition(b" ")[0].decode()
        shown = "the login" if verb in ("USER", "PASS") else command.decode()
        raise DialogueError(f"{shown}: {printable(reply.status)}")
    return reply


@dataclass
class _Row:
    number: int
    size: int
    uid: bytes
    lines: list[bytes] | None = None
    problem: str = ""


def _rows(dialogue: Dialogue) -> list[_Row]:
    sizes = [line.split() for line in _agreed(dialogue, b"LIST").lines]
    uids = [line.split(b" ", 1)[1] for line in _agreed(dialogue, b"UIDL").lines]
    return [
        _Row(int(number), int(size), uid) for (number, size), uid in zip(sizes, uids, strict=True)
    ]


# -- what is shown -----------------------------------------------------------------------------


def _show(
    server: "POP3Server[Any]",
    trial: Trial,
    user: str,
    secret: str,
    options: argparse.Namespace,
) -> int:
    began = time.perf_counter()
    with _logged_in(server, user, secret) as dialogue:
        rows = _rows(dialogue)
        ready = time.perf_counter() - began
        own = trial.uids
        opened, listed = trial.seconds["open"], trial.seconds["list"]
        print(
            f"{printable(octets(user))}: {len(rows)} messages, "
            f"{sum(row.size for row in rows):,} octets; login {ready:.3f} s "
            f"(open_box {opened:.3f} s, list_messages {listed:.3f} s)"
        )
        if options.message is not None:
            return _one(dialogue, rows, options.message)
        began = time.perf_counter()
        for row in rows[: options.limit]:
            _read(dialogue, row)
            print(_line(row))
        took = time.perf_counter() - began
    read = rows[: options.limit]
    if len(read) < len(rows):
        print(f"… and {len(rows) - len(read)} more, not read (--limit)")
    with _logged_in(server, user, secret) as dialogue:
        again = _rows(dialogue)
    print(f"read {len(read)} messages in {took:.3f} s")
    _note_invalid(own)
    return _judge(_faults(rows, read, own, again))


def _read(dialogue: Dialogue, row: _Row) -> None:
    try:
        row.lines = _agreed(dialogue, b"RETR %d" % row.number).lines
    except DialogueError as error:
        row.problem = str(error)
        return
    sent = sum(len(line) + 2 for line in row.lines)
    if sent != row.size:
        row.problem = f"the size said is {row.size:,}, sent are {sent:,} octets"


def _line(row: _Row) -> str:
    message = message_from_bytes(b"\n".join(row.lines or []), policy=default)
    shown = []
    for name, width in _LONGEST.items():
        text = printable(octets(" ".join(str(message[name] or "").split())))
        shown.append(text[:width].ljust(width))
    mark = f"  ! {row.problem}" if row.problem else ""
    head = f"{row.number:5} {row.size:>11,}  {printable(row.uid):<34}"
    return f"{head} {'  '.join(shown).rstrip()}{mark}"


def _one(dialogue: Dialogue, rows: list[_Row], wanted: int) -> int:
    if wanted > len(rows):
        raise DialogueError(f"--message {wanted}: there are {len(rows)}")
    row = rows[wanted - 1]
    _read(dialogue, row)
    print(_line(row))
    for raw in row.lines or []:
        print(f"| {printable(raw)}".rstrip())
    return 1 if row.problem else 0


def _note_invalid(own: list[bytes]) -> None:
    wrong = [uid for uid in own if not _VALID_UID.fullmatch(uid)]
    if wrong:
        print(
            f"note: {len(wrong)} ids are not 1 to 70 characters 0x21-0x7E (RFC 1939), such as "
            f"{printable(wrong[0])[:80]!r}: the server announces hashes of them"
        )


def _faults(rows: list[_Row], read: list[_Row], own: list[bytes], again: list[_Row]) -> list[str]:
    """Return which promises of a source are broken, and what to do."""
    faults = [f"message {row.number}: {row.problem}" for row in read if row.problem]
    if any("size said" in fault for fault in faults):
        faults.append(
            "sizes count octets with CRLF line ends; leave the size out (None) where it is not "
            "known, and the server finds it"
        )
    twice = [uid for uid, times in Counter(own).items() if times > 1]
    if twice:
        faults.append(
            f"{len(twice)} ids come more than once, such as {printable(twice[0])[:80]!r}: clients "
            "could take one message for another"
        )
    before, after = [row.uid for row in rows], [row.uid for row in again]
    if before != after and set(before) <= set(after):
        faults.append("the order is another at a second login, or there is new mail")
    elif before != after:
        faults.append("at a second login ids are others: clients would fetch all mail again")
    return faults


def _judge(faults: list[str]) -> int:
    for fault in faults:
        print(f"! {fault}")
    if not faults:
        print("sizes are exact, ids are valid, unique and the same at a second login")
    return 1 if faults else 0
