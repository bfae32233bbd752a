"""Finding messages and sizes: always the same as a plain slow look at the files."""

import os
import re
import socket
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pop3.message import hashed
from pop3.sources import maildir_scan
from pop3.sources.maildir_index import UNSETTLED, MaildirIndex, amend, load, save
from pop3.sources.maildir_scan import (
    file_at,
    places_of,
    refresh,
    stated_size,
)
from pop3.wire import BLOCK, crlf

BODY = b"Subject: hello\n\nworld\n"


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    """Return an empty maildir."""
    root = tmp_path / "Maildir"
    for folder in ("tmp", "new", "cur"):
        (root / folder).mkdir(parents=True)
    return root


def listed(root: Path, old: MaildirIndex | None = None, **options: bool) -> MaildirIndex:
    """Return a fresh index."""
    return refresh(os.fsencode(root), old or MaildirIndex(), **options)


def rows(index: MaildirIndex) -> list[tuple[bytes, int]]:
    """Return ids and sizes of an index."""
    return list(zip(index.uids, index.sizes, strict=True))


# -- names --------------------------------------------------------------------------------------


@given(base=st.binary(max_size=90), flags=st.sampled_from([b"", b":", b":2,", b":2,FS", b":1,x:y"]))
def test_places_of_and_file_at_are_inverse(base: bytes, flags: bytes) -> None:
    """From the id and the place the file name comes back, whatever it was."""
    name = base.replace(b"\0", b"0").replace(b"/", b"1") + flags
    for folder in (0, 1):
        [uid], [place] = places_of(folder, [name])
        assert file_at(uid, place) == (folder, name)
        assert re.fullmatch(rb"[\x21-\x7e]{1,70}", uid)


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        (b"1700000000.M1P2.host", b"1700000000.M1P2.host"),
        (b"1700000000.M1P2.host:2,RS", b"1700000000.M1P2.host"),
        (b"x" * 70, b"x" * 70),
        (b"x" * 71, hashed(b"x" * 71)),
        (b"a b:2,S", hashed(b"a b")),
        (b"caf\xc3\xa9", hashed(b"caf\xc3\xa9")),
        (b"a\nb", hashed(b"a\nb")),
        (b":2,S", hashed(b"")),
    ],
)
def test_uid_is_the_base_name_or_its_hash(name: bytes, uid: bytes) -> None:
    """Clients remember ids for years, so this rule cannot change."""
    assert places_of(1, [name])[0] == [uid]
    assert places_of(0, [b"good", name])[0] == [b"good", uid]


def test_hash_of_an_id_is_the_one_promised() -> None:
    """The first 32 hex digits of SHA-256."""
    assert places_of(0, [b"a b"])[0] == [b"c8687a08aa5d6ed2044328fa6a697ab8"]


@pytest.mark.parametrize(
    ("uid", "octets"),
    [
        (b"1.h,S=10,W=12", 12),
        (b"1.h,W=12,S=10", 12),
        (b"1.h,S=10", None),
        (b"1.h,W=", None),
        (b"1.h,W=1x", None),
        (b"1.h,W=12345678901", None),
        (b"W=12", None),
    ],
)
def test_stated_size_reads_only_a_whole_number(uid: bytes, octets: int | None) -> None:
    """Only `,W=` and digits to the next comma is a size as sent."""
    assert stated_size(uid) == octets


# -- listing ------------------------------------------------------------------------------------


def test_order_is_by_number_then_name(maildir: Path) -> None:
    """Nine digits come before ten, names without a number come last, new/ and cur/ are mixed."""
    names = [
        "new/10.b",
        "cur/9.z:2,S",
        "new/10.a",
        "cur/1700000000.x:2,",
        "new/x",
        "new/999999999.y",
    ]
    for name in names:
        (maildir / name).write_bytes(BODY)
    assert listed(maildir).uids == [
        b"9.z", b"10.a", b"10.b", b"999999999.y", b"1700000000.x", b"x",
    ]  # fmt: skip


def test_order_takes_hashed_ids_by_their_names(maildir: Path) -> None:
    """The hash says nothing about the arrival."""
    names = [f"17000000{n:02}.a {n}" for n in range(20)]
    for name in names:
        (maildir / "new" / name).write_bytes(BODY)
    assert listed(maildir).uids == [hashed(name.encode()) for name in names]


