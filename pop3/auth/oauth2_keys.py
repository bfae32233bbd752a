"""The keys an issuer signs tokens with (JWKS, RFC 7517), and what a signed token says."""

import base64
import importlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from netserver.errors import ConfigError
from pop3.auth.oauth2_http import Endpoint, Unusable
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed

if TYPE_CHECKING:
    from joserfc.jwk import Key

REFRESH_SECONDS = 3600.0
"""How long keys are used without another look: one that was taken back is gone by then."""
REFETCH_SECONDS = 30.0
"""How often, at most, an unknown key id makes us look: strangers can make up such ids."""
_MAX_KEYS = 100
_KINDS = ("RSA", "EC", "OKP")


class Keys:
    """The keys at one URL: the last good ones stay where a fetch fails."""

    def __init__(
        self, endpoint: Endpoint, algorithms: Sequence[str], warn: Callable[[str], object]
    ) -> None:
        """Load the library; ConfigError where it is missing."""
        try:
            importlib.import_module("joserfc.jwt")  # only servers that need it
            importlib.import_module("joserfc.jwk")
        except ImportError:
            raise ConfigError("needs: pip install 'netserver-pop3[sasl]'") from None
        self._endpoint = endpoint
        self._algorithms = tuple(algorithms)
        self._warn = warn
        self._keys: dict[str | None, Key] = {}
        self._fetched = self._tried = float("-inf")
        self._lock = threading.Lock()

    def claims(self, token: Secret) -> dict[str, Any]:
        """Return what the token says. Raises AuthFailed for a wrong signature, Unusable.

        The key id only chooses among the keys that were fetched.
        """
        from joserfc import jwt  # noqa: PLC0415 - only servers that need it
        from joserfc.errors import JoseError  # noqa: PLC0415 - same

        algorithm, kid = _header(token)
        if algorithm not in self._algorithms:
            raise AuthFailed
        key = self._find(kid)
        claims = None
        # whatever goes wrong, its traceback would hold the token
        with suppress(JoseError, ValueError, TypeError, KeyError, RecursionError):
            claims = jwt.decode(token.reveal(), key, algorithms=[algorithm]).claims
        if claims is None:
            raise AuthFailed
        return claims

    def close(self) -> None:
        """Close the connections of this process."""
        self._endpoint.close()

    def _find(self, kid: str | None) -> "Key":
        """Return the key; a token without a key id belongs to an issuer with one key."""
        now = time.monotonic()
        if now - self._fetched > REFRESH_SECONDS or self._chosen(kid) is None:
            self._fetch(now)
        key = self._chosen(kid)
        if key is None:
            raise AuthFailed
        return key

    def _chosen(self, kid: str | None) -> "Key | None":
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _fetch(self, now: float) -> None:
        with self._lock:
            if now - self._tried < REFETCH_SECONDS:
                if not self._keys:
                    raise Unusable(f"{self._endpoint.url}: no keys so far")
                return
            self._tried = now
            try:
                found = _import(self._endpoint.get().get("keys"))
            except Unusable as unusable:
                if not self._keys:
                    raise
                self._warn(f"auth oauth2: {unusable}; going on with the keys fetched before")
                return
            if not found and not self._keys:
                raise Unusable(f"{self._endpoint.url}: no keys that sign")
            if found:
                self._keys, self._fetched = found, time.monotonic()


def _import(listed: object) -> "dict[str | None, Key]":
    """Read the public keys for signatures among what was fetched; others are none of ours."""
    from joserfc.errors import JoseError  # noqa: PLC0415 - only servers that need it
    from joserfc.jwk import import_key  # noqa: PLC0415 - same

    found: dict[str | None, Key] = {}
    for one in listed[:_MAX_KEYS] if isinstance(listed, list) else []:
        if not isinstance(one, dict) or one.get("kty") not in _KINDS:
            continue
        kid = one.get("kid")
        if one.get("use", "sig") != "sig" or not isinstance(kid, str | None):
            continue
        try:
            found[kid] = import_key(one)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return found


def _header(token: Secret) -> tuple[str, str | None]:
    """Return algorithm and key id of a token, before anything of it is believed."""
    header: object = None
    with suppress(ValueError, RecursionError):
        first = token.reveal().partition(b".")[0]
        header = json.loads(base64.urlsafe_b64decode(first + b"=" * (-len(first) % 4)))
    algorithm = header.get("alg") if isinstance(header, dict) else None
    kid = header.get("kid") if isinstance(header, dict) else None
    if not isinstance(algorithm, str) or not isinstance(kid, str | None):
        raise AuthFailed
    return algorithm, kid
