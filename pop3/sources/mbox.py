"""Serve mbox files: all mail of a user in one file, to which other programs append at any time.

The file is locked against them only while it is listed and while messages are taken out of it.
Between the two it is read without a lock, and every message is checked to be the one listed.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from netserver.options import option
from pop3.errors import MailboxInUse, TemporaryFailure
from pop3.message import Listing, Message
from pop3.paths import fixed_part, path_pattern
from pop3.server import POP3Server
from pop3.session import Session
from pop3.settings import POP3Settings
from pop3.sources import mbox_commit, mbox_index
from pop3.sources.mbox_box import MailboxChanged, MboxBox
from pop3.sources.mbox_commit import JournalRefused
from pop3.sources.mbox_index import MboxIndex
from pop3.sources.mbox_lock import LOCKS, OpenMailbox, UnsafeMailbox
from pop3.sources.mbox_scan import FORMATS, NotAMailbox
from pop3.wire import BLOCK

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25
_warned: set[str] = set()  # index directories that could not be written


def lock_list(text: str) -> str:
    """Read the value of --mbox-locks. Raises ValueError."""
    names = text.split(",")
    if not set(names) <= set(LOCKS) or len(set(names)) != len(names):
        raise ValueError(f"it is a list of {', '.join(LOCKS)}")
    return text


@dataclass(frozen=True)
class MboxSettings(POP3Settings):
    """The options of the mbox source."""

    mbox: str = option(
        "/var/mail/{user}",
        kind=path_pattern,
        metavar="PATTERN",
        group="mail",
        help="where a user's mailbox is; ~ or {home} is the home directory, and {user} {localpart} "
        "{domain} {initial} are filled in",
    )
    mbox_format: str = option(
        "mbox",
        choices=FORMATS,
        group="mail",
        help='what stands between messages: a "From " line after a blank line (mbox), or lines of '
        "four ^A (mmdf)",
    )
    mbox_locks: str = option(
        "dotlock,fcntl",
        kind=lock_list,
        metavar="LIST",
        group="mail",
        help="locks against delivery agents: dotlock, fcntl or both; a dotlock is always taken "
        "first",
    )


class POP3Mbox(POP3Server[MboxBox]):
    """A POP3 server for mbox files."""

    settings: MboxSettings
    settings_class = MboxSettings
    delete_policies: ClassVar[frozenset[str]] = frozenset({"expunge"})
    descriptors_per_client: ClassVar[int] = 3  # with the mailbox, while it is in use

    def maildrop_name(self, session: Session[MboxBox]) -> str:
        """Name the maildrop by its place: two login names may lead to one mailbox."""
        return f"mbox{os.path.abspath(self.path(self.settings.mbox, session))}"

    def open_box(self, session: Session[MboxBox]) -> MboxBox:
        """Name the user's mailbox; whether it is there shows when it is listed."""
        return MboxBox(
            os.path.abspath(self.path(self.settings.mbox, session)),
            f"{self.state_directory}/mbox",
            self.settings.mbox_format,
            tuple(self.settings.mbox_locks.split(",")),
            MboxIndex(),
        )

    def list_messages(self, session: Session[MboxBox]) -> Listing:
        """List the messages in the order of the file, with exact sizes.

        Raises MailboxInUse if another program has the mailbox for --lock-wait seconds.
        """
        box = session.box
        with _store(session, box):
            try:
                with self._locked(session, box) as mailbox:
                    changed = session.connection.run_blocking("disk", box.list, mailbox)
            except FileNotFoundError:
                self._check_mail_root(session, box)
                changed = False
        if changed:
            _save(session, box.index, box.index_file)
        return Listing(box.index.uids, box.index.sizes[:], trusted=True)

    def read_message(self, session: Session[MboxBox], message: Message) -> BinaryIO:
        """Open one message; raises TemporaryFailure if it is not there any more as it was."""
        box = session.box
        position = box.position(message.uid.encode("ascii"))
        with _store(session, box):
            if box.index.ends[position] - box.index.begins[position] > BLOCK:
                return session.connection.run_blocking("disk", box.open, position)
            return box.open(position)

    def delete_messages(self, session: Session[MboxBox], messages: Sequence[Message]) -> None:
        """Take the messages out of the file; on disk when this returns.

        Raises MailboxInUse, and TemporaryFailure: nothing was done then, unless its text says that
        it will be.
        """
        box = session.box
        positions = {box.position(message.uid.encode("ascii")) for message in messages}
        try:
            with _store(session, box), self._locked(session, box) as mailbox:
                left = session.connection.run_blocking("disk", box.delete, mailbox, positions)
        except TemporaryFailure as error:
            if os.path.lexists(box.journal):
                raise TemporaryFailure("messages will be deleted at the next login") from error
            raise
        _save(session, left, box.index_file)

    @contextmanager
    def _locked(self, session: Session[MboxBox], box: MboxBox) -> Iterator[OpenMailbox]:
        """Lock the mailbox against other programs, for which it may take a while to let go."""
        wait = self.settings.lock_wait
        pause = _FIRST_PAUSE
        while (mailbox := session.connection.run_blocking("disk", box.lock)) is None:
            if wait <= 0:
                raise MailboxInUse("mailbox is in use by another program")
            pause = min(pause, wait)
            session.connection.pause(pause)
            wait -= pause
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        with mailbox:
            yield mailbox

    def _check_mail_root(self, session: Session[MboxBox], box: MboxBox) -> None:
        """Tell a user without a mailbox from a file system that is not mounted."""
        root = fixed_part(self.settings.mbox, session.home)
        if not os.path.isdir(root) or os.path.lexists(box.journal):
            session.log.error("mail store is not there", root=str(root), found=box.path)
            raise TemporaryFailure("mail store is not there")


