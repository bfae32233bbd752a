"""Deletions that a crash has interrupted are found and finished without a login."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pop3.lock import MaildropLock, lock_file
from pop3.sources import mbox_recovery
from pop3.sources.mbox_lock import Rules
from pop3.sources.mbox_recovery import Interrupted, maildrop_name, may_complain, recover_all
from tests.support.processes import reachable

ENVELOPE = b"From a@example.org Thu Jan  1 00:00:00 1970\n"
MAIL = [ENVELOPE + b"Subject: %d\n\nbody of %d\n\n" % (number, number) for number in range(4)]
ROOT = Path(__file__).resolve().parents[3]

KILLED = """
import os, signal, sys
from pop3.sources.mbox_box import MboxBox
from pop3.sources.mbox_commit import Files
from pop3.sources.mbox_forms import MBOX
from pop3.sources.mbox_index import MboxIndex
from pop3.sources.mbox_lock import Rules
call, path, directory = sys.argv[1:]
if os.geteuid() == 0 and os.stat(path).st_uid:
    os.setegid(os.stat(path).st_gid)
    os.seteuid(os.stat(path).st_uid)
setattr(Files, call, staticmethod(lambda *_: os.kill(os.getpid(), signal.SIGKILL)))
box = MboxBox(path, directory + "/mbox", MBOX, Rules(), MboxIndex())
mailbox = box.lock()
box.list(mailbox)
box.delete(mailbox, {0, 2})
"""


class Site:
    """Mailboxes and a state directory."""

    def __init__(self, directory: Path) -> None:
        self.mail = directory / "mail"
        self.state = directory / "state"
        for made in (self.mail, self.state):
            made.mkdir()

    def crash(self, user: str, call: str = "ftruncate", *, fresh: bool = False) -> Path:
        """Have a process killed in the middle of a deletion; return the mailbox."""
        path = self.mail / user
        if not path.exists():
            path.write_bytes(b"".join(MAIL))
        command = [sys.executable, "-c", KILLED, call, str(path), str(self.state)]
        died = subprocess.run(command, cwd=ROOT, timeout=30, check=False)
        assert died.returncode == -signal.SIGKILL
        if not fresh:
            past = time.time() - 5
            os.utime(f"{path}.lock", (past, past))
        return path

    def journals(self) -> list[str]:
        """Return what is left."""
        return sorted(os.listdir(self.state / "mbox" / "journals"))

    def recover(self) -> list[Interrupted]:
        """Recover all."""
        return recover_all(self.state, Rules())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a place for mailboxes."""
    return Site(tmp_path)


def test_all_are_found_and_finished(site: Site) -> None:
    """The journals say where the mailboxes are."""
    boxes = [site.crash(user) for user in ("anna", "bert")]
    assert {one.path for one in site.recover()} == {str(box) for box in boxes}
    assert [box.read_bytes() for box in boxes] == [MAIL[1] + MAIL[3]] * 2
    assert site.journals() == []
    assert sorted(os.listdir(site.mail)) == ["anna", "bert"]
    assert site.recover() == []


def test_lock_that_the_dead_process_left_is_waited_for(site: Site) -> None:
    """It must be a second old: a worker that is replaced at once waits that long, once."""
    box = site.crash("anna", fresh=True)
    assert site.recover() == [Interrupted(str(box))]
    assert box.read_bytes() == MAIL[1] + MAIL[3]


def test_what_had_not_begun_leaves_no_draft(site: Site) -> None:
    """Killed before the journal had its name: nothing was done, and the room on disk is free."""
    box = site.crash("anna", "rename")
    assert len(site.journals()) == 1
    assert site.recover() == []
    assert site.journals() == []
    assert box.read_bytes() == b"".join(MAIL)


def test_locked_mailbox_holds_nobody_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, without a wait, and the others are finished."""
    locked, other = site.crash("anna"), site.crash("bert")
    monkeypatch.setattr(mbox_recovery, "STALE_SECONDS", -1e9)  # a sleep would raise ValueError
    lock = Path(f"{locked}.lock")
    lock.write_text(f"{os.getpid()} elsewhere 1\n")
    found = {one.path: one.why for one in site.recover()}
    assert found == {str(locked): "mailbox is in use by another program", str(other): ""}
    assert len(site.journals()) == 1
    lock.unlink()
    assert site.recover() == [Interrupted(str(locked))]


def test_mailbox_of_a_session_is_left_to_it(site: Site) -> None:
    """Its journal is that of a deletion that goes on at this moment."""
    box = site.crash("anna")
    lock = MaildropLock(lock_file(site.state, maildrop_name(str(box))))
    (site.state / "locks").mkdir()
    assert lock.acquire()
    assert site.recover() == []
    lock.release()
    assert len(site.recover()) == 1


def test_one_process_does_it(site: Site) -> None:
    """Several workers start at the same time."""
    site.crash("anna")
    claim = MaildropLock(f"{site.state}/mbox/recovery")
    assert claim.acquire()
    assert site.recover() == []
    claim.release()
    assert len(site.recover()) == 1


@pytest.mark.parametrize("change", ["rewritten", "missing", "link", "garbage", "other name"])
def test_what_does_not_fit_is_told_and_left_alone(site: Site, change: str) -> None:
    """Somebody must look; the line says at what."""
    box = site.crash("anna")
    journal = site.state / "mbox" / "journals" / site.journals()[0]
    stored = b"".join(MAIL[1:])
    if change == "rewritten":
        box.write_bytes(stored)
    elif change == "missing":
        box.unlink()
    elif change == "link":
        box.rename(site.mail / "other")
        box.symlink_to(site.mail / "other")
    elif change == "garbage":
        journal.write_bytes(b"x" * 1000)
    else:
        journal.rename(f"{journal}x")
    (found,) = site.recover()
    assert found.why
    assert len(site.journals()) == 1
    if change == "rewritten":
        assert box.read_bytes() == stored


def test_root_takes_the_rights_of_who_wrote_the_journal(site: Site) -> None:
    """A journal made up by a user has no file written that this user could not write."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    reachable(site.mail)
    box = site.mail / "anna"
    box.write_bytes(b"".join(MAIL))
    os.chown(box, 4711, 4711)
    site.mail.chmod(0o777)
    site.state.chmod(0o777)
    site.crash("anna")
    os.chown(box, 0, 0)
    (found,) = site.recover()
    assert "Permission denied" in found.why
    os.chown(box, 4711, 4711)
    assert site.recover() == [Interrupted(str(box))]
    assert box.read_bytes() == MAIL[1] + MAIL[3]
    assert os.geteuid() == 0


def test_complaints_are_rare(site: Site) -> None:
    """Under fork each client's process looks."""
    (site.state / "mbox").mkdir()
    assert [may_complain(site.state) for _ in range(3)] == [True, False, False]
    past = time.time() - 100
    os.utime(site.state / "mbox" / "told", (past, past))
    assert may_complain(site.state)
