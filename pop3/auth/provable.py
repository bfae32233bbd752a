"""Logins without a password on the wire: what backends and their chain know for them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from pop3.auth.stored import Coverage, Stored
from pop3.errors import AuthFailed, TemporaryFailure

if TYPE_CHECKING:
    from pop3.auth.backend import Identity
    from pop3.auth.names import LoginName
    from pop3.auth.passwd_file import RunBlocking
    from pop3.auth.secret import Secret


class ProvableBackend(ABC):
    """What a backend may add to `lookup` and `verify`; by default it has nothing stored."""

    open_to_all: ClassVar[bool] = False
    #: False: knows users by tokens only.
    takes_passwords: ClassVar[bool] = True
    #: Knows users by OAuth tokens, see `verify_token`.
    takes_tokens: ClassVar[bool] = False

    @abstractmethod
    def lookup(self, login: "LoginName", run_blocking: "RunBlocking") -> "Identity | None":
        """Tell who this is without a password, None if unknown here."""

    def stored(self, login: "LoginName", run_blocking: "RunBlocking") -> Stored | None:
        """Return what is stored of a user, None if unknown here. Raises TemporaryFailure."""
        identity = self.lookup(login, run_blocking)
        return None if identity is None else Stored(identity)

    def stores(self, scheme: str) -> Coverage:
        """Tell how many users have "PLAIN", "SCRAM-SHA-1" or "SCRAM-SHA-256" stored."""
        del scheme
        return Coverage.NONE

    def usual_scram(self, mechanism: str) -> tuple[int, int] | None:
        """Return the iterations and the octets of salt that most stored keys have."""
        del mechanism
        return None

    def verify_token(
        self, login: "LoginName", token: "Secret", run_blocking: "RunBlocking"
    ) -> "Identity":
        """Return whose token it is. Raises AuthFailed (not this user's), TemporaryFailure."""
        del login, token, run_blocking
        raise AuthFailed

    def token_hints(self) -> dict[str, str]:
        """Return what a refused client may know: "scope", "openid-configuration"."""
        return {}


BackendT = TypeVar("BackendT", bound=ProvableBackend)


class ProvableChain(ABC, Generic[BackendT]):
    """The part of a chain that answers for mechanisms which send no password."""

    backends: tuple[BackendT, ...]

    @abstractmethod
    def _all(self) -> Sequence[BackendT]: ...

    @abstractmethod
    def _deciding(self, login: "LoginName") -> Sequence[BackendT]:
        """Return the backends that decide about a login."""

    @property
    def takes_passwords(self) -> bool:
        """Whether a password can be right."""
        return any(backend.takes_passwords for backend in self._all())

    @property
    def takes_tokens(self) -> bool:
        """Whether an OAuth token can be right."""
        return any(backend.takes_tokens for backend in self._all())

    def token_hints(self) -> dict[str, str]:
        """Return the hints of the first backend for tokens."""
        for backend in self._all():
            if backend.takes_tokens:
                return backend.token_hints()
        return {}

    def stores(self, scheme: str) -> Coverage:
        """Tell how many users of all backends have "PLAIN" or the keys of a mechanism stored."""
        found = [backend.stores(scheme) for backend in self._all() if backend.takes_passwords]
        if not any(found):
            return Coverage.NONE
        return Coverage.ALL if min(found) is Coverage.ALL else Coverage.SOME

    def usual_scram(self, mechanism: str) -> tuple[int, int] | None:
        """Return the iterations and the octets of salt of the first backend that has keys."""
        usual = (backend.usual_scram(mechanism) for backend in self._all())
        return next((one for one in usual if one is not None), None)

    def stored(self, login: "LoginName", run_blocking: "RunBlocking") -> Stored | None:
        """Return what the first backend that knows the user has stored; None if nobody does."""
        for backend in self._deciding(login):
            found = backend.stored(login, run_blocking)
            if found is not None:
                return found
        return None

    def anybody(self, login: "LoginName", run_blocking: "RunBlocking") -> "Identity | None":
        """Return who logs in without a name: nobody where the first to know it is not open."""
        for backend in self._deciding(login):
            found = backend.lookup(login, run_blocking)
            if found is not None:
                return found if backend.open_to_all else None
        return None

    def authenticate_token(
        self, login: "LoginName", token: "Secret", run_blocking: "RunBlocking"
    ) -> "Identity":
        """Return whose token it is, as the other backends know that user, if they do.

        Raises AuthFailed, also for a user who is locked there, and TemporaryFailure.
        """
        deciding = self._deciding(login)
        identity = _first_that_accepts(deciding, login, token, run_blocking)
        for backend in deciding:
            if backend.takes_tokens or backend.open_to_all:
                continue
            found = backend.stored(login, run_blocking)
            if found is not None and found.locked:
                raise AuthFailed
            if found is not None:
                return found.identity
        return identity


def _first_that_accepts(
    backends: Sequence[ProvableBackend],
    login: "LoginName",
    token: "Secret",
    run_blocking: "RunBlocking",
) -> "Identity":
    failure: AuthFailed | TemporaryFailure = AuthFailed()
    for backend in backends:
        if not backend.takes_tokens:
            continue
        try:
            return backend.verify_token(login, token, run_blocking)
        except (AuthFailed, TemporaryFailure) as error:
            if not isinstance(failure, TemporaryFailure):
                failure = error
    raise failure
