"""Live facts in shared memory: who is alive, who is busy, which clients are here.

Made before the first fork and mapped by every process; no locks: each row has one writer, its
process (the master writes it only before that process exists and after it has ended).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from enum import IntEnum
from typing import TYPE_CHECKING

from netserver.entries import Entry
from netserver.errors import RestartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netserver.connection import Connection

_MAGIC = b"NSB2"  # the layout's version is part of it
_HEADER = struct.Struct("=4sIII")  # magic, rows, slots a row, octets of a client's entry
# numbers of 8 octets behind the header, about all processes together; the master writes the first
# two, what controls the server the third
_TOTALS_AT, _TOTALS_SIZE = 16, 48
_TOTAL_SERVED, _TOTAL_OCTETS, _CHANGE = (_TOTALS_AT // 8 + n for n in range(3))
# a row is eight numbers of 8 octets and the kind of process: pid, started, last sign of life,
# connections served, open now, the highest place for clients ever used and one, octets sent
_ROW_SIZE = 80
_PID, _STARTED, _BEAT, _SERVED, _OPEN, _HIGH, _OCTETS = range(7)
_KIND_AT, _KIND_SIZE = 64, 16
KEY = 16
_FREE = bytes(KEY)


class State(IntEnum):
    """What a process is doing."""

    EMPTY = 0
    STARTING = 1
    IDLE = 2
    BUSY = 3
    STOPPING = 4


class Scoreboard:
    """``rows`` processes, each with ``slots`` places for clients, in a memory file."""

    def __init__(self, descriptor: int, rows: int, slots: int, entry: int = 0) -> None:
        self.descriptor = descriptor
        self.rows = rows
        self.slots = slots
        self.entry = entry  # octets kept of each client for those who ask who is here
        self._states_at = _TOTALS_AT + _TOTALS_SIZE
        self._rows_at = self._states_at + (rows + 63) // 64 * 64
        self._keys_at = self._rows_at + rows * _ROW_SIZE
        self.entries_at = self._keys_at + 2 * rows * slots * KEY
        # pages that nobody writes to do not exist
        self._size = self.entries_at + rows * slots * entry
        if descriptor >= 0:
            os.ftruncate(descriptor, self._size)
        self.memory = mmap.mmap(descriptor, self._size)
        # Single numbers go through these views, one store each: struct.pack_into clears the place
        # first, and another process would now and then read a 0 (a process without a sign of life).
        self._octets = memoryview(self.memory)
        self.integers = self._octets.cast("q")
        self.floats = self._octets.cast("d")

    @classmethod
    def create(cls, rows: int, slots: int, entry: int = 0) -> Scoreboard:
        """Make an empty one."""
        descriptor = os.memfd_create("scoreboard") if hasattr(os, "memfd_create") else -1
        board = cls(descriptor, rows, slots, entry)
        _HEADER.pack_into(board.memory, 0, _MAGIC, rows, slots, entry)
        return board

    @classmethod
    def attach(cls, descriptor: int) -> Scoreboard:
        """Map the one that ``descriptor`` names, left by the process image before this one.

        Raises ``RestartError`` when its layout is another.
        """
        os.set_inheritable(descriptor, False)
        header = os.pread(descriptor, _HEADER.size, 0)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            os.close(descriptor)
            raise RestartError("the scoreboard has another layout")
        _, rows, slots, entry = _HEADER.unpack(header)
        return cls(descriptor, rows, slots, entry)

    def row(self, index: int) -> Row:
        """Return the row with that index."""
        return Row(self, index)

    def free_row(self) -> int | None:
        """Return the index of a row nobody uses, or None."""
        index = self.memory.find(
            bytes((State.EMPTY,)), self._states_at, self._states_at + self.rows
        )
        return None if index < 0 else index - self._states_at

    def count(self, state: State) -> int:
        """Return how many processes are in that state."""
        return self.memory[self._states_at : self._states_at + self.rows].count(bytes((state,)))

    def living(self) -> Iterator[Row]:
        """Yield the rows in use."""
        for index in range(self.rows):
            if self.memory[self._states_at + index] != State.EMPTY:
                yield Row(self, index)

    def count_key(self, column: int, key: bytes) -> int:
        """Return how many clients have ``key`` (column 0: their address, 1: their user)."""
        total = 0
        for row in self.living():
            start, end = row.keys_range(column)
            total += self.memory[start:end].count(key)
        return total

    def count_pair(self, source: bytes, user: bytes) -> int:
        """Return how many clients have both keys."""
        total = 0
        for row in self.living():
            sources, _ = row.keys_range(0)
            users, end = row.keys_range(1)
            at = self.memory.find(user, users, end)
            while at >= 0:
                beside = sources + at - users
                total += (at - users) % KEY == 0 and self.memory[beside : beside + KEY] == source
                at = self.memory.find(user, at + KEY, end)
        return total

    def totals(self) -> tuple[int, int]:
        """Return how many connections were served and octets sent since the start of the image."""
        served, octets = self.integers[_TOTAL_SERVED], self.integers[_TOTAL_OCTETS]
        for row in self.living():
            served += row.served[0]
            octets += row.octets
        return served, octets

    def note_end(self, row: Row) -> None:
        """Add what a process that has ended did to the totals."""
        self.integers[_TOTAL_SERVED] += row.served[0]
        self.integers[_TOTAL_OCTETS] += row.octets

    @property
    def change(self) -> int:
        """How many workers more were asked for since the start, less those that were too many."""
        return self.integers[_CHANGE]

    @change.setter
    def change(self, change: int) -> None:
        self.integers[_CHANGE] = change

    def close(self) -> None:
        """Unmap it and give the descriptor back."""
        for view in (self.integers, self.floats, self._octets):
            view.release()
        self.memory.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)


class Row:
    """One process's line in the scoreboard."""

    __slots__ = ("_at", "_state_at", "board", "index")

    def __init__(self, board: Scoreboard, index: int) -> None:
        self.board = board
        self.index = index
        self._state_at = board._states_at + index  # noqa: SLF001 - the two share the layout
        self._at = (board._rows_at + index * _ROW_SIZE) // 8  # noqa: SLF001

    @property
    def state(self) -> State:
        """What the process is doing."""
        return State(self.board.memory[self._state_at])

    @state.setter
    def state(self, state: State) -> None:
        self.board.memory[self._state_at] = state

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.board.integers[self._at + _PID]

    @pid.setter
    def pid(self, pid: int) -> None:
        self.board.integers[self._at + _PID] = pid

    @property
    def beat(self) -> float:
        """When the process last showed that it lives, in monotonic seconds."""
        return self.board.floats[self._at + _BEAT]

    @beat.setter
    def beat(self, now: float) -> None:
        self.board.floats[self._at + _BEAT] = now

    @property
    def served(self) -> tuple[int, int]:
        """How many connections it has served, and how many are open now."""
        integers = self.board.integers
        return integers[self._at + _SERVED], integers[self._at + _OPEN]

    @served.setter
    def served(self, counts: tuple[int, int]) -> None:
        self.board.integers[self._at + _SERVED], self.board.integers[self._at + _OPEN] = counts

    @property
    def started(self) -> float:
        """When the process was made, in monotonic seconds."""
        return self.board.floats[self._at + _STARTED]

    @property
    def octets(self) -> int:
        """How many octets it has sent to clients that are gone."""
        return self.board.integers[self._at + _OCTETS]

    @octets.setter
    def octets(self, octets: int) -> None:
        self.board.integers[self._at + _OCTETS] = octets

    @property
    def high(self) -> int:
        """How many of its places for clients were ever in use, counted from the first."""
        return self.board.integers[self._at + _HIGH]

    @high.setter
    def high(self, count: int) -> None:
        self.board.integers[self._at + _HIGH] = count

    @property
    def kind(self) -> str:
        """What the process is for: "worker", "client", or a side child's kind."""
        at = self._at * 8 + _KIND_AT
        return self.board.memory[at : at + _KIND_SIZE].rstrip(b"\0").decode("ascii", "replace")

    def begin(self, now: float, kind: str = "worker") -> None:
        """Take the row for a process that is about to be made."""
        self.pid = 0
        self.board.floats[self._at + _STARTED] = now
        self.beat = now
        self.served = (0, 0)
        self.high = self.octets = 0
        at = self._at * 8 + _KIND_AT
        name = kind.encode("ascii", "replace")[:_KIND_SIZE]
        self.board.memory[at : at + _KIND_SIZE] = name.ljust(_KIND_SIZE, b"\0")
        self.state = State.STARTING

    def clear(self) -> None:
        """Forget a process that has ended, and its clients."""
        board, used = self.board, self.high
        for column in (0, 1):
            start, _ = self.keys_range(column)
            board.memory[start : start + used * KEY] = bytes(used * KEY)
        start = self.entry_at(0)
        board.memory[start : start + used * board.entry] = bytes(used * board.entry)
        if self.state is not State.EMPTY:
            board.note_end(self)
        self.state = State.EMPTY
        self.pid = 0

    def entry_at(self, slot: int) -> int:
        """Return where the entry of the client in that place begins."""
        board = self.board
        return board.entries_at + (self.index * board.slots + slot) * board.entry

    def keys_range(self, column: int) -> tuple[int, int]:
        """Return where this row's keys of that column begin and end."""
        board = self.board
        size = board.slots * KEY
        start = board._keys_at + (column * board.rows + self.index) * size  # noqa: SLF001
        return start, start + size


