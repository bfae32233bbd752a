"""Find the messages of a maildir and their exact sizes, with as little work as can be.

A scan of the directories gives names and inodes without a stat per file; only a message whose
(id, inode) the index does not know is read. A directory that has not changed is not scanned at
all, so a login to a box of any size costs two stats and the reading of the index.
"""

import errno
import itertools
import math
import os
import re
import time
from array import array
from collections.abc import Iterator
from typing import Self

from netserver import native
from pop3.message import LONGEST_UID, hashed
from pop3.sources.maildir_index import UNSETTLED, MaildirIndex, Stamp, split
from pop3.wire import BLOCK, sent_size, stream_size

FOLDERS = (b"new", b"cur")
"""In the order of scanning: a message that moves meanwhile is seen twice rather than not at all."""

SETTLE_NS = 2_000_000_000
"""What changed later than this before a look may change again with the same time stamp."""

TRIES = 4
"""Scans of a maildir that changes all the time."""

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_MESSAGE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_UINT64 = 2**64 - 1
_FIRST_READ = 16 * 1024  # most mail fits; a bigger buffer costs more than a second read
_UID_OCTETS = bytes(range(0x21, 0x7F))
_ARRIVAL = re.compile(rb"[0-9]+")
_STATED = re.compile(rb",W=([0-9]{1,10})(?=,|$)")
_SHAPE = bytes(ord("0" if chr(octet) in "0123456789" else ".") for octet in range(256))
_LETTERS = (b"nN", b"cC")  # by folder; see MaildirIndex.places
_PLAIN = frozenset(b"nc")
_GONE = -1
MOVED = frozenset({errno.ENOENT, errno.ESTALE})
"""The file is not there under this name any more; the second one is NFS."""

# Opening tells that the file has gone, that it is no message (link, socket), or is not for us.
_NO_MESSAGE = MOVED | {errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM}


