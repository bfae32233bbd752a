"""The forms that mailboxes come in: where a message ends and the next begins, what is quoted in it.

Each form finds pieces: the offset of what stands before a message, and where the message itself
begins and ends. What lies between two messages belongs to the file and to none of them.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

Busy = Callable[[], None]
Piece = tuple[int, int, int]
"""Where the line before a message begins, where the message begins, and where it ends."""

Finder = Callable[[int, int, int, Busy], Iterator[Piece]]
"""Called with a descriptor, the offset to begin at (the beginning of the file, or of a message's
"From " line), the size of the file, and what to call now and then."""

_WINDOW = 1024 * 1024
_LONGEST_LINE = 16 * 1024 * 1024  # in a mailbox whose separators are patterns
_LONGEST_HEADER = 1024 * 1024  # in which a Content-Length is looked for

_FROM = b"From "
_MMDF_LINE = b"\x01\x01\x01\x01\n"

Mark = tuple[re.Pattern[bytes], bytes, int]
"""What is looked for (a pattern finds it twice as fast as bytes.find), the line ends it begins
with, and its octets. The line end behind an MMDF line may be of the next one too."""

_FROM_MARK: Mark = (re.compile(rb"\n\nFrom "), b"\n\n", 7)
_MMDF_MARK: Mark = (re.compile(rb"\n\x01\x01\x01\x01(?=\n)"), b"\n", 6)

_BLANK_LINE = re.compile(rb"\n\r?\n")
_CONTENT_LENGTH = re.compile(rb"\nContent-Length:[ \t]*([0-9]{1,15})[ \t]*\r?\n", re.IGNORECASE)

# ">" is counted to 1000, so that what must be held back of a block is bounded
_ONE_QUOTED = re.compile(rb"\n>(From )")  # mboxo: of one ">" nobody knows whose it is
_ALL_QUOTED = re.compile(rb"\n>(>{0,1000}From )")  # mboxrd: one was added to each such line
_MAY_BE_QUOTED = re.compile(rb"\n>{0,1001}(?:F(?:r(?:o(?:m)?)?)?)?")


class NotAMailbox(Exception):
    """The file has something else in it than messages of this form."""


@dataclass(frozen=True, slots=True)
class Form:
    """One form: its name, which index files carry; how it is cut; what is taken off on sending."""

    name: str
    find: Finder
    quoted: re.Pattern[bytes] | None = None


def custom(start: bytes, end: bytes) -> Form:
    """Return the form in which a message stands behind a line in which `start` is found.

    Before that line must be the beginning of the file, or a line in which `end` is found. Raises
    ValueError for what is no pattern, or finds something in an empty line where it must not.
    """
    try:
        first, last = re.compile(start, re.MULTILINE), re.compile(end)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    if first.search(b""):
        raise ValueError("it would find every line")
    name = hashlib.sha256(start + b"\0" + end).hexdigest()[:16]
    return Form(f"custom-{name}", partial(_by_patterns, first, last))


def unquoted(blocks: Iterator[bytes], quoted: re.Pattern[bytes]) -> Iterator[bytes]:
    """Take the quotation marks off a message, given in blocks cut anywhere; the header has none."""
    held = b"\n"  # as if a line had ended before the first
    before = 1
    in_header = True
    for block in blocks:
        data = held + block
        if in_header:
            border = _BLANK_LINE.search(data)
            cut = max(len(data) - 2, before) if border is None else border.end() - 1
            yield data[before:cut]
            in_header = border is None
            held, before = data[cut:], 0
            if in_header:
                continue
            data = held
        cut = data.rfind(b"\n")
        if not _MAY_BE_QUOTED.fullmatch(data, cut):
            cut = len(data)
        yield quoted.sub(rb"\n\1", data[:cut])
        held = data[cut:]
    yield held[before:]


# -- how each is cut -------------------------------------------------------------------------------


def _marks(descriptor: int, mark: Mark, begin: int, size: int, busy: Busy) -> Iterator[int]:
    """Yield where a mark is found, behind the line ends that it begins with. Raises EOFError."""
    pattern, before, length = mark
    data = before  # as given at the beginning too
    at = begin
    while at < size:
        block = os.pread(descriptor, min(_WINDOW, size - at), at)
        if not block:
            raise EOFError
        base = at - len(data) + len(before)
        data += block
        for found in pattern.finditer(data):
            yield base + found.start()
        data = data[1 - length :]
        at += len(block)
        busy()


def _from_lines(descriptor: int, begin: int, size: int, busy: Busy) -> Iterator[Piece]:
    """Find a "From " line after a blank line."""
    place = -1
    for mark in _marks(descriptor, _FROM_MARK, begin, size, busy):
        if place >= 0:  # the blank line between two messages belongs to none
            yield place, _next_line(descriptor, place, mark), mark - 1
        place = mark
    if place >= 0:
        yield _piece(descriptor, place, size)


def _piece(descriptor: int, place: int, limit: int) -> Piece:
    start = _next_line(descriptor, place, limit)
    blank = limit > start and os.pread(descriptor, 2, limit - 2) == b"\n\n"
    return place, start, limit - blank


def _next_line(descriptor: int, at: int, limit: int) -> int:
    """Return where the line after this one begins."""
    while at < limit:
        block = os.pread(descriptor, min(512, limit - at), at)
        if not block:
            break
        end = block.find(b"\n")
        if end >= 0:
            return at + end + 1
        at += len(block)
    return limit


def _mmdf_lines(descriptor: int, begin: int, size: int, busy: Busy) -> Iterator[Piece]:
    """Find two lines of four ^A; a "From " line may stand behind the first."""
    marks = _marks(descriptor, _MMDF_MARK, begin, size, busy)
    for place in marks:
        limit = next(marks, size)
        start = min(place + len(_MMDF_LINE), limit)
        if os.pread(descriptor, min(5, limit - start), start) == _FROM:
            start = _next_line(descriptor, start, limit)
        yield place, start, limit


def _by_length(descriptor: int, begin: int, size: int, busy: Busy) -> Iterator[Piece]:
    """Find a "From " line, and as far behind it as Content-Length says the next one or the end.

    Where that is not so, the length is wrong, and the next "From " line after a blank line counts.
    """
    marks = _marks(descriptor, _FROM_MARK, begin, size, busy)
    place = mark = next(marks, size)
    while place < size:
        start = _next_line(descriptor, place, size)
        said = _length_says(descriptor, start, size)
        if said is None:
            while mark <= place:
                mark = next(marks, size)
            yield _piece(descriptor, place, mark)
            place = mark
        else:
            yield place, start, said[0]
            place = said[1]
        busy()


def _length_says(descriptor: int, start: int, size: int) -> tuple[int, int] | None:
    """Return where a message ends by its Content-Length, and where the next one begins."""
    header = b"\n"
    border = None
    while border is None:
        at = start + len(header) - 1
        block = os.pread(descriptor, min(16384, size - at), at)
        if not block or len(header) > _LONGEST_HEADER:
            return None
        header += block
        border = _BLANK_LINE.search(header)
    field = _CONTENT_LENGTH.search(header, 0, border.start() + 1)
    if field is None:
        return None
    end = start + border.end() - 1 + int(field[1])
    if end > size:
        return None
    after = os.pread(descriptor, 16, end)
    blank = len(after) - len(after.lstrip(b"\n"))
    following = end + blank
    if following == size or (
        after[blank:].startswith(_FROM) and _ends_line(descriptor, end, blank)
    ):
        return end, following
    return None


def _ends_line(descriptor: int, end: int, blank: int) -> bool:
    return blank > 0 or os.pread(descriptor, 1, end - 1) == b"\n"


def _by_patterns(  # noqa: PLR0917 - two patterns for a Finder
    start: re.Pattern[bytes],
    end: re.Pattern[bytes],
    descriptor: int,
    begin: int,
    size: int,
    busy: Busy,
) -> Iterator[Piece]:
    """Find a line of one pattern, and before it one of another that is not itself such a line."""
    place = content = -1
    previous = b""  # the last line of the lines before
    previous_at = begin
    for base, lines in _whole_lines(descriptor, begin, size, busy):
        done = 0
        for found in start.finditer(lines):
            at = lines.rfind(b"\n", 0, found.start()) + 1
            if at < done:
                continue  # in the same line
            done = _line_end(lines, at)
            if not start.search(lines[at:done].rstrip(b"\n")):
                continue  # over a line's end
            if at:
                previous_at = lines.rfind(b"\n", 0, at - 1) + 1
                previous = lines[previous_at : at - 1]
                previous_at += base
            if previous_at == place and place >= 0:
                continue
            if base + at > begin and not end.search(previous):
                continue
            if place >= 0:
                yield place, content, max(previous_at, content)
            place, content = base + at, base + done
        last = lines.rfind(b"\n", 0, len(lines) - 1) + 1
        previous, previous_at = lines[last:].rstrip(b"\n"), base + last
    if place >= 0:
        ends = previous_at >= content and end.search(previous)
        yield place, content, previous_at if ends else size


def _line_end(lines: bytes, at: int) -> int:
    end = lines.find(b"\n", at)
    return len(lines) if end < 0 else end + 1


def _whole_lines(descriptor: int, begin: int, size: int, busy: Busy) -> Iterator[tuple[int, bytes]]:
    """Read a file in blocks that end with a line. Raises EOFError, NotAMailbox."""
    held = b""
    at = begin
    while at < size:
        block = os.pread(descriptor, min(_WINDOW, size - at), at)
        if not block:
            raise EOFError
        base = at - len(held)
        at += len(block)
        held += block
        cut = held.rfind(b"\n") + 1 if at < size else len(held)
        if cut:
            yield base, held[:cut]
            held = held[cut:]
        elif len(held) > _LONGEST_LINE:
            raise NotAMailbox
        busy()


MBOX = Form("mbox", _from_lines)

FORMS = {
    one.name: one
    for one in (
        MBOX,
        Form("mboxo", _from_lines, _ONE_QUOTED),
        Form("mboxrd", _from_lines, _ALL_QUOTED),
        Form("mboxcl2", _by_length),
        Form("mmdf", _mmdf_lines),
    )
}
