"""Users in an LDAP directory: `ldap:URL` (RFC 4516) or `ldap:FILE`. A login is proven by a bind.

Each login has a connection of its own and is asked in the greenlet or process of its client:
ldap3 is plain Python on this process's sockets, so under gevent a slow directory holds up nobody
else, while a pool of threads would give those sockets to hubs they do not belong to.
"""

import math
import os
import re
import secrets
import socket
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from netserver.errors import ConfigError
from netserver.reach import Reach
from pop3.auth import directories, schemes
from pop3.auth.backend import Backend, Identity, Setup
from pop3.auth.ldap_parameters import (
    FIELD,
    SCOPES,
    LDAPParameters,
    check,
    parameters_in,
    tls,
    wants_starttls,
    why_down,
)
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import RunBlocking
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, TemporaryFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ldap3 import Connection

_COMPARED = re.compile(r"([A-Za-z][A-Za-z0-9-]*)=\{(user|localpart)\}")
_PLAIN = re.compile(r"[A-Za-z0-9@._-]|[^\x00-\x7f]")
_AVOID_SECONDS = 30.0  # how long a server that did not answer is asked last

# RFC 4511 appendix A
_SUCCESS, _SIZE_LIMIT, _NO_SUCH_OBJECT, _WRONG = 0, 4, 32, 49
_REFUSALS = frozenset({19, 32, 34, 48, _WRONG, 50, 53})
"""Constraint, no such object, bad DN, no password there, wrong, no right, unwilling: "no"."""


class _Unusable(Exception):
    """A server that cannot be asked, with the reason."""


