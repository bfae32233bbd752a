"""No call of an mbox commit is one at which a crash or an error loses, damages or doubles mail."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3.sources import mbox_commit, mbox_scan
from pop3.sources.mbox_commit import SYSTEM, Files, JournalRefused, commit, recover
from pop3.sources.mbox_forms import MBOX
from pop3.sources.mbox_index import MboxIndex
from tests.crash.faultyos import WRITING, FaultyOS, Killed

COUNT = 7
CHUNK = 4096  # small, so that there are more calls to fail at
LONG = 3  # this message is longer than a block
LATE = b"From late@example.org Thu Jan  1 00:00:02 1970\nSubject: late\n\nlate delivery\n\n"
LONG_LATE = LATE[:-1] + b"a long one, longer than what is deleted\n" * 200 + b"\n"
DELETIONS = [{0}, {6}, {2, 4}, {0, 1, 5}, set(range(7))]


def text(number: int) -> bytes:
    """Return a message with its envelope, as it is stored."""
    body = b"%d: a line of the body\n" % number * (3000 if number == LONG else 3 + 20 * number)
    return b"From a@example.org Thu Jan  1 00:00:01 1970\nSubject: %d\n\n%b\n" % (number, body)


MAIL = [text(number) for number in range(COUNT)]

# -- the judge: line by line, without a line of the server's code ----------------------------------


def judge(stored: bytes, kept: list[bytes], deleted: list[bytes]) -> list[str]:
    """Return what is wrong with a mailbox that must hold these messages, and those all or none."""
    found: list[bytes] = []
    blank = True
    for line in stored.split(b"\n"):
        if blank and line[:5] == b"From ":
            found.append(b"")
        if found:
            found[-1] += line + b"\n"
        elif line:
            return ["damaged: rubbish at the beginning"]
        blank = not line
    if found:
        found[-1] = found[-1][:-1]  # after the last LF is no line
    faults = [f"damaged: {one[:60]!r}" for one in found if one not in kept + deleted]
    faults += [f"lost: {one[-30:]!r}" for one in kept if one not in found]
    faults += [f"doubled: {one[-30:]!r}" for one in kept + deleted if found.count(one) > 1]
    if len({one in found for one in deleted}) > 1:
        faults.append("only some are deleted")
    order = [*MAIL, LATE, LONG_LATE]
    if not faults and found != sorted(found, key=order.index):
        faults.append("out of order")
    return faults


class Box:
    """A mailbox with a journal's place beside it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.path = directory / "anna"
        self.journal = str(directory / "journal")
        self.path.write_bytes(b"".join(MAIL))
        self.descriptor = os.open(self.path, os.O_RDWR)

    def index(self) -> MboxIndex:
        """List it."""
        return mbox_scan.scan(self.descriptor, MBOX, MboxIndex(), lambda: None)

    def deliver(self, message: bytes = LATE) -> None:
        """Append as a delivery agent does."""
        with self.path.open("ab") as file:
            file.write(message)

    def fail(self, gone: set[int], files: FaultyOS, act: Callable[..., None] = commit) -> str:
        """Run a commit that goes wrong; return how it ended."""
        try:
            act(self.descriptor, self.index(), gone, self.journal, files=files)
        except Killed:
            return "killed"
        except OSError:
            return "error"
        else:
            return "done"
        finally:
            files.bury()

    def faults(self, gone: set[int], late: bytes = b"") -> list[str]:
        """Ask the judge."""
        kept = [MAIL[i] for i in range(COUNT) if i not in gone] + [late] * bool(late)
        return judge(self.path.read_bytes(), kept, [MAIL[i] for i in sorted(gone)])

    def deleted(self, gone: set[int]) -> bool:
        """Tell whether the messages are gone."""
        return all(MAIL[i] not in self.path.read_bytes() for i in gone)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mbox_commit, "_CHUNK", CHUNK)


@pytest.fixture
def new_box(tmp_path: Path) -> Iterator[Callable[[], Box]]:
    """Return a maker of fresh mailboxes."""
    boxes: list[Box] = []

    def made() -> Box:
        boxes.append(Box(tmp_path / str(len(boxes))))
        return boxes[-1]

    yield made
    for box in boxes:
        os.close(box.descriptor)


def calls_of(box: Box, gone: set[int]) -> list[str]:
    """Return the calls of a commit that goes well."""
    files = FaultyOS()
    assert box.fail(gone, files) == "done"
    return files.calls


