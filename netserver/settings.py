"""The options every server has, whatever it serves."""

from dataclasses import dataclass

from netserver.options import Settings, option

PERSONALITIES = ("single", "inetd", "fork", "prefork", "gevent")

_PROCESS = "processes"
_NETWORK = "network"
_LIMITS = "limits"
_TLS = "TLS"
_LOGGING = "logging"
_DAEMON = "daemon"


def personality_list(text: str) -> str:
    """Check a comma-separated list of personalities and return it without blanks."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PERSONALITIES:
            raise ValueError(f"no such personality (there are {', '.join(PERSONALITIES)})")
    return ",".join(names)


@dataclass(frozen=True)
class ServerSettings(Settings):
    """The generic options; times are in seconds, 0 means "no limit" unless an option says else."""

    personality: str = option(
        "single",
        kind=personality_list,
        metavar="NAME[,NAME]",
        group=_PROCESS,
        help="process model: single, inetd, fork, prefork or gevent; "
        "of a list the first that can run here",
    )
    workers: int | None = option(
        None,
        metavar="N",
        group=_PROCESS,
        help="worker processes; unset means one for each usable CPU with gevent, "
        "and a pool that grows and shrinks with prefork",
    )
    min_servers: int = option(
        5, metavar="N", group=_PROCESS, help="prefork: never fewer processes than this"
    )
    max_servers: int | None = option(
        None,
        metavar="N",
        group=_PROCESS,
        help="never more processes than this; unset means 50 with prefork, 256 with fork",
    )
    min_spare_servers: int = option(
        2, metavar="N", group=_PROCESS, help="prefork: start more when fewer than this wait idle"
    )
    max_spare_servers: int = option(
        10, metavar="N", group=_PROCESS, help="prefork: stop some when more than this wait idle"
    )
    max_requests: int | None = option(
        None,
        metavar="N",
        group=_PROCESS,
        help="connections a worker serves in its life; unset means 1000 with prefork, "
        "and no limit with gevent; 0 means no limit",
    )
    worker_timeout: float = option(
        120.0,
        metavar="SECONDS",
        group=_PROCESS,
        help="replace a worker that shows no sign of life for this long; 0 means never",
    )
    graceful_timeout: float = option(
        30.0,
        metavar="SECONDS",
        group=_PROCESS,
        help="how long a stop or reload waits for clients",
    )
    check_for_dequeue: float = option(
        0.0,
        metavar="SECONDS",
        group=_PROCESS,
        help="time between two calls of run_dequeue; 0 means it is not called",
    )

    listen: tuple[str, ...] = option(
        ("127.0.0.1:20203",),
        repeat=True,
        metavar="SPEC",
        group=_NETWORK,
        help="HOST:PORT, [::1]:PORT, *:PORT, tls://HOST:PORT, unix:PATH, systemd:NAME or fd:N; "
        "port 0 means any; ?key=value may follow for this listener alone",
    )
    address_file: str | None = option(
        None,
        metavar="FILE",
        group=_NETWORK,
        help="write the bound addresses here when ready to accept, one a line",
    )
    listen_backlog: int = option(
        1024,
        metavar="N",
        group=_NETWORK,
        help="connections the kernel keeps until they are accepted",
    )
    allow: tuple[str, ...] = option(
        (),
        repeat=True,
        metavar="NET",
        group=_NETWORK,
        help="who may connect: CIDR or host name; unset means all",
    )
    deny: tuple[str, ...] = option(
        (), repeat=True, metavar="NET", group=_NETWORK, help="who may not connect, even if allowed"
    )
    access_file: str | None = option(
        None,
        metavar="FILE",
        group=_NETWORK,
        help="who else may or may not connect: lines of ALLOW, DENY or WARN, and an address, "
        "a prefix of one, a CIDR, a host name or ALL; the first that matches decides",
    )
    trusted_file: str | None = option(
        None,
        metavar="FILE",
        group=_NETWORK,
        help="who is spared --reverse-lookup and --max-per-source: an address, a prefix of one, "
        "a CIDR or a host name a line",
    )
    proxy_protocol: tuple[str, ...] = option(
        (),
        repeat=True,
        metavar="NET",
        group=_NETWORK,
        help="load balancers, by address, CIDR or unix, that say who their client is: "
        "they must send a PROXY header (v1 or v2), all others cannot",
    )
    reverse_lookup: str = option(
        "off",
        choices=("off", "on", "double"),
        group=_NETWORK,
        help="refuse clients whose address has no name (on), or none that leads back to it "
        "(double)",
    )

    max_connections: int = option(
        10000, metavar="N", group=_LIMITS, help="open clients of one gevent process"
    )
    max_per_source: int = option(
        0, metavar="N", group=_LIMITS, help="open clients of one address, of one /64 with IPv6"
    )
    timeout: float = option(
        600.0, metavar="SECONDS", group=_LIMITS, help="how long a client may say nothing"
    )
    login_timeout: float = option(
        60.0, metavar="SECONDS", group=_LIMITS, help="how long a client may take to log in"
    )

    tls_cert: tuple[str, ...] = option(
        (),
        repeat=True,
        metavar="FILE",
        group=_TLS,
        help="certificate chain in PEM; repeated for several server names",
    )
    tls_key: tuple[str, ...] = option(
        (),
        repeat=True,
        metavar="FILE",
        group=_TLS,
        help="private key in PEM, one for each certificate in the same order; "
        "unset means it is in the certificate's file",
    )
    tls_min_version: str = option(
        "TLSv1.2", choices=("TLSv1.2", "TLSv1.3"), group=_TLS, help="oldest TLS version accepted"
    )
    tls_client_ca: str | None = option(
        None,
        metavar="FILE",
        group=_TLS,
        help="certificates in PEM of those who sign clients' certificates; clients must show one",
    )
    tls_client_cert: str = option(
        "require",
        choices=("require", "optional"),
        group=_TLS,
        help="with --tls-client-ca: whether clients must show a certificate or may",
    )
    tls_expiry_warning: int = option(
        14,
        metavar="DAYS",
        group=_TLS,
        help="warn in the log, once a day, of certificates that end sooner; 0 means never",
    )

    log_level: str = option(
        "info",
        choices=("debug", "info", "warning", "error", "critical"),
        group=_LOGGING,
        help="log nothing below this level",
    )
    log_format: str | None = option(
        None,
        choices=("console", "json", "logfmt"),
        group=_LOGGING,
        help="form of a log line; unset means console on a terminal, else logfmt",
    )
    log_file: str | None = option(
        None,
        metavar="PATH",
        group=_LOGGING,
        help="log to this file, or to syslog or journald; unset means standard error",
    )

    user: str | None = option(
        None, metavar="NAME", group=_DAEMON, help="who serves clients: a user name or number"
    )
    group: str | None = option(
        None, metavar="NAME", group=_DAEMON, help="its group; unset means the user's own"
    )
    chroot: str | None = option(
        None, metavar="DIR", group=_DAEMON, help="directory that what serves clients is confined to"
    )
    sandbox: str = option(
        "auto",
        choices=("auto", "off", "require"),
        group=_DAEMON,
        help="shut in what serves clients: no programs, no files but the mail and the state, "
        "connections only where they are needed; auto as far as this kernel can",
    )
    background: bool = option(False, group=_DAEMON, help="leave the terminal and run on")
    control_socket: str | None = option(
        None,
        metavar="PATH",
        group=_DAEMON,
        help="where pop3-ctl asks and tells this server things; none turns it off; unset means a "
        "socket in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or the directory of the state",
    )
    admin_listen: str | None = option(
        None,
        metavar="HOST:PORT",
        group=_DAEMON,
        help="show metrics (/metrics), /health and a page with the status here, without a "
        "password: keep it on 127.0.0.1; unset means nowhere",
    )
    pid_file: str | None = option(
        None, metavar="FILE", group=_DAEMON, help="write the master's process id here"
    )
