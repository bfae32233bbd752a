"""Right passwords of slow hashes, remembered for a while: mail clients log in every few minutes."""

import hmac
import secrets
import time
from collections.abc import Callable

from pop3.auth.secret import Secret

MAX_ENTRIES = 10_000
MAX_AGE = 3600.0  # seconds

_Key = tuple[str, str, str, bytes]


class VerificationCache:
    """Which (backend, user, stored hash, password) were found right here within the last hour.

    The stored hash is part of the key, so a changed one is asked again at once. The password is
    kept only as an HMAC under a key that never leaves this process. Wrong passwords are never
    remembered: they cost what they cost. Single dict operations only, so nothing needs a lock.
    """

    def __init__(
        self,
        max_entries: int = MAX_ENTRIES,
        max_age: float = MAX_AGE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_age = max_age
        self._clock = clock
        # Made at the first use, which is after the fork: each worker has its own.
        self._hmac_key: bytes | None = None
        # In order of use, oldest first.
        self._expiry: dict[_Key, float] = {}

    def __len__(self) -> int:
        return len(self._expiry)

    def knows(self, backend: str, user: str, hash_text: str, secret: Secret) -> bool:
        """Tell whether this very password was right for this very hash within the last hour."""
        key = self._key(backend, user, hash_text, secret)
        expiry = self._expiry.pop(key, None)
        if expiry is None or expiry <= self._clock():
            return False
        self._expiry[key] = expiry
        return True

    def remember(self, backend: str, user: str, hash_text: str, secret: Secret) -> None:
        """Note that the password was right; the entry used longest ago makes room."""
        key = self._key(backend, user, hash_text, secret)
        self._expiry.pop(key, None)
        self._expiry[key] = self._clock() + self._max_age
        while len(self._expiry) > self._max_entries:
            try:
                self._expiry.pop(next(iter(self._expiry)), None)
            except (RuntimeError, StopIteration):
                return  # another thread changed the dict meanwhile; the next one makes room

    def _key(self, backend: str, user: str, hash_text: str, secret: Secret) -> _Key:
        if self._hmac_key is None:
            self._hmac_key = secrets.token_bytes(32)
        return backend, user, hash_text, hmac.digest(self._hmac_key, secret.reveal(), "sha256")
