"""What single users have that others have not: a Received header, a log, a debug session.

Nothing of it costs anything in the sessions of other users but one look at login.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netserver.errors import ConfigError
from pop3.auth.names import LoginName
from pop3.user_log import LEVELS, UserLog

if TYPE_CHECKING:
    from pop3.session import Session
    from pop3.settings import POP3Settings

ALL = "*"
_WRITABLE_FOR_ALL = 0o002
_LONGEST_NAME = 63  # of a line of 78, beside "Received: from "
_DOMAIN = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_LITERAL = re.compile(r"\[[A-Za-z0-9.:]{1,61}\]")


def user_name(text: str) -> str:
    """Read the name of a user in its normal form, or "*" for all. Raises ValueError."""
    if text == ALL:
        return ALL
    return LoginName.parse(text.encode("utf-8", "surrogateescape"), strict=False).user


def user_level(text: str) -> str:
    """Read USER=brief or USER=full, the user in the normal form. Raises ValueError."""
    user, _, level = text.rpartition("=")
    if level not in LEVELS or not user:
        raise ValueError(f"USER={' or USER='.join(LEVELS)} was expected")
    return f"{user_name(user)}={level}"


def host_name(text: str) -> str:
    """Read --received-from: a domain name or an address in brackets. Raises ValueError."""
    if len(text) > _LONGEST_NAME or not (_DOMAIN.fullmatch(text) or _LITERAL.fullmatch(text)):
        raise ValueError("a host name of at most 63 characters was expected")
    return text


def log_directory(settings: "POP3Settings", state_directory: Path) -> Path:
    """Return where the logs of users are, outside of any --chroot."""
    if settings.user_log_dir is None:
        return state_directory / "user-logs"
    return Path(settings.user_log_dir).absolute()


@dataclass(frozen=True)
class Extras:
    """Who has what; made once, at start. In a set and as a key "*" stands for all users."""

    received: frozenset[str]
    debug: frozenset[str]
    levels: Mapping[str, str]
    name: str
    """What a Received header says that the mail came from."""
    directory: Path
    """Where the logs are, as it is seen by those who write them."""
    form: str
    anybody: bool
    """True: no password is asked for."""

    @classmethod
    def from_settings(
        cls,
        settings: "POP3Settings",
        state_directory: Path,
        *,
        owner: tuple[int, int] | None,
        anybody: bool,
    ) -> "Extras | None":
        """Return None if nobody has anything; else there is a directory for logs if need be.

        `owner` (uid, gid) is who writes them. Raises ConfigError.
        """
        if not (settings.add_received or settings.user_log or settings.user_debug):
            return None
        from pop3 import received  # noqa: PLC0415 - loads email, and only some need it

        found = cls(
            received=frozenset(settings.add_received),
            debug=frozenset(settings.user_debug),
            levels=dict(one.rpartition("=")[::2] for one in settings.user_log),
            name=settings.received_from or received.own_name(),
            directory=log_directory(settings, state_directory),
            form=settings.user_log_format,
            anybody=anybody,
        )
        if not found.logs:
            return found
        _make_directory(found.directory, owner)
        return replace(found, directory=_seen_from(settings.chroot, found.directory))

    @property
    def logs(self) -> bool:
        """Whether anything is ever written to a user's log."""
        return bool(self.levels or self.debug)

    def check_rights(self) -> None:
        """See whether who serves can write the logs. Raises ConfigError."""
        if self.logs and not os.access(self.directory, os.W_OK | os.X_OK):
            raise ConfigError(
                f"--user-log-dir: {self.directory} is not writable for who serves; chown it"
            )

    def begin(self, session: "Session[Any]") -> None:
        """Give a session that has just reached the TRANSACTION state what its user has."""
        user = session.user
        if _has(self.received, user):
            self._add_received(session)
        session.debug = _has(self.debug, user)
        level = self.levels.get(user) or self.levels.get(ALL)
        if session.debug or level:
            full = session.debug or level == "full"
            session.user_log = UserLog(session, self.directory, full=full, form=self.form)

    def _add_received(self, session: "Session[Any]") -> None:
        from pop3 import received  # noqa: PLC0415 - loaded by from_settings

        header = received.received_header(session, self.name, authenticated=not self.anybody)
        assert session.maildrop is not None
        session.received = header
        session.maildrop.added = len(header)


def _has(users: frozenset[str], user: str) -> bool:
    return user in users or ALL in users


def _make_directory(directory: Path, owner: tuple[int, int] | None) -> None:
    """Make the directory of the logs, 0750, for its owner (uid, gid). Raises ConfigError."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.mkdir(mode=0o750)
        except FileExistsError:
            if not directory.is_dir():
                raise
        else:
            directory.chmod(0o750)  # whatever the umask was
            if owner is not None:
                os.chown(directory, *owner, follow_symlinks=False)
        mode = directory.stat().st_mode
    except OSError as error:
        raise ConfigError(f"--user-log-dir: cannot make {directory}: {error.strerror}") from error
    if mode & _WRITABLE_FOR_ALL:
        raise ConfigError(f"--user-log-dir: {directory} is writable for everybody; chmod o-w it")


def _seen_from(chroot: str | None, directory: Path) -> Path:
    """Return the directory as it is inside `chroot`. Raises ConfigError outside of it."""
    if chroot is None:
        return directory
    try:
        return Path("/") / directory.relative_to(os.path.abspath(chroot))
    except ValueError:
        raise ConfigError(
            f"--user-log-dir: {directory} does not lie inside --chroot {chroot}"
        ) from None
