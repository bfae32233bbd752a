"""All that one login knows. The server object knows nothing of it."""

from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from netserver.connection import Connection
    from netserver.logs import Log
    from pop3.auth.names import LoginName
    from pop3.auth.secret import Secret
    from pop3.lock import MaildropLock
    from pop3.maildrop import Maildrop
    from pop3.user_log import UserLog

BoxT = TypeVar("BoxT")


class State(Enum):
    """Where a session stands (RFC 1939 §3)."""

    AUTHORIZATION = "authorization"
    TRANSACTION = "transaction"
    UPDATE = "update"
    """The last reply is on its way, or the client is gone."""


class Session(Generic[BoxT]):
    """One client's session. The first group of attributes is for sources, the core owns the rest.

    `user` is the name in its normal form without a view, `login` the name with its parts, `home`
    the user's home directory if the users file or the system knows one. `secret` is the password,
    only while `open_box` runs, and only for a source that authenticates upstream. `box` is what
    `open_box` returned.
    """

    __slots__ = (
        "_log",
        "auth_failures",
        "bad_commands",
        "box",
        "box_is_open",
        "challenge",
        "connection",
        "debug",
        "deleted",
        "errors",
        "fetched",
        "found_sizes",
        "home",
        "lock",
        "login",
        "maildrop",
        "name",
        "octets",
        "reason",
        "received",
        "retrieved",
        "secret",
        "state",
        "topped",
        "uid",
        "user",
        "user_log",
        "utf8",
    )

    box: BoxT

    def __init__(self, connection: "Connection") -> None:
        """Begin in the AUTHORIZATION state."""
        self.connection = connection
        self.user = ""
        self.login: LoginName | None = None
        self.home: str | None = None
        self.uid: int | None = None
        self.secret: Secret | None = None
        self._log: Log | None = None

        self.state = State.AUTHORIZATION
        self.maildrop: Maildrop | None = None
        self.lock: MaildropLock | None = None
        self.box_is_open = False
        self.name: bytes | None = None  # what USER said
        self.challenge = b""  # the greeting's timestamp, for APOP
        self.utf8 = False
        self.bad_commands = 0
        self.auth_failures = 0
        self.errors = 0  # -ERR replies
        self.retrieved = 0
        self.topped = 0
        self.deleted = 0
        self.found_sizes: dict[str, int] | None = (
            None  # by announced id, to be remembered at the end
        )
        self.fetched: set[int] | None = None  # indexes, where --expire wants to know
        self.octets = 0  # of messages, as LIST counts them
        self.reason = "lost"  # why it ended
        self.received = b""  # a header that stands before each message; see `pop3.received`
        self.user_log: UserLog | None = None
        self.debug = False  # nothing is deleted

    @property
    def log(self) -> "Log":
        """A logger bound to the peer, the session and the user; made when first used."""
        if self._log is None:
            self._log = (
                self.connection.log.bind(user=self.user) if self.user else self.connection.log
            )
        return self._log

    @property
    def view(self) -> str | None:
        """The name of the view this login asked for: the part after "~"."""
        return None if self.login is None else self.login.view

    def forget_log(self) -> None:
        """Make the logger anew when it is used next: the user is another."""
        self._log = None

    def end(self, reason: str) -> None:
        """Let the reply to this command be the last."""
        self.state = State.UPDATE
        self.reason = reason
