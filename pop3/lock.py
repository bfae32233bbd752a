"""One session per maildrop: flock on a file in the state directory, never in the mail itself.

The kernel drops the lock when the process dies, so nobody is ever locked out by a stale one. Lock
files stay: deleting one would let two processes lock two files of the same name. Beside flock there
is a table of this process, since flock over NFS is a lock of the whole process, and since some
systems have no flock at all (there, one process serves all and the table is enough).
"""

import contextlib
import os
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from netserver import native

try:
    import fcntl
except ImportError:  # not Unix
    fcntl = None  # type: ignore[assignment]

_held: set[str] = set()
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_LONGEST_NAME = 200


class MaildropLock:
    """An exclusive lock by file name. Not re-entrant: two objects exclude each other anywhere."""

    __slots__ = ("_descriptor", "_owned", "_path")

    def __init__(self, path: str | Path) -> None:
        """Name the lock; nothing is opened yet."""
        self._path = str(path)
        self._descriptor = -1
        self._owned = False

    def acquire(self) -> bool:
        """Try once, without waiting; False if somebody has it. Raises OSError."""
        if self._path in _held:
            return False
        _held.add(self._path)
        try:
            self._owned = self._flock()
        finally:
            if not self._owned:
                _held.discard(self._path)
        return self._owned

    def _flock(self) -> bool:
        if fcntl is None:
            return True
        descriptor = os.open(self._path, _FLAGS, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            native.close(descriptor)
            return False
        except BaseException:
            native.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock up; does nothing if it is not ours."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                native.close(descriptor)  # ends the flock too
        if self._owned:
            self._owned = False
            _held.discard(self._path)


@lru_cache(maxsize=4096)  # the same users come again and again
def lock_file(directory: Path, maildrop: str) -> Path:
    """Return where a maildrop's lock file is."""
    return directory / "locks" / lock_name(maildrop)


def lock_name(maildrop: str) -> str:
    """Turn a maildrop's name into a file name: no slash, no leading dot, never two into one."""
    name = quote(maildrop, safe="@+~", errors="surrogatepass")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _LONGEST_NAME:
        return "=" + sha256(maildrop.encode("utf-8", "surrogatepass")).hexdigest()
    return name
