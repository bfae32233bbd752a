"""Find the messages of an mbox or MMDF file, their exact sizes and content-based ids.

The file is read, not mapped: a program that ignores all locks and cuts a mapped file short would
kill this process, and with it the sessions of others.
"""

import hashlib
import itertools
import os
import re
from array import array
from collections.abc import Callable, Iterator

from pop3.message import announce
from pop3.sources.mbox_index import NEVER, MboxIndex, edges_of, stamp_of
from pop3.wire import BLOCK, stream_size

FORMATS = ("mbox", "mmdf")

UID_OCTETS = 32
"""Hex digits of the SHA-256 that are a message's id; what follows them tells equal ones apart."""

# What mail programs write into a message to remember its state, or count again when they do.
_STATUS = re.compile(
    rb"^(?:Status|X-Status|X-UID|X-Keywords|X-IMAP|X-IMAPbase|Content-Length|Lines)[ \t]*:"
    rb".*\n(?:[ \t].*\n)*",
    re.IGNORECASE | re.MULTILINE,
)
_BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)
_WINDOW = 1024 * 1024
_MMDF_LINE = b"\x01\x01\x01\x01\n"

# What stands before a message, with what must stand before that: a blank line, a line's end.
_MARKS = {
    "mbox": (re.compile(rb"\n\nFrom "), b"\n\n", 7),
    "mmdf": (re.compile(rb"\n\x01\x01\x01\x01(?=\n)"), b"\n", 6),
}

Busy = Callable[[], None]


class NotAMailbox(Exception):
    """The file has something else in it than messages of this format."""


def refresh(descriptor: int, form: str, old: MboxIndex, busy: Busy) -> MboxIndex:
    """Return the index of a mailbox as it is now, using what `old` knows.

    Where the file has only grown, the new part is read. `busy` is called now and then. Raises
    NotAMailbox, OSError.
    """
    stamp = stamp_of(os.fstat(descriptor))
    if stamp == old.stamp and edges_of(descriptor, old.size) == old.edges:
        return old
    grown = old.stamp[0] == stamp[0] and 0 < old.size < stamp[1]
    kept = max(len(old) - 1, 0)  # the last one may end elsewhere than it seemed to
    if not grown or edges_of(descriptor, old.size) != old.edges:
        kept = 0
    return scan(descriptor, form, old, busy, kept=kept)


def scan(descriptor: int, form: str, old: MboxIndex, busy: Busy, *, kept: int = 0) -> MboxIndex:
    """Read a mailbox but for its first `kept` messages, which are as `old` says.

    A message that `old` knows keeps its id. Raises NotAMailbox, OSError.
    """
    found = os.fstat(descriptor)
    index = old.head(kept)
    index.stamp = stamp_of(found)
    index.edges = edges_of(descriptor, found.st_size)
    begin = old.places[kept] if kept else 0
    marks = _marks(descriptor, form, begin, found.st_size, busy)
    if form == "mmdf":
        places = marks[0::2]
        limits = marks[1::2] + array("q", [found.st_size] * (len(marks) % 2))
    else:
        places = marks
        limits = marks[1:] + array("q", [found.st_size]) if marks else marks
    first = places[0] if places else found.st_size
    if first > begin and os.pread(descriptor, min(first, _WINDOW), begin).strip(b"\n"):
        raise NotAMailbox
    if b"\r\n" in os.pread(descriptor, 1024, first).partition(b"\n")[0] + b"\n":
        raise NotAMailbox  # lines end in CRLF: all of it would be one message, gone by one DELE
    names: list[bytes] = []
    for place, limit in zip(places, limits, strict=True):
        busy()
        start = _after_envelope(descriptor, form, place, limit)
        end = limit if form == "mmdf" else _before_blank_line(descriptor, start, limit)
        uid, size = describe(descriptor, start, end)
        names.append(uid)
        index.places.append(place)
        index.begins.append(start)
        index.ends.append(end)
        index.sizes.append(size)
    index.uids = announce(index.uids + _known(names, old.uids[kept:], index.uids))
    return index


def _marks(descriptor: int, form: str, begin: int, size: int, busy: Busy) -> "array[int]":
    """Return the offsets of all "From " lines after a blank line, or of all MMDF lines."""
    pattern, before, length = _MARKS[form]
    found = array("q")
    carried = before  # what a mark needs before it is there at the beginning too
    at = begin
    while at < size:
        block = os.pread(descriptor, min(_WINDOW, size - at), at)
        if not block:
            raise EOFError
        data = carried + block
        base = at - len(carried) + len(before)
        found.extend([base + match.start() for match in pattern.finditer(data)])
        carried = data[1 - length :]
        at += len(block)
        busy()
    return found


def _after_envelope(descriptor: int, form: str, place: int, limit: int) -> int:
    """Return where the message begins behind its "From " line, which an MMDF one may have too."""
    if form == "mmdf":
        place = min(place + len(_MMDF_LINE), limit)
        if os.pread(descriptor, min(5, limit - place), place) != b"From ":
            return place
    at = place
    while at < limit:
        block = os.pread(descriptor, min(512, limit - at), at)
        if not block:
            break
        end = block.find(b"\n")
        if end >= 0:
            return at + end + 1
        at += len(block)
    return limit


def _before_blank_line(descriptor: int, start: int, limit: int) -> int:
    """Return where the message ends: the blank line between two messages belongs to none."""
    if limit > start and os.pread(descriptor, 2, limit - 2) == b"\n\n":
        return limit - 1
    return limit


def _known(names: list[bytes], old: list[bytes], taken: list[bytes]) -> list[bytes]:
    """Give equal messages the ids that they had before, in their order."""
    gone = set(taken)
    left: dict[bytes, list[bytes]] = {}
    for uid in reversed(old):
        if uid not in gone:
            left.setdefault(uid[:UID_OCTETS], []).append(uid)
    return [left[name].pop() if left.get(name) else name for name in names]


def span(descriptor: int, begin: int, end: int) -> Iterator[bytes]:
    """Read a part of a file in blocks. Raises EOFError if it is not all there."""
    while begin < end:
        block = os.pread(descriptor, min(BLOCK, end - begin), begin)
        if not block:
            raise EOFError
        begin += len(block)
        yield block


def describe(descriptor: int, begin: int, end: int) -> tuple[bytes, int]:
    """Return the id of a message and its octets as sent.

    The id is 32 hex digits of the SHA-256 of its content without the fields that tell its state,
    as far as these stand in the first 64 KiB of the header.
    """
    blocks = span(descriptor, begin, end)
    first = next(blocks, b"")
    blank = _BLANK_LINE.search(first)
    border = blank.start() if blank else len(first)
    digest = hashlib.sha256(_STATUS.sub(b"", first[:border]))
    digest.update(first[border:])

    def hashed() -> Iterator[bytes]:
        for block in blocks:
            digest.update(block)
            yield block

    size = stream_size(itertools.chain((first,), hashed()))
    return digest.hexdigest()[:UID_OCTETS].encode("ascii"), size


def empty() -> MboxIndex:
    """Return the index of a mailbox that is not there."""
    return MboxIndex(NEVER)
