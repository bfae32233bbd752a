"""Lock a mailbox against delivery agents: a dotlock and locks of the file itself, in any order.

Nothing waits here. Who finds one of them taken gives back what it has and tries again later, so
that an agent which takes them in another order can never wait for us while we wait for it.
"""

import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from typing import Self

from netserver import native
from pop3.sources.mbox_dotlock import FORGOTTEN_SECONDS, DotLock

LOCKS = ("dotlock", "fcntl", "flock")
DEFAULT_LOCKS = ("dotlock", "fcntl")

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UnsafeMailbox(Exception):
    """The mailbox is no regular file, or has a second name."""


class ForeignMailbox(Exception):
    """The mailbox belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a mailbox is locked, and whose it must be.

    A dotlock of which nothing else is known counts as forgotten when it was not touched for
    `forgotten` seconds; 0: never. `group` is the group that ours get, -1 the process's own.
    `owners` are the user ids a mailbox may belong to; None: any.
    """

    locks: tuple[str, ...] = DEFAULT_LOCKS
    forgotten: float = FORGOTTEN_SECONDS
    group: int = -1
    owners: frozenset[int] | None = None


class OpenMailbox:
    """A mailbox that is open and ours; a context manager that gives it back."""

    __slots__ = ("_dotlock", "descriptor")

    def __init__(self, descriptor: int) -> None:
        """Take over the open file."""
        self.descriptor = descriptor
        self._dotlock: DotLock | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def lock(self, name: str, path: str, rules: Rules) -> bool:
        """Take one of the locks; False if somebody has it. Raises OSError."""
        if name == "dotlock":
            dotlock = DotLock(path, forgotten=rules.forgotten, group=rules.group)
            if not dotlock.acquire():
                return False
            self._dotlock = dotlock
            return True
        return _lock(self.descriptor) if name == "fcntl" else _flock(self.descriptor)

    def busy(self) -> None:
        """Say that the work goes on."""
        if self._dotlock is not None:
            self._dotlock.refresh()

    def release(self) -> None:
        """Close the file, which ends its locks, and remove the dotlock."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            native.close(descriptor)
        if self._dotlock is not None:
            self._dotlock.release()


def open_mailbox(path: str, rules: Rules) -> OpenMailbox | None:
    """Lock and open a mailbox; None if another program has it.

    Raises FileNotFoundError if there is none, UnsafeMailbox, ForeignMailbox, OSError.
    """
    check(os.lstat(path), rules)  # no dotlock beside nothing, or beside what is not ours
    mailbox = OpenMailbox(-1)
    try:
        for name in rules.locks:
            if name != "dotlock" and mailbox.descriptor < 0:
                mailbox.descriptor = _open(path, rules)
            if not mailbox.lock(name, path, rules):
                mailbox.release()
                return None
        if mailbox.descriptor < 0:
            mailbox.descriptor = _open(path, rules)
        here = os.lstat(path)
        found = os.fstat(mailbox.descriptor)
        if (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino):  # not replaced meanwhile
            return mailbox
    except BaseException:
        mailbox.release()
        raise
    mailbox.release()
    return None


def _open(path: str, rules: Rules) -> int:
    descriptor = os.open(path, _OPEN)
    try:
        check(os.fstat(descriptor), rules)
    except BaseException:
        native.close(descriptor)
        raise
    return descriptor


def check(found: os.stat_result, rules: Rules) -> None:
    """Raise UnsafeMailbox unless it is a regular file with one name; ForeignMailbox."""
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise UnsafeMailbox
    if rules.owners is not None and found.st_uid not in rules.owners:
        raise ForeignMailbox


def _lock(descriptor: int) -> bool:
    """Take the whole file; agents that use fcntl or lockf see it.

    A lock of the open file, where the system has these: a plain one is lost as soon as the process
    closes the same file anywhere else, and another session of this process would get it too.
    """
    try:
        if hasattr(fcntl, "F_OFD_SETLK"):
            whole = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, whole)
        else:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _flock(descriptor: int) -> bool:
    """Take the file for agents that use flock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
