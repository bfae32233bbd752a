"""The pid file: it says who the master is, and lets there be only one."""

from __future__ import annotations

import os
import stat
import weakref
from contextlib import suppress

from netserver.errors import BindError


class PidFile:
    """The file that holds the master's pid, locked for as long as the master lives.

    The lock (flock) belongs to the open file ``fd``: it survives an exec if ``fd`` is handed over,
    and a forked child gives its copy back at once, so that it ends with the master.  Acquire it
    after ``background``.
    """

    __slots__ = ("__weakref__", "_owner", "fd", "path")

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.fd: int | None = None
        self._owner = 0

    @classmethod
    def adopt(cls, path: str, fd: int) -> PidFile:
        """Return the pid file whose lock this process took before it called exec."""
        adopted = cls(path)
        os.set_inheritable(fd, False)
        adopted._hold(fd)
        return adopted

    @classmethod
    def follow(cls, path: str | None, left: tuple[int, str] | None) -> PidFile | None:
        """Return the pid file for ``path``, given the one that was held before a restart.

        One that is no longer asked for is removed, after the new one has been taken: there is a
        lock at any moment.  Raises ``BindError``.
        """
        old = None if left is None else cls.adopt(left[1], left[0])
        if old is not None and path is not None and os.path.abspath(path) == old.path:
            if old.is_in_place:
                return old
            old.close()  # somebody removed it; the name may be another server's by now
            old = None
        new = None
        if path is not None:
            new = cls(path)
            new.acquire()
        if old is not None:
            old.remove()
        return new

    @property
    def is_in_place(self) -> bool:
        """Whether the path still names the file that is held."""
        return self.fd is not None and _same_file(self.fd, self.path)

    def check(self) -> None:
        """See whether ``acquire`` would work; raises ``BindError``."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            old = os.open(self.path, flags)
        except FileNotFoundError:
            directory = os.path.dirname(self.path)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise BindError(
                    f"--pid-file {self.path}: its directory is missing or not writable"
                ) from None
            return
        except OSError as error:
            raise self._error(error) from None
        try:
            self._check_old(old)
        finally:
            os.close(old)

    def acquire(self) -> None:
        """Lock and write the file.

        Raises ``BindError`` when another master holds it or it cannot be written.
        """
        draft = f"{self.path}.{os.getpid()}.tmp"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with suppress(FileNotFoundError):
                os.unlink(draft)  # of a process that had our number and died over it
            fd = os.open(draft, flags, 0o644)
        except OSError as error:
            raise self._error(error) from None
        try:
            # locked and complete before anybody can see it under its name
            _lock(fd)
            os.write(fd, b"%d\n" % os.getpid())
            self._put_in_place(draft)
        except OSError as error:
            os.close(fd)
            raise self._error(error) from None
        except BindError:
            os.close(fd)
            raise
        finally:
            with suppress(OSError):
                os.unlink(draft)
        self._hold(fd)

    def _put_in_place(self, draft: str) -> None:
        while True:
            with suppress(FileExistsError):
                os.link(draft, self.path)
                return
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                old = os.open(self.path, flags)
            except FileNotFoundError:
                continue
            try:
                self._check_old(old)
                # held until the new file, locked too, has taken the name
                if _same_file(old, self.path):
                    os.replace(draft, self.path)
                    return
            finally:
                os.close(old)

    def _check_old(self, old: int) -> None:
        if not stat.S_ISREG(os.fstat(old).st_mode):
            raise BindError(f"--pid-file {self.path}: not a regular file")
        try:
            _lock(old)
        except BlockingIOError:
            pid = os.pread(old, 32, 0).partition(b"\n")[0].decode("ascii", "replace")
            raise BindError(
                f"--pid-file {self.path}: a server is running already, its pid is {pid}"
            ) from None

    def _error(self, error: OSError) -> BindError:
        reason = (error.strerror or error.__class__.__name__).lower()
        return BindError(f"--pid-file {self.path}: {reason}")

    def _hold(self, fd: int) -> None:
        self.fd = fd
        self._owner = os.getpid()
        mine = weakref.ref(self)

        def give_back() -> None:
            held = mine()
            if held is not None:
                held.close()

        os.register_at_fork(after_in_child=give_back)

    def close(self) -> None:
        """Give the lock back, or this process's share of it; the file stays."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def bequest(self) -> tuple[int, str] | None:
        """Return what ``follow`` needs after a restart."""
        return None if self.fd is None else (self.fd, self.path)

    def remove(self) -> None:
        """Remove the file if it is this process's, and give the lock back; never raises."""
        if self.fd is None:
            return
        with suppress(OSError):
            if self._owner == os.getpid() and _same_file(self.fd, self.path):
                os.unlink(self.path)
        self.close()


def _lock(fd: int) -> None:
    import fcntl  # noqa: PLC0415 - not on every system

    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
