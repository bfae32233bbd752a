"""Which mechanisms there are, and which of them a client can use here and now."""

import re
from typing import TYPE_CHECKING

from netserver.errors import ConfigError
from pop3.auth.sasl.cram import CramMD5
from pop3.auth.sasl.exchange import Exchange, Surroundings
from pop3.auth.sasl.oauth import OAuthBearer, XOAuth2
from pop3.auth.sasl.password import Login, Plain
from pop3.auth.sasl.scram import Scram, ScramSHA1, ScramSHA1Plus, ScramSHA256, ScramSHA256Plus
from pop3.auth.sasl.without_secret import Anonymous, External
from pop3.auth.stored import Coverage

if TYPE_CHECKING:
    from netserver.tls_layer import TLSInfo
    from pop3.auth.chain import AuthChain

_MECHANISMS: dict[bytes, type[Exchange]] = {
    kind.name: kind
    for kind in (
        ScramSHA256Plus,
        ScramSHA1Plus,
        ScramSHA256,
        ScramSHA1,
        External,
        OAuthBearer,
        XOAuth2,
        CramMD5,
        Plain,
        Login,
        Anonymous,
    )
}
_ONLY_IF_ASKED = frozenset({CramMD5.name})

#: What this version can do, best first.
AVAILABLE: tuple[bytes, ...] = tuple(_MECHANISMS)


def exchange(mechanism: bytes, around: Surroundings | None = None) -> Exchange | None:
    """Begin a run of a mechanism (name in any case); None if there is no such mechanism here."""
    kind = _MECHANISMS.get(mechanism.upper())
    return None if kind is None else kind(around)


def mechanisms(requested: str | None) -> tuple[bytes, ...]:
    """Read a `--sasl` value: names with commas or blanks between, `none`, or None for all safe.

    Raises ConfigError for a name that is not in AVAILABLE.
    """
    if requested is None:
        return tuple(name for name in AVAILABLE if name not in _ONLY_IF_ASKED)
    names = [name for name in re.split(r"[,\s]+", requested) if name]
    if [name.lower() for name in names] in ([], ["none"]):
        return ()
    chosen: dict[bytes, None] = {}
    for name in names:
        octets = name.encode("utf-8", "replace").upper()
        if octets not in _MECHANISMS:
            here = ", ".join(known.decode() for known in AVAILABLE)
            raise ConfigError(f"--sasl: no mechanism {name!r} here; there are: {here}")
        chosen[octets] = None
    return tuple(chosen)


def check(requested: str | None, chain: "AuthChain | None") -> None:
    """Refuse, as ConfigError, what was asked for by name and could never work with the backends."""
    if requested is None:
        return
    for name in mechanisms(requested):
        reason = _impossible(name, chain, Coverage.SOME)
        if reason is not None:
            raise ConfigError(f"--sasl {name.decode('ascii')}: {reason}")


def offered(
    names: tuple[bytes, ...],
    chain: "AuthChain | None",
    tls: "TLSInfo | None",
    *,
    plaintext: bool,
    asked: bool,
) -> tuple[bytes, ...]:
    """Return those of the configured mechanisms that work on this connection.

    `plaintext` tells whether a password may be sent as it is, `asked` whether `names` are what the
    operator wrote. If not, SCRAM is left out where it works for some users only: clients take the
    best they are offered, and the other users could not log in.
    """
    needed = Coverage.SOME if asked else Coverage.ALL
    return tuple(
        name
        for name in names
        if (plaintext or not _MECHANISMS[name].reveals)
        and _fits(name, tls)
        and _impossible(name, chain, needed) is None
    )


def reveals(mechanism: bytes) -> bool:
    """Tell whether a mechanism sends what must not be read on its way."""
    kind = _MECHANISMS.get(mechanism.upper())
    return kind is not None and kind.reveals


def _fits(name: bytes, tls: "TLSInfo | None") -> bool:
    if name.endswith(b"-PLUS"):
        return tls is not None and bool(tls.bindings)
    return name != External.name or (tls is not None and bool(tls.client_names))


def _impossible(name: bytes, chain: "AuthChain | None", needed: Coverage) -> str | None:
    """Return why the backends cannot do it, None if they can."""
    kind = _MECHANISMS[name]
    able, reason = True, ""
    if kind in (Plain, Login):
        able = chain is None or chain.takes_passwords
        reason = "no backend takes passwords"
    elif chain is None:
        able, reason = False, "this source asks another server for the password itself"
    elif issubclass(kind, Scram):
        able = chain.stores(kind.hashed_as) >= needed
        reason = f"needs users with {{{kind.hashed_as}}} or {{PLAIN}}"
    elif kind is CramMD5:
        able, reason = chain.stores("PLAIN") > Coverage.NONE, "needs users with {PLAIN}"
    elif kind in (OAuthBearer, XOAuth2):
        able, reason = chain.takes_tokens, "needs --auth oauth2:FILE"
    elif kind is Anonymous:
        able, reason = chain.open_to_all, "needs --auth any"
    return None if able else reason
