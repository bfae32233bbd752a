"""Mailboxes against a reader that goes line by line; their index and journal files."""

import contextlib
import hashlib
import os
import re
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pop3.sources import mbox_commit, mbox_forms, mbox_index, mbox_scan
from pop3.sources.mbox_forms import FORMS, NotAMailbox, custom
from pop3.sources.mbox_index import MboxIndex
from tests.fuzz.on_maildir import changed
from tests.fuzz.scratch import scratch
from tests.fuzz.target import target
from tests.support.maildirs import with_crlf

if TYPE_CHECKING:
    from typing_extensions import Buffer

NAIVE = ("mbox", "mboxo", "mboxrd", "mmdf")
ALL_FORMS = (*(FORMS[name] for name in NAIVE), FORMS["mboxcl2"], custom(b"^=== ", b"^$"))
HEADER = b"From a@b Thu Jan  1 00:00:00 1970\n"
MBOX = HEADER + b"A: b\n\none\n\n" + HEADER + b"A: c\nStatus: RO\n\n>From x\n>>From y\ntwo\n\n"


@dataclass(frozen=True)
class Piece:
    """A message as the naive reader finds it."""

    place: int
    begin: int
    end: int


def naive(data: bytes, form: str) -> list[Piece]:
    """Find the messages of a mailbox line by line."""
    lines = [(m.start(), m.end()) for m in re.finditer(rb"[^\n]*\n|[^\n]+", data)]
    return _naive_mmdf(data, lines) if form == "mmdf" else _naive_from(data, lines)


def _naive_from(data: bytes, lines: list[tuple[int, int]]) -> list[Piece]:
    found: list[Piece] = []
    blank = True
    for begin, end in lines:
        if blank and data.startswith(b"From ", begin):
            if found:
                found[-1] = Piece(found[-1].place, found[-1].begin, begin - 1)
            found.append(Piece(begin, end, len(data)))
        blank = data[begin:end] == b"\n"
    if found and data.endswith(b"\n\n") and found[-1].begin < len(data):
        found[-1] = Piece(found[-1].place, found[-1].begin, len(data) - 1)
    return found


def _naive_mmdf(data: bytes, lines: list[tuple[int, int]]) -> list[Piece]:
    found: list[Piece] = []
    inside = False
    for begin, end in lines:
        if data[begin:end] == b"\1\1\1\1\n":
            if inside:
                found[-1] = Piece(found[-1].place, found[-1].begin, begin)
            else:
                found.append(Piece(begin, end, len(data)))
            inside = not inside
        elif inside and begin == found[-1].place + 5 and data.startswith(b"From ", begin):
            found[-1] = Piece(found[-1].place, end, len(data))
    return found


def as_sent(stored: bytes, form: str) -> bytes:
    """Take the quotation marks off the lines of a body."""
    if form not in ("mboxo", "mboxrd"):
        return stored
    pattern = rb">From " if form == "mboxo" else rb">{1,1000}From "
    out = []
    in_header = True
    for line in re.findall(rb"[^\n]*\n|[^\n]+", stored):
        if in_header:
            in_header = line not in (b"\n", b"\r\n")
        elif re.match(pattern, line):
            out.append(line[1:])
            continue
        out.append(line)
    return b"".join(out)


def _scan(
    data: bytes, form: mbox_forms.Form, window: int, old: MboxIndex | None
) -> MboxIndex | None:
    """Scan with a window of so many octets; None: not a mailbox."""
    descriptor = _memory()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
    whole = mbox_forms._WINDOW
    mbox_forms._WINDOW = window
    try:
        if old is None:
            return mbox_scan.scan(descriptor, form, MboxIndex(), _busy)
        return mbox_scan.refresh(descriptor, form, old, _busy)
    except NotAMailbox:
        return None
    finally:
        mbox_forms._WINDOW = whole


@cache
def _memory() -> int:
    return os.memfd_create("mbox")


