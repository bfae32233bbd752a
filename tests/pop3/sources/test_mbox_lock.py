"""Locks against delivery agents: which, in what order, whose are respected."""

import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.errors import MailboxInUse
from pop3.sources import mbox, mbox_dotlock, mbox_lock
from tests.pop3.sources.test_mbox import LARGE, ONE, TWO, Login, Site, stored


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site with a mailbox for anna."""
    site = Site(tmp_path)
    site.box.write_bytes(stored(ONE, TWO, LARGE))
    return site


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "rb+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def hold_dotlock(site: Site, owner: str) -> None:
    """Leave a dotlock of somebody, untouched for an hour."""
    site.lock.write_text(owner)
    past = time.time() - 3600
    os.utime(site.lock, (past, past))


def dead_pid() -> int:
    """Return a process id that no process has."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(30)
        return process.pid


@pytest.mark.parametrize("owner", ["", "0", "me", "host", "dead elsewhere"])
def test_dotlock_of_somebody_is_respected(site: Site, owner: str) -> None:
    """Alive, on another host or not known: it stays, and the client is told after --lock-wait."""
    host = socket.gethostname()
    text = {
        "me": f"{os.getpid()} {host} 1\n",
        "host": f"{os.getpid()} elsewhere 1\n",
        "dead elsewhere": f"{dead_pid()} elsewhere 1\n",
    }.get(owner, owner)
    hold_dotlock(site, text)
    login = Login(site.server(mbox_stale_lock=0))
    with pytest.raises(MailboxInUse):
        login.list()
    assert login.connection.paused == pytest.approx(0.5)
    assert site.lock.read_text() == text
    assert sorted(os.listdir(site.mail)) == ["anna", "anna.lock"]


def test_dotlock_of_the_dead_is_removed_when_it_is_old(site: Site) -> None:
    """Not at once: the process may live where its id is not seen."""
    hold_dotlock(site, f"{dead_pid()} {socket.gethostname()} 1\n")
    ahead = time.time() + 60
    os.utime(site.lock, (ahead, ahead))
    with pytest.raises(MailboxInUse):
        site.login()
    hold_dotlock(site, site.lock.read_text())
    assert len(site.login().listing) == 3
    assert os.listdir(site.mail) == ["anna"]


def test_lock_of_the_file_is_waited_for(site: Site) -> None:
    """The dotlock is given back meanwhile, for agents that take the two in the other order."""
    login = Login(site.server())
    command = [sys.executable, "-c", HOLD, str(site.box)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"locked\n"
        with pytest.raises(MailboxInUse):
            login.list()
        seen = []

        def let_go() -> None:
            seen.append(site.lock.exists())
            agent.communicate(timeout=30)
            login.connection.on_pause = lambda: None

        login.connection.on_pause = let_go
        assert len(login.list()) == 3
        assert seen == [False]


def test_dotlock_is_refreshed_during_long_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivery agents remove locks that look forgotten; one taken away is not made again."""
    monkeypatch.setattr(mbox_dotlock, "REFRESH_SECONDS", -1.0)
    mailbox = mbox_lock.open_mailbox(str(site.box), mbox_lock.Rules())
    assert mailbox is not None
    with mailbox:
        past = time.time() - 3600
        os.utime(site.lock, (past, past))
        mailbox.busy()
        assert site.lock.stat().st_mtime > past + 1800
        site.lock.write_text("another's")
        site.lock.unlink()
        mailbox.busy()
        hold_dotlock(site, "0")
    assert site.lock.read_text() == "0"


def test_two_of_one_process_exclude_each_other(site: Site) -> None:
    """Two names may lead to one file, and one worker may serve both; reading lets go of nothing."""
    mailbox = site.login().session.box.lock()
    assert mailbox is not None
    with mailbox:
        site.box.read_bytes()
        with pytest.raises(MailboxInUse):
            site.login(mbox_locks="fcntl")


def test_other_locks_can_be_chosen(site: Site) -> None:
    """With fcntl alone a dotlock is nothing to us."""
    hold_dotlock(site, "0")
    assert len(site.login(mbox_locks="fcntl").listing) == 3
    with pytest.raises(ValueError, match="it is a list of dotlock, fcntl, flock"):
        mbox.lock_list("lockf")


@pytest.mark.parametrize(
    "order", ["fcntl,dotlock", "flock,fcntl,dotlock", "dotlock,flock", "flock"]
)
def test_locks_in_any_order(site: Site, order: str) -> None:
    """FEATURES row 36: all of them are held while mail is taken out, and given back."""
    held = []
    login = site.login(mbox_locks=order)
    mailbox = login.session.box.lock()
    assert mailbox is not None
    with mailbox:
        with site.box.open("rb+") as other:
            for name, lock in (("flock", fcntl.flock), ("fcntl", fcntl.lockf)):
                try:
                    lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(name)
        held += ["dotlock"] * site.lock.exists()
    assert sorted(held) == sorted(order.split(","))
    login.delete(0)
    assert os.listdir(site.mail) == ["anna"]
    with site.box.open("rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("order", ["fcntl,dotlock", "flock,dotlock"])
def test_what_was_taken_first_is_given_back(site: Site, order: str) -> None:
    """An agent that takes them in the other order gets on."""
    hold_dotlock(site, f"{os.getpid()} elsewhere 1\n")
    login = Login(site.server(mbox_locks=order, mbox_stale_lock=0))

    def look() -> None:
        with site.box.open("rb+") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    login.connection.on_pause = look
    with pytest.raises(MailboxInUse):
        login.list()
    assert login.connection.paused


@pytest.mark.parametrize("content", ["", "0", "4711", "4711 elsewhere 1\n"])
def test_forgotten_dotlock_is_taken_over(site: Site, content: str) -> None:
    """Nobody has touched it for longer than any agent that lives leaves it alone."""
    hold_dotlock(site, content)
    recent = time.time() - 300
    os.utime(site.lock, (recent, recent))
    with pytest.raises(MailboxInUse):
        site.login()
    assert len(site.login(mbox_stale_lock=200.0).listing) == 3
    assert os.listdir(site.mail) == ["anna"]


def test_dotlock_of_the_living_is_never_taken_over(site: Site) -> None:
    """It waits for a disk, maybe."""
    hold_dotlock(site, f"{os.getpid()} {socket.gethostname()} 1\n")
    with pytest.raises(MailboxInUse):
        site.login(mbox_stale_lock=1.0)


def test_mailgroup_is_the_group_of_dotlocks(site: Site) -> None:
    """FEATURES row 40."""
    group = next(iter(set(os.getgroups()) - {os.getegid()}), os.getegid())
    if os.geteuid() == 0:
        group = 4711
    mailbox = site.login(mailgroup=str(group)).session.box.lock()
    assert mailbox is not None
    with mailbox:
        assert site.lock.stat().st_gid == group
    with pytest.raises(ConfigError, match="--mailgroup nosuchgroup: there is no such group"):
        mbox.group_of("nosuchgroup")
