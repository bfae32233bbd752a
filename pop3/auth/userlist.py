"""User lists of virtual domains: one file each, `user:hash:uid:`, found by the domain.

The domain is that of the login name, the one of the TLS handshake, or the client's host name.
"""

import glob
import os
import re
from collections.abc import Callable
from typing import ClassVar

from netserver.errors import ConfigError
from netserver.reach import Reach, around
from pop3 import paths
from pop3.auth import schemes
from pop3.auth.backend import Backend, Identity, Setup, identity_of, is_right
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import Entry, RunBlocking, Users, UsersFile
from pop3.auth.secret import Secret
from pop3.auth.stored import Stored
from pop3.errors import AuthFailed, PermanentFailure, TemporaryFailure

WAYS = ("login", "tls", "client")
_FIELD = re.compile(r"\{([a-z]+)\}")


class UserList(Backend):
    """`userlist:PATTERN[?domain=login|tls|client]`: {domain}, and {initial} of the domain."""

    name: ClassVar[str] = "userlist"

    def __init__(self, argument: str, setup: Setup) -> None:
        pattern, mark, query = argument.partition("?")
        if not pattern:
            raise ConfigError("--auth userlist: needs a path: userlist:PATTERN")
        self._way = query.removeprefix("domain=") if mark else "login"
        if mark and (not query.startswith("domain=") or self._way not in WAYS):
            raise ConfigError(f"--auth userlist: after the ? stands domain={'|'.join(WAYS)}")
        self._pattern = os.path.join(setup.base_directory, os.path.expanduser(pattern))
        self._fields = _fields(self._pattern)
        self._root = str(paths.fixed_part(self._pattern))
        self._setup = setup
        self._lists: dict[str, _DomainList] = {}
        #: A hash without a password like those of the list read last: the work for nobody.
        self._dummy = schemes.dummy_like(None)

    def reach(self) -> Reach:
        """Need the directory that all lists lie in."""
        return Reach(read=(self._root if self._fields else around(self._pattern),))

    def check(self) -> None:
        """Read the lists that are there now. ConfigError for the first mistake."""
        if self._fields and not os.path.isdir(self._root):
            raise ConfigError(f"{self._root}: no such directory")
        found = [self._pattern]
        if self._fields:
            found = sorted(glob.glob(_FIELD.sub("*", glob.escape(self._pattern))))
        for path in found:
            users_file = self._lists.setdefault(
                path, _DomainList(path, self._root, self._setup.warn)
            )
            users_file.load()
            self._note_dummy(users_file.loaded)

    def refresh(self) -> None:
        """Look whether the lists changed."""
        for users_file in list(self._lists.values()):
            self._read(users_file, _directly)

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Find the user's line."""
        found = self._find(login, run_blocking)
        return None if found is None else identity_of(found[1], found[2])

    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Find the user's line and compare the password with its hash."""
        found = self._find(login, run_blocking)
        if found is None:
            return None
        path, user, entry = found
        hash_text = entry.hash_text or self._dummy
        right = is_right(self._setup, (path, user), hash_text, secret, run_blocking)
        if entry.hash_text is None or not right:
            raise AuthFailed
        return identity_of(user, entry)

    def stored(self, login: LoginName, run_blocking: RunBlocking) -> Stored | None:
        """Find the user's line, and whether it locks the user."""
        found = self._find(login, run_blocking)
        if found is None:
            return None
        _, user, entry = found
        return Stored(identity_of(user, entry), locked=entry.hash_text is None)

    def dummy_cost(self) -> float:
        """Estimate it for the hash most users of the list read last have."""
        return schemes.cost(self._dummy)

    def refuse(self, secret: Secret, run_blocking: RunBlocking) -> None:
        """Do the work for such a hash."""
        is_right(self._setup, ("", ""), self._dummy, secret, run_blocking)

    def _find(self, login: LoginName, run_blocking: RunBlocking) -> tuple[str, str, Entry] | None:
        """Return the list, the whole name of the user and the user's line."""
        if not self._fields:
            users = self._users(self._pattern, run_blocking)
            entry = None if users is None else users.table.get(login.user)
            return None if entry is None else (self._pattern, login.user, entry)
        for domain in self._domains(login):
            if login.domain not in (None, domain):
                continue  # a name with a domain of its own is nobody of this one
            path = self._path(domain)
            users = None if path is None else self._users(path, run_blocking)
            if path is None or users is None:
                continue
            user = f"{login.localpart}@{domain}"
            entry = users.table.get(login.localpart) or users.table.get(user)
            if entry is not None:
                return path, user, entry
        return None

    def _domains(self, login: LoginName) -> list[str]:
        """Return the domains this login may belong to, each safe as a part of a path."""
        if self._way == "login":
            return [] if login.domain is None else [login.domain]
        if login.origin is None:
            return []
        if self._way == "tls":
            names = [login.origin.server_name or ""]
        else:
            names = list(login.origin.host_names())
        return [domain for name in names if (domain := _domain_of(name)) is not None]

    def _path(self, domain: str) -> str | None:
        try:
            return str(paths.fill(self._pattern, user=domain, domain=domain, home=None))
        except PermanentFailure:
            return None

    def _users(self, path: str, run_blocking: RunBlocking) -> Users | None:
        users_file = self._lists.get(path)
        if users_file is None:
            # names of domains come from strangers: only what is there is kept
            if not run_blocking("disk", os.path.exists, path):
                return None
            users_file = _DomainList(path, self._root, self._setup.warn)
            try:
                return self._read(users_file, run_blocking)
            finally:  # not before: whoever comes meanwhile would find it empty
                if not users_file.gone:
                    self._lists.setdefault(path, users_file)
        return self._read(users_file, run_blocking)

    def _read(self, users_file: "_DomainList", run_blocking: RunBlocking) -> Users | None:
        try:
            users = users_file.users(run_blocking)
        except ConfigError:  # a new list with a mistake in it; that was told
            if not users_file.gone:
                raise TemporaryFailure("cannot verify passwords for now") from None
            users = None
        if users_file.gone and self._fields:
            self._lists.pop(users_file.path, None)
            return None
        self._note_dummy(users)
        return users

    def _note_dummy(self, users: Users | None) -> None:
        if users is not None and users.table:
            self._dummy = users.dummy