def test_only_regular_files_without_a_dot_are_messages(maildir: Path, tmp_path: Path) -> None:
    """Directories, links, pipes, sockets and dot files are passed over."""
    new = maildir / "new"
    (tmp_path / "secret").write_bytes(b"secret\n")
    (new / "1.directory").mkdir()
    (new / "2.link").symlink_to(tmp_path / "secret")
    os.mkfifo(new / "3.fifo")
    (new / ".4.dot").write_bytes(BODY)
    (new / "6.message").write_bytes(BODY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{new}/5.socket")
        assert rows(listed(maildir)) == [(b"6.message", len(crlf(BODY)))]


@pytest.mark.parametrize("missing", [["new"], ["cur"], ["new", "cur"]])
def test_missing_folder_is_an_empty_one_and_not_made(maildir: Path, missing: list[str]) -> None:
    """A half-made maildir can be read; reading makes nothing."""
    for folder in ("new", "cur"):
        if folder in missing:
            (maildir / folder).rmdir()
        else:
            (maildir / folder / "1.a").write_bytes(BODY)
    before = sorted(maildir.rglob("*"))
    assert len(listed(maildir)) == 2 - len(missing)
    assert sorted(maildir.rglob("*")) == before


def test_missing_maildir_is_empty(tmp_path: Path) -> None:
    """No such directory: no messages, and nothing is made."""
    assert len(listed(tmp_path / "none")) == 0
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_link_is_refused(maildir: Path, tmp_path: Path) -> None:
    """cur/ that points elsewhere would show another user's mail."""
    (maildir / "cur").rmdir()
    (tmp_path / "other").mkdir()
    (maildir / "cur").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        listed(maildir)


def test_maildir_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    """Only a missing one counts as empty."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        listed(tmp_path / "file")


def test_message_in_both_folders_is_one_in_cur(maildir: Path) -> None:
    """A move seen half-way is one message, under its new name."""
    (maildir / "new/1.a").write_bytes(BODY)
    (maildir / "cur/1.a:2,S").write_bytes(BODY + b"more\n")
    (maildir / "cur/1.a:2,").write_bytes(BODY)
    index = listed(maildir)
    assert rows(index) == [(b"1.a", len(crlf(BODY + b"more\n")))]
    assert file_at(index.uids[0], index.places) == (1, b"1.a:2,S")


@given(
    content=st.lists(
        st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"a", b"\0\xff", b"x" * 16384, b"y" * 16383]),
        max_size=40,
    ).map(b"".join)
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_size_is_that_of_the_message_as_sent(maildir: Path, content: bytes) -> None:
    """Any octets, cut anywhere by the reading: the size is the length after CRLF."""
    file = maildir / "new/1.a"
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    assert list(listed(maildir).sizes) == [len(crlf(content))]


def test_known_message_is_not_read_again(maildir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only new (id, inode) pairs are opened; a flag or a move changes neither."""
    (maildir / "new/1.a").write_bytes(BODY)
    first = listed(maildir)
    (maildir / "new/1.a").rename(maildir / "cur/1.a:2,S")
    (maildir / "new/2.b").write_bytes(BODY)
    counted: list[bytes] = []
    count = maildir_scan.sent_size
    monkeypatch.setattr(maildir_scan, "sent_size", lambda data: counted.append(data) or count(data))
    second = listed(maildir, first)
    assert second.uids == [b"1.a", b"2.b"]
    assert len(counted) == 1


def test_large_message_keeps_its_stamp_once_it_is_settled(maildir: Path) -> None:
    """A message above one block is remembered with size and time, but not if it is brand-new."""
    content = b"line\n" * (BLOCK // 5 + 10)
    for name, age in (("new/1.old", 10), ("new/2.fresh", 0)):
        (maildir / name).write_bytes(content)
        os.utime(maildir / name, (time.time() - age,) * 2)
    index = listed(maildir)
    found = (maildir / "new/1.old").stat()
    assert index.large == {0: (found.st_ino, found.st_size, found.st_mtime_ns), 1: UNSETTLED}
    (maildir / "new/0.first").write_bytes(BODY)
    assert set(listed(maildir, index).large) == {1, 2}
    assert list(index.sizes) == [len(crlf(content))] * 2


def test_trusted_name_spares_the_reading(maildir: Path) -> None:
    """With trust the number in the name is the size; without, and after, it is not."""
    (maildir / "new/1.a,S=3,W=77").write_bytes(BODY)
    (maildir / "new/2.a,S=3").write_bytes(BODY)
    index = listed(maildir, trust_names=True)
    assert list(index.sizes) == [77, len(crlf(BODY))]
    assert index.believed
    later = listed(maildir, index)
    assert list(later.sizes) == [len(crlf(BODY))] * 2
    assert not later.believed


def test_corrected_size_beats_the_name(maildir: Path, tmp_path: Path) -> None:
    """What reading has shown is not given up for the number in the name."""
    (maildir / "new/1.a,W=77").write_bytes(BODY)
    path = str(tmp_path / "index")
    save(listed(maildir, trust_names=True), path)
    amend(path, b"1.a,W=77", 25)
    (maildir / "new/2.b").write_bytes(BODY)
    assert list(listed(maildir, load(path), trust_names=True).sizes) == [25, len(crlf(BODY))]


def test_unreadable_message_is_left_out_and_asked_again(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file with wrong rights does not lock its owner out, and is there once it is mended."""
    opened = os.open

    def refused(path: bytes, flags: int, **options: int) -> int:
        if path == b"1.a":  # the tests may run as root, whom no mode keeps out
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, **options)

    (maildir / "new/1.a").write_bytes(BODY)
    (maildir / "new/2.b").write_bytes(BODY)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        patch.setattr(maildir_scan, "SETTLE_NS", -(10**12))
        index = listed(maildir)
    assert (index.uids, index.skipped, index.folders) == (
        [b"2.b"],
        [b"1.a"],
        (UNSETTLED, UNSETTLED),
    )
    assert listed(maildir, index).uids == [b"1.a", b"2.b"]


def test_failing_disk_is_an_error_and_no_missing_message(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail that cannot be read for a while must not look like deleted mail."""
    (maildir / "new/1.a").write_bytes(BODY)

    def failing(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", failing)
    with pytest.raises(OSError, match="Input/output"):
        listed(maildir)
