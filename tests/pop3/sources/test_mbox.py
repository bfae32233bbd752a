"""The mbox source as the core calls it: list, read, delete, locks, and what a client is told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from pop3.errors import PermanentFailure, POP3Error, TemporaryFailure
from pop3.message import Listing, Message
from pop3.session import Session
from pop3.sources import SOURCES, mbox
from pop3.sources.mbox import MboxSettings, POP3Mbox
from pop3.wire import BLOCK, crlf

if TYPE_CHECKING:
    from pop3.sources.mbox_box import MboxBox

ENVELOPE = b"From a@example.org Thu Jan  1 00:00:00 1970\n"
ONE = b"Subject: one\n\nhello\n"
TWO = b"Subject: two\n\n>From here\n.dot\n"
LARGE = b"Subject: large\n\n" + b"a line of text\n" * (BLOCK // 10)
THREE = b"Subject: three\n\nlate\n"
ROOT = Path(__file__).resolve().parents[3]


def stored(*messages: bytes) -> bytes:
    """Return an mbox of these."""
    return b"".join(ENVELOPE + message + b"\n" for message in messages)


class Log(list[tuple[str, dict[str, Any]]]):
    """Collects what is logged."""

    def warning(self, event: str, **fields: Any) -> None:
        """Note an event."""
        self.append((event, fields))

    error = warning


class Client:
    """The parts of a connection that a source uses; `on_pause` is what happens meanwhile."""

    def __init__(self) -> None:
        self.pools: list[str] = []
        self.paused = 0.0
        self.on_pause: Callable[[], None] = lambda: None

    def run_blocking(self, pool: str, function: Callable[..., Any], *args: Any) -> Any:
        """Run the function here, as the serial personalities do."""
        self.pools.append(pool)
        return function(*args)

    def pause(self, seconds: float) -> None:
        """Let the time pass."""
        self.paused += seconds
        self.on_pause()


class Login:
    """A session of one user, with the calls the core makes."""

    def __init__(self, server: POP3Mbox) -> None:
        self.server = server
        self.connection = Client()
        self.session: Session[MboxBox] = Session(cast("Any", self.connection))
        self.session.user = "anna"
        self.log = Log()
        self.session._log = cast("Any", self.log)

    def read_all(self) -> list[bytes]:
        """Read them all."""
        return [self.read(index) for index in range(len(self.listing))]

    def list(self) -> list[tuple[str, int | None]]:
        """Open the box and return ids and sizes."""
        self.session.box = self.server.open_box(self.session)
        self.listing = Listing.of(self.server.list_messages(self.session))
        return [(message.uid, message.size) for message in self.messages()]

    def messages(self) -> Sequence[Message]:
        """Return the messages as the core passes them."""
        return [self.listing.message(index) for index in range(len(self.listing))]

    def read(self, index: int) -> bytes:
        """Read one message."""
        with self.server.read_message(self.session, self.listing.message(index)) as stream:
            return stream.read()

    def delete(self, *indexes: int) -> None:
        """Delete as QUIT does."""
        messages = self.messages()
        self.server.delete_messages(self.session, [messages[index] for index in indexes])


class Site:
    """A server with a mail directory and a state directory, without network."""

    def __init__(self, directory: Path) -> None:
        self.mail = directory / "mail"
        self.mail.mkdir()
        self.box = self.mail / "anna"
        self.lock = self.mail / "anna.lock"
        self.state = directory / "state"

    def login(self, **options: Any) -> Login:
        """Return a session whose box is listed."""
        login = Login(self.server(**options))
        login.list()
        return login

    def server(self, **options: Any) -> POP3Mbox:
        """Return a server as it is after start-up."""
        server = POP3Mbox.__new__(POP3Mbox)
        settings = {"mbox": f"{self.mail}/{{user}}", "lock_wait": 0.5, **options}
        vars(server).update(
            settings=MboxSettings(**settings), state_directory=self.state, delete_policy="expunge"
        )
        return server


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site with a mailbox for anna."""
    site = Site(tmp_path)
    site.box.write_bytes(stored(ONE, TWO, LARGE))
    return site


def test_sources_names_this_class() -> None:
    """`--source mbox` finds it."""
    module, _, name = SOURCES["mbox"].partition(":")
    assert (module, name) == (POP3Mbox.__module__, POP3Mbox.__name__)


def test_messages_are_listed_and_read(site: Site) -> None:
    """Exact sizes; what is stored is what is read, ">From " too and "From " not."""
    login = site.login()
    assert [size for _, size in login.list()] == [len(crlf(m)) for m in (ONE, TWO, LARGE)]
    assert login.read_all() == [ONE, TWO, LARGE]
    assert set(login.connection.pools) == {"disk"}
    assert login.log == []