class ClientTable:
    """Limits the sessions of one address and of one user over all processes.

    A client's key is written first and counted then: two that come at once may both be refused, but
    the limit is never passed.  0 is no limit.
    """

    def __init__(
        self,
        boards: list[Scoreboard],
        per_source: int = 0,
        per_user: int = 0,
        per_user_source: int = 0,
    ) -> None:
        self._boards = boards  # the first is ours; older ones end with their processes
        self._limits = (per_source, per_user)
        self._per_user_source = per_user_source
        self._row: Row | None = None
        self._free: list[int] = []

    def use(self, row: Row) -> None:
        """Take a row's places, in the process that the row belongs to."""
        self._row = row
        self._free = list(range(row.board.slots - 1, -1, -1))

    def enter(self, connection: Connection) -> None:
        """Put a client, whose address is known now, where others see it."""
        row = self._row
        if row is not None and row.board.entry:
            slot = self._place(connection)
            if slot is not None:
                connection.entry = Entry(row, slot, connection)

    def claim_source(self, connection: Connection) -> bool:
        """Count a client's address; False if that makes one too many."""
        return self._claim(connection, 0, connection.peer.network_key())

    def claim_user(self, connection: Connection, user: str) -> bool:
        """Count a client's user; False if that makes one too many."""
        octets = user.encode("utf-8", "surrogateescape")
        if not self._claim(connection, 1, octets) or not self._claim_pair(connection, octets):
            return False
        if connection.entry is not None:
            connection.entry.name(octets)
        return True

    def release_user(self, connection: Connection) -> None:
        """Count a client's user no longer: the login came to nothing."""
        if connection.slot is not None:
            self._write(connection.slot, 1, _FREE)
        if connection.entry is not None:
            connection.entry.name(b"")

    def release(self, connection: Connection) -> None:
        """Forget a client that is gone."""
        if self._row is not None:
            self._row.octets += connection.octets_out
        slot = connection.slot
        if slot is not None:
            connection.slot = None
            if connection.entry is not None:
                connection.entry.remove()
                connection.entry = None
            self._write(slot, 0, _FREE)
            self._write(slot, 1, _FREE)
            self._free.append(slot)

    def _claim(self, connection: Connection, column: int, name: bytes) -> bool:
        limit = self._limits[column]
        if not limit or self._row is None:
            return True
        slot = self._place(connection)
        if slot is None:
            return False
        key = hashlib.blake2b(name, digest_size=KEY).digest()
        self._write(slot, column, key)
        if sum(board.count_key(column, key) for board in self._boards) <= limit:
            return True
        self._write(slot, column, _FREE)
        return False

    def _claim_pair(self, connection: Connection, user: bytes) -> bool:
        limit = self._per_user_source
        if not limit or self._row is None:
            return True
        slot = self._place(connection)
        if slot is None:
            return False
        names = (connection.peer.network_key(), user)
        keys = [hashlib.blake2b(name, digest_size=KEY).digest() for name in names]
        for column, key in enumerate(keys):
            self._write(slot, column, key)
        if sum(board.count_pair(*keys) for board in self._boards) <= limit:
            return True
        self._write(slot, 1, _FREE)
        return False

    def _place(self, connection: Connection) -> int | None:
        """Return the client's place, None if there is none left."""
        slot = connection.slot
        if slot is None and self._free and self._row is not None:
            slot = connection.slot = self._free.pop()
            if slot >= self._row.high:
                self._row.high = slot + 1
        return slot

    def _write(self, slot: int, column: int, key: bytes) -> None:
        if self._row is not None:
            start, _ = self._row.keys_range(column)
            at = start + slot * KEY
            self._row.board.memory[at : at + KEY] = key
