"""Where messages begin and end, and what the index file spares."""

import itertools
import os
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3.sources import mbox_forms, mbox_scan
from pop3.sources.mbox_forms import FORMS, Form, NotAMailbox
from pop3.sources.mbox_index import MboxIndex, load, save
from pop3.sources.mbox_scan import describe, empty, refresh, scan

F = b"From x\n"
M = b"\x01\x01\x01\x01\n"

Scan = Callable[..., tuple[MboxIndex, list[bytes]]]


def nothing() -> None:
    """Be called now and then."""


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Return a file, and a descriptor of it."""
    path = tmp_path / "box"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    yield path, descriptor
    os.close(descriptor)


def messages(descriptor: int, index: MboxIndex) -> list[bytes]:
    """Return what the index says the messages are."""
    spans = zip(index.begins, index.ends, strict=True)
    return [os.pread(descriptor, end - begin, begin) for begin, end in spans]


CASES = [
    (b"", []),
    (b"\n\n", []),
    (b"\n" + F + b"a\n", [b"a\n"]),
    (F, [b""]),
    (b"From without line end", [b""]),
    (F + b"\n" + F + b"a\n", [b"", b"a\n"]),
    (F + b"\n\n" + F + b"a\n\n", [b"\n", b"a\n"]),
    (F + b"a\n\n" + F + b"b\n\n", [b"a\n", b"b\n"]),
    (F + b"a\n\n\n" + F + b"b", [b"a\n\n", b"b"]),
    (F + b"a\nFrom b\n>From c\n", [b"a\nFrom b\n>From c\n"]),
    (F + b"a\n\nFrom\n\nfrom x\n", [b"a\n\nFrom\n\nfrom x\n"]),
]


@pytest.mark.parametrize("window", [1, 2, 7, 1024])
@pytest.mark.parametrize(("stored", "expected"), CASES)
def test_mbox_messages(
    mailbox: tuple[Path, int],
    monkeypatch: pytest.MonkeyPatch,
    stored: bytes,
    expected: list[bytes],
    window: int,
) -> None:
    """However the file is cut into windows; the shares of the messages cover the file."""
    monkeypatch.setattr(mbox_forms, "_WINDOW", max(window, len(stored) if window > 7 else window))
    path, descriptor = mailbox
    path.write_bytes(stored)
    index = scan(descriptor, FORMS["mbox"], MboxIndex(), nothing)
    assert messages(descriptor, index) == expected
    shares = [index.share(i) for i in range(len(index))]
    assert all(one[1] == other[0] for one, other in itertools.pairwise(shares))
    assert not shares or shares[-1][1] == len(stored)


@pytest.mark.parametrize("window", [2, 5, 1024])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (b"", []),
        (M + b"a\n" + M, [b"a\n"]),
        (M + M + M + b"\n\nFrom b\n" + M, [b"", b"\n\nFrom b\n"]),
        (M + F + b"a\n" + M + M + b"b\n", [b"a\n", b"b\n"]),
        (M + b"x" + M + M, [b"x" + M]),
    ],
)
def test_mmdf_messages(
    mailbox: tuple[Path, int],
    monkeypatch: pytest.MonkeyPatch,
    stored: bytes,
    expected: list[bytes],
    window: int,
) -> None:
    """Between two lines of ^A; a "From " line behind the first is not sent."""
    monkeypatch.setattr(mbox_forms, "_WINDOW", window)
    path, descriptor = mailbox
    path.write_bytes(stored)
    assert messages(descriptor, scan(descriptor, FORMS["mmdf"], MboxIndex(), nothing)) == expected


@pytest.mark.parametrize("form", ["mbox", "mmdf"])
@pytest.mark.parametrize("stored", [b"x\n", b"x\n\n" + F, b"\x01\n"])
def test_rubbish_is_no_mailbox(mailbox: tuple[Path, int], form: str, stored: bytes) -> None:
    """What begins otherwise is not served, let alone rewritten."""
    mailbox[0].write_bytes(stored)
    with pytest.raises(NotAMailbox):
        scan(mailbox[1], FORMS[form], MboxIndex(), nothing)


def test_only_the_new_part_is_read(
    mailbox: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box that has grown is read from its last message on, one that has not is not read."""
    path, descriptor = mailbox
    path.write_bytes(F + b"a\n\n" + F + b"b\n\n" + F + b"c\n")
    first = refresh(descriptor, FORMS["mbox"], MboxIndex(), nothing)
    assert refresh(descriptor, FORMS["mbox"], first, nothing) is first
    read: list[int] = []

    def counting(descriptor: int, begin: int, end: int, form: Form) -> tuple[bytes, int]:
        read.append(begin)
        return describe(descriptor, begin, end, form)

    monkeypatch.setattr(mbox_scan, "describe", counting)
    with path.open("ab") as file:
        file.write(b"\n" + F + b"d\n\n")
    second = refresh(descriptor, FORMS["mbox"], first, nothing)
    assert len(read) == 2
    assert messages(descriptor, second) == [b"a\n", b"b\n", b"c\n", b"d\n"]
    assert second.uids[:3] == first.uids
    assert second == scan(descriptor, FORMS["mbox"], MboxIndex(), nothing)