def _busy() -> None:
    pass


@target(
    "mbox",
    seeds=(
        b"\0\3\x20" + MBOX,
        b"\1\7\x40" + MBOX,
        b"\2\1\x10" + MBOX,
        b"\3\2\x08" + b"\1\1\1\1\nFrom x\nA: b\n\none\n\1\1\1\1\n\1\1\1\1\nA: c\n\n\1\1\1\1\n",
        b"\4\5\x30"
        + HEADER
        + b"Content-Length: 14\n\nFrom\n\nFrom x\n\n"
        + HEADER
        + b"A: b\n\nx\n",
        b"\5\4\x20" + b"=== 1\nA: b\n\none\n\n=== 2\nA: c\n\ntwo\n\n",
        b"\0\0\0\n\n" + MBOX,
        b"\0\0\0From x\r\n\r\n",
    ),
    words=(
        HEADER,
        b"\n\nFrom ",
        b"\n>From ",
        b"\n>>From x\n",
        b"\1\1\1\1\n",
        b"\n\n",
        b"\r\n",
        b"\n=== ",
    ),
)
def mailbox(data: bytes) -> None:
    """The messages are those of the naive reader, whatever the blocks, and whatever was known."""
    head, stored = data[:3].ljust(3, b"\0"), data[3:]
    form = ALL_FORMS[head[0] % len(ALL_FORMS)]
    index = _scan(stored, form, 1 + head[1] % 64, None)
    assert _columns(index) == _columns(_scan(stored, form, 1 << 20, None))
    if index is not None:
        _check(index, stored, form)
    if form.name in NAIVE:
        _compare(index, stored, form.name)
        cut = head[2] * len(stored) // 255
        old = _scan(stored[:cut], form, 1 << 20, None)
        if old is not None and cut:
            assert _columns(_scan(stored, form, 1 << 20, old)) == _columns(index)


def _columns(index: MboxIndex | None) -> object:
    if index is None:
        return None
    return index.places, index.begins, index.ends, index.sizes, index.uids


def _check(index: MboxIndex, stored: bytes, form: mbox_forms.Form) -> None:
    after = 0
    for i in range(len(index)):
        assert after <= index.places[i] <= index.begins[i] <= index.ends[i] <= len(stored)
        after = index.ends[i]
        blocks = mbox_scan.as_sent(mbox_scan.span(_memory(), index.begins[i], index.ends[i]), form)
        assert len(with_crlf(b"".join(blocks))) == index.sizes[i]
    assert len(set(index.uids)) == len(index.uids)
    assert all(re.fullmatch(rb"[0-9a-f]{32}(\.[0-9]+)?", uid) for uid in index.uids)


def _compare(index: MboxIndex | None, stored: bytes, form: str) -> None:
    pieces = naive(stored, form)
    first = pieces[0].place if pieces else len(stored)
    line = stored[first : first + 1024].partition(b"\n")[0] + b"\n"
    if stored[:first].strip(b"\n") or line.endswith(b"\r\n"):
        assert index is None
        return
    assert index is not None
    got = [Piece(*one) for one in zip(index.places, index.begins, index.ends, strict=True)]
    assert got == pieces
    sizes = [len(with_crlf(as_sent(stored[p.begin : p.end], form))) for p in pieces]
    assert list(index.sizes) == sizes


# -- files beside a mailbox ------------------------------------------------------------------------


@cache
def _index() -> tuple[str, MboxIndex, bytes]:
    path = str(scratch("mbox") / "index")
    index = _scan(MBOX, FORMS["mbox"], 1 << 20, None)
    assert index is not None
    mbox_index.save(index, path)
    return path, index, Path(path).read_bytes()


