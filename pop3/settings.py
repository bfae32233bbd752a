"""The options of every POP3 server, whatever its source."""

from dataclasses import dataclass

from netserver.options import option
from netserver.settings import ServerSettings, personality_list
from pop3 import texts
from pop3.expire import days
from pop3.extras import host_name, user_level, user_name
from pop3.uidl.presets import uidl_presets
from pop3.user_log import FORMATS as USER_LOG_FORMATS

PLAINTEXT_POLICIES = ("never", "tls", "loopback", "always")
DELETE_POLICIES = ("expunge", "hide", "trash", "ignore")

_MAIL = "mail"
_LOGIN = "login"
_USERS = "single users"


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
    expire: int | None = option(
        None,
        kind=days,
        metavar="DAYS|never",
        group=_MAIL,
        help="delete what a client has fetched by RETR so many days ago, when it says QUIT; "
        "0 means in the same session",
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

    uidl: str = option(
        "default",
        kind=uidl_presets,
        metavar="PRESET[,PRESET]",
        group=_MAIL,
        help="ids that clients know from another server, so that they download nothing twice: "
        "maildir-name (qmail), dovecot[:FORMAT], courier[:FORMAT], cyrus, uw, md5 (popa3d), "
        "qpopper, qpopper-old, message-id, x-uidl or imported; "
        "of a list the first that knows a message",
    )

    auth: tuple[str, ...] = option(
        (),
        repeat=True,
        metavar="BACKEND[:ARG]",
        group=_LOGIN,
        help="who may log in: passwd-file:PATH, system, pam:SERVICE, userlist:PATTERN, sql:FILE, "
        "ldap:FILE, oauth2:FILE, kind-1 to kind-7, module:Class, or any (only where nothing can be "
        "deleted); of several the first that knows the user decides",
    )
    auth_for: tuple[str, ...] = option(
        (),
        repeat=True,
        metavar="PATTERN=BACKEND[:ARG][,BACKEND]",
        group=_LOGIN,
        help="other backends than --auth for user, user@domain or *@domain; the first that matches "
        "decides",
    )
    auth_workers: int = option(
        4,
        metavar="N",
        group=_LOGIN,
        help="processes that check passwords with the rights that --user gives up, and ask PAM",
    )
    become_user: bool = option(
        False,
        group="daemon",
        help="fork, inetd: keep root until the login and become that user then; their state is "
        "below users in the state directory",
    )
    reject_bogus_user: bool = option(
        False,
        group=_LOGIN,
        help="refuse unknown names at once: for closed networks, as it tells strangers who exists",
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
        help="mechanisms of AUTH to offer where they can work, or none; unset means all but "
        "CRAM-MD5, and SCRAM only where every user can use it",
    )
    apop: bool = option(
        False, group=_LOGIN, help="offer APOP, for old clients; needs passwords in the users file"
    )
    auth_failure_delay: float = option(
        2.0,
        metavar="SECONDS",
        group=_LOGIN,
        help="delay after a wrong password, growing with each; 0 turns it off",
    )
    penalty_exempt: tuple[str, ...] = option(
        (),
        repeat=True,
        metavar="NET",
        group=_LOGIN,
        help="whom failed logins never delay or ban: an address or a CIDR, beside --trusted-file",
    )
    ban_after: int = option(
        0,
        metavar="N",
        group=_LOGIN,
        help="let an address (IPv6: its /64) that has guessed so often not connect for a while; "
        "0 means never",
    )
    ban_time: float = option(
        3600.0, metavar="SECONDS", group=_LOGIN, help="how long such a ban takes"
    )
    ban_command: str | None = option(
        None,
        metavar="COMMAND",
        group=_LOGIN,
        help="a program that is told of bans of addresses, with the rights the server was started "
        "with: COMMAND ban ADDRESS SECONDS, COMMAND unban ADDRESS",
    )
    max_per_user: int = option(0, metavar="N", group="limits", help="open sessions of one user")
    max_per_user_source: int = option(
        0, metavar="N", group="limits", help="open sessions of one user from one address"
    )
    login_delay: float = option(
        0.0,
        metavar="SECONDS",
        group="limits",
        help="least time between two logins of a user (trusted addresses excepted); 0 means none",
    )

    greeting: str | None = option(
        None,
        kind=texts.greeting,
        metavar="TEXT",
        group=_MAIL,
        help="what the server says first, after +OK; unset means that of --texts",
    )
    texts: str = option(
        "plain",
        metavar="FILE|NAME",
        group=_MAIL,
        help="what people read in positive replies: a YAML file, or the theme plain or mpopd",
    )
    add_received: tuple[str, ...] = option(
        (),
        repeat=True,
        kind=user_name,
        metavar="USER",
        group=_USERS,
        help="put a Received header before each message this user fetches; * means all users",
    )
    received_from: str | None = option(
        None,
        kind=host_name,
        metavar="NAME",
        group=_USERS,
        help="the host name in that header; unset means the name of this machine",
    )
    user_log: tuple[str, ...] = option(
        (),
        repeat=True,
        kind=user_level,
        metavar="USER=LEVEL",
        group=_USERS,
        help="keep a log of this user, brief or full (each command); * means all users",
    )
    user_log_dir: str | None = option(
        None,
        metavar="DIR",
        group=_USERS,
        help="where those logs are; unset means user-logs beside the state",
    )
    user_log_format: str = option(
        "text", choices=USER_LOG_FORMATS, group=_USERS, help="the form of their lines"
    )
    user_debug: tuple[str, ...] = option(
        (),
        repeat=True,
        kind=user_name,
        metavar="USER",
        group=_USERS,
        help="log this user in full and never delete anything in the sessions; * means all users",
    )
