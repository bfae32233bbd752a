"""Maildirs that other programs change: during a scan, between two logins, at any time."""

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pop3.message import hashed
from pop3.sources import maildir_scan
from pop3.sources.maildir_index import UNSETTLED, MaildirIndex, amend, load, save
from pop3.sources.maildir_scan import OpenFolders, file_at, is_current, locate, places_of, refresh
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


def reference(root: Path) -> list[tuple[bytes, int]]:
    """List a maildir in the plainest way: ids and sizes as sent."""
    files: dict[bytes, tuple[bytes, bytes]] = {}
    for folder in (b"new", b"cur"):
        directory = os.fsencode(root) + b"/" + folder
        for name in sorted(os.listdir(directory)):
            path = directory + b"/" + name
            if not name.startswith(b".") and stat.S_ISREG(os.lstat(path).st_mode):
                base = name.split(b":")[0]
                files[base] = (base, path)
    found = []
    for base, path in files.values():
        digits = re.match(rb"[0-9]+", base)
        uid = base if re.fullmatch(rb"[\x21-\x7e]{1,70}", base) else hashed(base)
        with open(os.fsdecode(path), "rb") as file:
            found.append((int(digits[0]) if digits else 10**300, base, uid, len(crlf(file.read()))))
    return [(uid, size) for _, _, uid, size in sorted(found)]


def rows(index: MaildirIndex) -> list[tuple[bytes, int]]:
    """Return ids and sizes of an index."""
    return list(zip(index.uids, index.sizes, strict=True))


# -- what happens meanwhile ---------------------------------------------------------------------


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, name: str, events: Iterator[Callable[[], object]]
) -> None:
    """Let something happen after each call of a function of the module."""
    original = getattr(maildir_scan, name)

    def then(*arguments: object) -> object:
        result = original(*arguments)
        next(events, lambda: None)()
        return result

    monkeypatch.setattr(maildir_scan, name, then)


