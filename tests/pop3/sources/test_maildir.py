"""The maildir source as the core calls it: list, read, delete, and what a client is told."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from pop3.errors import PermanentFailure, TemporaryFailure
from pop3.message import Listing, Message
from pop3.session import Session
from pop3.sources import SOURCES, maildir, maildir_scan
from pop3.sources.maildir import MaildirSettings, POP3Maildir
from pop3.wire import BLOCK, crlf

if TYPE_CHECKING:
    from pop3.sources.maildir_box import MaildirBox

BODY = b"Subject: hello\n\nworld\n"
LARGE = b"a line of text\n" * (BLOCK // 10)


class Log(list[tuple[str, dict[str, Any]]]):
    """Collects what is logged."""

    def warning(self, event: str, **fields: Any) -> None:
        """Note an event."""
        self.append((event, fields))

    error = warning


class Client:
    """The parts of a connection that a source uses."""

    def __init__(self) -> None:
        self.pools: list[str] = []

    def run_blocking(self, pool: str, function: Callable[..., Any], *args: Any) -> Any:
        """Run the function here, as the serial personalities do."""
        self.pools.append(pool)
        return function(*args)


class Login:
    """A session of one user, with the calls the core makes."""

    def __init__(self, server: POP3Maildir, user: str = "anna") -> None:
        self.server = server
        self.connection = Client()
        self.session: Session[MaildirBox] = Session(cast("Any", self.connection))
        self.session.user = user
        self.log = Log()
        self.session._log = cast("Any", self.log)

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


class Site:
    """A server with a mail root and a state directory, without network."""

    def __init__(self, directory: Path) -> None:
        self.mail = directory / "mail"
        self.box = self.mail / "anna"
        self.state = directory / "state"
        self.mail.mkdir()

    def fill(self) -> None:
        """Make a maildir with two messages."""
        for folder in ("tmp", "new", "cur"):
            (self.box / folder).mkdir(parents=True)
        (self.box / "new/2.b").write_bytes(BODY)
        (self.box / "cur/1.a:2,S").write_bytes(BODY + b"more\n")

    def server(
        self, *, trust: bool = False, delete: str = "expunge", pattern: str | None = None
    ) -> POP3Maildir:
        """Return a server as it is after start-up."""
        server = POP3Maildir.__new__(POP3Maildir)
        vars(server).update(
            settings=MaildirSettings(
                maildir=pattern or f"{self.mail}/{{user}}", trust_maildir_sizes=trust
            ),
            state_directory=self.state,
            delete_policy=delete,
        )
        return server

    def login(self, **options: Any) -> Login:
        """Return a session whose box is listed."""
        login = Login(self.server(**options))
        login.list()
        return login


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site with a maildir for anna."""
    site = Site(tmp_path)
    site.fill()
    return site


def test_sources_names_this_class() -> None:
    """`--source maildir` finds it."""
    module, _, name = SOURCES["maildir"].partition(":")
    assert (module, name) == (POP3Maildir.__module__, POP3Maildir.__name__)


def test_messages_are_listed_and_read(site: Site) -> None:
    """Ids, order, exact sizes, content."""
    login = site.login()
    assert login.list() == [("1.a", len(crlf(BODY + b"more\n"))), ("2.b", len(crlf(BODY)))]
    assert [login.read(0), login.read(1)] == [BODY + b"more\n", BODY]
    assert login.log == []


