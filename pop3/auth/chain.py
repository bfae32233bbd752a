"""The chain of backends that know users: `--auth BACKEND[:ARG]`, in the order given."""

import importlib
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import Any, ClassVar

from netserver.errors import ConfigError
from netserver.reach import Reach
from pop3.auth import kinds, schemes
from pop3.auth.cache import VerificationCache
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import Entry, RunBlocking, Users, UsersFile
from pop3.auth.provable import ProvableBackend, ProvableChain
from pop3.auth.rules import Override, split_rule
from pop3.auth.secret import Secret
from pop3.auth.stored import Coverage, Stored, of_hash
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


class Backend(ProvableBackend):
    """One place that knows users. Made from its ARG at start; ConfigError if that is wrong."""

    name: ClassVar[str]
    #: Lets in whoever comes: refused for a source that can delete.
    open_to_all: ClassVar[bool] = False
    #: Needs the rights the server was started with; see `children` for how it keeps them.
    needs_root: ClassVar[bool] = False
    #: Asked in a process of its own whatever the rights.
    always_apart: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, argument: str, setup: Setup) -> None: ...

    def reach(self) -> Reach | None:
        """Return what it needs of the file system and the network while it serves; see --sandbox.

        None: that is not known.
        """
        return None

    def check(self) -> None:
        """Read what is needed while all rights are there; ConfigError if that fails."""

    def refresh(self) -> None:
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

    def refuse(self, secret: Secret, run_blocking: RunBlocking) -> None:
        """Take as long as a wrong password does: called for a user nobody knows."""

    def close(self) -> None:
        """Close what this process has open: it ends."""


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
        return Reach(read=(os.path.dirname(self._file.path),))

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


def identity_of(user: str, entry: Entry) -> Identity:
    """Return what a users file says of a user."""
    return Identity(user, entry.uid, entry.gid, entry.home)


def is_right(
    setup: Setup, who: tuple[str, str], hash_text: str, secret: Secret, run_blocking: RunBlocking
) -> bool:
    """Compare a password with a hash, where it holds up nobody; right ones are remembered.

    `who` is the place where the hash stands and the user. Raises TemporaryFailure.
    """
    if schemes.cost_class(hash_text) == "cheap":
        outcome = _outcome(hash_text, secret)
    else:
        if setup.cache.knows(*who, hash_text, secret):
            return True
        outcome = run_blocking("hash", _outcome, hash_text, secret)
        if outcome is True:
            setup.cache.remember(*who, hash_text, secret)
    if isinstance(outcome, str):
        setup.warn(f"{who[0]}: the hash of a user cannot be computed: {outcome}")
        raise TemporaryFailure("cannot verify passwords for now")
    return bool(outcome)


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
    "system": "pop3.auth.system:System",
    "userlist": "pop3.auth.userlist:UserList",
    "any": "pop3.auth.chain:Anyone",
    "pam": "pop3.auth.pam:PAM",
    "passwd-file": "pop3.auth.chain:PasswdFile",
    "sql": "pop3.auth.sql:SQL",
    "ldap": "pop3.auth.ldap:LDAP",
    "oauth2": "pop3.auth.oauth2:OAuth2",
}


