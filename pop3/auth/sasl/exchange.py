"""What every mechanism is: questions and answers, and at the end a password or a proof."""

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pop3.auth.secret import Secret
from pop3.errors import AuthFailed

if TYPE_CHECKING:
    from netserver.tls_layer import TLSInfo
    from pop3.auth.backend import Identity
    from pop3.auth.chain import AuthChain
    from pop3.auth.names import LoginName
    from pop3.auth.passwd_file import RunBlocking

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


@dataclass(frozen=True, slots=True)
class Proof:
    """What the client has shown instead of a password, still to be judged.

    `identify` raises AuthFailed or TemporaryFailure; it is called when the delay for earlier
    failures is over. `attempt` is what tells one failed attempt from another.
    """

    login: bytes
    attempt: Secret
    identify: "Callable[[LoginName], Identity]"
    last: Challenge | None = None
    """Data that goes with success (RFC 5034 §4): sent, and answered with nothing."""
    refusal: Callable[[AuthFailed], Challenge] | None = None
    """Data that goes with failure; what the client answers makes no difference."""


def _no_name(_: bytes) -> "LoginName | None":
    return None


def _directly(pool: str, function: Callable[..., Any], *args: Any) -> Any:
    del pool
    return function(*args)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a mechanism may use of the server and of this connection."""

    chain: "AuthChain | None" = None
    tls: "TLSInfo | None" = None
    parse: "Callable[[bytes], LoginName | None]" = _no_name
    run_blocking: "RunBlocking" = _directly
    salt_key: bytes = field(default=b"", repr=False)
    """From which the salts of those who have none are made."""
    offered: tuple[bytes, ...] = ()
    """The mechanisms this client could choose among."""


class Exchange(ABC):
    """One run of one mechanism. Made for one attempt and thrown away; nothing restarts it."""

    name: ClassVar[bytes]
    #: Sends what lets whoever reads it log in again.
    reveals: ClassVar[bool] = False
    longest: ClassVar[int] = MAX_RESPONSE

    def __init__(self, around: Surroundings | None = None) -> None:
        self.around = around or Surroundings()
        self._begun = False
        self._ended = False

    def respond(self, data: bytes | None) -> Challenge | Credentials | Proof:
        """Take the client's next (decoded) response, None where it sent no initial response.

        Raises AuthFailed for what the mechanism does not allow, and from then on for everything;
        TemporaryFailure where it has to ask a backend.
        """
        step = None
        allowed = not self._begun if data is None else len(data) <= self.longest
        if allowed and not self._ended:
            self._ended = True  # should the next line raise
            step = self.step(data)
        del data  # may hold the password, and the error below leaves this frame
        self._begun = True
        self._ended = not isinstance(step, Challenge)
        if step is None:
            raise AuthFailed
        return step

    @abstractmethod
    def step(self, data: bytes | None) -> Challenge | Credentials | Proof | None:
        """Do one round; None ends it as failed. Must not raise where its frame holds a password."""


def unescaped(name: bytes) -> bytes | None:
    """Read a saslname, in which =2C stands for a comma and =3D for "=" (RFC 5802 §5.1)."""
    first, *parts = name.split(b"=")
    if any(part[:2] not in (b"2C", b"3D") for part in parts):
        return None
    signs = {b"2C": b",", b"3D": b"="}
    return first + b"".join(signs[part[:2]] + part[2:] for part in parts)


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
