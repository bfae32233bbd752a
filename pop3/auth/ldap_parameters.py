"""The parameters of `--auth ldap`: their file, their URL, and what can be wrong with them."""

import importlib
import os
import re
import ssl
import warnings
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from netserver.declarations import Settings, option
from netserver.errors import ConfigError
from pop3.auth import directories

SCOPES = {"base": "BASE", "one": "LEVEL", "sub": "SUBTREE"}
_DEFAULT_PORTS = {"ldap": 389, "ldaps": 636}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class LDAPParameters(Settings):
    """The keys of the FILE."""

    urls: tuple[str, ...] = option((), repeat=True, help="servers, asked in this order")
    base: str = option("", help="DN below which users are looked for")
    scope: str = option("sub", choices=tuple(SCOPES), help="how far below")
    filter: str = option("(uid={user})", help="finds one user: {user}, {localpart}, {domain}")
    bind_dn: str | None = option(None, help="as whom to search; unset means anonymously")
    password_file: str | None = option(None, help="file whose first line is its password")
    password_env: str | None = option(None, help="environment variable with its password")
    bind_dn_template: str | None = option(None, help="the users' DN, instead of a search")
    starttls: bool | None = option(None, help="unset means yes, but not on this machine")
    ca_file: str | None = option(None, help="certificates to trust; unset means the system's")
    verify: bool = option(True, help="check the server's certificate")
    user_attribute: str | None = option(None, help="the user's name; unset: what is compared")
    uid_attribute: str = option("uidNumber", help="the user's uid")
    gid_attribute: str = option("gidNumber", help="the user's gid")
    home_attribute: str = option("homeDirectory", help="the user's home")
    timeout: float = option(5.0, help="seconds to connect, and for each answer")


def parameters_in(text: str) -> LDAPParameters:
    """Read `ldap://host:port/base?attributes?scope?filter` (RFC 4516). Raises ConfigError."""
    place, *rest = text.split("?", 3)
    _, scope, wanted = [unquote(part) for part in [*rest, "", "", ""][:3]]
    scheme, _, place = place.partition("://")
    host, _, base = place.partition("/")
    if scope and scope not in SCOPES:
        raise ConfigError(f"{text}: scope is one of {', '.join(SCOPES)}")
    return LDAPParameters(
        urls=(f"{scheme}://{host}",),
        base=unquote(base),
        scope=scope or "sub",
        filter=wanted or "(uid={user})",
    )


def check(given: LDAPParameters) -> None:
    """Find the mistakes that need no server. Raises ConfigError."""
    if not given.urls:
        raise ConfigError("urls: is missing, such as ldaps://ldap.example.com")
    for url in given.urls:
        _check_url(url)
    if given.timeout <= 0:
        raise ConfigError("timeout: must be more than 0")
    if given.bind_dn_template is not None:
        _check_fields("bind_dn_template", given.bind_dn_template)
        return
    if not given.base:
        raise ConfigError("base: is missing, such as ou=people,dc=example,dc=com")
    _check_fields("filter", given.filter)
    _load_library()
    from ldap3.core.exceptions import LDAPExceptionError  # noqa: PLC0415 - only servers that need it
    from ldap3.operation.search import parse_filter  # noqa: PLC0415 - same

    try:
        parse_filter(  # type: ignore[no-untyped-call]
            FIELD.sub("x", given.filter), None, False, False, None, False
        )
    except LDAPExceptionError as error:
        raise ConfigError(f"filter: {error}: {given.filter}") from None


def _load_library() -> None:
    """Import ldap3. Raises ConfigError where it is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it knows pyasn1 by old names
        try:
            importlib.import_module("ldap3")
        except ImportError:
            raise ConfigError("needs: pip install 'netserver-pop3[ldap]'") from None


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme == "ldapi" and parts.netloc:
        return
    wrong = parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == 0
    if wrong or parts.username is not None or parts.path not in ("", "/") or parts.query:
        raise ConfigError(f"{url}: not ldap://HOST[:PORT], ldaps://HOST[:PORT] or ldapi://%2FPATH")


def _check_fields(key: str, pattern: str) -> None:
    fields = set(FIELD.findall(pattern))
    if unknown := fields - {"user", "localpart", "domain"}:
        raise ConfigError(
            f"{key}: no {{{min(unknown)}}}; there are {{user}}, {{localpart}}, {{domain}}"
        )
    if not fields & {"user", "localpart"}:
        raise ConfigError(f"{key}: names nobody; it needs {{user}} or {{localpart}}")


def wants_starttls(given: LDAPParameters, url: str) -> bool:
    """Tell whether a connection to this server must change to TLS before anything is sent."""
    parts = urlsplit(url)
    if parts.scheme != "ldap":
        return False
    return parts.hostname not in _LOOPBACK if given.starttls is None else given.starttls


def tls(given: LDAPParameters, base: str) -> Any:
    """Make what puts TLS on connections: one context for all, as reading certificates is slow."""
    _load_library()
    import ldap3  # noqa: PLC0415 - only servers that need it

    path = None if given.ca_file is None else os.path.join(base, os.path.expanduser(given.ca_file))
    try:
        context = ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file: {path}: {error.strerror or error}") from None
    if not given.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

    class TLS(ldap3.Tls):
        def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
            del do_handshake  # done at once: the socket blocks
            host = connection.server.host
            connection.socket = context.wrap_socket(connection.socket, server_hostname=host)

    return TLS(validate=ssl.CERT_REQUIRED if given.verify else ssl.CERT_NONE)


def why_down(url: str) -> str | None:
    """Return why a server cannot be reached now, None if it can."""
    parts = urlsplit(url)
    if parts.scheme == "ldapi":
        return directories.why_unreachable(unquote(parts.netloc), 0)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return directories.why_unreachable(parts.hostname or "", port)
