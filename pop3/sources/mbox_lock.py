"""Lock a mailbox against delivery agents: a dotlock, then the file itself, in that order.

Nothing waits here. Who finds one of the two taken gives back what it has and tries again later, so
that an agent which takes them in the other order can never wait for us while we wait for it.
"""

import contextlib
import fcntl
import os
import re
import socket
import stat
import struct
import time
from typing import Self

from netserver import native

LOCKS = ("dotlock", "fcntl")

STALE_SECONDS = 1.0
"""A dotlock of a dead process of this host must be older than this."""

REFRESH_SECONDS = 20.0
"""Delivery agents take dotlocks for forgotten that were not touched for some minutes."""

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER = re.compile(rb"([0-9]{1,10}) ([\x21-\x7e]+) [0-9]+\n")
_LINKED = 2

Judged = tuple[int, int, bytes]
"""Device, inode and content of a dotlock: the number of an inode alone is used again at once."""


class UnsafeMailbox(Exception):
    """The mailbox is no regular file, or has a second name."""


class DotLock:
    """The file PATH.lock. Its content is "pid host time", in one line."""

    __slots__ = ("_owned", "_path", "_touched")

    def __init__(self, path: str) -> None:
        """Name the mailbox; nothing is made yet."""
        self._path = f"{path}.lock"
        self._owned: Judged | None = None
        self._touched = 0.0

    def acquire(self) -> bool:
        """Try once; False if somebody has it. Raises OSError."""
        self._remove_stale()
        temporary = f"{self._path}.{os.getpid()}.{os.urandom(6).hex()}"
        descriptor = os.open(temporary, _CREATE, 0o644)
        try:
            owner = f"{os.getpid()} {_host()} {time.time_ns()}\n".encode("ascii")
            os.write(descriptor, owner)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self._path)
            found = os.fstat(descriptor)  # over NFS the answer of link may be lost
            if found.st_nlink == _LINKED:
                self._owned = (found.st_dev, found.st_ino, owner)
                self._touched = time.monotonic()
        finally:
            native.close(descriptor)
            os.unlink(temporary)
        return self._owned is not None

    def refresh(self) -> None:
        """Touch it if that is due. If somebody took it away, going on is the shortest way out."""
        if self._owned is not None and time.monotonic() - self._touched > REFRESH_SECONDS:
            self._touched = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def release(self) -> None:
        """Remove it, if it is still ours."""
        owned, self._owned = self._owned, None
        if owned is None:
            return
        with contextlib.suppress(OSError):
            if _look(self._path)[0] == owned:
                os.unlink(self._path)

    def _remove_stale(self) -> None:
        """Remove the lock of a process of this host that is dead; one of unknown origin stays."""
        try:
            judged, changed = _look(self._path)
        except OSError:
            return  # there is none, or link() will tell
        owner = _OWNER.fullmatch(judged[2])
        if owner is None or owner[2] != _host().encode("ascii") or _is_alive(int(owner[1])):
            return
        if time.time() - changed < STALE_SECONDS:
            return
        # two may come here: who renames another lock than the one it has judged puts it back
        aside = f"{self._path}.{os.urandom(6).hex()}.stale"
        with contextlib.suppress(OSError):
            os.rename(self._path, aside)
            if _look(aside)[0] != judged:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self._path)
            os.unlink(aside)


def _look(path: str) -> tuple[Judged, float]:
    """Return which dotlock it is, and when it was touched. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        return (found.st_dev, found.st_ino, os.read(descriptor, 512)), found.st_mtime
    finally:
        native.close(descriptor)


def _host() -> str:
    return re.sub(r"[^\x21-\x7e]", "_", socket.gethostname()) or "localhost"


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return True  # not a process that could be asked for
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


class OpenMailbox:
    """A mailbox that is open and ours; a context manager that gives it back."""

    __slots__ = ("_dotlock", "descriptor")

    def __init__(self, descriptor: int, dotlock: DotLock | None) -> None:
        """Take over both."""
        self.descriptor = descriptor
        self._dotlock = dotlock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def busy(self) -> None:
        """Say that the work goes on."""
        if self._dotlock is not None:
            self._dotlock.refresh()

    def release(self) -> None:
        """Close the file, which ends its lock, and remove the dotlock."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            native.close(descriptor)
        if self._dotlock is not None:
            self._dotlock.release()


def open_mailbox(path: str, locks: tuple[str, ...]) -> OpenMailbox | None:
    """Lock and open a mailbox; None if another program has it.

    Raises FileNotFoundError if there is none, UnsafeMailbox, OSError.
    """
    os.lstat(path)  # no dotlock beside nothing
    dotlock = DotLock(path) if "dotlock" in locks else None
    if dotlock is not None and not dotlock.acquire():
        return None
    mailbox = OpenMailbox(-1, dotlock)
    try:
        mailbox.descriptor = os.open(path, _OPEN)
        check(os.fstat(mailbox.descriptor))
        if "fcntl" not in locks or _lock(mailbox.descriptor):
            here = os.stat(path, follow_symlinks=False)
            found = os.fstat(mailbox.descriptor)
            if (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino):  # not replaced meanwhile
                return mailbox
    except BaseException:
        mailbox.release()
        raise
    mailbox.release()
    return None


def check(found: os.stat_result) -> None:
    """Raise UnsafeMailbox unless it is a regular file with one name."""
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise UnsafeMailbox


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