class AuthChain(ProvableChain[Backend]):
    """Backends in order: the first one that knows the user decides."""

    def __init__(self, backends: Sequence[Backend], overrides: Sequence[Override] = ()) -> None:
        self.backends = tuple(backends)
        #: Other chains for some users or domains: the first that matches decides.
        self.overrides = tuple(overrides)

    @classmethod
    def from_specs(
        cls,
        specs: Sequence[str],
        *,
        base_directory: str,
        warn: Callable[[str], object] = _no_warning,
        overrides: Sequence[str] = (),
    ) -> "AuthChain":
        """Make the chain of `BACKEND[:ARG]` specs and check it; relative paths begin at the base.

        `overrides` are `PATTERN=BACKEND[:ARG][,BACKEND…]`, see `rules`.

        Raises ConfigError, with one line, for whatever is wrong in the specs or in what they name.
        """
        if not specs:
            raise ConfigError(f"--auth: no backend given; there are: {_known()}")
        setup = Setup(base_directory, warn)
        chain = cls(_backends(specs, setup), [_override(rule, setup) for rule in overrides])
        chain.check()
        return chain

    def for_login(self, login: LoginName) -> "AuthChain":
        """Return the chain that decides about this login: an override's, or this one."""
        for override in self.overrides:
            if override.matches(login):
                return override.chain
        return self

    def map(self, change: Callable[[Backend], Backend]) -> "AuthChain":
        """Return a chain with each backend, those of overrides too, replaced by another."""
        return AuthChain(
            [change(backend) for backend in self.backends],
            [replace(one, chain=one.chain.map(change)) for one in self.overrides],
        )

    @property
    def open_to_all(self) -> bool:
        """Whether somebody can log in without proving anything."""
        return any(backend.open_to_all for backend in self._all())

    def _deciding(self, login: LoginName) -> tuple[Backend, ...]:
        return self.for_login(login).backends

    def _all(self) -> list[Backend]:
        return [*self.backends, *(one for rule in self.overrides for one in rule.chain.backends)]

    def reach(self) -> Reach | None:
        """Return what all backends need while they serve, None if one of them does not know."""
        needed = [backend.reach() for backend in self._all()]
        known = [reach for reach in needed if reach is not None]
        return reduce(or_, known, Reach()) if len(known) == len(needed) else None

    def check(self) -> None:
        """Let each backend read what it needs; a second time costs nothing."""
        for backend in self._all():
            try:
                backend.check()
            except ConfigError as error:
                raise ConfigError(f"--auth {backend.name}: {error}") from None

    def refresh(self) -> None:
        """Let each backend look whether what it has read is still true.

        For the process that makes the others: what it knows is what they begin with.
        """
        for backend in self._all():
            backend.refresh()

    def close(self) -> None:
        """Let each backend close what this process has open."""
        for backend in self._all():
            backend.close()

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Tell who this is without a password: for the operator's questions, never for a login."""
        for backend in self.for_login(login).backends:
            identity = backend.lookup(login, run_blocking)
            if identity is not None:
                return identity
        return None

    def authenticate(self, login: LoginName, secret: Secret, run_blocking: RunBlocking) -> Identity:
        """Return who logged in.

        Raises AuthFailed, with the same text after the same work whether the user or the password
        is wrong, or TemporaryFailure. `run_blocking` may raise what it raises elsewhere.
        """
        backends = self.for_login(login).backends
        try:
            for backend in backends:
                identity = backend.verify(login, secret, run_blocking)
                if identity is not None:
                    return identity
            dearest = max(backends, key=lambda backend: backend.dummy_cost())
            dearest.refuse(secret, run_blocking)
        except AuthFailed:
            pass  # whatever its text was
        raise AuthFailed


def _directly(pool: str, function: Callable[..., Any], *args: Any) -> Any:
    del pool
    return function(*args)


def _known() -> str:
    return ", ".join([*sorted(BACKENDS), "kind-1 to kind-7", "module:Class"])


def _override(rule: str, setup: Setup) -> Override:
    localpart, domain, specs = split_rule(rule, {*BACKENDS, *kinds.KINDS})
    try:
        return Override(localpart, domain, AuthChain(_backends(specs, setup)))
    except ConfigError as error:
        raise ConfigError(f"--auth-for {rule!r}: {error}") from None


def _backends(specs: Sequence[str], setup: Setup) -> list[Backend]:
    return [_backend(one, setup) for spec in specs for one in kinds.expand(spec)]


def _backend(spec: str, setup: Setup) -> Backend:
    name, _, argument = spec.partition(":")
    target = BACKENDS.get(name)
    if target is None:
        class_name, _, argument = argument.partition(":")
        target = f"{name}:{class_name}"
        if not class_name.isidentifier():
            raise ConfigError(f"--auth {name!r}: no such backend; there are: {_known()}")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
    return _class_of(target)(argument, setup)


def _class_of(target: str) -> type[Backend]:
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        what = f"no such backend, and {error}"  # never the argument: it may hold a secret
        raise ConfigError(f"--auth {module!r}: {what}; there are: {_known()}") from None
    if not isinstance(found, type) or not issubclass(found, Backend):
        raise ConfigError(f"--auth {target!r}: {attribute} is no subclass of pop3.auth.Backend")
    return found
