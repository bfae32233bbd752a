"""Users that PAM knows: `pam[:SERVICE]`, a file in /etc/pam.d."""

import importlib.util
import os
import re
from functools import cache
from typing import Any, ClassVar

from netserver.errors import ConfigError
from netserver.reach import Reach
from pop3.auth import schemes
from pop3.auth.backend import Backend, Identity, Setup, is_right
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import RunBlocking
from pop3.auth.secret import Secret
from pop3.auth.system import common_dummy, identity_in_passwd, is_root
from pop3.errors import AuthFailed, TemporaryFailure

DEFAULT_SERVICE = "pop3"
DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/local/etc/pam.d")

# what Linux-PAM answers (security/_pam_types.h)
_SUCCESS, _USER_UNKNOWN = 0, 10
_REFUSALS = frozenset(
    {
        6,  # permission denied
        7,  # wrong password
        8,  # insufficient credentials
        11,  # tried too often
        12,  # password must be changed first
        13,  # account expired
        14,  # session refused
        16,  # credentials expired
        27,  # password expired
    }
)


class PAM(Backend):
    """Authentication and account management of one PAM service; never root.

    Always asked in a process of its own: modules may block for seconds, fork, or leak.
    """

    name: ClassVar[str] = "pam"
    needs_root: ClassVar[bool] = True
    always_apart: ClassVar[bool] = True

    def __init__(self, argument: str, setup: Setup) -> None:
        self._service = argument or DEFAULT_SERVICE
        self._setup = setup
        self._dummy = schemes.dummy_like(None)
        if not re.fullmatch(r"[a-z0-9_][a-z0-9_.-]*", self._service):
            raise ConfigError("--auth pam: SERVICE is the name of a file in /etc/pam.d")

    def reach(self) -> Reach:
        """Need nothing: it is asked elsewhere."""
        return Reach(read=("/var/lib/sss",))

    def check(self) -> None:
        """See that the library and the service are there: PAM itself would only refuse all."""
        if importlib.util.find_spec("pam") is None:
            raise ConfigError("needs: pip install 'netserver-pop3[pam]'")
        places = [os.path.join(directory, self._service) for directory in DIRECTORIES]
        if not any(map(os.path.exists, places)) and self._service not in _services_of_pam_conf():
            raise ConfigError(f"{places[0]}: no such PAM service")
        try:
            self._dummy = common_dummy()
        except OSError:
            return  # not all services look there

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Find the user in passwd; PAM has no such question."""
        return run_blocking("disk", identity_in_passwd, login)  # type: ignore[no-any-return]

    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Ask PAM for the password, then whether the account is in force."""
        if not 1 <= len(secret.reveal()) <= schemes.MAX_SECRET or b"\0" in secret.reveal():
            raise AuthFailed  # "nullok" lets an empty one pass
        outcome = run_blocking("hash", _ask, self._service, login.user, secret)
        if outcome == _USER_UNKNOWN:
            return None
        if outcome in _REFUSALS:
            raise AuthFailed
        if outcome != _SUCCESS:
            self._setup.warn(f"auth pam: service {self._service}: {outcome}")
            raise TemporaryFailure("cannot verify passwords for now")
        if run_blocking("disk", is_root, login.user):
            raise AuthFailed
        # users of other modules (pam_userdb, …) need not be in passwd
        return self.lookup(login, run_blocking) or Identity(login.user)

    def dummy_cost(self) -> float:
        """Estimate it for the hash most users of the machine have."""
        return schemes.cost(self._dummy)

    def refuse(self, secret: Secret, run_blocking: RunBlocking) -> None:
        """Compute a hash: pam_unix computes none for a user it does not know."""
        is_right(self._setup, ("pam", ""), self._dummy, secret, run_blocking)


def _services_of_pam_conf() -> set[str]:
    try:
        with open("/etc/pam.conf", encoding="utf-8", errors="replace") as file:
            return {words[0].lower() for line in file if (words := line.split())}
    except OSError:
        return set()


@cache
def _library() -> Any:
    # Not before the fork: it looks for libpam by running ldconfig.
    import pam  # noqa: PLC0415

    return pam


def _ask(service: str, user: str, secret: Secret) -> int | str:
    """Return PAM's answer, or what kind of error stopped it; raises and logs nothing."""
    try:
        asked = _library().PamAuthenticator()
        # latin-1: prompts in any encoding; credentials are not needed, nobody becomes this user
        asked.authenticate(
            user.encode(), secret.reveal(), service, encoding="latin-1", resetcreds=False
        )
    except Exception as error:  # noqa: BLE001 - whatever the library may raise
        return type(error).__name__
    return asked.code if asked.code in (_SUCCESS, _USER_UNKNOWN, *_REFUSALS) else str(asked.reason)
