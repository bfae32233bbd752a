"""The chain of backends that know users: `--auth BACKEND[:ARG]`, in the order given."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from typing import Any

from netserver.errors import ConfigError
from netserver.reach import Reach
from pop3.auth import kinds
from pop3.auth.backend import Backend, Identity, Setup, no_warning
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import RunBlocking
from pop3.auth.provable import ProvableChain
from pop3.auth.rules import Override, split_rule
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed

#: Name → "module:Class", loaded when a spec asks for it.
BACKENDS: dict[str, str] = {
    "system": "pop3.auth.system:System",
    "userlist": "pop3.auth.userlist:UserList",
    "any": "pop3.auth.simple:Anyone",
    "pam": "pop3.auth.pam:PAM",
    "passwd-file": "pop3.auth.simple:PasswdFile",
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
        warn: Callable[[str], object] = no_warning,
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

    def may_find(self, login: LoginName, user: str) -> bool:
        """Tell whether this login may turn out to be this user: not if others decide about him.

        Directories and some databases find `boss` for `BOSS`, for whom there is no rule.
        """
        deciding = self.for_login(login.as_user(user))
        return deciding is self or deciding is self.for_login(login)

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
