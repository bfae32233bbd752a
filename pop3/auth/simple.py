"""The two backends that need nothing else: a file of users, and everybody."""

import os
from collections.abc import Callable
from typing import Any

from netserver.errors import ConfigError
from netserver.reach import Reach, around
from pop3.auth import schemes
from pop3.auth.backend import Backend, Identity, Setup, identity_of, is_right
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import RunBlocking, Users, UsersFile
from pop3.auth.secret import Secret
from pop3.auth.stored import Coverage, Stored, of_hash
from pop3.errors import AuthFailed


class PasswdFile(Backend):
    """Users in a file, see `passwd_file`."""

    name = "passwd-file"

    def __init__(self, argument: str, setup: Setup) -> None:
        if not argument:
            raise ConfigError("--auth passwd-file: needs a path: passwd-file:PATH")
        path = os.path.join(setup.base_directory, os.path.expanduser(argument))
        self._setup = setup
        self._file = UsersFile(path, setup.warn)

    def reach(self) -> Reach:
        """Need the directory, since a new file may take the name."""
        return Reach(read=(around(self._file.path),))

    def check(self) -> None:
        """Read the file."""
        self._file.load()

    def refresh(self) -> None:
        """Read the file again if it changed."""
        self._users(_directly)

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Find the user's line."""
        entry = self._users(run_blocking).table.get(login.user)
        return None if entry is None else identity_of(login.user, entry)

    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Find the user's line and compare the password with its hash."""
        users = self._users(run_blocking)
        entry = users.table.get(login.user)
        if entry is None:
            return None
        # A user who may not log in costs the same as one who may.
        right = self._matches(login.user, entry.hash_text or users.dummy, secret, run_blocking)
        if entry.hash_text is None or not right:
            raise AuthFailed
        return identity_of(login.user, entry)

    def stored(self, login: LoginName, run_blocking: RunBlocking) -> Stored | None:
        """Find the user's line and what its hash can prove."""
        entry = self._users(run_blocking).table.get(login.user)
        if entry is None:
            return None
        return of_hash(identity_of(login.user, entry), entry.hash_text)

    def stores(self, scheme: str) -> Coverage:
        """Count the lines."""
        users = self._file.loaded
        return Coverage.NONE if users is None else users.survey.coverage(scheme)

    def usual_scram(self, mechanism: str) -> tuple[int, int] | None:
        """Tell what most lines have."""
        users = self._file.loaded
        return None if users is None else users.survey.usual.get(mechanism)

    def dummy_cost(self) -> float:
        """Estimate it for the hash most users have."""
        users = self._file.loaded
        return 0.0 if users is None else schemes.cost(users.dummy)

    def refuse(self, secret: Secret, run_blocking: RunBlocking) -> None:
        """Do the work for a hash like most users'; what comes out does not matter."""
        self._matches("", self._users(run_blocking).dummy, secret, run_blocking)

    def _users(self, run_blocking: RunBlocking) -> Users:
        return self._file.users(run_blocking)

    def _matches(
        self, user: str, hash_text: str, secret: Secret, run_blocking: RunBlocking
    ) -> bool:
        return is_right(self._setup, (self._file.path, user), hash_text, secret, run_blocking)


class Anyone(Backend):
    """Everybody, with any password. Only for sources nobody can delete from."""

    name = "any"
    open_to_all = True

    def __init__(self, argument: str, setup: Setup) -> None:
        del setup
        if argument:
            raise ConfigError("--auth any: takes no argument")

    def reach(self) -> Reach:
        """Need nothing."""
        return Reach()

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity:
        """Know everybody."""
        del run_blocking
        return Identity(login.user)

    def verify(self, login: LoginName, secret: Secret, run_blocking: RunBlocking) -> Identity:
        """Let everybody in."""
        del secret
        return self.lookup(login, run_blocking)


def _directly(pool: str, function: Callable[..., Any], *args: Any) -> Any:
    del pool
    return function(*args)
