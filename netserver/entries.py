"""What others may know of a client that is here: an entry in the scoreboard, and the wish to end.

Its process writes the entry; who asks for the client's end writes one number, which is looked at
where the process waits.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netserver.connection import Connection
    from netserver.scoreboard import Row, Scoreboard

# numbers of 8 octets (the client's number in its process or 0, since when, octets sent, the number
# of the client that is to end), then its address and its user's name
_NUMBERS = 4
_NUMBER, _SINCE, _OCTETS, _KICK = range(_NUMBERS)
_ADDRESS_SIZE, _USER_SIZE = 48, 80
_TEXT = struct.Struct(f"{_ADDRESS_SIZE}s{_USER_SIZE}s")
SIZE = _NUMBERS * 8 + _TEXT.size


class Entry:
    """A client's own entry, in the process that serves it."""

    __slots__ = ("_at", "_number", "_user_at", "board")

    def __init__(self, row: Row, slot: int, connection: Connection) -> None:
        board = self.board = row.board
        start = row.entry_at(slot)
        at = self._at = start // 8
        text = start + _NUMBERS * 8
        self._user_at = text + _ADDRESS_SIZE
        board.memory[text : text + _TEXT.size] = _TEXT.pack(
            str(connection.peer).encode("ascii", "replace"), b""
        )
        board.integers[at + _KICK] = 0
        board.integers[at + _OCTETS] = 0
        board.floats[at + _SINCE] = connection.opened
        self._number = connection.number
        board.integers[at + _NUMBER] = connection.number  # last: from now on it can be seen

    def name(self, user: bytes) -> None:
        """Tell the user's name, b"" for none."""
        at = self._user_at
        self.board.memory[at : at + _USER_SIZE] = user[:_USER_SIZE].ljust(_USER_SIZE, b"\0")

    def look(self, octets: int) -> bool:
        """Tell how many octets were sent; return whether the client is to end."""
        integers, at = self.board.integers, self._at
        integers[at + _OCTETS] = octets
        return integers[at + _KICK] == self._number

    def remove(self) -> None:
        """Forget the client."""
        self.board.integers[self._at + _NUMBER] = 0


@dataclass(frozen=True, slots=True)
class Client:
    """A client as others see it; times are in monotonic seconds."""

    row: Row
    slot: int
    pid: int
    number: int
    address: str
    user: str
    since: float
    octets: int
    leaving: bool

    @property
    def id(self) -> str:
        """The name of its session, as in the log."""
        return f"{self.pid:x}-{self.number:x}"

    @property
    def host(self) -> str:
        """Its address without the port."""
        if self.address.startswith("["):
            return self.address[1:].partition("]")[0]
        return self.address.rpartition(":")[0] or self.address

    def as_dict(self) -> dict[str, object]:
        """Return what `who` shows."""
        return {
            "id": self.id,
            "address": self.address,
            "user": self.user or None,
            "seconds": round(time.monotonic() - self.since, 1),
            "octets": self.octets,
            "state": "leaving" if self.leaving else "logged in" if self.user else "connected",
            "worker": self.pid,
        }

    def is_meant_by(self, name: str) -> bool:
        """Whether a user, an address with or without port, or an id means this client."""
        octets = name.encode("utf-8", "surrogateescape")[:_USER_SIZE]
        user = octets.decode("utf-8", "replace")
        return name in (self.id, self.address, self.host) or (bool(user) and user == self.user)


def clients(board: Scoreboard) -> Iterator[Client]:
    """Yield who is here now."""
    if not board.entry:
        return
    for row in board.living():
        pid = row.pid
        for slot in range(min(row.high, board.slots)):
            at = row.entry_at(slot) // 8
            number = board.integers[at + _NUMBER]
            if number:
                text = at * 8 + _NUMBERS * 8
                address, user = _TEXT.unpack_from(board.memory, text)
                yield Client(
                    row,
                    slot,
                    pid,
                    number,
                    address.rstrip(b"\0").decode("ascii", "replace"),
                    user.rstrip(b"\0").decode("utf-8", "replace"),
                    board.floats[at + _SINCE],
                    board.integers[at + _OCTETS],
                    board.integers[at + _KICK] == number,
                )


def kick(client: Client) -> bool:
    """Ask for the client's end; False if it is gone. Its process must be woken then."""
    board, at = client.row.board, client.row.entry_at(client.slot) // 8
    if board.integers[at + _NUMBER] != client.number or client.row.pid != client.pid:
        return False
    # by its number: another client may take the place at this moment
    board.integers[at + _KICK] = client.number
    return True