@pytest.mark.parametrize("gone", DELETIONS, ids=str)
def test_commit_takes_out_what_was_asked(new_box: Callable[[], Box], gone: set[int]) -> None:
    """All of it and nothing else; neither journal nor temporary file stays."""
    box = new_box()
    calls = calls_of(box, gone)
    assert box.path.read_bytes() == b"".join(MAIL[i] for i in range(COUNT) if i not in gone)
    assert os.listdir(box.path.parent) == ["anna"]
    order = [name for name in calls if name in {"rename", "fsync", "ftruncate", "unlink"}]
    assert order == [
        *("fsync", "fsync", "rename", "fsync"),  # the journal, the mailbox, the name, its directory
        *("fsync", "ftruncate", "fsync"),  # the mailbox
        *("unlink", "fsync"),
    ]


@pytest.mark.parametrize("late", [b"", LATE, LONG_LATE], ids=["alone", "late", "long and late"])
@pytest.mark.parametrize("gone", DELETIONS, ids=str)
def test_killed_at_every_call(new_box: Callable[[], Box], gone: set[int], late: bytes) -> None:
    """After recovery all is there, whole and once; before the journal's name nothing was done."""
    calls = calls_of(new_box(), gone)
    named = calls.index("rename")
    for at in range(len(calls)):
        box = new_box()
        assert box.fail(gone, FaultyOS(at)) == "killed"
        if late:
            box.deliver(late)
        recovered = recover(box.descriptor, box.journal)
        assert box.faults(gone, late) == [], (at, calls[at])
        assert box.deleted(gone) == (at > named), (at, calls[at])
        assert recovered == (named < at < len(calls) - 3), (at, calls[at])
        assert not recover(box.descriptor, box.journal)