def test_message_moved_during_the_scan_is_seen_once(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """new/ is read before cur/, so that a move between the two is no loss even in the last try."""
    monkeypatch.setattr(maildir_scan, "TRIES", 1)
    (maildir / "new/1.a").write_bytes(BODY)
    move = lambda: (maildir / "new/1.a").rename(maildir / "cur/1.a:2,S")  # noqa: E731
    meanwhile(monkeypatch, "scan", iter([move]))
    index = listed(maildir)
    assert rows(index) == [(b"1.a", len(crlf(BODY)))]
    assert file_at(index.uids[0], index.places) == (1, b"1.a:2,S")


def test_message_moved_after_the_scan_is_counted_at_its_new_place(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is gone when it is to be read makes the scan begin again."""
    (maildir / "cur/1.a:2,").write_bytes(BODY)
    move = lambda: (maildir / "cur/1.a:2,").rename(maildir / "cur/1.a:2,S")  # noqa: E731
    meanwhile(monkeypatch, "scan", iter([lambda: None, move]))
    assert rows(listed(maildir)) == [(b"1.a", len(crlf(BODY)))]


def test_message_deleted_after_the_scan_is_left_out(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be counted is not listed; the columns stay in step."""
    for name in ("1.a", "2.b", "3.c"):
        (maildir / "new" / name).write_bytes(name.encode())
    large = b"x" * (BLOCK + 1)
    (maildir / "new/4.d").write_bytes(large)
    monkeypatch.setattr(maildir_scan, "TRIES", 1)
    meanwhile(monkeypatch, "scan", iter([(maildir / "new/2.b").unlink]))
    index = listed(maildir)
    assert rows(index) == [(b"1.a", 5), (b"3.c", 5), (b"4.d", BLOCK + 3)]
    assert list(index.large) == [2]
    assert len(index.inodes) == 3
    assert index.skipped == [b"2.b"]
    assert not is_current(index, os.fsencode(maildir))


def test_scan_of_a_maildir_that_never_rests_ends(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few tries the list is taken as it is, and the next login looks again."""
    serial = iter(range(1000))

    def deliver() -> None:
        (maildir / f"new/{next(serial)}.x").write_bytes(BODY)

    meanwhile(monkeypatch, "scan", iter(lambda: deliver, None))
    index = listed(maildir)
    assert len(index) >= 4
    assert not is_current(index, os.fsencode(maildir))


def test_locate_finds_present_names(maildir: Path) -> None:
    """Places by id, as they are now."""
    (maildir / "new/1.a").write_bytes(BODY)
    (maildir / "cur/2.b:2,S").write_bytes(BODY)
    with OpenFolders(os.fsencode(maildir)) as folders:
        assert locate(folders) == {b"1.a": b"n", b"2.b": b"c:2,S"}


# -- when nothing needs to be scanned -----------------------------------------------------------


def settled(root: Path, monkeypatch: pytest.MonkeyPatch) -> MaildirIndex:
    """Return an index of directories that count as unchanged."""
    monkeypatch.setattr(maildir_scan, "SETTLE_NS", -(10**12))
    index = listed(root)
    monkeypatch.undo()
    return index


def test_index_is_current_until_a_folder_changes(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery, a removal, a flag and another directory in the place are all noticed."""
    root = os.fsencode(maildir)
    (maildir / "cur/1.a:2,").write_bytes(BODY)
    changes: list[Callable[[], object]] = [
        lambda: (maildir / "new/2.b").write_bytes(BODY),
        lambda: (maildir / "cur/1.a:2,").rename(maildir / "cur/1.a:2,S"),
        (maildir / "new/2.b").unlink,
        lambda: (maildir / "new").rename(maildir / "old") and (maildir / "new").mkdir(),
        lambda: os.utime(maildir / "cur", (1, 1)),
    ]
    for change in changes:
        index = settled(maildir, monkeypatch)
        assert is_current(index, root)
        time.sleep(0.02)  # longer than the file system's clock ticks
        change()
        assert not is_current(index, root)


def test_restored_time_stamp_does_not_hide_a_change(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that restores mail and then the directory's time is noticed by the change time."""
    index = settled(maildir, monkeypatch)
    before = (maildir / "new").stat()
    time.sleep(0.02)
    (maildir / "new/1.a").write_bytes(BODY)
    os.utime(maildir / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not is_current(index, os.fsencode(maildir))


def test_fresh_change_is_not_settled(maildir: Path) -> None:
    """A directory changed just now could change again with the same time stamp."""
    (maildir / "new/1.a").write_bytes(BODY)
    index = listed(maildir)
    assert index.folders == (UNSETTLED, UNSETTLED)
    assert not is_current(index, os.fsencode(maildir))


def test_unchanged_folder_is_taken_from_the_index(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery into new/ does not cost a scan of cur/."""
    (maildir / "cur/1.a:2,S").write_bytes(BODY)
    (maildir / "cur/2 b:2,S").write_bytes(BODY)
    old = settled(maildir, monkeypatch)
    time.sleep(0.02)
    (maildir / "new/3.c").write_bytes(BODY)
    scanned: list[int] = []
    scan = maildir_scan.scan
    monkeypatch.setattr(maildir_scan, "scan", lambda fd: scanned.append(fd) or scan(fd))
    index = listed(maildir, old)
    assert len(scanned) == 1
    assert rows(index) == reference(maildir)


# -- anything at all ----------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["1700000001.a", "1700000002.b,S=1,W=2", "1700000003.c d", "17.e", "f", "x" * 80, "1.ü", "2.\n"]
)
FLAGS = st.sampled_from(["", ":2,", ":2,S", ":2,FS", ":x"])
CONTENT = st.sampled_from([b"", b"a", b"a\n", b"\n.\n", b"a\r\nb\r\n", b"\r", b"\n" * 20000])
TICK = 0.02


class ManyHands(RuleBasedStateMachine):
    """Other programs do what they like; every login must see what a plain look sees."""

    @initialize()
    def make(self) -> None:
        """Make an empty maildir and set the clocks: 20 ms stand for the 2 s of real life."""
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(maildir_scan, "SETTLE_NS", int(TICK * 1e9))
        base = Path(os.environ["PYTEST_MAILDIRS"])
        self.root = base / os.urandom(8).hex()
        self.index = f"{self.root}.index"
        self.rewritten: set[bytes] = set()
        for folder in ("new", "cur"):
            (self.root / folder).mkdir(parents=True)

    def file(self, name: str) -> Path | None:
        """Return the file of a message, wherever it is."""
        files = [
            file
            for folder in ("new", "cur")
            for file in (self.root / folder).iterdir()
            if file.name.partition(":")[0] == name
        ]
        return files[0] if files else None

    @rule(name=NAMES, content=CONTENT)
    def deliver(self, name: str, content: bytes) -> None:
        """Put a message into new/, unless that name is in use."""
        if self.file(name) is None:
            (self.root / "new" / name).write_bytes(content)
            self.rewritten.add(os.fsencode(name))  # it may get the inode of one just deleted

    @rule(name=NAMES, flags=FLAGS)
    def flag(self, name: str, flags: str) -> None:
        """Move a message to cur/, with some flags."""
        if file := self.file(name):
            file.rename(self.root / "cur" / (name + flags))

    @rule(name=NAMES)
    def back(self, name: str) -> None:
        """Move a message to new/."""
        if file := self.file(name):
            file.rename(self.root / "new" / name)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        """Delete a message."""
        if file := self.file(name):
            file.unlink()

    @rule(name=NAMES, content=CONTENT)
    def replace(self, name: str, content: bytes) -> None:
        """Put another file in the place of a message."""
        if file := self.file(name):
            other = self.root / "other"
            other.write_bytes(content)
            other.rename(file)
            self.rewritten.add(os.fsencode(name))

    @rule(name=NAMES, content=CONTENT)
    def rewrite(self, name: str, content: bytes) -> None:
        """Write into the file of a message."""
        if file := self.file(name):
            file.write_bytes(content)
            self.rewritten.add(os.fsencode(name))

    @rule()
    def litter(self) -> None:
        """Make things that are no messages."""
        for folder in ("new", "cur"):
            (self.root / folder / "5.dir").mkdir(exist_ok=True)
            (self.root / folder / ".6").write_bytes(b"")
            (self.root / folder / "7.link").unlink(missing_ok=True)
            (self.root / folder / "7.link").symlink_to("/etc/passwd")

    @rule()
    def wait(self) -> None:
        """Let the directories settle."""
        time.sleep(TICK + 0.01)

    def login(self) -> MaildirIndex:
        """List as the server does."""
        root = os.fsencode(self.root)
        old = load(self.index)
        if old is None or not is_current(old, root):
            new = refresh(root, old or MaildirIndex())
            if new != old:
                save(new, self.index)
            return new
        return old

    @invariant()
    def every_login_is_right(self) -> None:
        """Names and order are always right; sizes too, but for files written to in their place.

        Those are noticed when they are opened, and are right from the next login on.
        """
        if not hasattr(self, "root"):
            return
        seen, true = rows(self.login()), reference(self.root)
        assert [uid for uid, _ in seen] == [uid for uid, _ in true]
        wrong = [uid for (uid, said), (_, size) in zip(seen, true, strict=True) if said != size]
        known = {places_of(0, [name])[0][0] for name in self.rewritten}
        assert set(wrong) <= known
        for uid in wrong:
            amend(self.index, uid, None)
        assert rows(self.login()) == true


def test_any_sequence_of_changes_is_listed_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See ManyHands."""
    monkeypatch.setenv("PYTEST_MAILDIRS", str(tmp_path))
    run_state_machine_as_test(
        ManyHands, settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
    )
