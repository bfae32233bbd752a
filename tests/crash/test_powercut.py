"""A power cut at any moment of an mbox commit loses, damages and doubles nothing.

CRASH_STATES=N tries N random states for each moment instead of two: 200, with `-o timeout=0`, give
more than 50,000 in some five minutes. CRASH_SEED=N chooses others.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3.sources import mbox_commit
from pop3.sources.mbox_commit import Files, JournalRefused, commit, recover
from tests.crash.powercut import BOX, Disk, Operation, Recorder, after_power_cut
from tests.crash.test_mbox_commit import DELETIONS, LATE, MAIL, Box

STATES = int(os.environ.get("CRASH_STATES", "2"))
SEED = int(os.environ.get("CRASH_SEED", "1"))


class Quick(Files):
    """Recovery without waiting for a disk that is only a model."""

    fsync = staticmethod(lambda _: None)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """Return a mailbox."""
    box = Box(tmp_path / "box")
    yield box
    os.close(box.descriptor)


def put(disk: Disk, box: Box) -> None:
    """Make the files what a disk holds."""
    os.ftruncate(box.descriptor, 0)
    os.pwrite(box.descriptor, disk.content[BOX], 0)
    for name in os.listdir(box.path.parent):
        if name != "anna":
            (box.path.parent / name).unlink()
    for path, file in disk.names.items():
        Path(path).write_bytes(disk.content[file])


def faults_after(disk: Disk, box: Box, gone: set[int], late: bytes) -> list[str]:
    """Recover from a state of the disk; return what is wrong then."""
    put(disk, box)
    if late:
        box.deliver(late)
    try:
        recover(box.descriptor, box.journal, files=Quick())
    except (JournalRefused, EOFError) as error:
        return [f"refused: {type(error).__name__}"]
    return box.faults(gone, late)


def record(box: Box, gone: set[int], files: Recorder) -> list[Operation]:
    """Commit, and return what was done."""
    commit(box.descriptor, box.index(), gone, box.journal, path=str(box.path), files=files)
    return files.operations


@pytest.mark.parametrize("late", [b"", LATE], ids=["alone", "late"])
@pytest.mark.parametrize("gone", DELETIONS, ids=str)
def test_power_cut_at_every_moment(
    box: Box,
    gone: set[int],
    late: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All messages are there, whole and once, and those deleted are gone after `+OK`."""
    monkeypatch.setattr(mbox_commit, "_CHUNK", 4096)
    operations = record(box, gone, Recorder(box.descriptor))
    before = Disk(content={BOX: bytearray(b"".join(MAIL))})
    rng = random.Random(f"{SEED}/{sorted(gone)}/{late!r}")
    states = 0
    for moment in range(len(operations) + 1):
        for disk in after_power_cut(operations[:moment], before, rng, STATES):
            states += 1
            assert faults_after(disk, box, gone, late) == [], (moment, operations[:moment][-1:])
            if moment == len(operations):
                assert box.deleted(gone)
    print(f"{states} states")  # shown by -s
    assert states > 50


def test_mail_that_its_agent_did_not_sync_is_no_trap(box: Box) -> None:
    """Once the journal can be found, the mailbox is as the journal was told."""
    gone = {1, 3}
    operations: list[Operation] = [("write", BOX, MAIL[-1], len(b"".join(MAIL[:-1])))]
    operations += record(box, gone, Recorder(box.descriptor))
    before = Disk(content={BOX: bytearray(b"".join(MAIL[:-1]))})
    rng = random.Random(SEED)
    kinds = [operation[0] for operation in operations]
    for moment in range(kinds.index("rename"), len(operations) + 1):
        for disk in after_power_cut(operations[:moment], before, rng, STATES):
            assert faults_after(disk, box, gone, b"") == [], moment


def test_judge_sees_a_commit_that_syncs_nothing(box: Box) -> None:
    """Without fsync the same states are damaged: the model and the judge are not blind."""
    gone = {0, 1, 5}
    operations = record(box, gone, Recorder(box.descriptor, sync=False))
    before = Disk(content={BOX: bytearray(b"".join(MAIL))})
    rng = random.Random(SEED)
    bad = [
        moment
        for moment in range(len(operations) + 1)
        for disk in after_power_cut(operations[:moment], before, rng, 5)
        if faults_after(disk, box, gone, b"")
    ]
    assert len(bad) > 10