def test_second_login_scans_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the directories have not changed, the index is all that is read."""
    monkeypatch.setattr(maildir_scan, "SETTLE_NS", -(10**12))
    first = site.login().list()
    monkeypatch.setattr(maildir, "refresh", None)
    assert site.login().list() == first


def test_reading_changes_nothing_in_the_mail(site: Site) -> None:
    """No file is made, moved or written; the index lies in the state directory."""

    def state() -> list[tuple[str, int, int]]:
        return sorted(
            (str(path), path.stat().st_mtime_ns, path.stat().st_ino) for path in site.box.rglob("*")
        )

    before = state()
    login = site.login()
    login.read(0)
    assert state() == before
    assert len(list((site.state / "index").iterdir())) == 1


# -- mail that is not there ------------------------------------------------------------------------


def test_user_without_a_mailbox_has_an_empty_maildrop(site: Site) -> None:
    """Nothing is made: neither a maildir nor an index."""
    shutil.rmtree(site.box)
    assert site.login().list() == []
    assert list(site.mail.iterdir()) == []
    assert not site.state.exists()


def test_missing_mail_root_is_temporary(site: Site) -> None:
    """A mount that fell off must not look like deleted mail, and the index must outlive it."""
    first = site.login().list()
    away = site.mail.rename(site.mail.with_name("away"))
    for _ in range(2):
        with pytest.raises(TemporaryFailure, match="mail store is not there"):
            site.login()
    away.rename(site.mail)
    assert site.login().list() == first


def test_missing_home_is_temporary(site: Site) -> None:
    """With ~ in the pattern the home directory is the mail root."""
    login = Login(site.server(pattern="~/Maildir"))
    login.session.home = f"{site.mail}/anna"
    assert login.list() == []
    login.session.home = f"{site.mail}/bob"
    with pytest.raises(TemporaryFailure, match="mail store is not there"):
        login.list()


def test_unknown_home_is_permanent(site: Site) -> None:
    """A pattern with ~ cannot be filled for a user without a home."""
    with pytest.raises(PermanentFailure):
        Login(site.server(pattern="~/Maildir")).list()


@pytest.mark.parametrize("below", ["{user}", "{user}/mail/Maildir"])
def test_link_that_points_nowhere_is_temporary(site: Site, below: str) -> None:
    """The mailbox or a directory above it may be a link to another disk."""
    shutil.rmtree(site.box)
    site.box.symlink_to("/nonexistent/mail")
    with pytest.raises(TemporaryFailure, match="mail store is not there"):
        site.login(pattern=f"{site.mail}/{below}")


def test_emptied_maildir_is_temporary_if_it_had_mail(site: Site) -> None:
    """The mailbox itself may be the mount point; then a bare directory is left."""
    site.login()
    shutil.rmtree(site.box)
    site.box.mkdir()
    with pytest.raises(TemporaryFailure, match="mail store is not there"):
        site.login()


def test_maildir_that_is_a_file_is_temporary(site: Site) -> None:
    """Only a missing mailbox is an empty one."""
    shutil.rmtree(site.box)
    site.box.write_bytes(BODY)
    with pytest.raises(TemporaryFailure, match="mail store cannot be read"):
        site.login()


def test_folder_that_is_a_link_is_temporary_and_says_nothing(site: Site) -> None:
    """The client learns no path; the log does."""
    (site.box / "cur").rename(site.mail / "other")
    (site.box / "cur").symlink_to(site.mail / "other")
    login = Login(site.server())
    with pytest.raises(TemporaryFailure) as caught:
        login.list()
    assert str(site.mail) not in caught.value.text
    assert str(site.box) == login.log[0][1]["path"]


# -- mail that others change -----------------------------------------------------------------------


def test_gone_message_is_temporary(site: Site) -> None:
    """The number stays, the answer says what happened."""
    login = site.login()
    (site.box / "new/2.b").unlink()
    with pytest.raises(TemporaryFailure, match="removed by another program"):
        login.read(1)
    assert login.read(0) == BODY + b"more\n"


@pytest.mark.parametrize("content", [BODY + b"x", LARGE], ids=["small", "large"])
def test_changed_message_is_refused_and_right_at_the_next_login(
    site: Site, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What LIST said cannot be sent any more; the index forgets it, though no directory changed."""
    monkeypatch.setattr(maildir_scan, "SETTLE_NS", -(10**12))
    login = site.login()
    (site.box / "new/2.b").write_bytes(content)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TemporaryFailure, match="changed by another program"):
        login.read(1)
    login.session.box.close()
    assert os.listdir("/proc/self/fd") == before
    assert site.login().list()[1] == ("2.b", len(crlf(content)))
    assert site.login().read(1) == content


