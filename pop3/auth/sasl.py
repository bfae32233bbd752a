"""SASL mechanisms as small exchange objects (RFC 4422, RFC 5034)."""

import base64
import binascii
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netserver.errors import ConfigError
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed

if TYPE_CHECKING:
    from pop3.auth.chain import AuthChain

#: RFC 4616 bounds each of the three parts of PLAIN by 255 octets.
MAX_RESPONSE = 3 * 255 + 2


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the server asks next; may be empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client claims, still to be verified by the chain."""

    login: bytes
    secret: Secret


class Exchange(ABC):
    """One run of one mechanism. Made for one attempt and thrown away; nothing restarts it."""

    name: ClassVar[bytes]

    def __init__(self, chain: "AuthChain | None" = None) -> None:
        #: For mechanisms that need stored keys before the client has proved anything.
        self.chain = chain
        self._begun = False
        self._ended = False

    def respond(self, data: bytes | None) -> Challenge | Credentials:
        """Take the client's next (decoded) response, None where it sent no initial response.

        Raises AuthFailed for what the mechanism does not allow, and from then on for everything.
        """
        step = None
        allowed = not self._begun if data is None else len(data) <= MAX_RESPONSE
        if allowed and not self._ended:
            step = self.step(data)
        del data  # may hold the password, and the error below leaves this frame
        self._begun = True
        self._ended = not isinstance(step, Challenge)
        if step is None:
            raise AuthFailed
        return step

    @abstractmethod
    def step(self, data: bytes | None) -> Challenge | Credentials | None:
        """Do one round; None ends it as failed. Must not raise: its frame holds the password."""


class Plain(Exchange):
    """PLAIN (RFC 4616), without acting for others: authzid is empty or the authcid itself."""

    name = b"PLAIN"

    def step(self, data: bytes | None) -> Challenge | Credentials | None:
        """Split `[authzid] NUL authcid NUL passwd`."""
        if data is None:
            return Challenge(b"")
        parts = data.split(b"\0")
        if len(parts) != 3:  # noqa: PLR2004 - the three parts of RFC 4616
            return None
        authzid, authcid, passwd = parts
        if not authcid or not passwd or authzid not in (b"", authcid):
            return None
        return Credentials(authcid, Secret(passwd))


class Login(Exchange):
    """LOGIN, which has no RFC but old Outlooks: two questions. An initial response is the name."""

    name = b"LOGIN"

    def __init__(self, chain: "AuthChain | None" = None) -> None:
        super().__init__(chain)
        self._login: bytes | None = None

    def step(self, data: bytes | None) -> Challenge | Credentials | None:
        """Ask for the name, then for the password."""
        if self._login is None:
            if data is None:
                return Challenge(b"Username:")
            if not data or b"\0" in data:
                return None
            self._login = data
            return Challenge(b"Password:")
        return Credentials(self._login, Secret(data)) if data else None


_MECHANISMS: dict[bytes, type[Exchange]] = {kind.name: kind for kind in (Plain, Login)}

#: What this version can do, best first.
AVAILABLE: tuple[bytes, ...] = tuple(_MECHANISMS)


def exchange(mechanism: bytes, chain: "AuthChain | None" = None) -> Exchange | None:
    """Begin a run of a mechanism (name in any case); None if there is no such mechanism here."""
    kind = _MECHANISMS.get(mechanism.upper())
    return None if kind is None else kind(chain)


def mechanisms(requested: str | None) -> tuple[bytes, ...]:
    """Read a `--sasl` value: names with commas or blanks between, `none`, or None for all here.

    Raises ConfigError for a name that is not in AVAILABLE.
    """
    if requested is None:
        return AVAILABLE
    names = [name for name in re.split(r"[,\s]+", requested) if name]
    if [name.lower() for name in names] in ([], ["none"]):
        return ()
    chosen: dict[bytes, None] = {}
    for name in names:
        octets = name.encode("utf-8", "replace").upper()
        if octets not in _MECHANISMS:
            here = ", ".join(known.decode() for known in AVAILABLE)
            raise ConfigError(f"sasl: no mechanism {name!r} here; there are: {here}")
        chosen[octets] = None
    return tuple(chosen)


def decode(line: bytes) -> bytes:
    """Decode a response line, strictly. AuthFailed where it is not base64 (RFC 5034 section 4).

    "=" is the empty response; the caller has already dealt with "*", the client's cancel.
    """
    octets = b"" if line == b"=" else _unpacked(line)
    del line
    if octets is None:
        raise AuthFailed
    return octets


def _unpacked(line: bytes) -> bytes | None:
    try:
        octets = base64.b64decode(line, validate=True)
    except binascii.Error:
        return None
    # Loose trailing bits would be a second spelling of the same response.
    return octets if base64.b64encode(octets) == line else None


def encode(challenge: Challenge) -> bytes:
    """Return what follows "+ " on the wire."""
    return base64.b64encode(challenge.data)
