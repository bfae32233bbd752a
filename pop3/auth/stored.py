"""What is stored of users for mechanisms that never send the password: its text, or SCRAM keys."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from pop3.auth.secret import Secret

if TYPE_CHECKING:
    from pop3.auth.backend import Identity

ITERATIONS = 10_000
"""Where nobody has stored keys; RFC 7677 §4 asks for at least 4096."""
_SALT_OCTETS = 16

#: By the name of the mechanism and of the hash scheme.
ALGORITHMS = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}

_PLAIN = re.compile(r"\{(?:PLAIN|CLEARTEXT)\}(.+)", re.IGNORECASE | re.DOTALL)
_SCRAM = re.compile(r"\{(SCRAM-SHA-(?:1|256))\}([0-9]+),([^,]+),([^,]+),([^,]+)", re.IGNORECASE)


class Coverage(IntEnum):
    """How many of those who can log in have something stored."""

    NONE = 0
    SOME = 1
    ALL = 2


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server needs to check a SCRAM proof (RFC 5802 §3)."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stored:
    """A user who is known, and what can be checked without a password on the wire."""

    identity: "Identity"
    secret: Secret | None = None
    keys: tuple[str, ScramKeys] | None = field(default=None, repr=False)
    """The mechanism and its keys."""
    locked: bool = False
    """May not log in, however it is proven."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the users of one backend have: by scheme, "PLAIN" or a mechanism of ALGORITHMS."""

    users: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    #: Iterations and octets of salt that most users of a mechanism have.
    usual: dict[str, tuple[int, int]] = field(default_factory=dict)

    def coverage(self, scheme: str) -> Coverage:
        """Tell how many can use it; who has the password itself can use everything."""
        count = self.counts.get("PLAIN", 0)
        if scheme != "PLAIN":
            count += self.counts.get(scheme, 0)
        if not count:
            return Coverage.NONE
        return Coverage.ALL if count == self.users else Coverage.SOME


def survey(samples: Iterable[tuple[int, str]]) -> Survey:
    """Count by a hash of each shape and the number of users who have one like it."""
    users = 0
    counts: dict[str, int] = {}
    usual: dict[str, tuple[int, int]] = {}
    for count, hash_text in sorted(samples, reverse=True):
        users += count
        found = keys_in(hash_text)
        scheme = "PLAIN" if _PLAIN.fullmatch(hash_text) else found and found[0]
        if scheme:
            counts[scheme] = counts.get(scheme, 0) + count
        if found:
            usual.setdefault(found[0], (found[1].iterations, len(found[1].salt)))
    return Survey(users, counts, usual)


def of_hash(identity: "Identity", hash_text: str | None) -> Stored:
    """Return what the hash of a user allows; None is a user who may not log in."""
    if hash_text is None:
        return Stored(identity, locked=True)
    plain = _PLAIN.fullmatch(hash_text)
    secret = None if plain is None else Secret(plain[1].encode())
    return Stored(identity, secret, keys_in(hash_text))


def keys_in(hash_text: str) -> tuple[str, ScramKeys] | None:
    """Read `{SCRAM-SHA-256}rounds,salt,StoredKey,ServerKey`; None for any other hash."""
    match = _SCRAM.fullmatch(hash_text)
    if match is None:
        return None
    salt, stored_key, server_key = (base64.b64decode(match[part]) for part in (3, 4, 5))
    return match[1].upper(), ScramKeys(int(match[2]), salt, stored_key, server_key)


def derive(mechanism: str, secret: Secret, salt: bytes, iterations: int) -> ScramKeys:
    """Make the keys of a password that is prepared already. Blocks for some milliseconds."""
    algorithm = ALGORITHMS[mechanism]
    salted = hashlib.pbkdf2_hmac(algorithm, secret.reveal(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    stored_key = hashlib.new(algorithm, client_key).digest()
    return ScramKeys(iterations, salt, stored_key, hmac.digest(salted, b"Server Key", algorithm))


def made_up(mechanism: str, salt: bytes, iterations: int) -> ScramKeys:
    """Return keys that belong to no password."""
    size = hashlib.new(ALGORITHMS[mechanism]).digest_size
    return ScramKeys(iterations, salt, secrets.token_bytes(size), secrets.token_bytes(size))


def salt_of(key: bytes, mechanism: str, user: str, octets: int = _SALT_OCTETS) -> bytes:
    """Return the salt of a user who has none stored: always the same one for the same key."""
    label = f"{mechanism}\0{user}".encode()
    return hashlib.shake_256(key + label).digest(octets or _SALT_OCTETS)


def hash_of(secret: Secret, mechanism: str = "SCRAM-SHA-256", iterations: int = ITERATIONS) -> str:
    """Make the hash of a users file from a password that is prepared already."""
    keys = derive(mechanism, secret, secrets.token_bytes(_SALT_OCTETS), iterations)
    parts = (keys.salt, keys.stored_key, keys.server_key)
    texts = ",".join(base64.b64encode(part).decode("ascii") for part in parts)
    return f"{{{mechanism}}}{iterations},{texts}"
