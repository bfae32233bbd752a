"""The id files that Dovecot and Courier keep in a maildir: read, never written, with a limit.

Each reader returns ids by the base name of the message's file (its name up to ":"). Raises OSError
when a file is there and cannot be read, BadIdFile when it is not what it should be: wrong ids would
make every client download all mail again.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from netserver import native
from pop3.uidl.presets import Known, Preset, fill

LONGEST = 64 * 1024 * 1024
"""Octets of an id file, at most: some 500,000 messages."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HIGHEST = 2**32 - 1

_DOVECOT_1 = re.compile(rb"1 ([0-9]{1,10}) ([0-9]{1,10})")
_DOVECOT_3 = re.compile(rb"3(?: [A-Z][^ ]*)*")
_VALIDITY = re.compile(rb" V([0-9]{1,10})(?= |$)")
_ENTRY_1 = re.compile(rb"([0-9]{1,10}) +([^/]+)")
_ENTRY_3 = re.compile(rb"([0-9]{1,10}) +((?:[A-Z][^ ]* +)*):([^/]+)")
_SIZE_LIST = re.compile(rb"/[123] [0-9]{1,10}(?: [0-9]{1,10})?")
_SIZE_ENTRY = re.compile(rb"(.+?) [0-9]{1,20}(?: ([0-9]{1,10})(?::([0-9]{1,10})(?::[0-9]+)?)?)?")
_UID_DATABASE = re.compile(rb"1 ([0-9]{1,10}) [0-9]{1,10}")
_UID_ENTRY = re.compile(rb"([0-9]{1,10}) ([^/]+)")
_COURIER_ODD = re.compile(rb"[^!#-&(-*,-~]")


class BadIdFile(Exception):
    """An id file is too large, or does not begin as it must."""


def id_file(preset: Preset, directory: Path) -> Path | None:
    """Return the file a preset reads, None if it needs none."""
    match preset.name:
        case "dovecot" | "cyrus":  # what converts Cyrus' spool writes Dovecot's file
            return directory / "dovecot-uidlist"
        case "courier":
            return directory / ("courierimapuiddb" if preset.format else "courierpop3dsizelist")
        case _:
            return None


def stamp(path: Path) -> str:
    """Return what changes when a file does, "" if it is not there. Raises OSError."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return ""
    return f"{path.name}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def read_ids(preset: Preset, directory: Path) -> dict[bytes, bytes]:
    """Return the ids that the other server gave, by base name; nothing without a file."""
    path = id_file(preset, directory)
    if path is None or (lines := _lines(path)) is None:
        return {}
    match preset.name, preset.format:
        case "courier", "":
            return _courier_sizes(lines)
        case "courier", form:
            return _courier_uids(lines, form)
        case "cyrus", form:
            return _dovecot(lines, form, saved=False)
        case _, form:
            return _dovecot(lines, form, saved=True)


def _lines(path: Path) -> Iterator[bytes] | None:
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LONGEST:
            raise BadIdFile(f"{path}: no plain file, or a huge one")
        parts: list[bytes] = []
        left = LONGEST
        while left > 0 and (block := os.read(descriptor, min(left, 1 << 20))):
            parts.append(block)
            left -= len(block)
    finally:
        native.close(descriptor)
    lines = b"".join(parts).split(b"\n")
    lines.pop()  # after the last line end; a line without one is still being written
    return iter(lines)


def _base(name: bytes) -> bytes:
    return name.partition(b":")[0]


def _dovecot(lines: Iterator[bytes], form: str, *, saved: bool) -> dict[bytes, bytes]:
    """Read dovecot-uidlist: `3 V<validity> N<next>`, then `<uid> P<id> G<guid> :<file name>`.

    Version 1 has `1 <validity> <next>` and `<uid> <file name>`. A saved id (P) goes first; an empty
    one means the base name.
    """
    header = next(lines, b"")
    if match := _DOVECOT_1.fullmatch(header):
        entry = _ENTRY_1
        validity = match[1]
    elif _DOVECOT_3.fullmatch(header) and (match := _VALIDITY.search(header)):
        entry = _ENTRY_3
        validity = match[1]
    else:
        raise BadIdFile("dovecot-uidlist does not begin as it should")
    ids: dict[bytes, bytes] = {}
    for line in lines:
        found = entry.fullmatch(line)
        if found is None or not 0 < int(found[1]) < _HIGHEST:
            continue
        name = _base(found[found.lastindex or 0])
        fields = {part[:1]: part[1:] for part in found[2].split()} if entry is _ENTRY_3 else {}
        if saved and b"P" in fields:
            ids[name] = fields[b"P"] or name
            continue
        known = Known(int(found[1]), int(validity), name, fields.get(b"G", b""))
        if uid := fill(form, known):
            ids[name] = uid
    return ids


def _courier_sizes(lines: Iterator[bytes]) -> dict[bytes, bytes]:
    """Read courierpop3dsizelist: `/2 <next> <validity>`, then `<file name> <size> <n>:<validity>`.

    The id is UID<n>-<validity>. Version 1 has no validity: UID<n>. In version 0, which has no first
    line, and where n is 0, it is the file name.
    """
    ids: dict[bytes, bytes] = {}
    for number, line in enumerate(lines):
        if number == 0 and line.startswith(b"/"):
            if not _SIZE_LIST.fullmatch(line):
                raise BadIdFile("courierpop3dsizelist does not begin as it should")
            continue
        found = _SIZE_ENTRY.fullmatch(line)
        if found is None:
            continue
        name = _base(found[1])
        if not int(found[2] or 0):
            ids[name] = courier_name(name)
        elif int(found[3] or 0):
            ids[name] = b"UID%d-%d" % (int(found[2]), int(found[3]))
        else:
            ids[name] = b"UID%d" % int(found[2])
    return ids


def courier_name(name: bytes) -> bytes:
    """Return the id that Courier makes of a file name: odd octets, quotes and "+" as +XX."""
    return _COURIER_ODD.sub(lambda match: b"+%02X" % match[0][0], name)


def _courier_uids(lines: Iterator[bytes], form: str) -> dict[bytes, bytes]:
    """Read courierimapuiddb: `1 <validity> <next>`, then `<uid> <file name>`."""
    header = _UID_DATABASE.fullmatch(next(lines, b""))
    if header is None:
        raise BadIdFile("courierimapuiddb does not begin as it should")
    ids: dict[bytes, bytes] = {}
    for line in lines:
        if found := _UID_ENTRY.fullmatch(line):
            name = _base(found[2])
            if uid := fill(form, Known(int(found[1]), int(header[1]), name)):
                ids[name] = uid
    return ids
