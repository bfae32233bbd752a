"""The file beside a mailbox by which mail programs keep each other off: PATH.lock."""

import contextlib
import os
import re
import socket
import time

from netserver import native

STALE_SECONDS = 1.0
"""A dotlock of a dead process of this host must be older than this."""

REFRESH_SECONDS = 20.0
"""Delivery agents take dotlocks for forgotten that were not touched for some minutes."""

FORGOTTEN_SECONDS = 600.0
"""How old one must be that does not say whose it is; agents use five minutes and more."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER = re.compile(rb"([0-9]{1,10}) ([\x21-\x7e]+) [0-9]+\n")
_LINKED = 2

Judged = tuple[int, int, bytes]
"""Device, inode and content of a dotlock: the number of an inode alone is used again at once."""


class DotLock:
    """The file PATH.lock. Its content is "pid host time", in one line."""

    __slots__ = ("_forgotten", "_group", "_owned", "_path", "_touched")

    def __init__(self, path: str, *, forgotten: float = FORGOTTEN_SECONDS, group: int = -1) -> None:
        """Name the mailbox; nothing is made yet."""
        self._path = f"{path}.lock"
        self._forgotten = forgotten
        self._group = group
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
            if self._group >= 0:
                os.fchown(descriptor, -1, self._group)
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
        """Remove the lock of a dead process of this host, or one that is long forgotten."""
        try:
            judged, changed = _look(self._path)
        except OSError:
            return  # there is none, or link() will tell
        limit = _age_limit(judged[2], self._forgotten)
        if limit is None or time.time() - changed < limit:
            return
        # two may come here: who renames another lock than the one it has judged puts it back
        aside = f"{self._path}.{os.urandom(6).hex()}.stale"
        with contextlib.suppress(OSError):
            os.rename(self._path, aside)
            if _look(aside)[0] != judged:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self._path)
            os.unlink(aside)


def left_by_the_dead(path: str) -> bool:
    """Tell whether a mailbox has the dotlock of a dead process: it can be taken over soon."""
    try:
        judged, _ = _look(f"{path}.lock")
    except OSError:
        return False
    return _age_limit(judged[2], 0) == STALE_SECONDS


def _age_limit(content: bytes, forgotten: float) -> float | None:
    """Return after how many seconds a lock may be removed; None: never."""
    owner = _OWNER.fullmatch(content)
    if owner is not None and owner[2] == _host().encode("ascii"):
        # a living one may wait for a slow disk
        return None if _is_alive(int(owner[1])) else STALE_SECONDS
    return forgotten if forgotten > 0 else None


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
