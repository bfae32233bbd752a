"""Who may not come at all for a while: addresses at the door, users at the login.

A table in memory that all processes share (see `table_file`), read without locks by all of them.
"""

import ipaddress
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from pop3.auth.table_file import Places

_SLOTS = 2048
_MAGIC = b"bans0001"
_HEADER = struct.Struct("@8s16sd32x")  # magic, key of the hashes, when the last ban of all ends
_LAST_END = 3  # the place of that time among the numbers of 8 octets
# key, end (seconds since 1970: a ban may outlive a boot), flags, octets of the name, the name
_SLOT = struct.Struct("@8sdBB110s")
_NAME_SIZE = 110
_BY_HAND, _TOLD = 1, 2
#: Octets the table needs.
SIZE = _HEADER.size + _SLOTS * _SLOT.size
LONGEST = 10 * 365 * 86400.0  # seconds


@dataclass(frozen=True, slots=True)
class Ban:
    """One of the bans: `name` is an address, a /64 or a user, `end` in seconds since 1970.

    `by_hand`: an operator asked for it. `told`: so was the ban command. One that was lifted has an
    end in the past.
    """

    name: str
    end: float
    by_hand: bool
    told: bool


def network_name(host: str) -> str | None:
    """Return whom a ban of this peer bans: an IPv4 address, an IPv6 /64; None: it has no address.

    A network of that size may be given as well.
    """
    text, slash, bits = host.partition("%")[0].partition("/")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            network = ipaddress.IPv6Network((int(address) >> 64 << 64, 64))
            return str(network) if bits in ("", "64", "128") else None
        address = address.ipv4_mapped
    return str(address) if not slash or bits == "32" else None


class BanTable:
    """The bans of addresses and users; when it is full, what ends first gives way.

    What an operator asked for never gives way to what the server did by itself.
    """

    def __init__(
        self, memory: memoryview | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Take SIZE octets that may hold a table already; without them it is this process's own."""
        self._memory = memoryview(bytearray(SIZE)) if memory is None else memory
        self._clock = clock
        self._places = Places(self._memory, _HEADER.size, _SLOTS, _SLOT.size)
        # single numbers go through this view: pack_into clears the place before it writes
        self._times = self._memory[:SIZE].cast("d")
        magic, self._key, _ = _HEADER.unpack_from(self._memory)
        if magic != _MAGIC:
            self._key = secrets.token_bytes(16)  # nobody can aim at somebody else's slot
            self._memory[:SIZE] = bytes(SIZE)
            _HEADER.pack_into(self._memory, 0, _MAGIC, self._key, 0.0)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is banned: then nobody has to be looked up."""
        return self._clock() >= self._times[_LAST_END]

    def has(self, name: str) -> bool:
        """Tell whether a network (as `network_name` writes it) or a user is banned now."""
        if self.is_empty:
            return False
        found = self._places.find(self._digest(name))
        return found is not None and self._read(found).end > self._clock()

    def add(self, name: str, seconds: float, *, by_hand: bool = False) -> bool:
        """Ban for that time from now on; one that ends later already stays.

        Return whether it is in force: False where the table is full of what operators asked for.
        """
        now = self._clock()
        end = now + min(seconds, LONGEST)
        key = self._digest(name)
        at = self._places.find(key)
        told = 0
        if at is None:
            at = min(self._places.of(key), key=self._worth)
            before = self._read(at)
            if before.by_hand and before.end > now and not by_hand:
                return False
        else:
            before = self._read(at)
            told = _TOLD if before.told and before.end > now else 0
            if before.end > now:
                by_hand = by_hand or before.by_hand
                end = max(end, before.end)
        self._write(at, key, end, (_BY_HAND if by_hand else 0) | told, name)
        self._times[_LAST_END] = max(self._times[_LAST_END], end)
        return True

    def lift(self, name: str) -> bool:
        """End a ban; return whether there was one. Who was told of it can be told of this."""
        key = self._digest(name)
        at = self._places.find(key)
        if at is None:
            return False
        ban = self._read(at)
        if ban.told:
            self._write(at, key, 0.0, _TOLD, name)
        else:
            self._memory[at : at + _SLOT.size] = bytes(_SLOT.size)
        return ban.end > self._clock()

    def listing(self) -> list[Ban]:
        """Return the bans in force, the one that ends first at the head."""
        now = self._clock()
        return sorted((ban for ban in self._all() if ban.end > now), key=lambda ban: ban.end)

    def untold(self) -> list[Ban]:
        """Return what the ban command has not heard of: new bans, and told ones that were lifted.

        A ban that came to its end by itself is neither.
        """
        now = self._clock()
        return [
            ban
            for ban in self._all()
            if (ban.end > now and not ban.told) or (ban.told and ban.end == 0)
        ]

    def tell(self, ban: Ban) -> None:
        """Note that the ban command was called for it."""
        key = self._digest(ban.name)
        at = self._places.find(key)
        if at is None:
            return
        now = self._read(at)
        if now.end == 0:
            self._memory[at : at + _SLOT.size] = bytes(_SLOT.size)
        else:
            flags = _TOLD | (_BY_HAND if now.by_hand else 0)
            self._write(at, key, now.end, flags, ban.name)

    def _digest(self, name: str) -> bytes:
        octets = name.encode("utf-8", "surrogatepass")
        digest = blake2b(octets, key=self._key, digest_size=8).digest()
        return digest if any(digest) else b"\1" * 8  # all zero is a free slot

    def _worth(self, offset: int) -> tuple[bool, float]:
        ban = self._read(offset)
        return ban.by_hand and ban.end > self._clock(), ban.end

    def _read(self, offset: int) -> Ban:
        _, end, flags, length, name = _SLOT.unpack_from(self._memory, offset)
        text = name[:length].decode("utf-8", "replace")
        return Ban(text, end, bool(flags & _BY_HAND), bool(flags & _TOLD))

    def _write(self, offset: int, key: bytes, end: float, flags: int, name: str) -> None:
        octets = name.encode("utf-8", "surrogatepass")[:_NAME_SIZE]
        # in one piece, so that others see it whole
        self._memory[offset : offset + _SLOT.size] = _SLOT.pack(
            key, end, flags, len(octets), octets
        )

    def _all(self) -> Iterator[Ban]:
        for offset in range(_HEADER.size, SIZE, _SLOT.size):
            if any(self._memory[offset : offset + 8]):
                yield self._read(offset)
