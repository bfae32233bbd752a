"""Memory that all processes of a server share, and that a restart finds as it was left.

It is a file in the state directory: the workers of every personality map it, those of inetd and
those of the image before a reload as well.
"""

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from netserver import native

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None  # type: ignore[assignment]

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@contextmanager
def shared_memory(path: Path, size: int, owner: tuple[int, int] | None) -> Iterator[memoryview]:
    """Map a file of `size` octets, made if it is not there; `owner` is its (uid, gid) then.

    Nobody else is in this block at the same time: what the memory begins with can be written.
    Raises OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_size < size:
            # with room on the disk: a page that cannot be had would end whoever writes to it
            os.posix_fallocate(descriptor, 0, size)
            if owner is not None:
                with suppress(PermissionError):
                    os.fchown(descriptor, *owner)
        yield memoryview(mmap.mmap(descriptor, size))
    finally:
        if fcntl is not None:  # the map has the file open, and with it the lock
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        native.close(descriptor)


def boot_id() -> bytes:
    """Return 16 octets that are others after the machine has started anew; CLOCK_MONOTONIC too."""
    try:
        text = Path(_BOOT_ID).read_text("ascii")
        return bytes.fromhex(text.strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)


@dataclass(frozen=True, slots=True)
class Places:
    """Where an entry may lie in a table of `slots` slots of `size` octets after a header.

    An entry begins with its key and lies in one of the few slots from where the key points to.
    """

    memory: memoryview
    header: int
    slots: int
    size: int
    probes: int = 8

    def of(self, key: bytes) -> list[int]:
        """Return where an entry with this key may be."""
        first = int.from_bytes(key[:4], "little")
        return [
            self.header + (first + step) % self.slots * self.size for step in range(self.probes)
        ]

    def find(self, key: bytes) -> int | None:
        """Return where it is, None if it is not there."""
        for offset in self.of(key):
            if self.memory[offset : offset + len(key)] == key:
                return offset
        return None
