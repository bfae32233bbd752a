"""Serve mbox files: all mail of a user in one file, to which other programs append at any time.

The file is locked against them only while it is listed and while messages are taken out of it.
Between the two it is read without a lock, and every message is checked to be the one listed.
"""

import grp
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, ClassVar

from netserver.errors import ConfigError
from netserver.options import option
from netserver.reach import Reach
from pop3.errors import MailboxInUse, PermanentFailure, POP3Error, TemporaryFailure
from pop3.message import Listing, Message
from pop3.paths import fixed_part, path_pattern
from pop3.server import POP3Server
from pop3.session import Session
from pop3.settings import POP3Settings
from pop3.sources import mbox_index, mbox_recovery
from pop3.sources.mbox_box import MailboxChanged, MboxBox
from pop3.sources.mbox_commit import JournalRefused
from pop3.sources.mbox_dotlock import FORGOTTEN_SECONDS
from pop3.sources.mbox_forms import FORMS, Form, NotAMailbox, custom
from pop3.sources.mbox_index import MboxIndex
from pop3.sources.mbox_lock import (
    DEFAULT_LOCKS,
    LOCKS,
    ForeignMailbox,
    OpenMailbox,
    Rules,
    UnsafeMailbox,
)
from pop3.sources.mbox_recovery import Interrupted
from pop3.wire import BLOCK

_RECOVERY_SECONDS = 10.0  # what takes longer is left to the logins
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
        choices=(*FORMS, "custom"),
        group="mail",
        help='what stands between messages: a "From " line after a blank line (mbox), also with '
        ">From taken back (mboxo, mboxrd), or found by Content-Length (mboxcl2); lines of four ^A "
        "(mmdf); lines of your own (custom)",
    )
    message_start: str | None = option(
        None,
        metavar="REGEX",
        group="mail",
        help="--mbox-format custom: what is found in the line that stands before a message",
    )
    message_end: str = option(
        r"^\s*$",
        metavar="REGEX",
        group="mail",
        help="--mbox-format custom: what is found in the line that stands behind a message",
    )
    mbox_locks: str = option(
        ",".join(DEFAULT_LOCKS),
        kind=lock_list,
        metavar="LIST",
        group="mail",
        help="locks against delivery agents in the order they are taken: dotlock, fcntl, flock",
    )
    mbox_stale_lock: float = option(
        FORGOTTEN_SECONDS,
        metavar="SECONDS",
        group="mail",
        help="how long a dotlock must be untouched to be taken over, unless its owner is known to "
        "live; 0 means never",
    )
    mailgroup: str | None = option(
        None, metavar="GROUP", group="mail", help="the group that dotlocks get, by name or number"
    )
    mbox_owner: str = option(
        "user",
        choices=("user", "any"),
        group="mail",
        help="whose a mailbox must be: the user's or theirs who serve (user), or anybody's (any)",
    )


@lru_cache(maxsize=16)
def form_of(name: str, start: str | None, end: str) -> Form:
    """Return the form that the options ask for. Raises ConfigError."""
    if name != "custom":
        if start is not None:
            raise ConfigError("--message-start needs --mbox-format custom")
        return FORMS[name]
    if not start:
        raise ConfigError("--mbox-format custom needs --message-start")
    try:
        return custom(os.fsencode(start), os.fsencode(end))
    except ValueError as error:
        raise ConfigError(f"--message-start, --message-end: {error}") from None


@lru_cache(maxsize=16)
def group_of(name: str | None) -> int:
    """Return the number of a group, -1 for none. Raises ConfigError."""
    if name is None or name.isdecimal():
        return -1 if name is None else int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"--mailgroup {name}: there is no such group") from None


