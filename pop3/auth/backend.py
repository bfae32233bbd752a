"""What a backend is: one place that knows users, as `--auth` names it."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from netserver.reach import Reach
from pop3.auth import schemes
from pop3.auth.cache import VerificationCache
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import Entry, RunBlocking
from pop3.auth.provable import ProvableBackend
from pop3.auth.secret import Secret
from pop3.errors import TemporaryFailure


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in; None where the backend does not say."""

    user: str
    uid: int | None = None
    gid: int | None = None
    home: str | None = None


def no_warning(_: str) -> None:
    """Drop a warning nobody asked for."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the backends of one chain share."""

    base_directory: str = "."
    warn: Callable[[str], object] = no_warning
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
