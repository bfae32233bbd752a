"""The index file of an mbox: where its messages are, their ids and exact sizes, in columns.

The file is a cache in the state directory. Damaged, missing or not writable it costs a scan of the
whole mailbox; and of equal messages one may get the id of another.
"""

import contextlib
import hashlib
import os
import re
import struct
import zlib
from array import array
from dataclasses import dataclass, field

from netserver import native

Stamp = tuple[int, int, int, int]
"""Inode, size, and the times of modification and change of a mailbox, in ns."""

NEVER: Stamp = (0, 0, 0, 0)
"""The stamp that no file has."""

_MASK = 2**64 - 1
_EDGE = 4096  # octets at both ends of a part that tell whether it is still the same
_UNREADABLE = re.compile(r"[^A-Za-z0-9.@-]+")
_HEADER = struct.Struct("=8sI2Q4Q32s")  # magic, checksum of the rest, entries, octets of uids, …
_MAGIC = b"POP3mbx\x01"  # the last octet is the version of the format
_CHECKED_FROM = 12
_LONGEST = 2**40


def _column() -> "array[int]":
    return array("q")


@dataclass(slots=True)
class MboxIndex:
    """The messages of one mailbox in their order.

    `places` are the offsets of what stands before each message (a "From " line), `begins` and
    `ends` those of the message itself. A message's share of the file, envelope and blank line
    included, ends where the next one begins. `uids` are as announced. `edges` is the fingerprint of
    the file as it was, `stamp` what fstat said of it.
    """

    stamp: Stamp = NEVER
    edges: bytes = bytes(32)
    uids: list[bytes] = field(default_factory=list)
    places: "array[int]" = field(default_factory=_column)
    begins: "array[int]" = field(default_factory=_column)
    ends: "array[int]" = field(default_factory=_column)
    sizes: "array[int]" = field(default_factory=_column)

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def size(self) -> int:
        """The octets of the mailbox as it was."""
        return self.stamp[1]

    def head(self, count: int) -> "MboxIndex":
        """Return the part about the first messages."""
        return MboxIndex(
            self.stamp,
            self.edges,
            self.uids[:count],
            self.places[:count],
            self.begins[:count],
            self.ends[:count],
            self.sizes[:count],
        )

    def share(self, position: int) -> tuple[int, int]:
        """Return the octets of the file that go when a message goes: from, to."""
        last = position + 1 == len(self)
        return self.places[position], self.size if last else self.places[position + 1]

    def without(self, positions: set[int]) -> "MboxIndex":
        """Return the messages that are left, at their new offsets; stamp and edges are not set."""
        left = MboxIndex()
        gone = 0
        for i, uid in enumerate(self.uids):
            if i in positions:
                begin, end = self.share(i)
                gone += end - begin
                continue
            left.uids.append(uid)
            left.sizes.append(self.sizes[i])
            left.places.append(self.places[i] - gone)
            left.begins.append(self.begins[i] - gone)
            left.ends.append(self.ends[i] - gone)
        return left


def stamp_of(found: os.stat_result) -> Stamp:
    """Return what changes when a mailbox does."""
    return (
        found.st_ino,
        found.st_size,
        found.st_mtime_ns & _MASK,
        found.st_ctime_ns & _MASK,
    )


def edges_of(descriptor: int, size: int) -> bytes:
    """Return the fingerprint of the first `size` octets of a file: that of both their ends."""
    first = os.pread(descriptor, min(_EDGE, size), 0)
    last = os.pread(descriptor, min(_EDGE, size), max(size - _EDGE, 0))
    return hashlib.sha256(b"%d\0" % size + first + last).digest()


def file_name(path: str) -> str:
    """Name the files kept about a mailbox: a hash of its path, and its end to be readable."""
    readable = _UNREADABLE.sub("_", path[-60:]).strip("_")
    return f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}-{readable}"


def load(path: str) -> MboxIndex | None:
    """Read an index file; None if there is none, or one that cannot be used."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, min(os.fstat(descriptor).st_size, _LONGEST))
        finally:
            native.close(descriptor)
    except OSError:
        return None
    if len(data) < _HEADER.size:
        return None
    magic, checksum, count, length, *stamp, edges = _HEADER.unpack_from(data)
    if magic != _MAGIC or zlib.crc32(data[_CHECKED_FROM:]) != checksum:
        return None
    at = _HEADER.size + length
    uids = data[_HEADER.size : at].split(b"\0") if count else []
    if len(uids) != count or len(data) != at + 4 * 8 * count:
        return None
    columns = [array("q", data[at + i * 8 * count : at + (i + 1) * 8 * count]) for i in range(4)]
    return MboxIndex((stamp[0], stamp[1], stamp[2], stamp[3]), edges, uids, *columns)


def save(index: MboxIndex, path: str) -> None:
    """Write the index file, whole or not at all; no fsync, as the checksum finds what a crash tore.

    Raises OSError.
    """
    uids = b"\0".join(index.uids)
    columns = (index.places, index.begins, index.ends, index.sizes)
    header = _HEADER.pack(_MAGIC, 0, len(index), len(uids), *index.stamp, index.edges)
    body = b"".join((header[_CHECKED_FROM:], uids, *columns))
    data = _MAGIC + struct.pack("=I", zlib.crc32(body)) + body
    temporary = f"{path}.{os.urandom(6).hex()}.tmp"
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            native.close(descriptor)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