def test_a_session_leaves_nothing_beside_the_mail(site: Site) -> None:
    """Neither lock nor index, and the file is as it was."""
    before = site.box.stat()
    site.login().read(0)
    assert os.listdir(site.mail) == ["anna"]
    assert site.box.stat().st_mtime_ns == before.st_mtime_ns


def test_missing_mailbox_is_empty_and_a_missing_root_is_not(site: Site) -> None:
    """A mount that fell off must not look like deleted mail."""
    site.box.unlink()
    assert site.login().list() == []
    site.mail.rmdir()
    with pytest.raises(TemporaryFailure, match="mail store is not there"):
        site.login()


@pytest.mark.parametrize("kind", ["link", "second name", "directory", "pipe", "dangling link"])
def test_what_is_no_plain_file_is_refused(site: Site, kind: str) -> None:
    """Nobody gets another file read or written by a link, and a pipe holds nobody up."""
    other = site.box.rename(site.mail / "other")
    if kind == "link":
        site.box.symlink_to(other)
    elif kind == "second name":
        site.box.hardlink_to(other)
    elif kind == "directory":
        site.box.mkdir()
    elif kind == "pipe":
        os.mkfifo(site.box)
    else:
        site.box.symlink_to("/nonexistent")
    login = Login(site.server())
    with pytest.raises(POP3Error) as caught:
        login.list()
    assert caught.value.code == "SYS/PERM"
    assert str(site.mail) not in caught.value.text
    assert login.log[0][1]["path"] == str(site.box)
    assert not site.lock.exists()


def test_file_that_is_no_mailbox_is_refused(site: Site) -> None:
    """Its content is nobody's mail."""
    site.box.write_bytes(b"root:x:0:0\n")
    with pytest.raises(TemporaryFailure, match="mailbox cannot be read"):
        site.login()


@pytest.mark.parametrize("owner", ["user", "server", "stranger", "any"])
def test_mailbox_of_somebody_else_is_refused(site: Site, owner: str) -> None:
    """It is the user's or theirs who serve, or nobody gets it; the log says how to allow it."""
    ours = site.box.stat().st_uid
    login = Login(site.server(mbox_owner="any" if owner == "any" else "user"))
    login.session.uid = ours if owner == "user" else ours + 1
    if owner in {"stranger", "any"}:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(site.box, ours + 2, -1)
    if owner == "stranger":
        with pytest.raises(PermanentFailure, match="mailbox cannot be read") as caught:
            login.list()
        assert caught.value.code == "SYS/PERM"
        assert login.log[0][0] == "mailbox belongs to somebody else; see --mbox-owner"
        assert not site.lock.exists()
    else:
        assert len(login.list()) == 3


# -- ids -------------------------------------------------------------------------------------------


def test_id_is_of_the_content_and_outlives_flags_and_moves(site: Site) -> None:
    """Other programs set Status and delete other messages."""
    ids = [uid for uid, _ in site.login().list()]
    flagged = b"Status: RO\nX-Status: A\n" + TWO
    site.box.write_bytes(stored(LARGE, flagged))
    assert [uid for uid, _ in site.login().list()] == [ids[2], ids[1]]


def test_equal_messages_keep_their_ids(site: Site) -> None:
    """When the first of two is deleted, the second is not taken for it."""
    site.box.write_bytes(stored(ONE, ONE, TWO))
    login = site.login()
    first, second, third = [uid for uid, _ in login.list()]
    assert second == f"{first}.2"
    login.delete(0)
    assert [uid for uid, _ in site.login().list()] == [second, third]
    with site.box.open("ab") as file:
        file.write(stored(THREE))
    assert [uid for uid, _ in site.login().list()][:2] == [second, third]


# -- deleting --------------------------------------------------------------------------------------


def test_delete_takes_out_only_what_was_asked(site: Site) -> None:
    """The rest is as it was, and no journal stays."""
    login = site.login()
    login.delete(1)
    assert site.box.read_bytes() == stored(ONE, LARGE)
    assert not os.path.exists(login.session.box.journal)
    assert site.login().read_all() == [ONE, LARGE]
    site.login().delete(0, 1)
    assert site.box.read_bytes() == b""