def test_replaced_message_of_the_same_size_is_served(site: Site) -> None:
    """Another content of the length that LIST said keeps the promise."""
    login = site.login()
    (site.box / "new/2.b").write_bytes(BODY.upper())
    assert login.read(1) == BODY.upper()


def test_size_in_a_name_is_corrected_when_it_is_wrong(site: Site) -> None:
    """With --trust-maildir-sizes the message is sent, the log tells, the next LIST is right."""
    (site.box / "cur/0.x,W=7:2,").write_bytes(BODY)
    login = site.login(trust=True)
    assert login.list()[0] == ("0.x,W=7", 7)
    assert login.read(0) == BODY
    assert login.log[0] == ("size was wrong", {"uid": "0.x,W=7", "said": 7, "found": 25})
    assert site.login(trust=True).list()[0] == ("0.x,W=7", len(crlf(BODY)))


def test_size_in_a_name_is_not_believed_without_the_option(site: Site) -> None:
    """Nor is one that was believed before the option was taken away."""
    (site.box / "cur/0.x,W=7:2,").write_bytes(BODY)
    assert site.login(trust=True).list()[0][1] == 7
    assert site.login().list()[0][1] == len(crlf(BODY))


# -- deleting --------------------------------------------------------------------------------------


def test_delete_removes_the_files(site: Site) -> None:
    """In the pool for slow disks, and for good."""
    login = site.login()
    login.connection.pools.clear()
    login.server.delete_messages(login.session, login.messages()[:1])
    assert login.connection.pools == ["disk"]
    assert site.login().list() == [("2.b", len(crlf(BODY)))]


def test_delete_to_the_trash(site: Site) -> None:
    """With --delete trash nothing is lost."""
    login = site.login(delete="trash")
    login.server.delete_messages(login.session, login.messages())
    assert site.login().list() == []
    assert len(list((site.box / ".Trash/cur").iterdir())) == 2


def test_partial_failure_tells_how_many(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """QUIT must not say +OK when a message is still there."""
    login = site.login()
    unlink = os.unlink

    def failing(name: bytes, **options: Any) -> None:
        if name == b"2.b":
            raise PermissionError(13, "Permission denied")
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", failing)
    with pytest.raises(TemporaryFailure, match=r"^1 of 2 messages not deleted$"):
        login.server.delete_messages(login.session, login.messages())
    assert login.log[0][1]["count"] == 1


# -- the index -------------------------------------------------------------------------------------


def test_unwritable_state_costs_one_warning(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every login works without an index; the log says it once in the life of the process."""
    monkeypatch.setattr(maildir, "_warned", set())
    site.state.write_bytes(b"in the way")
    logins = [site.login() for _ in range(3)]
    assert [login.log for login in logins[1:]] == [[], []]
    assert logins[0].log[0][0] == "index not writable"
    assert [len(login.listing) for login in logins] == [2, 2, 2]


def test_damaged_index_is_made_again(site: Site) -> None:
    """Rubbish in the index file is no error and does not stay."""
    first = site.login().list()
    [file] = (site.state / "index").iterdir()
    file.write_bytes(b"rubbish")
    assert site.login().list() == first
    assert file.read_bytes() != b"rubbish"


def test_index_is_written_only_when_something_changed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logins to a maildir that is still too fresh to be settled write nothing new."""
    site.login()
    [file] = (site.state / "index").iterdir()
    before = file.stat().st_ino
    site.login()
    assert file.stat().st_ino == before
    time.sleep(0.03)
    monkeypatch.setattr(maildir_scan, "SETTLE_NS", 10**7)
    site.login()
    assert file.stat().st_ino != before


def test_messages_are_counted_in_the_pool(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan may find messages of any number and size: it must not hold up other clients."""
    monkeypatch.setattr(maildir_scan, "SETTLE_NS", -(10**12))
    assert site.login().connection.pools == ["disk"]
    assert site.login().connection.pools == []
