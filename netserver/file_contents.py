"""Files that are read again when they change: their octets, and how to see a change later."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
# seconds between two looks at a file
CHECK_INTERVAL = 1.0
# A file changed this short a time before it was read may change again within one tick of its clock.
_SETTLED = 2.0

Signature = tuple[int, ...]


class NotRegularError(Exception):
    """What stands there is no regular file."""


@dataclass(frozen=True, slots=True)
class FileContents:
    """A file as it was read."""

    data: bytes
    mode: int
    signature: Signature | None
    """None if it was changed so shortly before that an unchanged one may hide a change."""

    @classmethod
    def read(cls, path: str) -> FileContents:
        """Read a regular file; raises ``OSError``, ``NotRegularError``."""
        # without O_NONBLOCK, a FIFO in the file's place would hold the process
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotRegularError
            data = file.read()
        settled = abs(time.time() - status.st_mtime) > _SETTLED
        return cls(data, status.st_mode, signature_of(status) if settled else None)


class Looks:
    """When to look at a file again: once a second at most, and one at a time.

    Whoever looks waits for the answer; the others go on with what there is.
    """

    def __init__(self, clock: Callable[[], float], first: float) -> None:
        """Take the clock, in seconds, and when the first look is due."""
        self._clock = clock
        self.next = first
        self._looking = False

    def if_due(self, look: Callable[[], T]) -> T | None:
        """Return what `look` returns, None if it is not time."""
        now = self._clock()
        if now < self.next or self._looking:
            return None
        self.next = now + CHECK_INTERVAL
        self._looking = True
        try:
            return look()
        finally:
            self._looking = False


def signature_of(status: os.stat_result) -> Signature:
    """Return what is another when the file was written again or replaced."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
