"""The options of every POP3 server, whatever its source."""

from dataclasses import dataclass

from netserver.options import option
from netserver.settings import ServerSettings, personality_list

PLAINTEXT_POLICIES = ("never", "tls", "loopback", "always")
DELETE_POLICIES = ("expunge", "hide", "trash", "ignore")

_MAIL = "mail"
_LOGIN = "login"


@dataclass(frozen=True)
class POP3Settings(ServerSettings):
    """What a POP3 server adds to the generic options; times are in seconds."""

    personality: str = option(
        "gevent",
        kind=personality_list,
        metavar="NAME[,NAME]",
        group="processes",
        help="process model: single, inetd, fork, prefork or gevent; "
        "of a list the first that can run here",
    )
    listen: tuple[str, ...] = option(
        ("127.0.0.1:1110",),
        repeat=True,
        metavar="SPEC",
        group="network",
        help="HOST:PORT, [::1]:PORT, *:PORT, tls://HOST:PORT, unix:PATH, systemd:NAME or fd:N; "
        "port 0 means any; ?key=value may follow for this listener alone",
    )

    source: str = option(
        "maildir",
        metavar="NAME",
        group=_MAIL,
        help="where mail comes from: the name of a source, or module:Class",
    )
    delete: str | None = option(
        None,
        choices=DELETE_POLICIES,
        group=_MAIL,
        help="what QUIT does with deleted messages; "
        "unset means expunge where the source can, else hide",
    )
    lock_wait: float = option(
        3.0,
        metavar="SECONDS",
        group=_MAIL,
        help="how long a login waits for a mailbox in use",
    )
    state: str | None = option(
        None,
        metavar="URL",
        group=_MAIL,
        help="what must survive a restart: sqlite:///PATH; unset means a file in $STATE_DIRECTORY, "
        "/var/lib/pop3-server (root) or ~/.local/state/pop3-server",
    )

    auth: tuple[str, ...] = option(
        (),
        repeat=True,
        metavar="BACKEND[:ARG]",
        group=_LOGIN,
        help="who may log in: passwd-file:PATH, or any (only where nothing can be deleted); "
        "of several the first that knows the user decides",
    )
    plaintext_auth: str = option(
        "loopback",
        choices=PLAINTEXT_POLICIES,
        group=_LOGIN,
        help="where a password may be sent as it is: never, over tls, "
        "also from this machine (loopback), or always",
    )
    sasl: str | None = option(
        None,
        metavar="LIST",
        group=_LOGIN,
        help="mechanisms of AUTH to offer, or none; unset means all that are safe here",
    )
    apop: bool = option(
        False, group=_LOGIN, help="offer APOP, for old clients; the source must know the passwords"
    )
    auth_failure_delay: float = option(
        2.0,
        metavar="SECONDS",
        group=_LOGIN,
        help="delay after a wrong password, growing with each; 0 turns it off",
    )
    max_per_user: int = option(0, metavar="N", group="limits", help="open sessions of one user")
