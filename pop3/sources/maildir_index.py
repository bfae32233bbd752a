"""The index file of a maildir: ids, exact sizes and places of its messages, in columns.

Finding a size means reading the message, so sizes are remembered by (id, inode), and the whole list
by the stamps of the directories. The file is a cache. It lies in the state directory, never in the
mail; damaged, missing or not writable, it costs time and nothing else. Two processes may write it
at once: the last rename wins, and both files are right.
"""

import errno
import hashlib
import os
import re
import struct
import zlib
from array import array
from dataclasses import dataclass, field

from netserver import native

Stamp = tuple[int, int, int]
"""Inode, and two more numbers that change with the content of a file or directory."""

UNSETTLED: Stamp = (0, 0, 0)
"""The stamp of a directory that must be scanned, of a message that must be counted again."""

_UNREADABLE = re.compile(r"[^A-Za-z0-9.@-]+")

# magic, checksum of the rest, believed | entries, octets of ids and places, large | two folders
_HEADER = struct.Struct("=8sII4Q6Q")
_MAGIC = b"POP3mdx\x01"  # the last octet is the version of the format
_CHECKED_FROM = 12
_LARGE_FIELDS = 4


@dataclass(slots=True)
class MaildirIndex:
    """The messages of one maildir in their order, in columns.

    `places`, joined by NUL, tell where each is: b"n" or b"c" for new/ or cur/, and what follows the
    id in the file name; with a capital letter the whole name follows, as the id is a hash. `large`
    holds the stamps of messages above one block, by position: smaller ones are counted whenever
    they are read. `believed` tells that sizes may come from file names. `skipped` are the names of
    files that could not be opened; they are not saved.
    """

    uids: list[bytes] = field(default_factory=list)
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    inodes: "array[int]" = field(default_factory=lambda: array("Q"))
    places: bytes = b""
    large: dict[int, Stamp] = field(default_factory=dict)
    folders: tuple[Stamp, Stamp] = (UNSETTLED, UNSETTLED)
    believed: bool = False
    skipped: list[bytes] = field(default_factory=list, compare=False)

    def __len__(self) -> int:
        return len(self.uids)

    def unsettle(self) -> None:
        """Make the next login scan the directories."""
        self.folders = (UNSETTLED, UNSETTLED)


def split(blob: bytes, count: int) -> list[bytes]:
    """Undo a join by NUL."""
    return blob.split(b"\0") if count else []


def index_path(directory: str, root: bytes) -> str:
    """Return the name of a maildir's index file: a hash of its path, and its end to be readable."""
    readable = _UNREADABLE.sub("_", os.fsdecode(root[-60:])).strip("_")
    return f"{directory}/{hashlib.sha256(root).hexdigest()[:32]}-{readable}"


def load(path: str) -> MaildirIndex | None:
    """Read an index file; None if there is none, or one that cannot be used."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, os.fstat(descriptor).st_size)
        finally:
            native.close(descriptor)
    except OSError:
        return None
    return _parse(data)


def _parse(data: bytes) -> MaildirIndex | None:
    if len(data) < _HEADER.size:
        return None
    magic, checksum, believed, count, *lengths = _HEADER.unpack_from(data)
    if magic != _MAGIC or checksum != zlib.crc32(memoryview(data)[_CHECKED_FROM:]):
        return None
    sections = (lengths[0], lengths[1], 8 * count, 8 * count, 8 * _LARGE_FIELDS * lengths[2])
    if _HEADER.size + sum(sections) != len(data):
        return None
    at = _HEADER.size
    parts = [data[(at := at + length) - length : at] for length in sections]
    large = array("Q", parts[4])
    uids = split(parts[0], count)
    if len(uids) != count or (count and parts[1].count(b"\0") + 1 != count):
        return None
    return MaildirIndex(
        uids=uids,
        places=parts[1],
        inodes=array("Q", parts[2]),
        sizes=array("q", parts[3]),
        large={
            large[i]: (large[i + 1], large[i + 2], large[i + 3])
            for i in range(0, len(large), _LARGE_FIELDS)
        },
        folders=((lengths[3], lengths[4], lengths[5]), (lengths[6], lengths[7], lengths[8])),
        believed=bool(believed),
    )


def save(index: MaildirIndex, path: str) -> None:
    """Write an index file, whole or not at all; no fsync, as the checksum finds what a crash tore.

    Raises OSError.
    """
    uids = b"\0".join(index.uids)
    large = array("Q")
    for i, stamp in index.large.items():
        large.extend((i, *stamp))
    numbers = (len(index), len(uids), len(index.places), len(index.large))
    header = _HEADER.pack(_MAGIC, 0, index.believed, *numbers, *index.folders[0], *index.folders[1])
    body = b"".join((header[_CHECKED_FROM:], uids, index.places, index.inodes, index.sizes, large))
    data = header[: len(_MAGIC)] + struct.pack("=I", zlib.crc32(body)) + body
    temporary = f"{path}.{os.urandom(6).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        descriptor = os.open(temporary, flags, 0o600)
    try:
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            native.close(descriptor)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def amend(path: str, uid: bytes, octets: int | None) -> None:
    """Note another size of one message; None: forget it, so that the next login counts it again.

    Raises OSError.
    """
    index = load(path)
    if index is None or uid not in index.uids:
        return
    at = index.uids.index(uid)
    index.large.pop(at, None)
    if octets is None:
        index.inodes[at] = 0
        index.unsettle()
    else:
        index.sizes[at] = octets
    save(index, path)