class _DomainList(UsersFile):
    """A users file that takes its users with it when it is removed, as its domain is gone then."""

    def __init__(self, path: str, root: str, warn: Callable[[str], object]) -> None:
        super().__init__(path, warn)
        self._root = root
        self.gone = False

    def _look(self) -> list[str]:
        try:
            os.stat(self.path)
        except OSError as error:
            # inside --chroot nothing is there, which says nothing about the domain
            self.gone = isinstance(error, FileNotFoundError) and os.path.isdir(self._root)
        else:
            self.gone = False
        return [] if self.gone else super()._look()


def _fields(pattern: str) -> frozenset[str]:
    """Return which fields a pattern has. Raises ConfigError if it cannot work."""
    paths.check_pattern(pattern)
    fields = frozenset(_FIELD.findall(pattern))
    if not fields <= {"domain", "initial"}:
        raise ConfigError(
            f"--auth userlist:{pattern}: only {{domain}} and {{initial}}, "
            "the first letter of the domain, can stand here"
        )
    if fields and "domain" not in fields:
        raise ConfigError(f"--auth userlist:{pattern}: {{initial}} without {{domain}}")
    return fields


def _domain_of(host: str) -> str | None:
    """Return a host name from the network in the form domains have, None if it cannot be one."""
    try:
        return LoginName.parse(b"x@" + host.rstrip(".").encode()).domain
    except (ValueError, UnicodeEncodeError):
        return None


def _directly(pool: str, function: object, *args: object) -> object:
    del pool
    return function(*args)  # type: ignore[operator]