def test_mmdf_mailbox_is_served(site: Site) -> None:
    """The other format, with the same rules; an index of one format is nothing to the other."""
    site.login()
    line = b"\x01\x01\x01\x01\n"
    site.box.write_bytes(b"".join(line + message + line for message in (ONE, TWO, LARGE)))
    login = site.login(mbox_format="mmdf")
    assert login.read_all() == [ONE, TWO, LARGE]
    login.delete(0, 2)
    assert site.box.read_bytes() == line + TWO + line
    with pytest.raises(TemporaryFailure, match="mailbox cannot be read"):
        site.login()


def test_mail_that_comes_during_the_session_stays(site: Site) -> None:
    """It is not seen before the next login."""
    login = site.login()
    with site.box.open("ab") as file:
        file.write(stored(THREE))
    assert login.read_all() == [ONE, TWO, LARGE]
    login.delete(0, 2)
    assert site.login().read_all() == [TWO, THREE]


def test_agent_that_opened_before_our_lock_loses_nothing(site: Site) -> None:
    """It has the file open, waits for the lock, and appends after our commit."""
    login = site.login()
    with site.box.open("ab") as file:
        login.delete(0, 1, 2)
        file.write(stored(THREE))
    assert site.login().read_all() == [THREE]


@pytest.mark.parametrize("index", [0, 2], ids=["small", "large"])
def test_changed_mailbox_is_refused(site: Site, index: int) -> None:
    """Another program has taken the first message out: nothing is sent or deleted by mistake."""
    login = site.login()
    site.box.write_bytes(stored(TWO, LARGE, THREE, THREE))
    with pytest.raises(TemporaryFailure, match="changed by another program"):
        login.read(index)
    with pytest.raises(TemporaryFailure, match="changed by another program"):
        login.delete(1)
    assert site.box.read_bytes() == stored(TWO, LARGE, THREE, THREE)


def test_shortened_mailbox_is_refused(site: Site) -> None:
    """The message is not there any more."""
    login = site.login()
    os.truncate(site.box, 30)
    with pytest.raises(TemporaryFailure, match="changed by another program"):
        login.read(2)


def test_large_message_that_is_cut_off_is_an_error(site: Site) -> None:
    """What was read before stays a broken message: it must not look like a whole one."""
    login = site.login()
    with login.server.read_message(login.session, login.listing.message(2)) as stream:
        assert stream.read(10) == LARGE[:10]
        os.truncate(site.box, 300)
        with pytest.raises(OSError, match="cut short"):
            stream.read(BLOCK)


def test_journal_that_cannot_be_written_changes_nothing(site: Site) -> None:
    """The state directory is full or not ours: -ERR, and the mail is as it was."""
    login = site.login()
    os.makedirs(f"{login.session.box.journal}.tmp")
    with pytest.raises(TemporaryFailure, match="mail store cannot be read or written"):
        login.delete(0)
    assert site.box.read_bytes() == stored(ONE, TWO, LARGE)
    assert not site.lock.exists()


KILLED = """
import os, signal, sys
from pop3.sources.mbox_box import MboxBox
from pop3.sources.mbox_commit import Files
from pop3.sources.mbox_forms import MBOX
from pop3.sources.mbox_index import MboxIndex
from pop3.sources.mbox_lock import Rules
Files.ftruncate = staticmethod(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
box = MboxBox(sys.argv[1], sys.argv[2] + "/mbox", MBOX, Rules(), MboxIndex())
mailbox = box.lock()
box.list(mailbox)
box.delete(mailbox, {0})
"""


@pytest.mark.parametrize("by", ["login", "tool"])
def test_killed_process_is_healed(site: Site, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill -9 in the middle: the dotlock protects the half-written file until it is made whole."""
    command = [sys.executable, "-c", KILLED, str(site.box), str(site.state)]
    died = subprocess.run(command, cwd=ROOT, timeout=30, check=False)
    assert died.returncode == -signal.SIGKILL
    assert site.lock.exists()
    half = site.box.read_bytes()
    assert half not in (stored(ONE, TWO, LARGE), stored(TWO, LARGE))
    past = time.time() - 5
    os.utime(site.lock, (past, past))
    if by == "tool":
        assert mbox.recover(site.box, site.state)
        assert not mbox.recover(site.box, site.state)
        assert site.box.read_bytes() == stored(TWO, LARGE)
    assert site.login().read_all() == [TWO, LARGE]
    assert os.listdir(site.mail) == ["anna"]


def test_unwritable_state_costs_one_warning(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every login works without an index; the log says it once in the life of the process."""
    monkeypatch.setattr(mbox, "_warned", set())
    monkeypatch.setattr("pop3.sources.mbox_index.save", _refuse)
    logins = [site.login() for _ in range(2)]
    assert [len(login.log) for login in logins] == [1, 0]


def _refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")
