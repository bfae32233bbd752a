"""Compare two listings of ids: what clients would download again after a move."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LINE = re.compile(rb"([0-9]{1,10}) ([\x21-\x7e]{1,200})")


@dataclass(frozen=True, slots=True)
class UidlDiff:
    """What a client that knows the old ids finds under the new ones.

    `same` ids are in both, in any order. `again` are the numbers and new ids of messages that would
    be downloaded again or for the first time; `gone` the old ones nobody will see any more.
    `doubled` are ids that one of the listings has more than once: clients loop or skip on them.
    """

    same: int
    again: list[tuple[int, bytes]]
    gone: list[tuple[int, bytes]]
    doubled: list[bytes]
    moved: int
    """Messages of the same id under another number; harmless to all clients but a few."""

    @property
    def is_safe(self) -> bool:
        """No client would download anything twice."""
        return not self.again and not self.doubled


def uidl_diff(old: Sequence[tuple[int, bytes]], new: Sequence[tuple[int, bytes]]) -> UidlDiff:
    """Compare the ids a server gave with those we would announce: pairs of number and id."""
    before = {uid: number for number, uid in old}
    after = {uid: number for number, uid in new}
    both = before.keys() & after.keys()
    return UidlDiff(
        same=len(both),
        again=[(number, uid) for number, uid in new if uid not in before],
        gone=[(number, uid) for number, uid in old if uid not in after],
        doubled=_doubled(old) + [uid for uid in _doubled(new) if uid not in _doubled(old)],
        moved=sum(before[uid] != after[uid] for uid in both),
    )


def _doubled(listing: Sequence[tuple[int, bytes]]) -> list[bytes]:
    seen: dict[bytes, int] = {}
    for _, uid in listing:
        seen[uid] = seen.get(uid, 0) + 1
    return [uid for uid, count in seen.items() if count > 1]


def read_listing(data: bytes) -> list[tuple[int, bytes]]:
    """Read the answer to UIDL as somebody saved it: status line and final dot may be there or not.

    Raises ValueError naming the line that is none of these.
    """
    found: list[tuple[int, bytes]] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.strip()
        if not text or text == b"." or text.startswith(b"+OK"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise ValueError(f"line {number} is not a number and an id")
        found.append((int(match[1]), match[2]))
    return found
