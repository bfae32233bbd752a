"""The index file: what is written comes back, and what is damaged counts as missing."""

import os
import stat
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3.sources.maildir_index import (
    UNSETTLED,
    MaildirIndex,
    amend,
    index_path,
    load,
    save,
    split,
)

UINT64 = st.integers(0, 2**64 - 1)
STAMPS = st.tuples(UINT64, UINT64, UINT64)
FILE_NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & set(name))


def an_index() -> MaildirIndex:
    """Return an index with something in each column."""
    return MaildirIndex(
        uids=[b"1700000000.a", b"1700000001.b"],
        sizes=array("q", [12, 300_000]),
        inodes=array("Q", [7, 2**64 - 1]),
        places=b"n\0c:2,S",
        large={1: (2**64 - 1, 299_999, 5)},
        folders=((1, 2, 3), (4, 5, 6)),
        believed=True,
    )


@st.composite
def indexes(draw: st.DrawFn) -> MaildirIndex:
    """Make any index there could be."""
    uids = draw(st.lists(FILE_NAMES, max_size=8))
    places = [draw(st.sampled_from([b"n", b"c", b"N", b"C"])) + draw(FILE_NAMES) for _ in uids]
    positions = st.integers(0, max(len(uids) - 1, 0))
    return MaildirIndex(
        uids=uids,
        sizes=array("q", [draw(st.integers(0, 2**63 - 1)) for _ in uids]),
        inodes=array("Q", [draw(UINT64) for _ in uids]),
        places=b"\0".join(places),
        large=draw(st.dictionaries(positions, STAMPS, max_size=3)),
        folders=(draw(STAMPS), draw(STAMPS)),
        believed=draw(st.booleans()),
    )


@given(index=indexes())
def test_load_gives_back_what_was_saved(
    index: MaildirIndex, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every column survives, with any octets that a file name may have."""
    path = str(tmp_path_factory.getbasetemp() / "index-file")
    save(index, path)
    assert load(path) == index


def test_split_undoes_join_for_any_count() -> None:
    """No names and one empty name are two things."""
    assert split(b"", 0) == []
    assert split(b"", 1) == [b""]
    assert split(b"a\0b", 2) == [b"a", b"b"]


def test_saved_file_is_private_and_alone(tmp_path: Path) -> None:
    """The file is for its owner only, its directory too, and no temporary file stays."""
    path = tmp_path / "state" / "index" / "x"
    save(an_index(), str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["x"]


def test_every_damaged_octet_and_every_cut_is_noticed(tmp_path: Path) -> None:
    """A torn or changed file counts as missing; no octet of it is without a check."""
    path = tmp_path / "x"
    save(an_index(), str(path))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        assert load(str(path)) is None, f"cut at {at}"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert load(str(path)) is None, f"octet {at} changed"
    path.write_bytes(whole + b"\0")
    assert load(str(path)) is None


def test_load_takes_no_link_and_no_directory(tmp_path: Path) -> None:
    """Only a regular file is an index."""
    save(an_index(), str(tmp_path / "x"))
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for name in ("link", "missing", "."):
        assert load(str(tmp_path / name)) is None


def test_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """When the new file cannot take its place, the old one stays and nothing else does."""
    path = tmp_path / "x"
    path.mkdir()  # rename over a directory fails
    with pytest.raises(OSError):
        save(an_index(), str(path))
    assert list(tmp_path.iterdir()) == [path]


def test_save_on_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write is an error, and its file is taken away."""
    written = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: written(descriptor, data[:10]))
    with pytest.raises(OSError, match="No space"):
        save(an_index(), str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_amend_corrects_one_size(tmp_path: Path) -> None:
    """A size found otherwise replaces the old one; the list stays valid."""
    path = str(tmp_path / "x")
    save(an_index(), path)
    amend(path, b"1700000001.b", 99)
    changed = load(path)
    assert changed is not None
    assert list(changed.sizes) == [12, 99]
    assert changed.folders == an_index().folders
    assert changed.large == {}


def test_amend_forgets_one_message(tmp_path: Path) -> None:
    """A forgotten message has no inode any more, and the directories must be scanned."""
    path = str(tmp_path / "x")
    save(an_index(), path)
    amend(path, b"1700000000.a", None)
    changed = load(path)
    assert changed is not None
    assert changed.inodes[0] == 0
    assert changed.folders == (UNSETTLED, UNSETTLED)


def test_amend_without_an_index_or_message_does_nothing(tmp_path: Path) -> None:
    """What is not known cannot be wrong."""
    path = str(tmp_path / "x")
    amend(path, b"a", 1)
    assert load(path) is None
    save(an_index(), path)
    amend(path, b"other", 1)
    assert load(path) == an_index()


def test_index_path_is_one_for_each_maildir_and_readable() -> None:
    """Maildirs never share a file; a person can see whose it is; the name is short and plain."""
    roots = [b"/srv/a/b", b"/srv/a_b", b"/srv/a/B", b"/srv/" + b"x" * 4000, b"/srv/\xff\n/../z"]
    names = [index_path("/state/index", root) for root in roots]
    assert len(set(names)) == len(roots)
    assert names[0].endswith("-srv_a_b")
    for name in names:
        tail = name.removeprefix("/state/index/")
        assert "/" not in tail
        assert tail.isascii()
        assert len(tail) < 120
