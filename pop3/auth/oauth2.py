"""Users by OAuth 2.0 access tokens: `oauth2:FILE`.

A token is judged by its signature (a JWT, RFC 9068, with the keys at `jwks_url`), by the server
that gave it (introspection, RFC 7662), or by both. joserfc checks signatures, httpx asks; like
ldap, in the greenlet or process of the client that waits.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from typing import Any, ClassVar, TypeGuard

from netserver.errors import ConfigError
from netserver.reach import Reach
from pop3.auth import directories
from pop3.auth.backend import Backend, Identity, Setup
from pop3.auth.names import LoginName
from pop3.auth.oauth2_http import Endpoint, Unusable
from pop3.auth.oauth2_keys import Keys
from pop3.auth.oauth2_parameters import OAuth2Parameters, check
from pop3.auth.passwd_file import RunBlocking
from pop3.auth.sasl.oauth import InsufficientScope
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, TemporaryFailure

_MAX_CACHED = 10_000
_NEVER = 1e12  # seconds


class OAuth2(Backend):
    """`oauth2:FILE`: knows users by tokens, and nobody by a password."""

    name: ClassVar[str] = "oauth2"
    takes_passwords: ClassVar[bool] = False
    takes_tokens: ClassVar[bool] = True

    def __init__(self, argument: str, setup: Setup) -> None:
        if not argument:
            raise ConfigError("--auth oauth2: needs oauth2:FILE.yaml")
        self._path = os.path.join(setup.base_directory, os.path.expanduser(argument))
        self._setup = setup
        self._given = OAuth2Parameters()
        self._keys: Keys | None = None
        self._introspection: Endpoint | None = None
        self._ready = False
        # until when a token is good, by its digest and the user; all that was asked once
        self._accepted: dict[bytes, float] = {}
        self._digest_key = secrets.token_bytes(32)

    def reach(self) -> Reach:
        """Need the network, and the certificates to trust."""
        path = self._given.ca_file
        directory = os.path.dirname(os.path.join(os.path.dirname(self._path), path or ""))
        return Reach(read=(directory,) if path else (), network=True)

    def check(self) -> None:
        """Read the FILE and load the libraries; a server that is down may come."""
        if self._ready:
            return
        given = self._given = directories.load(OAuth2Parameters, self._path)
        check(given)
        base = os.path.dirname(self._path)
        secret = directories.password(
            given.client_secret_file, given.client_secret_env, base, self._setup.warn
        )
        if (given.client_id is None) != (secret is None):
            raise ConfigError("client_id: goes with client_secret_file or client_secret_env")
        ca_file = None if given.ca_file is None else os.path.join(base, given.ca_file)
        if given.jwks_url is not None:
            endpoint = Endpoint(given.jwks_url, ca_file, given.timeout)
            self._keys = Keys(endpoint, given.algorithms, self._setup.warn)
        if given.introspection_url is not None:
            who = None if secret is None else (given.client_id or "", secret)
            self._introspection = Endpoint(given.introspection_url, ca_file, given.timeout, who)
        self._ready = True

    def close(self) -> None:
        """Close the connections of this process."""
        for one in (self._keys, self._introspection):
            if one is not None:
                one.close()

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Know nobody without a token."""
        del login, run_blocking
        return None

    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Know nobody by a password."""
        del login, secret, run_blocking
        return None

    def token_hints(self) -> dict[str, str]:
        """Tell which scope is needed, and where a client finds out how to get a token."""
        hints = {"scope": " ".join(self._given.scope)}
        if self._given.openid_configuration is not None:
            hints["openid-configuration"] = self._given.openid_configuration
        return {key: text for key, text in hints.items() if text}

    def verify_token(self, login: LoginName, token: Secret, run_blocking: RunBlocking) -> Identity:
        """Judge the token in every way that is configured."""
        del run_blocking  # see the module's text
        try:
            if self._keys is not None:
                self._judge(login, self._keys.claims(token))
            if self._introspection is not None:
                self._introspect(login, token)
        except Unusable as unusable:
            self._setup.warn(f"auth oauth2: {unusable}")
            raise TemporaryFailure("cannot verify tokens for now") from None
        return Identity(login.user)

    def _introspect(self, login: LoginName, token: Secret) -> None:
        """Ask, or remember that we did. Raises AuthFailed, Unusable."""
        assert self._introspection is not None
        seen = hashlib.blake2b(
            token.reveal() + b"\0" + login.user.encode(), key=self._digest_key
        ).digest()
        if self._accepted.get(seen, 0.0) > time.time():
            return
        claims = self._introspection.post({"token": token, "token_type_hint": "access_token"})
        if claims.get("active") is not True:
            raise AuthFailed
        self._judge(login, claims)
        until = time.time() + self._given.cache_seconds
        if is_number(claims.get("exp")):
            until = min(until, claims["exp"])
        if len(self._accepted) >= _MAX_CACHED:
            self._accepted.clear()
        self._accepted[seen] = until

    def _judge(self, login: LoginName, claims: Mapping[str, Any]) -> None:
        """Look at all that a token says. Raises AuthFailed."""
        given = self._given
        signed = self._keys is not None
        judge_times(claims, time.time(), given.clock_skew, must_expire=signed)
        if given.issuer is not None and claims.get("iss", None if signed else given.issuer) != (
            given.issuer
        ):
            raise AuthFailed
        if given.audience and not words(claims.get("aud"), split=False) & set(given.audience):
            raise AuthFailed
        if self._user_in(claims) != login.user:
            raise AuthFailed
        scopes = words(claims.get("scope")) | words(claims.get("scp"))
        if not set(given.scope) <= scopes:
            raise InsufficientScope

    def _user_in(self, claims: Mapping[str, Any]) -> str | None:
        claim = self._given.user_claim
        name = claims.get(claim)
        # an address that nobody has confirmed may be anybody's
        if not isinstance(name, str) or (
            claim == "email" and claims.get("email_verified", True) is not True
        ):
            return None
        try:
            return LoginName.parse(name.encode("utf-8", "replace")).user
        except ValueError:
            return None


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a claim is a time: JSON's true, NaN, Infinity and 1e400 are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _NEVER


def judge_times(claims: Mapping[str, Any], now: float, skew: float, *, must_expire: bool) -> None:
    """Look at exp, nbf and iat (RFC 7519 §4.1). Raises AuthFailed."""
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if value is None and not (name == "exp" and must_expire):
            continue
        if not is_number(value):
            raise AuthFailed
        good = now < value + skew if name == "exp" else value <= now + skew
        if not good:
            raise AuthFailed


def words(value: object, *, split: bool = True) -> set[str]:
    """Return the words of a claim that is text with blanks, or a list of texts."""
    if isinstance(value, str):
        return set(value.split(" ")) if split else {value}
    return {word for word in value if isinstance(word, str)} if isinstance(value, list) else set()
