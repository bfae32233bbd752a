"""Small tables of hashes that all processes share: who has logged in from where, and when."""

import secrets
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

_KEY = 8
_HEADER = struct.Struct("@8s16s40x")  # magic, key of the hashes
_WAYS = 4  # places that an entry may be in


def _key_of(memory: memoryview, magic: bytes, size: int) -> bytes:
    """Return the key of the hashes of a table that is there, or begin a new one."""
    found, key = _HEADER.unpack_from(memory)
    if found != magic:
        key = secrets.token_bytes(16)
        memory[:size] = bytes(size)
        _HEADER.pack_into(memory, 0, magic, key)
    return bytes(key)


class Acquainted:
    """Which users have logged in from which addresses: as many as there is room for.

    Only a right password gets into the table, so no stranger can push anybody out.
    """

    SLOTS = 16384
    SIZE = _HEADER.size + SLOTS * _KEY

    def __init__(self, memory: memoryview | None = None) -> None:
        """Take SIZE octets that may hold a table already; without them it is this process's own."""
        self._memory = memoryview(bytearray(self.SIZE)) if memory is None else memory
        self._key = _key_of(self._memory, b"known001", self.SIZE)
        # the same users come again and again from the same places
        self._digest = lru_cache(maxsize=4096)(self._digest_of)

    def has(self, address_key: bytes, user: str) -> bool:
        """Tell whether this user has logged in from there."""
        return self._place(self._digest(address_key, user)) is not None

    def add(self, address_key: bytes, user: str) -> None:
        """Remember it; writes nothing if it is known."""
        key = self._digest(address_key, user)
        if self._place(key) is None:
            place = self._place(bytes(_KEY), key)
            if place is None:
                place = self._first(key) + secrets.randbelow(_WAYS) * _KEY
            self._memory[place : place + _KEY] = key

    def remove(self, address_key: bytes, user: str) -> None:
        """Forget it: somebody has guessed at this user there."""
        place = self._place(self._digest(address_key, user))
        if place is not None:
            self._memory[place : place + _KEY] = bytes(_KEY)

    def _digest_of(self, address_key: bytes, user: str) -> bytes:
        octets = bytes((len(address_key),)) + address_key + user.encode("utf-8", "surrogatepass")
        digest = blake2b(octets, key=self._key, digest_size=_KEY).digest()
        return digest if any(digest) else b"\1" * _KEY  # all zero is a free place

    def _first(self, key: bytes) -> int:
        return _HEADER.size + int.from_bytes(key[:4], "little") % (self.SLOTS // _WAYS) * (
            _WAYS * _KEY
        )

    def _place(self, wanted: bytes, key: bytes | None = None) -> int | None:
        """Return where `wanted` is among the places of `key`, by default its own."""
        first = self._first(wanted if key is None else key)
        for place in range(first, first + _WAYS * _KEY, _KEY):
            if self._memory[place : place + _KEY] == wanted:
                return place
        return None


class LoginTimes:
    """When each user has logged in last (RFC 2449 §6.5); the oldest make room."""

    SLOTS = 16384
    SIZE = _HEADER.size + SLOTS * 2 * _KEY
    _SLOT = struct.Struct("@8sd")

    def __init__(
        self,
        delay: float,
        memory: memoryview | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take SIZE octets as above; `delay` is the least time between two logins, in seconds."""
        self.delay = delay
        self._memory = memoryview(bytearray(self.SIZE)) if memory is None else memory
        self._key = _key_of(self._memory, b"logins01", self.SIZE)
        self._clock = clock

    def wait(self, user: str) -> float:
        """Return the seconds until this user may log in again."""
        key, places = self._places(user)
        for place in places:
            found, when = self._SLOT.unpack_from(self._memory, place)
            if found == key:
                passed = self._clock() - when
                # a clock that was set back must keep nobody out
                return self.delay - passed if 0 <= passed < self.delay else 0.0
        return 0.0

    def note(self, user: str) -> None:
        """Note a login now."""
        key, places = self._places(user)
        slots = [(*self._SLOT.unpack_from(self._memory, place), place) for place in places]
        mine = [place for found, _, place in slots if found == key]
        place = mine[0] if mine else min(slots, key=lambda slot: slot[1])[2]
        self._memory[place : place + self._SLOT.size] = self._SLOT.pack(key, self._clock())

    def _places(self, user: str) -> tuple[bytes, range]:
        octets = user.encode("utf-8", "surrogatepass")
        key = blake2b(octets, key=self._key, digest_size=_KEY).digest()
        size = self._SLOT.size
        first = _HEADER.size + int.from_bytes(key[:4], "little") % (self.SLOTS // _WAYS) * (
            _WAYS * size
        )
        return key, range(first, first + _WAYS * size, size)
