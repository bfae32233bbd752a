"""SCRAM (RFC 5802, RFC 7677) with and without channel binding (RFC 5929).

A user nobody knows, or whose keys are not stored, gets a challenge like everybody's: the salt is
made from the name and a key of this server, so it is the same one tomorrow.

The exchange is written here, as scramp takes one type of binding and no authorization identity;
the tests let scramp and GNU SASL judge it.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, ClassVar

from pop3.auth import stored
from pop3.auth.sasl.exchange import Challenge, Exchange, Proof, Surroundings, unescaped
from pop3.auth.sasl.prepare import prepare
from pop3.auth.secret import Secret
from pop3.auth.stored import ScramKeys
from pop3.errors import AuthFailed

if TYPE_CHECKING:
    from pop3.auth.backend import Identity
    from pop3.auth.names import LoginName

_EXTENSIONS = rb"(?:,[A-Za-z]=[^,\0]+)*"
_FIRST = re.compile(
    rb"(?P<gs2>(?:[yn]|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>[^,\0]+))?,)"
    rb"(?P<bare>n=(?P<name>[^,\0]+),r=(?P<nonce>[!-+\--~]+)" + _EXTENSIONS + rb")"
)
_FINAL = re.compile(
    rb"(?P<unproven>c=(?P<bound>[^,\0]+),r=(?P<nonce>[!-+\--~]+)"
    + _EXTENSIONS
    + rb"),p=(?P<proof>[A-Za-z0-9+/]+={0,2})"
)


class Scram(Exchange):
    """One of the SCRAM mechanisms; `hashed_as` names its keys, as in {SCRAM-SHA-256}."""

    hashed_as: ClassVar[str]
    longest = 2048

    def __init__(self, around: Surroundings | None = None) -> None:
        super().__init__(around)
        self._name = b""
        self._user: stored.Stored | None = None
        self._keys: ScramKeys | None = None
        self._nonce = b""
        self._bound = b""  # what `c=` must say
        self._so_far = b""  # the first two parts of AuthMessage

    def step(self, data: bytes | None) -> Challenge | Proof | None:
        """Take client-first, then client-final."""
        if data is None:
            return Challenge(b"")
        return self._first(data) if self._keys is None else self._final(data, self._keys)

    def _first(self, data: bytes) -> Challenge | None:
        match = _FIRST.fullmatch(data)
        if match is None or (bound := self._binding(match)) is None:
            return None
        name = unescaped(match["name"])
        name = None if name is None else prepare(name)
        if name is None:
            return None
        if match["authzid"] is not None:
            authzid = unescaped(match["authzid"])
            if authzid is None or prepare(authzid) != name:
                return None
        self._name = name
        self._bound = base64.b64encode(match["gs2"] + bound)
        self._nonce = match["nonce"] + secrets.token_urlsafe(18).encode("ascii")
        keys = self._keys = self._find(self.around.parse(name))
        salt = base64.b64encode(keys.salt)
        challenge = b"r=%b,s=%b,i=%d" % (self._nonce, salt, keys.iterations)
        self._so_far = match["bare"] + b"," + challenge
        return Challenge(challenge)

    def _binding(self, match: "re.Match[bytes]") -> bytes | None:
        """Return what the client must have bound to, None if the flag is wrong here (§6)."""
        plus = self.name.endswith(b"-PLUS")
        if match["binding"] is None:
            # "y" says that we have no -PLUS: somebody has cut it out of our list
            cut = match["gs2"][:1] == b"y" and self.name + b"-PLUS" in self.around.offered
            return None if plus or cut else b""
        if not plus or self.around.tls is None:
            return None
        return self.around.tls.bindings.get(match["binding"].decode("ascii"))

    def _find(self, login: "LoginName | None") -> ScramKeys:
        """Return the user's keys or, after the same work, some that fit nobody."""
        chain, run_blocking = self.around.chain, self.around.run_blocking
        found = None
        if chain is not None and login is not None:
            found = chain.stored(login, run_blocking)
        iterations, octets = stored.ITERATIONS, 0
        holds_plain = False
        if chain is not None:
            iterations, octets = chain.usual_scram(self.hashed_as) or (iterations, octets)
            holds_plain = chain.stores("PLAIN") > stored.Coverage.NONE
        user = self._name.decode() if login is None else login.user
        salt = stored.salt_of(self.around.salt_key, self.hashed_as, user, octets)
        keys: ScramKeys | None = None
        if holds_plain:  # done for all, else the time would tell who is known
            shared = None if found is None else _prepared(found.secret)
            secret = Secret(b"nobody's") if shared is None else shared
            derived = run_blocking("hash", stored.derive, self.hashed_as, secret, salt, iterations)
            keys = derived if shared is not None else None
        if found is not None and found.keys is not None and found.keys[0] == self.hashed_as:
            keys = found.keys[1]
        if found is None or found.locked or keys is None:
            return stored.made_up(self.hashed_as, salt, iterations)
        self._user = found
        return keys

    def _final(self, data: bytes, keys: ScramKeys) -> Proof | None:
        match = _FINAL.fullmatch(data)
        if match is None:
            return None
        algorithm = stored.ALGORITHMS[self.hashed_as]
        message = self._so_far + b"," + match["unproven"]
        signature = hmac.digest(keys.stored_key, message, algorithm)
        right = hmac.compare_digest(match["bound"], self._bound)
        right &= hmac.compare_digest(match["nonce"], self._nonce)
        try:
            proof = base64.b64decode(match["proof"], validate=True)
        except binascii.Error:
            return None
        if len(proof) != len(signature):
            return None
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        made = hashlib.new(algorithm, client_key).digest()
        right &= hmac.compare_digest(made, keys.stored_key)
        user = self._user if right else None

        def identify(_: "LoginName") -> "Identity":
            if user is None:
                raise AuthFailed
            return user.identity

        ours = hmac.digest(keys.server_key, message, algorithm)
        last = Challenge(b"v=" + base64.b64encode(ours))
        return Proof(self._name, Secret(proof), identify, last=last)


def _prepared(secret: Secret | None) -> Secret | None:
    octets = None if secret is None else prepare(secret.reveal())
    return None if octets is None else Secret(octets)


class ScramSHA1(Scram):
    """SCRAM-SHA-1."""

    name = b"SCRAM-SHA-1"
    hashed_as = "SCRAM-SHA-1"


class ScramSHA256(Scram):
    """SCRAM-SHA-256."""

    name = b"SCRAM-SHA-256"
    hashed_as = "SCRAM-SHA-256"


class ScramSHA1Plus(ScramSHA1):
    """SCRAM-SHA-1 bound to the TLS connection."""

    name = b"SCRAM-SHA-1-PLUS"


class ScramSHA256Plus(ScramSHA256):
    """SCRAM-SHA-256 bound to the TLS connection."""

    name = b"SCRAM-SHA-256-PLUS"
