"""What a source says about its messages: one at a time, or all in columns."""

import hashlib
import re
from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass

LONGEST_UID = 70
"""Octets of a unique id, at most (RFC 1939 §7)."""

UNKNOWN = -1
"""Stands in a column of sizes for a size not known yet."""

_VALID_UID = re.compile(rb"[\x21-\x7e]{1,70}")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as its source knows it.

    `uid` is unique in the maildrop and never given to another message. `size` is in octets as sent,
    with CRLF line ends; None means not known, and the server reads the message once to find out.
    """

    uid: str
    size: int | None = None


class Listing:
    """The messages of a maildrop in their order, in columns: 100,000 without an object each.

    `uids` are the ids as clients see them, `sizes` (array "q") the octets as sent or UNKNOWN. With
    `trusted` the source promises ids of 1-70 octets 0x21-0x7E, all different; without it they are
    checked, and what does not fit is announced in another way (see `announce`).
    """

    __slots__ = ("_names", "_total", "sizes", "uids")

    def __init__(
        self,
        uids: list[bytes],
        sizes: "array[int]",
        *,
        names: list[str] | None = None,
        trusted: bool = False,
    ) -> None:
        """Take the columns as they are; `names` are the source's own uids if these differ."""
        if len(uids) != len(sizes):
            raise ValueError("a listing needs as many sizes as uids")
        if not trusted:
            names = names or [uid.decode("utf-8", "surrogateescape") for uid in uids]
            announced = announce(uids)
            names = names if announced != uids else None
            uids = announced
        self.uids = uids
        self.sizes = sizes
        self._names = names
        self._total: int | None = None

    @classmethod
    def of(cls, messages: "Iterable[Message] | Listing") -> "Listing":
        """Make the columns of what a source returned."""
        if isinstance(messages, Listing):
            return messages
        names: list[str] = []
        sizes = array("q")
        for message in messages:
            names.append(message.uid)
            sizes.append(UNKNOWN if message.size is None else message.size)
        found = [_octets(name) for name in names]
        announced = announce(found)
        return cls(announced, sizes, names=None if announced == found else names, trusted=True)

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def total(self) -> int:
        """The sum of all sizes, those not known left out."""
        if self._total is None:
            self._total = sum(self.sizes) + self.sizes.count(UNKNOWN)
        return self._total

    def name(self, index: int) -> str:
        """Return the source's own uid of a message; the first is 0."""
        return (
            self.uids[index].decode("utf-8", "surrogateescape")
            if self._names is None
            else self._names[index]
        )

    def message(self, index: int) -> Message:
        """Return a message as its source knows it."""
        size = self.sizes[index]
        return Message(self.name(index), None if size == UNKNOWN else size)

    def unknown(self) -> list[int]:
        """Return the messages whose size is not known."""
        if UNKNOWN not in self.sizes:
            return []
        return [index for index, size in enumerate(self.sizes) if size == UNKNOWN]

    def set_size(self, index: int, octets: int) -> None:
        """Note a size that has been found."""
        self.sizes[index] = octets
        self._total = None

    def without(self, hidden: Collection[bytes]) -> "Listing":
        """Return the listing without the hidden messages, named by announced id; ids stay."""
        kept = [index for index, uid in enumerate(self.uids) if uid not in hidden]
        if len(kept) == len(self):
            return self
        names = self._names
        return Listing(
            [self.uids[index] for index in kept],
            array("q", [self.sizes[index] for index in kept]),
            names=None if names is None else [names[index] for index in kept],
            trusted=True,
        )


def _octets(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, as JSON may carry it
        return name.encode("utf-8", "surrogatepass")


def announce(uids: list[bytes]) -> list[bytes]:
    """Turn any ids into ids that RFC 1939 §7 allows, the same ones for the same list.

    A valid id stays. Another becomes the first 32 hex digits of its SHA-256. Of equal ones the
    first keeps its id and the others get ".2", ".3" … at their end.
    """
    valid = [uid if _VALID_UID.fullmatch(uid) else hashed(uid) for uid in uids]
    taken = set(valid)
    if len(taken) == len(valid):
        return valid
    seen: dict[bytes, int] = {}
    for index, uid in enumerate(valid):
        count = seen.get(uid, 0) + 1
        if count > 1:
            # all ids that came by themselves are in `taken`, so no suffix can push one of them away
            while (other := _with_suffix(uid, count)) in taken:
                count += 1
            taken.add(other)
            valid[index] = other
        seen[uid] = count
    return valid


def _with_suffix(uid: bytes, count: int) -> bytes:
    other = b"%b.%d" % (uid, count)
    return other if len(other) <= LONGEST_UID else hashed(other)


def hashed(uid: bytes) -> bytes:
    """Return the id announced in place of one that cannot be."""
    return hashlib.sha256(uid).hexdigest()[:32].encode("ascii")
