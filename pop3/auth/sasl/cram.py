"""Digests of a stored password and a challenge: CRAM-MD5 (RFC 2195) and APOP (RFC 1939 §7).

Both rest on MD5 and on passwords that the server knows; they are there for old clients, if asked.
"""

import hmac
import re
import secrets
from hashlib import md5
from typing import TYPE_CHECKING

from pop3.auth.sasl.exchange import Challenge, Exchange, Proof, Surroundings
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed

if TYPE_CHECKING:
    from pop3.auth.backend import Identity
    from pop3.auth.names import LoginName

_RESPONSE = re.compile(rb"([^\0]+) ([0-9a-f]{32})")


def timestamp() -> bytes:
    """Return a challenge that was never used, in the form of a Message-ID."""
    return f"<{secrets.token_hex(16)}@localhost>".encode("ascii")


class CramMD5(Exchange):
    """CRAM-MD5; the server speaks first."""

    name = b"CRAM-MD5"

    def __init__(self, around: Surroundings | None = None) -> None:
        super().__init__(around)
        self._challenge = b""

    def step(self, data: bytes | None) -> Challenge | Proof | None:
        """Send the challenge, take the name and the digest."""
        if not self._challenge:
            if data is not None:  # RFC 5034 §4: no initial response where the server is first
                return None
            self._challenge = timestamp()
            return Challenge(self._challenge)
        match = _RESPONSE.fullmatch(data or b"")
        if match is None:
            return None
        digest = Secret(match[2])

        def identify(login: "LoginName") -> "Identity":
            chain = self.around.chain
            found = None if chain is None else chain.stored(login, self.around.run_blocking)
            shared = None if found is None or found.locked else found.secret
            key = b"" if shared is None else shared.reveal()
            right = digest.equals(hmac.new(key, self._challenge, "md5").hexdigest().encode())
            del key
            if found is None or shared is None or not right:
                raise AuthFailed
            return found.identity

        return Proof(match[1], digest, identify)


def check_apop(challenge: bytes, shared: Secret | None, digest: Secret) -> None:
    """Compare an APOP digest with ours; the same work is done without a secret.

    Raises AuthFailed.
    """
    ours = md5(challenge, usedforsecurity=False)
    ours.update(b"" if shared is None else shared.reveal())
    if not digest.equals(ours.hexdigest().encode("ascii")) or shared is None:
        raise AuthFailed
