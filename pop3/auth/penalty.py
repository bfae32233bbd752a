"""Growing delays for those who guess passwords: a table in memory that all processes share.

Each failed login counts against the address it came from and against the user it named. Processes
write without locks: two failures in the same instant may count as one, and nothing worse happens.
"""

import ipaddress
import secrets
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

from pop3.auth.secret import Secret
from pop3.auth.table_file import Places, boot_id

LAST_DELAY = 15.0  # seconds; longer would help nobody, clients give up
DECAY = 900.0  # seconds without a failure until all is forgotten

_SLOTS = 4096
_MAGIC = b"penalty2"
# magic, key of the hashes, time of the last failure of all, the boot that the times belong to
_HEADER = struct.Struct("@8s16sd16s")
_LAST_FAILURE = 3  # the place of that time among the numbers of 8 octets
# key, time of the last failure (CLOCK_MONOTONIC, the same for all processes), its password, count
# native, so that another process sees a number whole and not half written
_SLOT = struct.Struct("@8sd4sH10x")
_MAX_COUNT = 10_000
_MOST_DOUBLINGS = 16  # nor does a success leave more than half of so many failures
#: Octets the table needs.
SIZE = _HEADER.size + _SLOTS * _SLOT.size

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_key(host: str) -> bytes:
    """Return what a peer's failures are counted under: IPv4 address, IPv6 /64, else its name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.encode("utf-8", "backslashreplace")
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped.packed
        return address.packed[:8]
    return address.packed


class PenaltyTable:
    """How long who has to wait.

    `memory` is a buffer of SIZE octets, shared by making it before the fork (see `table_file`); one
    that already holds a table of this boot is joined. Without it the table is this process's own.
    `first_delay` seconds are due after the first failure, twice as much after each further one, up
    to LAST_DELAY; 0 turns everything off. Addresses in the `trusted` networks are never delayed.
    """

    def __init__(
        self,
        memory: memoryview | None = None,
        first_delay: float = 2.0,
        trusted: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memoryview(bytearray(SIZE)) if memory is None else memory
        if self._memory.nbytes < SIZE:
            raise ValueError(f"a penalty table needs {SIZE} octets")
        self._first_delay = first_delay
        self._trusted: list[_Network] = [ipaddress.ip_network(net) for net in trusted]
        self._clock = clock
        self._places = Places(self._memory, _HEADER.size, _SLOTS, _SLOT.size)
        # single numbers go through this view: pack_into clears the place before it writes
        self._times = self._memory[:SIZE].cast("d")
        magic, _, _, boot = _HEADER.unpack_from(self._memory)
        this_boot = boot_id()
        if magic != _MAGIC or boot != this_boot:
            # Keyed hashes: nobody can aim at somebody else's slot, or read names out of the memory.
            self.rekey(secrets.token_bytes(16))
            _HEADER.pack_into(self._memory, 0, _MAGIC, self.key, -DECAY, this_boot)

    @property
    def key(self) -> bytes:
        """The key of the hashes."""
        return bytes(self._memory[8:24])

    def rekey(self, key: bytes) -> None:
        """Forget everything and go on with another key, in all processes."""
        self._memory[_HEADER.size : SIZE] = bytes(SIZE - _HEADER.size)
        self._memory[8:24] = key

    @property
    def is_calm(self) -> bool:
        """Whether nobody has failed lately: nobody has to wait then, and 10 µs are saved."""
        return self._clock() - self._times[_LAST_FAILURE] >= DECAY

    def address_key(self, host: str) -> bytes:
        """Return the `address_key` of the other methods for a peer; b"" (no penalty) if trusted."""
        if self._trusted:
            try:
                address = ipaddress.ip_address(host.partition("%")[0])
            except ValueError:
                return network_key(host)
            mapped = getattr(address, "ipv4_mapped", None)
            if any((mapped or address) in network for network in self._trusted):
                return b""
        return network_key(host)

    def delay_for(self, address_key: bytes, user: str) -> float:
        """Return the seconds this login has to wait for what happened before it."""
        if not self._first_delay or not address_key:
            return 0.0
        return max(self._delay(self._count(key)) for key in self._keys(address_key, user))

    def failed(self, address_key: bytes, user: str, secret: Secret) -> float:
        """Count a failed login; return the seconds to wait before saying so.

        The same wrong password for the same user again does not make it longer: that is a mail
        client with an old password, not somebody guessing.
        """
        if not self._first_delay or not address_key:
            return 0.0
        attempt = self._digest(b"attempt", _octets(user) + b"\0" + secret.reveal(), 4)
        counts = [self._add(key, attempt) for key in self._keys(address_key, user)]
        return self._delay(max(counts))

    def succeeded(self, address_key: bytes, user: str) -> None:
        """Forget the user's failures and half of the address's.

        Only half, or whoever has an account here could guess others' passwords in between.
        """
        if not self._first_delay or not address_key:
            return
        by_address, by_user = self._keys(address_key, user)
        self._reduce(by_user, 0)
        self._reduce(by_address, min(self._count(by_address), _MOST_DOUBLINGS) // 2)

    def failures(self, address_key: bytes, user: str) -> tuple[int, int]:
        """Return how often the address and the user have failed lately."""
        by_address, by_user = self._keys(address_key, user)
        return self._count(by_address), self._count(by_user)

    def forgive(self, address_key: bytes, user: str) -> None:
        """Forget all failures of the address and of the user."""
        for key in self._keys(address_key, user):
            self._reduce(key, 0)

    def entries(self) -> Iterator[tuple[bytes, int, float]]:
        """Yield each key with its failures and the seconds since the last one."""
        now = self._clock()
        for offset in range(_HEADER.size, SIZE, _SLOT.size):
            key, when, _, count = _SLOT.unpack_from(self._memory, offset)
            if count and 0 <= now - when < DECAY:
                yield key, count, now - when

    def take(self, key: bytes, count: int, age: float) -> None:
        """Let a key have so many failures, the last one `age` seconds ago: found elsewhere."""
        if count == 0:
            self._reduce(key, 0)
            return
        when = self._clock() - age
        offset = self._places.find(key)
        if offset is None:
            offset = min(self._places.of(key), key=lambda slot: self._live(slot)[1:])
        self._put(offset, key, when, bytes(4), min(count, _MAX_COUNT))
        self._times[_LAST_FAILURE] = max(self._times[_LAST_FAILURE], when)

    def _delay(self, count: int) -> float:
        if count == 0:
            return 0.0
        doublings = min(count - 1, _MOST_DOUBLINGS)
        return min(self._first_delay * 2.0**doublings, max(LAST_DELAY, self._first_delay))

    def _keys(self, address_key: bytes, user: str) -> tuple[bytes, bytes]:
        return self._digest(b"address", address_key, 8), self._digest(b"user", _octets(user), 8)

    def _digest(self, kind: bytes, content: bytes, size: int) -> bytes:
        # Four octets of a password's hash tell guesses apart and give next to nothing away.
        digest = blake2b(content, key=self._memory[8:24], person=kind, digest_size=size).digest()
        return digest if any(digest) else b"\1" * size  # all zero is a free slot

    def _count(self, key: bytes) -> int:
        offset = self._places.find(key)
        return 0 if offset is None else self._live(offset)[1]

    def _live(self, offset: int) -> tuple[bytes, int, float]:
        """Return the password, count and time of a slot, count 0 where it is out of date."""
        _, when, attempt, count = _SLOT.unpack_from(self._memory, offset)
        return attempt, count if 0 <= self._clock() - when < DECAY else 0, when

    def _add(self, key: bytes, attempt: bytes) -> int:
        offset = self._places.find(key)
        count = 0
        if offset is None:
            # Whoever failed least and longest ago gives way: spraying names must not push out an
            # entry that has grown.
            offset = min(self._places.of(key), key=lambda slot: self._live(slot)[1:])
        else:
            before, count, _ = self._live(offset)
            if before == attempt and count:
                count -= 1
        count = min(count + 1, _MAX_COUNT)
        now = self._clock()
        self._put(offset, key, now, attempt, count)
        self._times[_LAST_FAILURE] = now
        return count

    def _reduce(self, key: bytes, count: int) -> None:
        offset = self._places.find(key)
        if offset is None:
            return
        if count == 0:
            self._put(offset, b"", 0.0, b"", 0)
            return
        _, when, attempt, _ = _SLOT.unpack_from(self._memory, offset)
        self._put(offset, key, when, attempt, count)

    def _put(self, offset: int, key: bytes, when: float, attempt: bytes, count: int) -> None:
        # in one piece: pack_into would show others an empty slot for a moment
        self._memory[offset : offset + _SLOT.size] = _SLOT.pack(key, when, attempt, count)


def _octets(user: str) -> bytes:
    return user.encode("utf-8", "surrogatepass")
