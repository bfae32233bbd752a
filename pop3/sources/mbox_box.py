"""One mailbox during a session: locked only to be listed and to be changed, read without a lock."""

import io
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

from netserver import native
from pop3.sources import mbox_index, mbox_scan
from pop3.sources.mbox_commit import commit, recover, sync_directory
from pop3.sources.mbox_forms import Form, unquoted
from pop3.sources.mbox_index import MboxIndex, edges_of, file_name, stamp_of
from pop3.sources.mbox_lock import OpenMailbox, Rules, check, open_mailbox
from pop3.wire import BLOCK, read_blocks

if TYPE_CHECKING:
    import re

JOURNALS = "journals"
"""Where the journals are in the directory of the indexes: apart, so that they are soon found."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class MailboxChanged(Exception):
    """Another program has changed messages that this session knows."""


@dataclass(slots=True)
class MboxBox:
    """One mailbox as it was listed at login.

    `directory` holds what is kept about it: the index, and the journal of a deletion under way.
    All calls raise OSError, EOFError (the mailbox is shorter than it should be), UnsafeMailbox.
    """

    path: str
    directory: str
    form: Form
    rules: Rules
    index: MboxIndex
    _positions: dict[bytes, int] = field(default_factory=dict)

    @property
    def index_file(self) -> str:
        """Where the index is."""
        return f"{self.directory}/{file_name(self.path)}.{self.form.name}"

    @property
    def journal(self) -> str:
        """Where the journal is while there is one."""
        return f"{self.directory}/{JOURNALS}/{file_name(self.path)}"

    def lock(self) -> OpenMailbox | None:
        """Lock and open the mailbox, or return None if another program has it."""
        return open_mailbox(self.path, self.rules)

    def list(self, mailbox: OpenMailbox) -> bool:
        """Take the messages as they are now; True if the index file must be written.

        Raises NotAMailbox, JournalRefused.
        """
        recover(mailbox.descriptor, self.journal, busy=mailbox.busy)
        old = mbox_index.load(self.index_file) or MboxIndex()
        self.index = mbox_scan.refresh(mailbox.descriptor, self.form, old, mailbox.busy)
        return self.index is not old

    def position(self, uid: bytes) -> int:
        """Return where in the list a message is."""
        if not self._positions:
            self._positions = {uid: at for at, uid in enumerate(self.index.uids)}
        return self._positions[uid]

    def delete(self, mailbox: OpenMailbox, positions: set[int]) -> MboxIndex:
        """Take messages out, and return the index of what is there then.

        Raises MailboxChanged if it is not the mailbox that was listed, apart from mail that has
        come since. If it raises anything and there is no journal, nothing was done.
        """
        descriptor = mailbox.descriptor
        recover(descriptor, self.journal, busy=mailbox.busy)
        index = self.index
        if stamp_of(os.fstat(descriptor)) != index.stamp:
            index = mbox_scan.scan(descriptor, self.form, self.index, mailbox.busy)
            if not self._begins(index):
                raise MailboxChanged
        make_room(self.directory)
        commit(descriptor, index, positions, self.journal, path=self.path, busy=mailbox.busy)
        left = index.without(positions)
        left.stamp = stamp_of(os.fstat(descriptor))
        left.edges = edges_of(descriptor, left.size)
        return left

    def _begins(self, index: MboxIndex) -> bool:
        """Tell whether the messages of this session are the first ones of an index, unchanged."""
        count = len(self.index)
        now = index.head(count)
        return (
            now.uids == self.index.uids
            and now.places == self.index.places
            and now.begins == self.index.begins
            and now.ends == self.index.ends
        )

    def envelope(self, position: int) -> bytes:
        """Return what stands before a message that was opened just now: its "From " line."""
        index = self.index
        descriptor = os.open(self.path, _READ)
        try:
            size = min(index.begins[position] - index.places[position], BLOCK)
            return os.pread(descriptor, size, index.places[position])
        finally:
            native.close(descriptor)

    def open(self, position: int) -> BinaryIO:
        """Return a message; up to one block it is in memory, else an open part of the file.

        Raises MailboxChanged.
        """
        index = self.index
        begin, end = index.begins[position], index.ends[position]
        descriptor = os.open(self.path, _READ)
        try:
            found = os.fstat(descriptor)
            check(found, self.rules)
            if stamp_of(found) != index.stamp:
                uid, size = mbox_scan.describe(descriptor, begin, end, self.form)
                if index.uids[position][: len(uid)] != uid or size != index.sizes[position]:
                    raise MailboxChanged
            if end - begin <= BLOCK:
                blocks = mbox_scan.as_sent(mbox_scan.span(descriptor, begin, end), self.form)
                return io.BytesIO(b"".join(blocks))
            part = cast("BinaryIO", FilePart(os.dup(descriptor), begin, end))
            if self.form.quoted is not None:
                part = cast("BinaryIO", Unquoted(part, self.form.quoted))
        finally:
            native.close(descriptor)
        return part


def make_room(directory: str) -> None:
    """Make the directories of indexes and journals, so that they outlive a power failure."""
    journals = f"{directory}/{JOURNALS}"
    if not os.path.isdir(journals):
        os.makedirs(journals, 0o700, exist_ok=True)
        sync_directory(journals)
        sync_directory(directory)


class FilePart(io.RawIOBase):
    """A part of a file, to be read once; closes the descriptor."""

    def __init__(self, descriptor: int, begin: int, end: int) -> None:
        """Take the descriptor over."""
        self._descriptor = descriptor
        self._at = begin
        self._end = end

    def read(self, size: int = -1, /) -> bytes:
        """Read some octets, all that are left without a size; b"" at the end.

        Raises OSError if the file has become too short.
        """
        left = self._end - self._at
        wanted = left if size < 0 else min(size, left)
        try:
            data = b"".join(mbox_scan.span(self._descriptor, self._at, self._at + wanted))
        except EOFError:
            raise OSError("the mailbox was cut short") from None
        self._at += wanted
        return data

    def close(self) -> None:
        """Close the descriptor, once."""
        if not self.closed:
            native.close(self._descriptor)
        super().close()


class Unquoted(io.RawIOBase):
    """A message without its quotation marks, to be read once; closes what it is read from."""

    def __init__(self, stored: BinaryIO, quoted: "re.Pattern[bytes]") -> None:
        """Take over the message as it is stored."""
        self._stored = stored
        self._blocks = unquoted(read_blocks(stored), quoted)
        self._left = b""

    def read(self, size: int = -1, /) -> bytes:
        """Read some octets, all that are left without a size; b"" at the end. Raises OSError."""
        while size < 0 or len(self._left) < size:
            block = next(self._blocks, None)
            if block is None:
                break
            self._left += block
        cut = len(self._left) if size < 0 else size
        data, self._left = self._left[:cut], self._left[cut:]
        return data

    def close(self) -> None:
        """Close the file."""
        self._stored.close()
        super().close()
