"""Finish the deletions that a crash has interrupted, before anybody reads a half-written mailbox.

Their journals say where the mailboxes are. A login does the same for its own mailbox, so nothing
here waits long: what is in use is left to it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pop3.errors import MailboxInUse, POP3Error
from pop3.lock import MaildropLock, lock_file
from pop3.sources import mbox_commit
from pop3.sources.mbox_box import JOURNALS
from pop3.sources.mbox_commit import JournalRefused, path_in
from pop3.sources.mbox_dotlock import STALE_SECONDS, left_by_the_dead
from pop3.sources.mbox_index import file_name
from pop3.sources.mbox_lock import Rules, UnsafeMailbox, open_mailbox

_DRAFT = ".tmp"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """One deletion that a crash had interrupted; `why` is empty if it is finished now."""

    path: str
    why: str = ""


def maildrop_name(path: str) -> str:
    """Name the maildrop by its place: two login names may lead to one mailbox."""
    return f"mbox{path}"


def recover(path: Path, state_directory: Path, rules: Rules) -> bool:
    """Finish the deletion in one mailbox; True if there was one.

    Raises MailboxInUse, JournalRefused, UnsafeMailbox, OSError.
    """
    mailbox = os.path.abspath(path)
    journal = f"{state_directory}/mbox/{JOURNALS}/{file_name(mailbox)}"
    lock = _maildrop_lock(mailbox, state_directory)
    if not lock.acquire():
        raise MailboxInUse("mailbox is in use by another session")
    try:
        return _finish(mailbox, journal, rules)
    finally:
        lock.release()


def recover_all(
    state_directory: Path, rules: Rules, *, seconds: float = float("inf")
) -> list[Interrupted]:
    """Finish what can be finished in so many seconds; return one entry for each journal found.

    What a living session is at is not among them. Of several processes one does it. As root each
    is done with the rights of who wrote the journal. Raises OSError.
    """
    directory = f"{state_directory}/mbox/{JOURNALS}"
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    if not names:
        return []
    claim = MaildropLock(f"{state_directory}/mbox/recovery")
    if not claim.acquire():
        return []
    end = time.monotonic() + seconds
    try:
        found = [
            _look_at(directory, name, state_directory, rules)
            for name in names
            if time.monotonic() < end
        ]
    finally:
        claim.release()
    return [one for one in found if one is not None]


def _look_at(directory: str, name: str, state_directory: Path, rules: Rules) -> Interrupted | None:
    journal = f"{directory}/{name}"
    draft = name.endswith(_DRAFT)
    path: str | None = None
    try:
        path = path_in(journal)
        if path is None or file_name(path) != name.removesuffix(_DRAFT):
            return None if draft else Interrupted(journal, "the journal cannot be read")
        lock = _maildrop_lock(path, state_directory)
        if not lock.acquire():
            return None
        try:
            if draft:  # nothing has happened yet
                os.unlink(journal)
                return None
            with _rights_of_the_writer(journal):
                return Interrupted(path) if _finish(path, journal, rules) else None
        finally:
            lock.release()
    except (POP3Error, JournalRefused, UnsafeMailbox, OSError, EOFError) as error:
        if not os.path.lexists(journal):
            return None  # done meanwhile
        return Interrupted(path or journal, _why(error, journal))


def _why(error: Exception, journal: str) -> str:
    match error:
        case POP3Error():
            return error.text
        case JournalRefused():
            return f"the journal does not fit the mailbox: {journal}"
        case UnsafeMailbox():
            return "the mailbox is no plain file with one name"
        case FileNotFoundError():
            return f"the mailbox is not there; its journal: {journal}"
    return str(error) or "the mailbox was cut short"


def _maildrop_lock(path: str, state_directory: Path) -> MaildropLock:
    file = lock_file(state_directory, maildrop_name(path))
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return MaildropLock(file)


def _finish(path: str, journal: str, rules: Rules) -> bool:
    rules = replace(rules, owners=None)  # whoever wrote the journal had been let in
    mailbox = open_mailbox(path, rules)
    if mailbox is None and left_by_the_dead(path):
        time.sleep(STALE_SECONDS + 0.05)
        mailbox = open_mailbox(path, rules)
    if mailbox is None:
        raise MailboxInUse("mailbox is in use by another program")
    with mailbox:
        return mbox_commit.recover(mailbox.descriptor, journal, busy=mailbox.busy)


@contextmanager
def _rights_of_the_writer(journal: str) -> Iterator[None]:
    """Become who wrote the journal, for a root that serves users under their own ids.

    A journal could be made up by such a user to have any file written.
    """
    found = os.lstat(journal)
    if os.geteuid() != 0 or found.st_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def may_complain(state_directory: Path, seconds: float = 60.0) -> bool:
    """Tell whether what could not be done has not been said lately; it counts as said then.

    Under fork and inetd every client's process looks.
    """
    path = f"{state_directory}/mbox/told"
    with suppress(OSError):
        if 0 <= time.time() - os.stat(path).st_mtime < seconds:
            return False
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        os.utime(path)
    return True