class POP3Mbox(POP3Server[MboxBox]):
    """A POP3 server for mbox files."""

    settings: MboxSettings
    settings_class = MboxSettings
    delete_policies: ClassVar[frozenset[str]] = frozenset({"expunge"})
    uidl_presets: ClassVar[frozenset[str]] = frozenset({"dovecot", "uw"})
    descriptors_per_client: ClassVar[int] = 3  # with the mailbox, while it is in use

    def post_configure(self) -> None:
        """Check our options too."""
        super().post_configure()
        self._mailbox_form()
        group_of(self.settings.mailgroup)

    def child_init(self) -> None:
        """Finish what a crash has interrupted before this process serves its first client."""
        super().child_init()
        try:
            self.recover_mailboxes(seconds=_RECOVERY_SECONDS)
        except OSError as error:
            self.log.warning("journals cannot be looked for", error=str(error))

    def recover_mailboxes(self, *, seconds: float = math.inf) -> list[Interrupted]:
        """Finish the deletions that a crash has interrupted, and log each; return them.

        Raises OSError.
        """
        found = mbox_recovery.recover_all(
            self.state_directory, self._mailbox_rules(None), seconds=seconds
        )
        complain: bool | None = None
        for one in found:
            if not one.why:
                self.log.info("deletion finished that a crash had interrupted", path=one.path)
                continue
            if complain is None:
                complain = mbox_recovery.may_complain(self.state_directory)
            if complain:
                self.log.warning("interrupted deletion waits", path=one.path, why=one.why)
        return found

    def mailbox_path(self, session: Session[MboxBox]) -> Path:
        """Return the path of the mailbox."""
        return Path(os.path.abspath(self.path(self.settings.mbox, session)))

    def recover_maildrop(self, session: Session[MboxBox]) -> str:
        """Finish a deletion that a crash has interrupted. Raises POP3Error, OSError."""
        path = self.mailbox_path(session)
        try:
            done = mbox_recovery.recover(path, self.state_directory, self._mailbox_rules(None))
        except FileNotFoundError:
            return f"nothing to recover: {path} is not there"
        except JournalRefused:
            raise PermanentFailure(f"{path}: its journal does not fit") from None
        except UnsafeMailbox:
            raise PermanentFailure(f"{path}: no plain file with one name") from None
        return f"{path}: a deletion was finished" if done else f"{path}: nothing was interrupted"

    def _mailbox_form(self) -> Form:
        settings = self.settings
        return form_of(settings.mbox_format, settings.message_start, settings.message_end)

    def _mailbox_rules(self, owners: frozenset[int] | None) -> Rules:
        settings = self.settings
        return Rules(
            tuple(settings.mbox_locks.split(",")),
            settings.mbox_stale_lock,
            group_of(settings.mailgroup),
            owners,
        )

    def _mailbox_owners(self, session: Session[MboxBox]) -> frozenset[int] | None:
        """Return whose the mailbox may be; a root that knows no better serves everybody's."""
        ours = os.geteuid()
        if self.settings.mbox_owner == "any" or (session.uid is None and ours == 0):
            return None
        return frozenset({ours, ours if session.uid is None else session.uid})

    def maildrop_name(self, session: Session[MboxBox]) -> str:
        """Name the maildrop by its place: two login names may lead to one mailbox."""
        path = os.path.abspath(self.path(self.settings.mbox, session))
        return mbox_recovery.maildrop_name(path)

    def mail_reach(self) -> Reach | None:
        """Return the directory of the mailboxes, unless it is another for each user."""
        if "{home}" in self.settings.mbox or self.settings.mbox.startswith("~"):
            return None
        return Reach(write=(str(fixed_part(self.settings.mbox)),))

    def open_box(self, session: Session[MboxBox]) -> MboxBox:
        """Name the user's mailbox; whether it is there shows when it is listed."""
        return MboxBox(
            os.path.abspath(self.path(self.settings.mbox, session)),
            f"{self.state_directory}/mbox",
            self._mailbox_form(),
            self._mailbox_rules(self._mailbox_owners(session)),
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

    def read_envelope(self, session: Session[MboxBox], message: Message) -> bytes:
        """Return the "From " line of a message."""
        box = session.box
        with _store(session, box):
            return box.envelope(box.position(message.uid.encode("ascii")))

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


def recover(path: Path, state_directory: Path, locks: Sequence[str] = DEFAULT_LOCKS) -> bool:
    """Finish a deletion that a crash has interrupted; True if there was one.

    For tools; a login does the same. Raises MailboxInUse, JournalRefused, UnsafeMailbox, OSError.
    """
    return mbox_recovery.recover(path, state_directory, Rules(tuple(locks)))


_REASONS: dict[type[Exception], tuple[str, POP3Error]] = {
    MailboxChanged: (
        "mailbox changed by another program",
        TemporaryFailure("mailbox was changed by another program; log in again"),
    ),
    NotAMailbox: (
        "not a mailbox of this format",
        TemporaryFailure("mailbox cannot be read"),
    ),
    UnsafeMailbox: (
        "mailbox is no plain file with one name",
        PermanentFailure("mailbox cannot be read"),
    ),
    ForeignMailbox: (
        "mailbox belongs to somebody else; see --mbox-owner",
        PermanentFailure("mailbox cannot be read"),
    ),
    JournalRefused: (
        "journal does not fit the mailbox; put one of them right",
        TemporaryFailure("mailbox cannot be read"),
    ),
    EOFError: (
        "mailbox cut short by another program",
        TemporaryFailure("mailbox was changed by another program; log in again"),
    ),
}


@contextmanager
def _store(session: Session[MboxBox], box: MboxBox) -> Iterator[None]:
    """Turn what went wrong into a line of the log and an answer that tells a stranger nothing."""
    try:
        yield
    except tuple(_REASONS) as error:
        event, answer = _REASONS[type(error)]
        session.log.error(event, path=box.path, journal=box.journal)  # noqa: TRY400 - no traceback
        raise type(answer)(answer.text) from error
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
