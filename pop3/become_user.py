"""--become-user: a client's own process keeps root until the login, then is that user for good.

Only where a process serves one client and ends with it. The lock of the maildrop is taken before,
in the common place; what is written afterwards lies in a state directory of the user's own.
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netserver.daemon import Rights
from netserver.errors import ConfigError, PrivilegeError
from pop3 import expire, state
from pop3.errors import PermanentFailure, TemporaryFailure
from pop3.uidl import announced

if TYPE_CHECKING:
    from pop3.auth.backend import Identity
    from pop3.server import POP3Server
    from pop3.session import Session

PERSONALITIES = ("fork", "inetd")


def check(server: "POP3Server[Any]") -> None:
    """Refuse what cannot go with it, and warn. Raises ConfigError."""
    settings = server.settings
    if not settings.become_user:
        return
    if server.embedded or server.personality.name not in PERSONALITIES:
        raise ConfigError(f"--become-user: needs --personality {' or '.join(PERSONALITIES)}")
    for flag, value in (
        ("--user", settings.user),
        ("--group", settings.group),
        ("--chroot", settings.chroot),
        ("--user-log", settings.user_log),
        ("--user-debug", settings.user_debug),
    ):
        if value:
            raise ConfigError(f"--become-user: cannot go together with {flag}")
    if server.keeps_mail:
        raise ConfigError("--become-user: this source keeps the mail of all users in one state")
    if os.geteuid() != 0:
        raise ConfigError("--become-user: only root can become another user")
    server.log.warning("--become-user: who talks to strangers is root until they have logged in")


def open_to_users(directory: Path) -> None:
    """Let users pass through the state directory to their own. Raises ConfigError."""
    try:
        users = directory / "users"
        _demand_ours(directory)
        users.mkdir(mode=0o711, exist_ok=True)
        _demand_ours(users)
        for one in (directory, users):
            one.chmod(0o711)
    except OSError as error:
        raise ConfigError(f"--become-user: {directory}: {error.strerror}") from error


def _demand_ours(directory: Path) -> None:
    """Refuse a directory in which somebody else could lead root elsewhere. Raises ConfigError."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise ConfigError(f"--become-user: {directory}: must be a directory of root's alone")


def become(server: "POP3Server[Any]", session: "Session[Any]", identity: "Identity") -> None:
    """Become who logged in, for good; does nothing without --become-user.

    Raises PermanentFailure for whoever must not or cannot be a user of the machine, and
    TemporaryFailure where a login on this connection came so far before.
    """
    if not server.settings.become_user:
        return
    if os.geteuid() != 0:
        session.end("another login")
        raise TemporaryFailure("log in on a new connection")
    rights = _rights(identity)
    if rights is None:
        session.log.error("no login: not a user of the machine, or root", uid=identity.uid)
        raise PermanentFailure("this login name has no mailbox")
    assert rights.uid is not None
    assert rights.gid is not None
    try:
        directory = server.state_directory / "users" / str(rights.uid)
        state.make_directory(directory, (rights.uid, rights.gid))
        rights.drop()
    except (ConfigError, PrivilegeError) as error:
        session.end("rights")
        session.log.error("rights not given up", why=str(error))  # noqa: TRY400 - it says all
        raise TemporaryFailure("mailbox cannot be opened") from error
    server.unseal()  # this process is for one client, and ends with it
    server.state_directory = directory
    server.state.close()
    server.state = state.State(state.state_url(server.settings, directory))
    # they keep what they write in that state
    server.uidl, server.expiry = announced.prepare(server), expire.prepare(server)
    server.seal()
    tempfile.tempdir = os.environ["SQLITE_TMPDIR"] = str(directory)


def _rights(identity: "Identity") -> Rights | None:
    """Return the rights of a user, None for root and for whoever has none here."""
    import pwd  # noqa: PLC0415 - not on every system

    uid, gid = identity.uid, identity.gid
    if not uid:
        return None
    rights = Rights(identity.user)
    try:
        entry = pwd.getpwuid(uid)
        gid = entry.pw_gid if gid is None else gid
        rights.groups = os.getgrouplist(entry.pw_name, gid) if gid else []
    except (KeyError, OverflowError):
        rights.groups = [] if gid is None else [gid]
    if not gid or 0 in rights.groups:
        return None
    rights.uid, rights.gid = uid, gid
    return rights
