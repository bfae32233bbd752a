"""Read lines of our logs, in each of their forms, and of the user logs of Mail::POP3.

Files are streamed: a line is the most that is held.
"""

import gzip
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

LONGEST_LINE = 64 * 1024

_EVENT_WIDTH = 24  # in the console form
_STAMP = r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:\d\d(\.\d{1,6})?Z"
_is_stamp = re.compile(_STAMP).fullmatch
# console: time, level, event padded to 24, pairs; user log: time, session, event, pairs
_CONSOLE = re.compile(rf"({_STAMP}) (debug|info|warning|error|critical) +(.*)")
_USER_TEXT = re.compile(rf"({_STAMP}) ([0-9a-f]+-[0-9a-f]+) ([a-z]+)( .*)?")
_PAIR = re.compile(r'(?:^| )([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)')
_HEX = re.compile(r"\\x([0-9a-f]{2})")
_OLD = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) ([ \d]\d) (([01]\d|2[0-3]):[0-5]\d:\d\d) (\d{4})[ \t]+(.*)"
)
_OLD_RETRIEVED = re.compile(r"RETRieved\s+([0-9]{1,19})")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_FILE = re.compile(r"(.+?)(?:\.log)?(?:[.-][0-9]{1,10})?(?:\.gz)?")


@dataclass(frozen=True, slots=True)
class Record:
    """One event: when it was (ISO 8601), what it was, its fields, and whose file it stood in."""

    timestamp: str
    event: str
    fields: dict[str, Any]
    user: str


def files_in(directory: str) -> list[str]:
    """Return the logs of users in a directory, rotated ones too. Raises OSError."""
    with os.scandir(directory) as entries:
        return sorted(
            one.path
            for one in entries
            if one.is_file(follow_symlinks=False) and not one.name.startswith(".")
        )


def user_of(file: str) -> str:
    """Return the user whose log a file is, by its name."""
    name = os.path.basename(file)
    found = _FILE.fullmatch(name)
    return unquote(found[1] if found else name, errors="surrogateescape")


def records(file: str) -> Iterator[Record | None]:
    """Yield what stands in a file, None for a line that is none of ours; "-" is standard input.

    Raises OSError with the name of the file in it.
    """
    user = user_of(file)
    with _opened(file) as stream:
        for line in _lines(stream):
            if line is None:
                yield None
                continue
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if not text:
                continue
            record = _record(text, user)
            if record is not None and record.event == "connect":
                user = str(record.fields.get("user") or user)  # a file name may be a hash of it
            yield record


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """Open a file, compressed or not; what goes wrong while it is read is told with its name."""
    try:
        if file == "-":
            yield sys.stdin.buffer
            return
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as plain:
            if plain.peek(2)[:2] != b"\x1f\x8b":
                yield plain
                return
            with gzip.open(plain) as unpacked:
                yield cast("BinaryIO", unpacked)
    except BrokenPipeError:
        raise
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "not a whole .gz file"
        raise OSError(f"{file}: cannot be read: {reason}") from None


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yield lines; None for one that is too long to hold."""
    while line := stream.readline(LONGEST_LINE):
        if line.endswith(b"\n") or len(line) < LONGEST_LINE:
            yield line
            continue
        while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass
        yield None


def _record(text: str, user: str) -> Record | None:
    """Read one line in whatever form it is; None if it is in none of them."""
    if text.startswith("{"):
        return _of_json(text, user)
    if text.startswith("timestamp="):
        return _of_fields(_pairs(text), user)
    if found := _USER_TEXT.fullmatch(text):
        return Record(found[1], found[5], _pairs(found[6] or ""), user)
    if found := _CONSOLE.fullmatch(text):
        event, rest = found[5][:_EVENT_WIDTH].rstrip(), found[5][_EVENT_WIDTH:]
        return Record(found[1], event, _pairs(rest), user)
    if found := _OLD.fullmatch(text):
        return _of_mail_pop3(found, user)
    return None


def _of_json(text: str, user: str) -> Record | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _of_fields(fields, user) if isinstance(fields, dict) else None


def _of_fields(fields: dict[str, Any], user: str) -> Record | None:
    stamp, event = fields.get("timestamp"), fields.get("event")
    if not isinstance(stamp, str) or not isinstance(event, str) or not _is_stamp(stamp):
        return None
    return Record(stamp, event, fields, user)


def _pairs(text: str) -> dict[str, Any]:
    return {key: _unquoted(value) for key, value in _PAIR.findall(text)}


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:  # \x1f is the one escape of ours that JSON has not
        return str(json.loads(_HEX.sub(r"\\u00\1", value)))
    except ValueError:
        return value


def _of_mail_pop3(found: re.Match[str], user: str) -> Record | None:
    month, day, clock, _, year, said = found.groups()
    if month not in _MONTHS:
        return None
    stamp = f"{year}-{_MONTHS.index(month) + 1:02d}-{int(day):02d}T{clock}Z"
    if size := _OLD_RETRIEVED.match(said):
        return Record(stamp, "retrieved", {"octets": size[1]}, user)
    if said.startswith("CONNECTION OPENED"):
        return Record(stamp, "connect", {}, user)
    verb = said.partition(" ")[0].upper()
    if verb in ("TOP", "DELE"):  # in full logs
        return Record(stamp, "disconnect", {verb.lower(): 1}, user)
    if verb == "-ERR":
        return Record(stamp, "disconnect", {"errors": 1}, user)
    return Record(stamp, "", {}, user)