@pytest.mark.parametrize("late", [b"", LATE, LONG_LATE], ids=["alone", "late", "long and late"])
def test_killed_again_during_recovery(
    new_box: Callable[[], Box], late: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovery that dies too, at each of its calls, is done by the next one."""
    monkeypatch.setattr(mbox_commit, "_CHUNK", 65536)  # all pairs of calls are tried
    gone = {1, 2, 4}
    calls = calls_of(new_box(), gone)
    for at in range(calls.index("rename") + 1, len(calls) - 3):
        if calls[at] not in {"pwrite", "ftruncate", "unlink"}:
            continue
        second = 0
        while True:
            box = new_box()
            box.fail(gone, FaultyOS(at))
            if late:
                box.deliver(late)
            files = FaultyOS(second)
            try:
                recover(box.descriptor, box.journal, files=files)
                break
            except Killed:
                files.bury()
            recover(box.descriptor, box.journal)
            assert box.faults(gone, late) == [], (at, second)
            assert box.deleted(gone)
            second += 1
        assert second > 10


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("late", [b"", LATE], ids=["alone", "late"])
@pytest.mark.parametrize("gone", [{2, 4}, {0, 1, 5}], ids=str)
def test_error_at_every_call(
    new_box: Callable[[], Box], gone: set[int], late: bytes, error: int, lasting: bool
) -> None:
    """An error is told, and without a journal nothing was done."""
    calls = calls_of(new_box(), gone)
    for at, name in enumerate(calls):
        if name == "close":
            continue
        box = new_box()
        assert box.fail(gone, FaultyOS(at, error, lasting=lasting)) == "error", (at, name)
        if not os.path.exists(box.journal) and at < len(calls) - 4:
            assert not box.deleted(gone), (at, name)
        if not lasting:
            assert not os.path.exists(f"{box.journal}.tmp"), (at, name)
        if late:
            box.deliver(late)
        recover(box.descriptor, box.journal)
        assert box.faults(gone, late) == [], (at, name)
        assert box.deleted(gone) == (at > calls.index("rename")), (at, name)


# -- a commit without a journal, and one with rename: the judge must see what they do --------------


def in_place(
    mailbox: int, index: MboxIndex, gone: set[int], journal: str, *, files: Files = SYSTEM
) -> None:
    """Rewrite without a journal, as most servers do."""
    data = os.pread(mailbox, index.size, 0)
    kept = b"".join(data[slice(*index.share(i))] for i in range(len(index)) if i not in gone)
    for at in range(0, len(kept), 4096):
        files.pwrite(mailbox, kept[at : at + 4096], at)
    files.ftruncate(mailbox, len(kept))


def test_judge_sees_a_commit_without_journal(new_box: Callable[[], Box]) -> None:
    """Killed half-way it leaves damage."""
    gone = {0, 2}
    files = FaultyOS()
    assert new_box().fail(gone, files, in_place) == "done"
    bad = 0
    for at in range(len(files.calls)):
        box = new_box()
        box.fail(gone, FaultyOS(at), in_place)
        recover(box.descriptor, box.journal)
        bad += bool(box.faults(gone))
    assert bad > len(files.calls) // 2


def by_rename(
    mailbox: int, index: MboxIndex, gone: set[int], journal: str, *, files: Files = SYSTEM
) -> None:
    """Write a new file and give it the mailbox's name, as is often advised."""
    data = os.pread(mailbox, index.size, 0)
    kept = b"".join(data[slice(*index.share(i))] for i in range(len(index)) if i not in gone)
    new = files.open(f"{journal}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    files.pwrite(new, kept, 0)
    files.fsync(new)
    files.close(new)
    files.rename(f"{journal}.new", os.readlink(f"/proc/self/fd/{mailbox}"))


@pytest.mark.parametrize("act", [commit, by_rename], ids=["ours", "rename"])
def test_agent_that_opened_before_the_lock(
    new_box: Callable[[], Box], act: Callable[..., None]
) -> None:
    """It appends when it gets the lock: kept by us, and the judge sees it lost by a rename."""
    gone = {1, 4}
    box = new_box()
    with box.path.open("ab") as agent:
        assert box.fail(gone, FaultyOS(), act) == "done"
        agent.write(LATE)
    faults = box.faults(gone, LATE)
    assert faults == [] if act is commit else [one[:5] for one in faults] == ["lost:"]


def test_there_are_more_than_500_fault_points(new_box: Callable[[], Box]) -> None:
    """Writing calls at which the tests above kill or fail a commit, with and without late mail."""
    writing = [sum(name in WRITING for name in calls_of(new_box(), gone)) for gone in DELETIONS]
    kills = 3 * sum(writing)
    errors = 8 * (writing[DELETIONS.index({2, 4})] + writing[DELETIONS.index({0, 1, 5})])
    assert kills + errors >= 500, (kills, errors)


def test_judge_sees_each_fault() -> None:
    """Lost, doubled, damaged, half deleted, in disorder."""
    kept, deleted = MAIL[:2], MAIL[2:4]
    whole = b"".join(kept)
    assert judge(whole, kept, deleted) == []
    assert judge(whole + b"".join(deleted), kept, deleted) == []
    for stored in (
        MAIL[0],
        MAIL[1] + MAIL[0],
        whole + MAIL[0],
        whole + MAIL[2],
        MAIL[0][:50] + MAIL[1],
        b"x" + whole,
        whole[:-1],
    ):
        assert judge(stored, kept, deleted) != [], stored[:80]


def test_journal_of_another_mailbox_is_refused(new_box: Callable[[], Box]) -> None:
    """A mailbox that was rewritten by another program is not touched."""
    calls = calls_of(new_box(), {2, 4})
    box = new_box()
    box.fail({2, 4}, FaultyOS(calls.index("rename") + 1))
    stored = b"".join(MAIL[1:])
    box.path.write_bytes(stored)
    with pytest.raises(JournalRefused):
        recover(box.descriptor, box.journal)
    assert box.path.read_bytes() == stored
    assert os.path.exists(box.journal)


def test_mailbox_changed_after_the_cut_is_refused(new_box: Callable[[], Box]) -> None:
    """The commit was all but done when it died; what another program changed since is kept."""
    calls = calls_of(new_box(), {2, 4})
    box = new_box()
    assert box.fail({2, 4}, FaultyOS(calls.index("unlink"))) == "killed"
    stored = box.path.read_bytes().replace(b"Subject: 6", b"Subject: 7")
    box.path.write_bytes(stored)
    with pytest.raises(JournalRefused):
        recover(box.descriptor, box.journal)
    assert box.path.read_bytes() == stored


def test_damaged_journal_is_refused(new_box: Callable[[], Box]) -> None:
    """One octet that is another is found out before anything is written."""
    calls = calls_of(new_box(), {2, 4})
    box = new_box()
    box.fail({2, 4}, FaultyOS(calls.index("rename") + 1))
    journal = Path(box.journal)
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    with pytest.raises(JournalRefused):
        recover(box.descriptor, box.journal)
    assert box.faults(set()) == []