def test_changed_and_grown_box_is_read_anew(mailbox: tuple[Path, int]) -> None:
    """Its old part is not what it was."""
    path, descriptor = mailbox
    path.write_bytes(F + b"a\n\n" + F + b"b\n")
    first = refresh(descriptor, FORMS["mbox"], MboxIndex(), nothing)
    path.write_bytes(F + b"A\n\n" + F + b"b\n\n" + F + b"c\n")
    second = refresh(descriptor, FORMS["mbox"], first, nothing)
    assert messages(descriptor, second) == [b"A\n", b"b\n", b"c\n"]
    assert second.uids[0] != first.uids[0]
    assert second.uids[1] == first.uids[1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"A: b\n\nx\n", b"Status: RO\nA: b\nx-status:\n folded\nX-UID: 7\n\nx\n", True),
        (b"A: b\n\nx\n", b"A: b\n\nStatus: RO\nx\n", False),
        (b"A: b\n\nx\n", b"A: b\nX-Statuses: RO\n\nx\n", False),
        (b"A: b\n\nx\n", b"A: b\n\ny\n", False),
        (b"\nStatus: 1\n", b"\nStatus: 2\n", False),
    ],
)
def test_id_does_without_the_state(
    mailbox: tuple[Path, int], one: bytes, other: bytes, same: bool
) -> None:
    """Fields in the header that say what a mail program thinks of it; the body counts whole."""
    path, descriptor = mailbox
    ids = []
    for text in (one, other):
        path.write_bytes(text)
        ids.append(describe(descriptor, 0, len(text))[0])
    assert (ids[0] == ids[1]) is same
    assert len(ids[0]) == 32


def test_index_file_keeps_all_and_notices_damage(tmp_path: Path) -> None:
    """One wrong octet, or a missing end, and it is made again."""
    path = str(tmp_path / "room" / "index")
    columns = [array("q", [i, i + 10]) for i in range(4)]
    for index in (MboxIndex(), MboxIndex((1, 2, 3, 4), b"e" * 32, [b"a", b"b"], *columns)):
        save(index, path)
        assert load(path) == index
    data = Path(path).read_bytes()
    for bad in (data[:-1], b"", data[:70] + b"\xff" + data[71:], data + b"x"):
        Path(path).write_bytes(bad)
        assert load(path) is None


def test_a_mailbox_with_crlf_is_refused(tmp_path: Path) -> None:
    """No separator would be found in it: one DELE would take all messages."""
    path = tmp_path / "box"
    path.write_bytes(b"From a\r\nSubject: 1\r\n\r\nx\r\n\r\nFrom b\r\nSubject: 2\r\n\r\ny\r\n")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(NotAMailbox):
            refresh(descriptor, FORMS["mbox"], empty(), lambda: None)
    finally:
        os.close(descriptor)