def places_of(folder: int, names: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return ids and places of the files in new/ (0) or cur/ (1).

    The id of a message is its file name up to ":", or the hash of that where POP3 cannot carry it.
    """
    plain, hash_ = (bytes((letter,)) for letter in _LETTERS[folder])
    uids = [name.partition(b":")[0] for name in names]
    places = [plain + name[len(uid) :] for name, uid in zip(names, uids, strict=True)]
    if not _all_valid(uids):
        for i, uid in enumerate(uids):
            if not _all_valid([uid]):
                uids[i], places[i] = hashed(uid), hash_ + names[i]
    return uids, places


def _all_valid(uids: list[bytes]) -> bool:
    """Tell whether POP3 can carry these ids as they are (RFC 1939 §7)."""
    lengths = set(map(len, uids))
    return (
        max(lengths, default=1) <= LONGEST_UID
        and 0 not in lengths
        and not b"".join(uids).translate(None, _UID_OCTETS)
    )


def file_at(uid: bytes, place: bytes) -> tuple[int, bytes]:
    """Return the folder, 0 for new/ and 1 for cur/, and the file name: places_of turned round."""
    letter = place[0]
    return int(letter in _LETTERS[1]), uid + place[1:] if letter in _PLAIN else place[1:]


def folder_stamp(path: bytes) -> Stamp:
    """Return what changes when a directory does; zeros if it is not there.

    With the change time as well: programs that restore or copy mail set the modification time back.
    """
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return UNSETTLED
    return found.st_ino, found.st_mtime_ns & _UINT64, found.st_ctime_ns & _UINT64


def file_stamp(found: os.stat_result) -> Stamp:
    """Return what changes when a message does, or UNSETTLED if it was changed just now."""
    if time.time_ns() - found.st_mtime_ns < SETTLE_NS:
        return UNSETTLED
    return found.st_ino, found.st_size, found.st_mtime_ns & _UINT64


def is_current(index: MaildirIndex, root: bytes) -> bool:
    """Tell whether the maildir is as it was when the index was made."""
    return all(
        stamp != UNSETTLED and stamp == folder_stamp(root + b"/" + folder)
        for folder, stamp in zip(FOLDERS, index.folders, strict=True)
    )


def scan(folder: int) -> tuple[list[bytes], list[int]]:
    """Return names and inodes of what may be messages in an open directory.

    Raises OSError.
    """
    names: list[str] = []
    inodes: list[int] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] != "." and entry.is_file(follow_symlinks=False):
                names.append(name)
                inodes.append(entry.inode())
    return os.fsencode("\0".join(names)).split(b"\0") if names else [], inodes


class OpenFolders:
    """new/ and cur/ of a maildir as directory descriptors, opened when first needed.

    A context manager. A folder that is missing is an empty one; all other errors are OSError.
    """

    __slots__ = ("_open", "root")

    def __init__(self, root: bytes) -> None:
        self.root = root
        self._open: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptors back; they are opened again when needed."""
        while self._open:
            native.close(self._open.popitem()[1])

    def __getitem__(self, folder: int) -> int:
        """Return the descriptor of new/ (0) or cur/ (1); FileNotFoundError if it is not there."""
        if folder not in self._open:
            self._open[folder] = os.open(self.root + b"/" + FOLDERS[folder], OPEN_FOLDER)
        return self._open[folder]

    def sync(self) -> None:
        """Make what was done in the opened directories outlive a power failure."""
        for descriptor in self._open.values():
            os.fsync(descriptor)

    def scan(self, folder: int) -> tuple[list[bytes], list[int]]:
        """Return names and inodes in one of the folders."""
        try:
            return scan(self[folder])
        except FileNotFoundError:
            return [], []

    def stamps(self) -> tuple[Stamp, Stamp]:
        """Return the present stamps of both."""
        new, cur = (folder_stamp(self.root + b"/" + folder) for folder in FOLDERS)
        return new, cur


def locate(folders: OpenFolders) -> dict[bytes, bytes]:
    """Return where each message is now: places by id. Raises OSError."""
    for _ in range(TRIES):
        before = folders.stamps()
        found: dict[bytes, bytes] = {}
        for folder in (0, 1):
            uids, places = places_of(folder, folders.scan(folder)[0])
            found.update(zip(uids, places, strict=True))
        if folders.stamps() == before:
            break
    return found


def refresh(root: bytes, old: MaildirIndex, *, trust_names: bool = False) -> MaildirIndex:
    """Return the index of a maildir as it is now, using what `old` knows.

    Reads each message that is new, once. Raises OSError when the maildir cannot be read.
    """
    for _ in range(TRIES):
        with OpenFolders(root) as folders:  # again each time: they may have been replaced
            begun = time.time_ns()
            before = folders.stamps()
            index = _list(folders, old, before, trust_names=trust_names)
            if folders.stamps() == before:
                break
            old = index
    if not index.skipped:  # that they can be read later would not show in the directory
        settled = begun - SETTLE_NS
        new, cur = (stamp if stamp[2] < settled else UNSETTLED for stamp in before)
        index.folders = (new, cur)
    return index


def _list(
    folders: OpenFolders, old: MaildirIndex, stamps: tuple[Stamp, Stamp], *, trust_names: bool
) -> MaildirIndex:
    uids: list[bytes] = []
    places: list[bytes] = []
    inodes: list[int] = []
    for folder in (0, 1):
        if old.folders[folder] == stamps[folder] != UNSETTLED:
            found = _remembered(old, folder)
        else:
            names, numbers = folders.scan(folder)
            found = *places_of(folder, names), numbers
        uids += found[0]
        places += found[1]
        inodes += found[2]
    order = _order(uids, places)
    return _with_sizes(
        folders,
        old,
        [uids[i] for i in order],
        [places[i] for i in order],
        [inodes[i] for i in order],
        trust_names=trust_names,
    )


def _remembered(old: MaildirIndex, folder: int) -> tuple[list[bytes], list[bytes], list[int]]:
    """Return the part of the old index that is about one folder."""
    letters = _LETTERS[folder]
    places = split(old.places, len(old))
    kept = [i for i, place in enumerate(places) if place[0] in letters]
    return (
        [old.uids[i] for i in kept],
        [places[i] for i in kept],
        [old.inodes[i] for i in kept],
    )


def _order(uids: list[bytes], places: list[bytes]) -> list[int]:
    """Return the positions in the order of arrival: time stamp as a number, then the name.

    Of files with one id only one counts: that in cur/, then that with the last name.
    """
    order = sorted(range(len(uids)), key=uids.__getitem__)
    if len(set(uids)) != len(uids):
        last = {}
        for i in sorted(order, key=lambda i: (places[i][0] in _LETTERS[1], places[i])):
            last[uids[i]] = i
        order = [i for i in order if last[uids[i]] == i]
    # Ten digits in all names, as from 2001 to 2286: then the order of octets is that of numbers.
    heads = b"".join([uid[:11] for uid in uids]).translate(_SHAPE)
    if heads != b"0000000000." * len(uids) or not {place[0] for place in places} <= _PLAIN:
        order.sort(key=lambda i: _arrival(uids[i], places[i]))
    return order


def _arrival(uid: bytes, place: bytes) -> tuple[float, bytes]:
    base = file_at(uid, place)[1].partition(b":")[0]
    digits = _ARRIVAL.match(base)
    return int(digits[0]) if digits else math.inf, base


def _with_sizes(
    folders: OpenFolders,
    old: MaildirIndex,
    uids: list[bytes],
    places: list[bytes],
    inodes: list[int],
    *,
    trust_names: bool,
) -> MaildirIndex:
    """Make the index of these messages: sizes from the old one, from names, or by counting."""
    doubted = old.believed and not trust_names
    index = MaildirIndex(
        uids, array("q", bytes(8 * len(uids))), array("Q", inodes), b"\0".join(places)
    )
    index.believed = old.believed and trust_names
    unknown = list(range(len(uids)))
    if len(old) or trust_names:
        unknown = _take_known(index, old, doubted=doubted, trust_names=trust_names)
    unknown.sort(key=inodes.__getitem__)  # about the order on disk
    _count(folders, index, places, unknown)
    if _GONE in index.sizes:
        _drop_gone(index)
    return index


def _take_known(
    index: MaildirIndex, old: MaildirIndex, *, doubted: bool, trust_names: bool
) -> list[int]:
    """Fill in the sizes that the old index, or a name, tells; return the positions of the rest."""
    known = dict(zip(old.uids, range(len(old)), strict=True))
    unknown: list[int] = []
    for i, uid in enumerate(index.uids):
        at = known.get(uid)
        if (
            at is not None
            and index.inodes[i] == old.inodes[at]
            and not (doubted and stated_size(uid))
        ):
            index.sizes[i] = old.sizes[at]
            if at in old.large:
                index.large[i] = old.large[at]
        elif trust_names and (stated := stated_size(uid)) is not None:
            index.sizes[i] = stated
            index.believed = True
        else:
            unknown.append(i)
    return unknown


def _count(
    folders: OpenFolders, index: MaildirIndex, places: list[bytes], unknown: list[int]
) -> None:
    """Read the messages whose size is unknown: maybe every one of the box, so each step counts."""
    uids, sizes = index.uids, index.sizes
    directories: dict[int, int] = {}  # by the letter of a place
    for i in unknown:
        place = places[i]
        letter = place[0]
        name = uids[i] + place[1:] if letter in _PLAIN else place[1:]
        try:
            if letter not in directories:
                directories[letter] = folders[int(letter in _LETTERS[1])]
            descriptor = os.open(name, OPEN_MESSAGE, dir_fd=directories[letter])
        except OSError as error:
            if error.errno not in _NO_MESSAGE:
                raise
            index.skipped.append(name)
            sizes[i] = _GONE
            continue
        try:
            data = os.read(descriptor, _FIRST_READ)
            if len(data) < _FIRST_READ:
                sizes[i] = sent_size(data)
            else:
                sizes[i] = stream_size(itertools.chain((data,), file_blocks(descriptor)))
                found = os.fstat(descriptor)
                if found.st_size > BLOCK:
                    index.large[i] = file_stamp(found)
        except IsADirectoryError:
            sizes[i] = _GONE
        finally:
            native.close(descriptor)


def _drop_gone(index: MaildirIndex) -> None:
    """Take out the messages that went away between the scan and the reading."""
    places = split(index.places, len(index))
    kept = [i for i, size in enumerate(index.sizes) if size != _GONE]
    index.large = {new: index.large[i] for new, i in enumerate(kept) if i in index.large}
    index.uids = [index.uids[i] for i in kept]
    index.sizes = array("q", [index.sizes[i] for i in kept])
    index.inodes = array("Q", [index.inodes[i] for i in kept])
    index.places = b"\0".join([places[i] for i in kept])


def file_blocks(descriptor: int) -> Iterator[bytes]:
    """Read an open file to its end, from where it stands."""
    while block := os.read(descriptor, BLOCK):
        yield block


def stated_size(uid: bytes) -> int | None:
    """Return the size as sent that a file name claims, as in 1700000000.host,W=1234:2,S."""
    found = _STATED.search(uid)
    return int(found[1]) if found else None
