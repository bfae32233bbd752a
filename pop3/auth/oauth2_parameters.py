"""The parameters of `--auth oauth2:FILE`, and what can be wrong with them."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from netserver.declarations import Settings, option
from netserver.errors import ConfigError

#: Signatures by key pairs only: with HS256 a public key would be a password everybody knows.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class OAuth2Parameters(Settings):
    """The keys of the FILE."""

    jwks_url: str | None = option(None, help="where the keys that sign tokens are (JWKS)")
    introspection_url: str | None = option(None, help="where to ask about tokens (RFC 7662)")
    client_id: str | None = option(None, help="as whom to ask there")
    client_secret_file: str | None = option(None, help="file whose first line is its secret")
    client_secret_env: str | None = option(None, help="environment variable with its secret")
    issuer: str | None = option(None, help="what iss must be")
    audience: tuple[str, ...] = option((), repeat=True, help="one of them must be in aud")
    scope: tuple[str, ...] = option((), repeat=True, help="all of them must be in scope or scp")
    algorithms: tuple[str, ...] = option(
        ("RS256", "ES256"), repeat=True, help="signatures to accept"
    )
    user_claim: str = option("email", help="the claim that names the user")
    clock_skew: float = option(60.0, help="seconds by which clocks may differ")
    cache_seconds: float = option(60.0, help="how long an answer about a good token is kept")
    timeout: float = option(5.0, help="seconds for one question")
    ca_file: str | None = option(None, help="certificates to trust; unset means the system's")
    openid_configuration: str | None = option(None, help="URL that refused clients are told")


def check(given: OAuth2Parameters) -> None:
    """Find the mistakes that need no server. Raises ConfigError."""
    if given.jwks_url is None and given.introspection_url is None:
        raise ConfigError("jwks_url or introspection_url: one of them is needed")
    for key in ("jwks_url", "introspection_url"):
        if (url := getattr(given, key)) is not None:
            _check_url(key, url)
    if given.jwks_url is not None and (given.issuer is None or not given.audience):
        raise ConfigError("jwks_url: needs issuer and audience, or tokens for others would do")
    if given.introspection_url is not None and not (given.audience or given.scope):
        raise ConfigError(
            "introspection_url: needs audience or scope, or tokens for other services would do"
        )
    unknown = sorted(set(given.algorithms) - set(ALGORITHMS))
    if unknown or not given.algorithms:
        what = unknown[0] if unknown else "empty"
        raise ConfigError(f"algorithms: {what}; there are: {', '.join(ALGORITHMS)}")
    if not given.user_claim:
        raise ConfigError("user_claim: is empty")
    if given.timeout <= 0 or given.clock_skew < 0 or given.cache_seconds < 0:
        raise ConfigError("timeout, clock_skew, cache_seconds: cannot be negative, timeout not 0")


def _check_url(key: str, url: str) -> None:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    wrong = not parts.hostname or port == 0 or parts.username is not None or bool(parts.fragment)
    if wrong or parts.scheme not in ("http", "https"):
        raise ConfigError(f"{key}: not https://HOST[:PORT]/PATH: {url.partition('@')[2] or url}")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigError(f"{key}: http only on this machine: {url}")