class LDAP(Backend):
    """`ldap:URL` or `ldap:FILE`: search then bind, or bind by a template of the DN."""

    name: ClassVar[str] = "ldap"

    def __init__(self, argument: str, setup: Setup) -> None:
        if not argument:
            raise ConfigError("--auth ldap: needs ldap:URL or ldap:FILE.yaml")
        self._argument = argument
        self._setup = setup
        self._given = LDAPParameters()
        self._password: Secret | None = None
        self._tls: Any = None
        self._compared: tuple[str, str] | None = None
        self._down: dict[str, float] = {}  # until when a server is asked last
        self._ready = False

    # -- at start -----------------------------------------------------------------------------

    def reach(self) -> Reach:
        """Need the network; certificates are read at start."""
        return Reach(network=True)

    def check(self) -> None:
        """Read the FILE, load the library; a server that is down may come."""
        if self._ready:
            return
        base = self._setup.base_directory
        if "://" in self._argument:
            self._given = parameters_in(self._argument)
        else:
            path = os.path.join(base, os.path.expanduser(self._argument))
            self._given = directories.load(LDAPParameters, path)
            base = os.path.dirname(path)
        given = self._given
        check(given)
        self._password = directories.password(
            given.password_file, given.password_env, base, self._setup.warn
        )
        if (given.bind_dn is None) != (self._password is None):
            raise ConfigError("bind_dn: goes with password_file or password_env")
        found = _COMPARED.search(given.bind_dn_template or given.filter)
        self._compared = None if found is None else (found[1], found[2])
        self._tls = tls(given, base)
        down = [f"{url}: {why}" for url in given.urls if (why := why_down(url)) is not None]
        if down:
            self._setup.warn(f"auth ldap: cannot be reached for now: {'; '.join(down)}")
        self._ready = True

    # -- logins -------------------------------------------------------------------------------

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Find the user's entry."""
        del run_blocking
        return self._asked(login, None)

    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Find the user's entry, bind as the user.

        With a template nobody can tell an unknown user from a wrong password: always AuthFailed.
        """
        del run_blocking  # see the module's text
        # an empty password makes a bind anonymous, and that succeeds (RFC 4513 §5.1.2)
        if not 1 <= len(secret.reveal()) <= schemes.MAX_SECRET or b"\0" in secret.reveal():
            raise AuthFailed
        return self._asked(login, secret)

    # `refuse` has nothing to do: a bind for an unknown user is part of `verify`, on the same
    # connection, as it is for a known one

    def _asked(self, login: LoginName, secret: Secret | None) -> Identity | None:
        """Ask the first server that answers. Raises AuthFailed, TemporaryFailure."""
        now = time.monotonic()
        problems = []
        for url in sorted(self._given.urls, key=lambda one: self._down.get(one, 0.0) > now):
            try:
                with self._connection(url) as connection:
                    if self._given.bind_dn_template is not None:
                        found = self._by_template(connection, login, secret)
                    else:
                        found = self._by_search(connection, login, secret)
            except _Unusable as unusable:
                problems.append(f"{url}: {unusable}")
                self._down[url] = now + _AVOID_SECONDS
            else:
                self._down.pop(url, None)
                return found
        raise self._trouble("; ".join(problems))

    def _by_search(
        self, connection: "Connection", login: LoginName, secret: Secret | None
    ) -> Identity | None:
        given = self._given
        self._bind_to_search(connection)
        wanted = _filled(given.filter, login)
        code, entries = self._search(connection, given.base, wanted, SCOPES[given.scope])
        if code not in (_SUCCESS, _SIZE_LIMIT):
            raise _Unusable(f"search: {connection.result['description']}")
        if len(entries) > 1 or code == _SIZE_LIMIT:
            raise self._trouble(f"more than one entry for {login.user!r}")
        if not entries:
            if secret is not None:  # the work for a known user, against a DN that cannot exist
                _bind(connection, f"cn={secrets.token_hex(16)},{given.base}", secret)
            return None
        if secret is not None:
            _prove(connection, entries[0]["dn"], secret)
        return self._identity(login, entries[0])

    def _by_template(
        self, connection: "Connection", login: LoginName, secret: Secret | None
    ) -> Identity | None:
        assert self._given.bind_dn_template is not None
        user_dn = _filled(self._given.bind_dn_template, login)
        if secret is None:
            self._bind_to_search(connection)
        else:
            _prove(connection, user_dn, secret)
        code, entries = self._search(connection, user_dn, "(objectClass=*)", "BASE")
        if secret is None and code == _NO_SUCH_OBJECT:
            return None
        if secret is None and not entries:
            raise _Unusable(f"search: {connection.result['description']}")
        # who logged in need not have the right to read the own entry
        return self._identity(login, entries[0] if entries else {"raw_attributes": {}})

    def _bind_to_search(self, connection: "Connection") -> None:
        given = self._given
        if given.bind_dn is None or self._password is None:
            return  # anonymous from the beginning
        code = _bind(connection, given.bind_dn, self._password)
        if code != _SUCCESS:
            raise _Unusable(f"bind as {given.bind_dn}: {_named(connection, code)}")

    def _search(
        self, connection: "Connection", base: str, wanted: str, scope: Any
    ) -> tuple[int, list[dict[str, Any]]]:
        given = self._given
        names = {given.uid_attribute, given.gid_attribute, given.home_attribute}
        names |= {given.user_attribute or (self._compared[0] if self._compared else "")}
        connection.search(
            base,
            wanted,
            search_scope=scope,
            dereference_aliases="NEVER",
            attributes=sorted(names - {""}),
            size_limit=2,
            time_limit=math.ceil(given.timeout),
        )
        answers: list[dict[str, Any]] = connection.response or []
        entries = [one for one in answers if one["type"] == "searchResEntry"]
        return int(connection.result["result"]), entries

    def _identity(self, login: LoginName, entry: dict[str, Any]) -> Identity:
        values: dict[str, list[bytes]] = {
            name.lower(): list(found) for name, found in entry["raw_attributes"].items()
        }
        given = self._given
        try:
            return directories.identity(
                login,
                self._user(login, values),
                _only(values, given.uid_attribute),
                _only(values, given.gid_attribute),
                _only(values, given.home_attribute),
            )
        except ValueError as error:
            problem = str(error)
        raise self._trouble(f"the entry of {login.user!r}: {problem}")

    def _user(self, login: LoginName, values: dict[str, list[bytes]]) -> str:
        """Return the name as the directory writes it: it compares without regard to case."""
        wanted, explicit = login.user, self._given.user_attribute
        attribute, field = self._compared or ("", "user")
        if explicit is None and field == "localpart":
            wanted = login.localpart
        found = [
            one.decode("utf-8", "replace")
            for one in values.get((explicit or attribute).lower(), [])
        ]
        same = [one for one in found if one.casefold() == wanted.casefold()]
        if not same and (found or explicit is not None):
            # it overlooks blanks as well: one entry must be one user, however he is typed
            if len(found) != 1:
                compared = explicit or attribute
                raise ValueError(f"{compared}: {len(found)} values, none is the login name")
            same = found
        name = same[0] if same else wanted.lower()
        domain = f"@{login.domain}" if wanted != login.user and login.domain else ""
        return name + domain

    def _trouble(self, why: str) -> TemporaryFailure:
        """Log why nobody can tell, and return what the client gets."""
        self._setup.warn(f"auth ldap: {why}")
        return TemporaryFailure("cannot verify passwords for now")

    @contextmanager
    def _connection(self, url: str) -> "Iterator[Connection]":
        """Connect, with TLS where it is due. Raises _Unusable, also for what happens inside."""
        import ldap3  # noqa: PLC0415 - most servers have no directory
        from ldap3.core.exceptions import LDAPExceptionError  # noqa: PLC0415 - same

        given = self._given
        server = ldap3.Server(
            url, get_info=ldap3.NONE, tls=self._tls, connect_timeout=given.timeout
        )
        connection = ldap3.Connection(
            server,
            auto_referrals=False,
            check_names=False,
            read_only=True,
        )
        # the library has no public place for this
        connection.strategy._open_socket = partial(  # noqa: SLF001
            _open_socket, connection, given.timeout
        )
        try:
            connection.open(read_server_info=False)
            if wants_starttls(given, url) and not connection.start_tls(read_server_info=False):
                raise _Unusable("StartTLS refused")
            yield connection
        except (LDAPExceptionError, OSError) as error:
            raise _Unusable(directories.reason(error)) from None
        finally:
            with suppress(LDAPExceptionError, OSError):
                connection.unbind()


def _open_socket(
    connection: "Connection",
    timeout: float,
    address: Any,
    use_ssl: bool = False,
    unix_socket: bool = False,
) -> None:
    """Open a socket for ldap3 as it does itself, but for three things.

    No bind before the connect, which `--sandbox` forbids; `timeout` for all that is waited for, in
    fractions too; no socket left open where that fails.
    """
    del unix_socket  # the address tells
    opened = connection.socket = socket.socket(*address[:3])
    try:
        opened.settimeout(timeout)
        opened.connect(address[4])
        if use_ssl:
            connection.server.tls.wrap_socket(connection, do_handshake=True)
    except BaseException:
        opened.close()
        raise
    connection.closed = False


def _prove(connection: "Connection", user_dn: str, secret: Secret) -> None:
    """Bind as the user. Raises AuthFailed, or _Unusable if the server does not say yes or no."""
    code = _bind(connection, user_dn, secret)
    if code in _REFUSALS:
        raise AuthFailed
    if code != _SUCCESS:
        raise _Unusable(f"bind as the user: {_named(connection, code)}")


def _bind(connection: "Connection", user_dn: str, secret: Secret) -> int | str:
    """Return the code of the answer, or what kind of error there was instead.

    No frame that saw the password goes further.
    """
    if not user_dn or secret.equals(b""):
        return _WRONG  # either would be a bind as nobody
    try:
        connection.rebind(user_dn, secret.reveal(), "SIMPLE", read_server_info=False)
        return int(connection.result["result"])
    except Exception as error:  # noqa: BLE001 - whatever the library may raise
        return type(error).__name__
    finally:
        connection.password = connection.request = None


def _named(connection: "Connection", code: int | str) -> str:
    return code if isinstance(code, str) else str(connection.result["description"])


def _only(values: dict[str, list[bytes]], attribute: str) -> bytes | None:
    found = values.get(attribute.lower(), [])
    if len(found) > 1:
        raise ValueError(f"{attribute}: more than one value")
    return found[0] if found else None


def _filled(pattern: str, login: LoginName) -> str:
    """Put a login name into a filter or a DN."""
    fields = {"user": login.user, "localpart": login.localpart, "domain": login.domain or ""}
    return FIELD.sub(lambda field: escaped(fields[field[1]]), pattern)


def escaped(text: str) -> str:
    r"""Write a value so that it can be nothing else, in a filter (RFC 4515) and a DN (RFC 4514).

    All ASCII but letters, digits and `@._-` becomes `\XX`, which both take for any octet. ldap3's
    reader of filters finds an operator such as `>=` in a value that is escaped as little as it can.
    """
    return "".join(
        letter if _PLAIN.fullmatch(letter) else f"\\{ord(letter):02x}" for letter in text
    )
