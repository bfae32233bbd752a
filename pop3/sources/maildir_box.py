"""One maildir during a session: messages opened and deleted under the names they have by then."""

import errno
import io
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO, TypeVar

from netserver import native
from pop3.message import UNKNOWN
from pop3.sources.maildir_index import UNSETTLED, MaildirIndex, split
from pop3.sources.maildir_scan import (
    MOVED,
    OPEN_FOLDER,
    OPEN_MESSAGE,
    TRIES,
    OpenFolders,
    file_at,
    file_blocks,
    file_stamp,
    locate,
)
from pop3.wire import BLOCK, sent_size, stream_size

T = TypeVar("T")

TRASH = b".Trash"
"""The folder for deleted mail, by the rules of Maildir++."""

_KEPT_OPEN = 64  # boxes of one process whose folders stay open between two messages
_reading: dict[int, "MaildirBox"] = {}  # these boxes, the longest one first

_FEW = 64  # messages among which a search is as quick as a table


class MessageGone(Exception):
    """The file of a message is not there any more."""


class MaildirBox:
    """One maildir during a session: the list as it was at login, and the files behind it.

    All calls raise OSError when the store fails.
    """

    __slots__ = ("_by_uid", "_folders", "_found", "_large", "_places", "root", "sizes", "uids")

    def __init__(self, root: str) -> None:
        """Name the maildir; nothing is opened yet."""
        self.root = os.fsencode(os.path.abspath(root))
        self._folders = OpenFolders(self.root)
        self.show(MaildirIndex())

    def show(self, index: MaildirIndex) -> None:
        """Take what this session needs of an index; an idle one shall be small."""
        self.uids = index.uids
        self.sizes = index.sizes[:]  # one may be corrected, and others have the same index
        self._places = index.places
        self._large = index.large
        self._found: list[bytes] | None = None  # the places, split when first needed; b"" is gone
        self._by_uid: dict[bytes, int] | None = None

    def position(self, uid: bytes) -> int:
        """Return where in the list a message is."""
        if len(self.uids) <= _FEW:
            return self.uids.index(uid)
        if self._by_uid is None:
            self._by_uid = dict(zip(self.uids, range(len(self.uids)), strict=True))
        return self._by_uid[uid]

    def open(self, position: int) -> tuple[BinaryIO, int]:
        """Return a message, and the octets it has as sent: LIST may have told another number.

        Up to one block it is in memory, else an open file. The octets are UNKNOWN while another
        program writes into the file. Raises MessageGone.
        """
        self._keep_folders()
        return self._open(self._folders, position)

    def open_long(self, position: int) -> tuple[BinaryIO, int]:
        """Open a long message, as `open` does; it may run beside others in a thread."""
        with OpenFolders(self.root) as folders:
            return self._open(folders, position)

    def _open(self, folders: OpenFolders, position: int) -> tuple[BinaryIO, int]:
        descriptor = self._at_its_place(folders, position, _open_message)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise MessageGone
            if found.st_size <= BLOCK:
                data = os.read(descriptor, found.st_size + 1)
                whole = len(data) == found.st_size
                return io.BytesIO(data), sent_size(data) if whole else UNKNOWN
            octets = self._large_size(position, descriptor, found)
            return io.FileIO(os.dup(descriptor)), octets
        finally:
            native.close(descriptor)

    def close(self) -> None:
        """Give the descriptors of new/ and cur/ back."""
        _reading.pop(id(self), None)
        self._folders.close()

    def _keep_folders(self) -> None:
        """Let new/ and cur/ stay open, for the next message, while few other boxes do.

        Opening them for each message was a fourth of the time of a RETR; 10,000 idle sessions must
        not hold 20,000 descriptors.
        """
        key = id(self)
        if key not in _reading:
            _reading[key] = self
            if len(_reading) > _KEPT_OPEN:
                oldest = next(iter(_reading))
                _reading.pop(oldest).close()

    def _large_size(self, position: int, descriptor: int, found: os.stat_result) -> int:
        """Return the size as sent; counted again only if the file is not the one counted before."""
        stamp = file_stamp(found)
        if stamp == self._large.get(position) != UNSETTLED:
            return self.sizes[position]
        octets = stream_size(file_blocks(descriptor))
        os.lseek(descriptor, 0, os.SEEK_SET)
        if octets == self.sizes[position]:
            self._large[position] = stamp  # not to be counted for each TOP
        return octets

    def delete(self, positions: Sequence[int], *, trash: bool = False) -> list[OSError]:
        """Delete messages, or move them to the trash; what is gone already counts as done.

        Returns the reason for each one still there. All others are gone for good, fsync included.
        """
        failures: list[OSError] = []
        with OpenFolders(self.root) as folders, ExitStack() as stack:
            remove: Callable[[int, bytes], None] = _unlink
            if trash:
                target = _open_trash(self.root)
                stack.callback(native.close, target)
                remove = partial(_move, target)
            for position in positions:
                try:
                    self._at_its_place(folders, position, remove)
                except MessageGone:
                    continue
                except OSError as error:
                    failures.append(error)
            if trash:
                os.fsync(target)
            folders.sync()
        return failures

    def _at_its_place(
        self, folders: OpenFolders, position: int, act: Callable[[int, bytes], T]
    ) -> T:
        """Do something to a message's file, found again if another program has renamed it."""
        if self._found is None:
            self._found = split(self._places, len(self.uids))
        uid = self.uids[position]
        for _ in range(TRIES):
            place = self._found[position]
            if not place:
                raise MessageGone
            folder, name = file_at(uid, place)
            try:
                return act(folders[folder], name)
            except OSError as error:
                if error.errno not in MOVED:
                    raise
                folders.close()  # the folder itself may have been replaced
                present = locate(folders)
                self._found = [present.get(uid, b"") for uid in self.uids]
        raise OSError(errno.EAGAIN, "the message is renamed all the time", name)


def _open_message(folder: int, name: bytes) -> int:
    return os.open(name, OPEN_MESSAGE, dir_fd=folder)


def _unlink(folder: int, name: bytes) -> None:
    os.unlink(name, dir_fd=folder)


def _move(target: int, folder: int, name: bytes) -> None:
    """Move a file to another directory, never over one that is there."""
    base, _, flags = name.partition(b":")
    to = base + b":" + (flags or b"2,")
    try:
        os.stat(to, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        to = b"%b.%b:%b" % (base, os.urandom(6).hex().encode("ascii"), flags or b"2,")
    os.rename(name, to, src_dir_fd=folder, dst_dir_fd=target)


def _open_trash(root: bytes) -> int:
    """Return cur/ of the trash folder, open; the folder is made if it is missing."""
    path = root + b"/" + TRASH
    try:
        trash = os.open(path, OPEN_FOLDER)
    except FileNotFoundError:
        os.mkdir(path, 0o700)
        trash = os.open(path, OPEN_FOLDER)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        native.close(os.open(b"maildirfolder", flags, 0o600, dir_fd=trash))
    try:
        for name in (b"tmp", b"new", b"cur"):
            try:
                os.mkdir(name, 0o700, dir_fd=trash)
            except FileExistsError:
                continue
        os.fsync(trash)
        return os.open(b"cur", OPEN_FOLDER, dir_fd=trash)
    finally:
        native.close(trash)