def recover(path: Path, state_directory: Path, locks: Sequence[str] = LOCKS) -> bool:
    """Finish a deletion that a crash has interrupted; True if there was one.

    For tools; a login does the same. Raises MailboxInUse, JournalRefused, UnsafeMailbox, OSError.
    """
    box = MboxBox(
        os.path.abspath(path), f"{state_directory}/mbox", "mbox", tuple(locks), MboxIndex()
    )
    mailbox = box.lock()
    if mailbox is None:
        raise MailboxInUse("mailbox is in use by another program")
    with mailbox:
        return mbox_commit.recover(mailbox.descriptor, box.journal, busy=mailbox.busy)


_REASONS: dict[type[Exception], tuple[str, str]] = {
    MailboxChanged: (
        "mailbox changed by another program",
        "mailbox was changed by another program; log in again",
    ),
    NotAMailbox: ("not a mailbox of this format", "mailbox cannot be read"),
    UnsafeMailbox: ("mailbox is no plain file with one name", "mailbox cannot be read"),
    JournalRefused: (
        "journal does not fit the mailbox; put one of them right",
        "mailbox cannot be read",
    ),
    EOFError: (
        "mailbox cut short by another program",
        "mailbox was changed by another program; log in again",
    ),
}


@contextmanager
def _store(session: Session[MboxBox], box: MboxBox) -> Iterator[None]:
    """Turn what went wrong into a line of the log and an answer that tells a stranger nothing."""
    try:
        yield
    except tuple(_REASONS) as error:
        event, text = _REASONS[type(error)]
        session.log.error(event, path=box.path, journal=box.journal)  # noqa: TRY400 - no traceback
        raise TemporaryFailure(text) from error
    except OSError as error:
        session.log.error(  # noqa: TRY400 - a store's error needs no traceback
            "mail store failed", path=box.path, error=str(error)
        )
        raise TemporaryFailure("mail store cannot be read or written") from error


def _save(session: Session[MboxBox], index: MboxIndex, path: str) -> None:
    """Write the index; where that is not possible it costs time, which is said once."""
    try:
        mbox_index.save(index, path)
    except OSError as error:
        directory = os.path.dirname(path)
        if directory not in _warned:
            _warned.add(directory)
            session.log.warning("index not writable", path=path, error=str(error))
