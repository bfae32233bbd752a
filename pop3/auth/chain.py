"""The chain of backends that know users: `--auth BACKEND[:ARG]`, in the order given."""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from netserver.errors import ConfigError
from pop3.auth import schemes
from pop3.auth.cache import VerificationCache
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import Entry, RunBlocking, Users, UsersFile
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, TemporaryFailure


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in; None where the backend does not say."""

    user: str
    uid: int | None = None
    gid: int | None = None
    home: str | None = None


def _no_warning(_: str) -> None:
    """Drop a warning nobody asked for."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the backends of one chain share."""

    base_directory: str = "."
    warn: Callable[[str], object] = _no_warning
    cache: VerificationCache = field(default_factory=VerificationCache)


class Backend(ABC):
    """One place that knows users. Made from its ARG at start; ConfigError if that is wrong."""

    name: ClassVar[str]
    #: Lets in whoever comes: refused for a source that can delete.
    open_to_all: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, argument: str, setup: Setup) -> None: ...

    def check(self) -> None:  # noqa: B027 - not every backend has something to read
        """Read what is needed while all rights are there; ConfigError if that fails."""

    def refresh(self) -> None:  # noqa: B027 - same
        """Look whether what was read is still true."""

    @abstractmethod
    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Tell who this is without a password, None if unknown here."""

    @abstractmethod
    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Return who logged in, None if the user is unknown here (in no time, see `refuse`).

        Raises AuthFailed for a known user's wrong password, TemporaryFailure if it cannot tell.
        """

    def dummy_cost(self) -> float:
        """Estimate the milliseconds a wrong password takes here."""
        return 0.0

    def refuse(self, secret: Secret, run_blocking: RunBlocking) -> None:  # noqa: B027 - likewise
        """Take as long as a wrong password does: called for a user nobody knows."""


class PasswdFile(Backend):
    """Users in a file, see `passwd_file`."""

    name = "passwd-file"

    def __init__(self, argument: str, setup: Setup) -> None:
        if not argument:
            raise ConfigError("auth passwd-file: needs a path: passwd-file:PATH")
        path = os.path.join(setup.base_directory, os.path.expanduser(argument))
        self._setup = setup
        self._file = UsersFile(path, setup.warn)

    def check(self) -> None:
        """Read the file."""
        self._file.load()

    def refresh(self) -> None:
        """Read the file again if it changed."""
        self._users(_directly)

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Find the user's line."""
        entry = self._users(run_blocking).table.get(login.user)
        return None if entry is None else _identity(login, entry)

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
        return _identity(login, entry)

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
        if schemes.cost_class(hash_text) == "cheap":
            outcome = _outcome(hash_text, secret)
        else:
            known = (self._file.path, user, hash_text, secret)
            if self._setup.cache.knows(*known):
                return True
            outcome = run_blocking("hash", _outcome, hash_text, secret)
            if outcome is True:
                self._setup.cache.remember(*known)
        if isinstance(outcome, str):
            self._setup.warn(f"{self._file.path}: the hash of a user cannot be computed: {outcome}")
            raise TemporaryFailure("cannot verify passwords for now")
        return bool(outcome)


class Anyone(Backend):
    """Everybody, with any password. Only for sources nobody can delete from."""

    name = "any"
    open_to_all = True

    def __init__(self, argument: str, setup: Setup) -> None:
        del setup
        if argument:
            raise ConfigError("auth any: takes no argument")

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity:
        """Know everybody."""
        del run_blocking
        return Identity(login.user)

    def verify(self, login: LoginName, secret: Secret, run_blocking: RunBlocking) -> Identity:
        """Let everybody in."""
        del secret
        return self.lookup(login, run_blocking)


def _identity(login: LoginName, entry: Entry) -> Identity:
    return Identity(login.user, entry.uid, entry.gid, entry.home)


def _outcome(hash_text: str, secret: Secret) -> bool | str:
    """Verify, or return what kind of error stopped it: no frame that saw the octets goes further.

    Runs in a pool: raises and logs nothing.
    """
    try:
        return schemes.verify(hash_text, secret.reveal())
    except Exception as error:  # noqa: BLE001 - whatever a hashing library may raise
        return type(error).__name__


#: Name → "module:Class", loaded when a spec asks for it.
BACKENDS: dict[str, str] = {
    "any": "pop3.auth.chain:Anyone",
    "passwd-file": "pop3.auth.chain:PasswdFile",
}
_LATER = frozenset({"system", "pam", "userlist", "sql", "ldap", "oauth2"})


class AuthChain:
    """Backends in order: the first one that knows the user decides."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = tuple(backends)

    @classmethod
    def from_specs(
        cls,
        specs: Sequence[str],
        *,
        base_directory: str,
        warn: Callable[[str], object] = _no_warning,
    ) -> "AuthChain":
        """Make the chain of `BACKEND[:ARG]` specs and check it; relative paths begin at the base.

        Raises ConfigError, with one line, for whatever is wrong in the specs or in what they name.
        """
        if not specs:
            raise ConfigError(f"auth: no backend given; there are: {_known()}")
        setup = Setup(base_directory, warn)
        chain = cls([_backend(spec, setup) for spec in specs])
        chain.check()
        return chain

    @property
    def open_to_all(self) -> bool:
        """Whether somebody can log in without proving anything."""
        return any(backend.open_to_all for backend in self.backends)

    def check(self) -> None:
        """Let each backend read what it needs; a second time costs nothing."""
        for backend in self.backends:
            try:
                backend.check()
            except ConfigError as error:
                raise ConfigError(f"auth {backend.name}: {error}") from None

    def refresh(self) -> None:
        """Let each backend look whether what it has read is still true.

        For the process that makes the others: what it knows is what they begin with.
        """
        for backend in self.backends:
            backend.refresh()

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Tell who this is without a password: for the operator's questions, never for a login."""
        for backend in self.backends:
            identity = backend.lookup(login, run_blocking)
            if identity is not None:
                return identity
        return None

    def authenticate(self, login: LoginName, secret: Secret, run_blocking: RunBlocking) -> Identity:
        """Return who logged in.

        Raises AuthFailed, with the same text after the same work whether the user or the password
        is wrong, or TemporaryFailure. `run_blocking` may raise what it raises elsewhere.
        """
        try:
            for backend in self.backends:
                identity = backend.verify(login, secret, run_blocking)
                if identity is not None:
                    return identity
            dearest = max(self.backends, key=lambda backend: backend.dummy_cost())
            dearest.refuse(secret, run_blocking)
        except AuthFailed:
            pass  # whatever its text was
        raise AuthFailed


def _directly(pool: str, function: Callable[..., Any], *args: Any) -> Any:
    del pool
    return function(*args)


def _known() -> str:
    return ", ".join(sorted(BACKENDS))


def _backend(spec: str, setup: Setup) -> Backend:
    name, _, argument = spec.partition(":")
    target = BACKENDS.get(name)
    if target is None:
        what = "not available yet" if name in _LATER else "no such backend"
        raise ConfigError(f"auth {name!r}: {what}; there are: {_known()}")
    module, _, attribute = target.partition(":")
    kind: type[Backend] = getattr(importlib.import_module(module), attribute)
    return kind(argument, setup)
