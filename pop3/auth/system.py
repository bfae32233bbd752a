"""Users of the machine: passwd and shadow, whatever the name service makes of them."""

import ctypes
import errno
import os
import pwd
import time
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from netserver.errors import ConfigError
from netserver.reach import Reach
from pop3.auth import schemes
from pop3.auth.backend import Backend, Identity, Setup, is_right
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import RunBlocking
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, TemporaryFailure

SHADOW = "/etc/shadow"
_DAY = 86400
_BUFFER = 16384  # octets of one entry at most


class _Spwd(ctypes.Structure):
    """The struct spwd of shadow(3); days count from 1970, -1 is "not set"."""

    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("last_change", ctypes.c_long),
        ("minimum", ctypes.c_long),
        ("maximum", ctypes.c_long),
        ("warning", ctypes.c_long),
        ("inactive", ctypes.c_long),
        ("expire", ctypes.c_long),
        ("flag", ctypes.c_ulong),
    ]


@dataclass(frozen=True, slots=True)
class Account:
    """What the machine knows of a user; `hash_text` None: may not log in."""

    identity: Identity
    hash_text: str | None


class System(Backend):
    """`system`: the users of the machine, but not root."""

    name: ClassVar[str] = "system"
    needs_root: ClassVar[bool] = True

    def __init__(self, argument: str, setup: Setup) -> None:
        if argument:
            raise ConfigError("--auth system: takes no argument")
        self._setup = setup
        self._dummy = schemes.dummy_like(None)

    def reach(self) -> Reach:
        """Need what sssd keeps for the whole machine, where there is one."""
        return Reach(read=("/var/lib/sss",))

    def check(self) -> None:
        """See that passwords can be read, and what kind of hash most users have."""
        if _getspnam_r() is None:
            raise ConfigError("this system has no shadow passwords; try pam:SERVICE")
        try:
            self._dummy = common_dummy()
        except OSError as error:
            raise ConfigError(
                f"{SHADOW}: {error.strerror}; start as root, --user drops the rights afterwards"
            ) from None

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Find the user in passwd."""
        return run_blocking("disk", identity_in_passwd, login)  # type: ignore[no-any-return]

    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Find the account and compare the password with its hash."""
        account = run_blocking("disk", account_of, login)
        if isinstance(account, str):
            self._setup.warn(f"auth system: {account}")
            raise TemporaryFailure("cannot verify passwords for now")
        if account is None:
            return None
        # who may not log in costs the same as who may
        hash_text = account.hash_text or self._dummy
        who = ("system", account.identity.user)
        right = is_right(self._setup, who, hash_text, secret, run_blocking)
        if account.hash_text is None or not right:
            raise AuthFailed
        return account.identity  # type: ignore[no-any-return]

    def dummy_cost(self) -> float:
        """Estimate it for the hash most users have."""
        return schemes.cost(self._dummy)

    def refuse(self, secret: Secret, run_blocking: RunBlocking) -> None:
        """Do the work for such a hash."""
        is_right(self._setup, ("system", ""), self._dummy, secret, run_blocking)


def identity_in_passwd(login: LoginName) -> Identity | None:
    """Return whom the machine knows by this name; never root, whose mail goes to somebody else."""
    if login.domain is not None:
        return None
    try:
        entry = pwd.getpwnam(login.localpart)
    except (KeyError, ValueError, OSError):
        return None
    if entry.pw_uid == 0:
        return None
    return Identity(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir or None)


def is_root(user: str) -> bool:
    """Tell whether this is root, by whatever name."""
    try:
        return pwd.getpwnam(user).pw_uid == 0
    except (KeyError, ValueError, OSError):
        return False


def account_of(login: LoginName) -> Account | str | None:
    """Return the account, None if there is none, or why nobody can tell; raises nothing."""
    identity = identity_in_passwd(login)
    # asked for unknown users as well: the time tells nothing
    shadow = _shadow(login.localpart)
    if isinstance(shadow, int):
        return f"shadow cannot be read: {os.strerror(shadow)}"
    if identity is None:
        return None
    if shadow is None:  # not every name service has shadow entries
        hash_text, usable = pwd.getpwnam(identity.user).pw_passwd, True
    else:
        hash_text, usable = shadow
    try:
        usable = usable and schemes.check(hash_text) is not None
    except ValueError:
        usable = False
    return Account(identity, hash_text if usable else None)


def common_dummy() -> str:
    """Make a hash without a password, of the kind most users of the machine have.

    Raises OSError where shadow is not ours to read.
    """
    hashes = []
    try:
        with open(SHADOW, encoding="utf-8", errors="replace") as file:
            fields = [line.split(":", 2) for line in file]
    except FileNotFoundError:
        fields = []
    for _, hash_text, *_ in (line for line in fields if len(line) > 1):
        try:
            schemes.check(hash_text)
        except ValueError:
            continue
        hashes.append(hash_text)
    return schemes.dummy_for(hashes)


@cache
def _getspnam_r() -> Any:
    try:
        function = ctypes.CDLL(None).getspnam_r
    except (OSError, AttributeError):
        return None
    function.argtypes = (
        ctypes.c_char_p,
        ctypes.POINTER(_Spwd),
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.POINTER(_Spwd)),
    )
    return function


def _shadow(user: str) -> tuple[str, bool] | int | None:
    """Return the hash and whether the account is in force; None if there is no entry, or errno."""
    entry, result = _Spwd(), ctypes.POINTER(_Spwd)()
    buffer = ctypes.create_string_buffer(_BUFFER)
    name = os.fsencode(user) if "\0" not in user else b""
    failure: int = _getspnam_r()(name, entry, buffer, _BUFFER, result)
    if failure and failure != errno.ENOENT:
        return failure
    if not result:
        return None
    hash_text = (entry.password or b"").decode("utf-8", "replace")
    found = hash_text, _in_force(entry, int(time.time() // _DAY))
    ctypes.memset(buffer, 0, _BUFFER)
    return found


def _in_force(entry: _Spwd, today: int) -> bool:
    """Tell whether neither account nor password have expired, as pam_unix does.

    A password that must be changed counts as expired: POP3 has no way to change it.
    """
    if entry.expire != -1 and today >= entry.expire:
        return False
    if entry.last_change == 0:
        return False
    limited = entry.maximum != -1 and entry.last_change != -1
    return not (limited and today - entry.last_change > entry.maximum)
