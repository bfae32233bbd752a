"""Take messages out of a mailbox so that a crash at any moment loses, damages and doubles nothing.

A new file put in place by rename would lose the mail of a delivery agent that has opened the old
one and waits for our lock. So the mailbox is rewritten in its place, behind a redo journal: until
the journal has its name nothing has happened, and from then on all has, since whoever opens the
mailbox next carries the journal out first. Doing so again and again comes to the same.
"""

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterator

from netserver import native
from pop3.sources.mbox_index import MboxIndex, edges_of
from pop3.wire import BLOCK

_MAGIC = b"POP3mbj\x01"
# magic | inode, first changed octet, size before, size after | fingerprint before the first
# changed octet, hash of the octets from the size after to the size before
_HEADER = struct.Struct("=8s4Q32s32s")
_DIGEST = 32
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

Span = tuple[int, int, int]
"""A descriptor, and from where to where."""


class JournalRefused(Exception):
    """A journal does not fit the mailbox: another program has rewritten it. Somebody must look."""


class Files:
    """The calls by which a commit touches files; tests put one in their place that fails."""

    open = staticmethod(os.open)
    close = staticmethod(native.close)
    fstat = staticmethod(os.fstat)
    pread = staticmethod(os.pread)
    pwrite = staticmethod(os.pwrite)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)


SYSTEM = Files()


def commit(
    mailbox: int,
    index: MboxIndex,
    positions: set[int],
    journal: str,
    *,
    files: Files = SYSTEM,
    busy: Callable[[], None] = lambda: None,
) -> None:
    """Take messages out of a locked mailbox of which `index` is true; on disk when this returns.

    Raises OSError, EOFError. If the journal is there then, the mailbox must not be used before
    `recover` was.
    """
    first = index.places[min(positions)]
    kept = list(_kept(mailbox, index, positions))
    _write_journal(journal, mailbox, kept, first=first, before=index.size, files=files, busy=busy)
    recover(mailbox, journal, files=files, busy=busy)


def _kept(mailbox: int, index: MboxIndex, positions: set[int]) -> Iterator[Span]:
    """Yield what stays behind the first message that goes, neighbours together."""
    begin = end = -1
    for i in range(min(positions), len(index)):
        if i in positions:
            continue
        share = index.share(i)
        if share[0] != end:
            if end > begin:
                yield mailbox, begin, end
            begin = share[0]
        end = share[1]
    if end > begin:
        yield mailbox, begin, end


def recover(
    mailbox: int,
    journal: str,
    *,
    files: Files = SYSTEM,
    busy: Callable[[], None] = lambda: None,
) -> bool:
    """Carry out the journal of a locked mailbox; False if there is none.

    Mail that was delivered since stays. Raises JournalRefused, OSError, EOFError.
    """
    try:
        descriptor = files.open(journal, _READ)
    except FileNotFoundError:
        return False
    try:
        later = _carry_out(mailbox, descriptor, journal, files, busy)
    finally:
        files.close(descriptor)
    if later:  # the journal is a longer one now
        return recover(mailbox, journal, files=files, busy=busy)
    files.unlink(journal)
    sync_directory(journal, files)
    return True


def _carry_out(
    mailbox: int, journal: int, path: str, files: Files, busy: Callable[[], None]
) -> bool:
    """Rewrite the mailbox; True if another journal was made instead."""
    inode, first, before, after, edges, tail = _check(journal, files, busy)
    found = files.fstat(mailbox)
    size = found.st_size
    if found.st_ino != inode or size < after or edges_of(mailbox, first) != edges:
        raise JournalRefused
    body = _HEADER.size, _HEADER.size + after - first
    if size >= before and _hash((mailbox, after, before), files, busy) == tail:
        if size > before:
            # mail came between the crash and now, and where it must go it might lie itself
            spans = [(journal, *body), (mailbox, before, size)]
            _write_journal(path, mailbox, spans, first=first, before=size, files=files, busy=busy)
            return True
    elif _hash((mailbox, first, after), files, busy) == _hash((journal, *body), files, busy):
        files.fsync(mailbox)  # it was cut already, but who knows whether on disk
        return False
    else:
        raise JournalRefused
    at = first
    for block in _read((journal, *body), files):
        _write(mailbox, block, at, files)
        at += len(block)
        busy()
    files.fsync(mailbox)
    files.ftruncate(mailbox, after)
    files.fsync(mailbox)
    return False


def _check(
    journal: int, files: Files, busy: Callable[[], None]
) -> tuple[int, int, int, int, bytes, bytes]:
    """Return the header of a journal that is whole. Raises JournalRefused."""
    size = files.fstat(journal).st_size
    header = files.pread(journal, _HEADER.size, 0)
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise JournalRefused
    _, inode, first, before, after, edges, tail = _HEADER.unpack(header)
    length = _HEADER.size + after - first
    if not first <= after < before or size != length + _DIGEST:
        raise JournalRefused
    if _hash((journal, 0, length), files, busy) != files.pread(journal, _DIGEST, length):
        raise JournalRefused
    return inode, first, before, after, edges, tail


def _write_journal(
    path: str,
    mailbox: int,
    spans: list[Span],
    *,
    first: int,
    before: int,
    files: Files,
    busy: Callable[[], None],
) -> None:
    """Write what the mailbox shall have from octet `first` on, and give it its name when whole."""
    after = first + sum(end - begin for _, begin, end in spans)
    header = _HEADER.pack(
        _MAGIC,
        files.fstat(mailbox).st_ino,
        first,
        before,
        after,
        edges_of(mailbox, first),
        _hash((mailbox, after, before), files, busy),
    )
    temporary = f"{path}.tmp"  # one name is enough: the mailbox is locked
    descriptor = files.open(temporary, _WRITE, 0o600)
    try:
        try:
            _write(descriptor, header, 0, files)
            digest = hashlib.sha256(header)
            at = len(header)
            for span in spans:
                for block in _read(span, files):
                    digest.update(block)
                    _write(descriptor, block, at, files)
                    at += len(block)
                    busy()
            _write(descriptor, digest.digest(), at, files)
            files.fsync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):  # the disk may be full of it
            files.unlink(temporary)
        raise
    sync_directory(path, files)


def _read(span: Span, files: Files) -> Iterator[bytes]:
    descriptor, begin, end = span
    while begin < end:
        block = files.pread(descriptor, min(BLOCK, end - begin), begin)
        if not block:
            raise EOFError
        yield block
        begin += len(block)


def _hash(span: Span, files: Files, busy: Callable[[], None]) -> bytes:
    digest = hashlib.sha256()
    for block in _read(span, files):
        digest.update(block)
        busy()
    return digest.digest()


def _write(descriptor: int, data: bytes, at: int, files: Files) -> None:
    while data:
        written = files.pwrite(descriptor, data, at)
        data = data[written:]
        at += written


def sync_directory(path: str, files: Files = SYSTEM) -> None:
    """Make the name of a file outlive a power failure. Raises OSError."""
    descriptor = files.open(os.path.dirname(path), _DIRECTORY)
    try:
        files.fsync(descriptor)
    finally:
        files.close(descriptor)
