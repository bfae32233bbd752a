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
from dataclasses import dataclass

from netserver import native
from pop3.sources.mbox_index import MboxIndex, edges_of

_MAGIC = b"POP3mbj\x02"
# magic | inode, first changed octet, size before, size after | fingerprint before the first
# changed octet, hash of the octets from the size after to the size before | octets of the
# mailbox's path, which follows
_HEADER = struct.Struct("=8s4Q32s32sH")
_DIGEST = 32
_LONGEST_PATH = 65535
_CHUNK = 256 * 1024  # with blocks of 64 KiB 1 GiB takes three times as long
_STRIDE = 8 * 1024 * 1024
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


@dataclass(frozen=True, slots=True)
class Body:
    """What a mailbox shall have from octet `first` on, in place of what it has up to `before`."""

    path: str
    first: int
    before: int
    spans: list[Span]

    @property
    def after(self) -> int:
        """The octets that the mailbox will have."""
        return self.first + sum(end - begin for _, begin, end in self.spans)


def commit(
    mailbox: int,
    index: MboxIndex,
    positions: set[int],
    journal: str,
    *,
    path: str = "",
    files: Files = SYSTEM,
    busy: Callable[[], None] = lambda: None,
) -> None:
    """Take messages out of a locked mailbox of which `index` is true; on disk when this returns.

    `path` is where the mailbox is, for who finds the journal after a crash. Raises OSError,
    EOFError. If the journal is there then, the mailbox must not be used before `recover` was.
    """
    first = index.places[min(positions)]
    kept = list(_kept(mailbox, index, positions))
    body = Body(path, first, index.size, kept)
    _write_journal(journal, mailbox, body, files, busy)
    # each octet moves towards the beginning, so what is still to be read is never overwritten
    _rewrite(mailbox, body, files, busy)
    _forget(journal, files)


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
    _forget(journal, files)
    return True


def path_in(journal: str) -> str | None:
    """Return where the mailbox of a journal is; None if that cannot be read. Raises OSError."""
    descriptor = os.open(journal, _READ)
    try:
        data = os.pread(descriptor, _HEADER.size + _LONGEST_PATH, 0)
    finally:
        native.close(descriptor)
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        return None
    path = data[_HEADER.size :][: _HEADER.unpack_from(data)[-1]]
    return os.fsdecode(path) if path.startswith(b"/") and b"\0" not in path else None


def _carry_out(
    mailbox: int, journal: int, path: str, files: Files, busy: Callable[[], None]
) -> bool:
    """Rewrite the mailbox; True if another journal was made instead."""
    body, inode, edges, tail = _check(journal, files, busy)
    first, before, after = body.first, body.before, body.after
    found = files.fstat(mailbox)
    size = found.st_size
    if found.st_ino != inode or size < after or edges_of(mailbox, first) != edges:
        raise JournalRefused
    if size >= before and _hash((mailbox, after, before), files, busy) == tail:
        if size == before:
            _rewrite(mailbox, body, files, busy)
            return False
        # mail came between the crash and now, and where it must go it might lie itself
        longer = Body(body.path, first, size, [*body.spans, (mailbox, before, size)])
        _write_journal(path, mailbox, longer, files, busy)
        return True
    if _hash((mailbox, first, after), files, busy) != _hash(body.spans[0], files, busy):
        raise JournalRefused
    files.fsync(mailbox)  # it was cut already, but who knows whether on disk
    return False


def _rewrite(mailbox: int, body: Body, files: Files, busy: Callable[[], None]) -> None:
    """Put the body in its place and cut the mailbox behind it; on disk when this returns."""
    at = body.first
    for span in body.spans:
        for block in _read(span, files):
            _write(mailbox, block, at, files)
            at += len(block)
            busy()
    files.fsync(mailbox)
    files.ftruncate(mailbox, at)
    files.fsync(mailbox)


def _forget(journal: str, files: Files) -> None:
    files.unlink(journal)
    sync_directory(journal, files)


def _check(journal: int, files: Files, busy: Callable[[], None]) -> tuple[Body, int, bytes, bytes]:
    """Return what a journal that is whole says: body, inode, edges, tail. Raises JournalRefused."""
    size = files.fstat(journal).st_size
    header = files.pread(journal, _HEADER.size + _LONGEST_PATH, 0)
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise JournalRefused
    _, inode, first, before, after, edges, tail, length = _HEADER.unpack_from(header)
    begin = _HEADER.size + length
    end = begin + after - first
    if not first <= after < before or size != end + _DIGEST:
        raise JournalRefused
    if _hash((journal, 0, end), files, busy) != files.pread(journal, _DIGEST, end):
        raise JournalRefused
    path = os.fsdecode(header[_HEADER.size : begin])
    return Body(path, first, before, [(journal, begin, end)]), inode, edges, tail


def _write_journal(
    path: str, mailbox: int, body: Body, files: Files, busy: Callable[[], None]
) -> None:
    """Write down what a mailbox shall have, and give the journal its name when it is on disk."""
    where = os.fsencode(body.path)
    header = _HEADER.pack(
        _MAGIC,
        files.fstat(mailbox).st_ino,
        body.first,
        body.before,
        body.after,
        edges_of(mailbox, body.first),
        _hash((mailbox, body.after, body.before), files, busy),
        len(where),
    )
    temporary = f"{path}.tmp"  # one name is enough: the mailbox is locked
    descriptor = files.open(temporary, _WRITE, 0o600)
    try:
        try:
            _fill(descriptor, header + where, body, files, busy)
            files.fsync(descriptor)
        finally:
            files.close(descriptor)
        # mail that an agent has left to the system must not be less than the journal says
        files.fsync(mailbox)
        files.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):  # the disk may be full of it
            files.unlink(temporary)
        raise
    sync_directory(path, files)


def _fill(
    descriptor: int, header: bytes, body: Body, files: Files, busy: Callable[[], None]
) -> None:
    _write(descriptor, header, 0, files)
    digest = hashlib.sha256(header)
    at = begun = len(header)
    for span in body.spans:
        for block in _read(span, files):
            digest.update(block)
            _write(descriptor, block, at, files)
            at += len(block)
            if at - begun >= _STRIDE:
                _begin_to_write(descriptor, begun, at)
                begun = at
            busy()
    _write(descriptor, digest.digest(), at, files)


def _begin_to_write(descriptor: int, begin: int, end: int) -> None:
    """Let the disk begin, so that less is left to be done by fsync (0.4 s of 1 GiB)."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, begin, end - begin, os.POSIX_FADV_DONTNEED)


def _read(span: Span, files: Files) -> Iterator[bytes]:
    descriptor, begin, end = span
    while begin < end:
        block = files.pread(descriptor, min(_CHUNK, end - begin), begin)
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