@target(
    "mbox-index",
    seeds=(b"\0", b"\0\0\x09\1", b"\1\0\x0c\3", b"\1\0\x14\xff", b"\2POP3mbx\1", b"\1\x80\x60\x08"),
    words=(b"\1\0", b"\0\x0c", b"POP3mbx\1"),
)
def index_file(data: bytes) -> None:
    """A damaged index is no index, and one with a right sum is whole."""
    mode, script = data[:1], data[1:]
    path, right, original = _index()
    kind = mode[0] % 3 if mode else 0
    octets = script if kind == 2 else changed(original, script)
    if kind:
        octets = octets[:8] + struct.pack("=I", zlib.crc32(octets[12:])) + octets[12:]
    Path(path).write_bytes(octets)
    found = mbox_index.load(path)
    if found is None:
        if kind == 0:
            assert octets != original
        return
    columns = (found.places, found.begins, found.ends, found.sizes)
    assert all(len(column) == len(found) for column in columns)
    if kind == 0:
        assert found == right


@cache
def _box() -> tuple[Path, str, bytes]:
    """Return a directory with room for a mailbox, its journal, and a journal that is right."""
    directory = scratch("journal")
    path, journal = directory / "mbox", str(directory / "journal")
    path.write_bytes(MBOX)
    descriptor = os.open(path, os.O_RDWR)

    class Dies(mbox_commit.Files):
        """Stops at the first octet that would be written to the mailbox."""

        @staticmethod
        def pwrite(number: int, data: "Buffer", at: int) -> int:
            if number == descriptor:
                raise KeyboardInterrupt
            return os.pwrite(number, data, at)

    index = mbox_scan.scan(descriptor, FORMS["mbox"], MboxIndex(), _busy)
    with contextlib.suppress(KeyboardInterrupt):
        mbox_commit.commit(descriptor, index, {0}, journal, path=str(path), files=Dies())
    os.close(descriptor)
    return directory, journal, Path(journal).read_bytes()


@target(
    "mbox-journal",
    seeds=(
        b"\0",
        b"\1",
        b"\0\0\x10\1",
        b"\1\0\x10\1",
        b"\1\0\x08\x99",
        b"\1\0\x0a\x99",
        b"\1\0\x29\x99",
        b"\1\0\x20\xff",
        b"\3\0\x71z",
        b"\2POP3mbj\2",
        b"\5",
        b"\7",
    ),
    words=(b"\1\0\x18", b"\1\0\x28", b"POP3mbj\2"),
)
def journal_file(data: bytes) -> None:
    """A journal is carried out as it says or refused with the mailbox untouched."""
    mode, script = data[:1], data[1:]
    flags = mode[0] if mode else 0
    directory, journal, original = _box()
    octets = script if flags & 2 else changed(original, script)
    if flags & 1:
        octets = octets[:-32] + hashlib.sha256(octets[:-32]).digest()
    came = b"" if not flags & 4 else HEADER + b"A: d\n\nthree\n\n"
    before = MBOX + came
    mailbox_path = directory / "mbox"
    descriptor = os.open(mailbox_path, os.O_RDWR)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, before, 0)
        Path(journal).write_bytes(octets)
        try:
            done = mbox_commit.recover(descriptor, journal)
        except (mbox_commit.JournalRefused, EOFError):
            assert mailbox_path.read_bytes() == before
            assert octets != original
            return
        assert done
        assert not os.path.exists(journal)
        assert struct.unpack_from("=Q", octets, 8)[0] == os.fstat(descriptor).st_ino
        edges = octets[40:72]
        first, _, after = struct.unpack_from("=3Q", octets, 16)
        assert edges == mbox_index.edges_of(descriptor, first)
        length = struct.unpack_from("=H", octets, mbox_commit._HEADER.size - 2)[0]
        begin = mbox_commit._HEADER.size + length
        carried = MBOX[:first] + octets[begin : begin + after - first] + came
        assert mailbox_path.read_bytes() in (carried, before)
        assert octets != original or mailbox_path.read_bytes() == carried
    finally:
        os.close(descriptor)
