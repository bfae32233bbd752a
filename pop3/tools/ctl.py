"""pop3-ctl: ask a running server, tell it what to do, and look at what its configuration means."""

import argparse
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from getpass import getpass
from typing import Any

from netserver.control import ControlError
from netserver.declarations import one_line
from netserver.errors import BindError, ConfigError, PrivilegeError
from pop3.auth.secret import Secret
from pop3.tools import ctl_daemon, ctl_show
from pop3.tools.ctl_find import Target
from pop3.uidl.diff import read_listing, uidl_diff

_Options = argparse.Namespace
_JSON = frozenset({"status", "who", "bans", "certs"})


def parser() -> argparse.ArgumentParser:
    """Return the command line of pop3-ctl."""
    top = argparse.ArgumentParser(
        prog="pop3-ctl",
        description="Ask a running pop3-server, tell it what to do, or look at what its "
        "configuration means.",
        epilog="Exit status: 0 done, 1 no server is running or it says no, 2 wrong usage or "
        "configuration.",
    )
    which = top.add_argument_group("which server (unset: the one of the default places)")
    which.add_argument("-f", "-c", "--config", metavar="FILE", help="its config file")
    which.add_argument("-p", metavar="FILE|PORT", dest="place", help="its pid file, or its port")
    which.add_argument("--pid-file", metavar="FILE", help="its pid file")
    which.add_argument("--control-socket", metavar="PATH", help="its control socket")
    top.add_argument(
        "-e", "--edit", action="store_true", help="with config, reload: edit the config file first"
    )
    top.add_argument("--timeout", metavar="SECONDS", type=float, default=60.0, help="default 60")
    kinds = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for names, text, arguments in _COMMANDS:
        one = kinds.add_parser(names[0], aliases=names[1:], help=text, description=text)
        for flags, keywords in arguments:
            one.add_argument(*flags, **keywords)
        if names[0] in _JSON:
            one.add_argument("--json", action="store_true", help="print JSON")
    return top


def change(text: str) -> int:
    """Return how many workers more or less, or raise what argparse turns into a message."""
    if re.fullmatch(r"[+-][0-9]{1,3}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not +N or -N")
    return int(text)


def process(text: str) -> int:
    """Return a process id, or raise the same."""
    if re.fullmatch(r"[0-9]{1,10}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no process id")
    return int(text)


_NAME = (("name",), {"metavar": "ADDR|USER"})
_USER = (("user",), {"metavar": "USER"})
_COMMANDS: tuple[
    tuple[tuple[str, ...], str, tuple[tuple[tuple[str, ...], dict[str, Any]], ...]], ...
]
_COMMANDS = (
    (("start",), "start the server in the background and wait until it serves", ()),
    (("stop",), "stop the server at once and wait until it has gone", ()),
    (("restart",), "stop and start, as it was started unless -f says otherwise", ()),
    (("reload", "refresh", "config"), "read the configuration again, losing no client", ()),
    (("status",), "show the server, its processes and limits", ()),
    (("who",), "show the sessions", ()),
    (
        ("top",),
        "show both, again and again",
        (
            (("--delay",), {"metavar": "SECONDS", "type": float, "default": 2.0}),
            (("--count",), {"metavar": "N", "type": int, "default": 0, "help": "end after N"}),
        ),
    ),
    (
        ("kick",),
        "end the sessions of a user, of an address, or one by its id",
        ((("who",), {"metavar": "USER|ADDR|ID"}),),
    ),
    (
        ("drain",),
        "stop the server when its sessions have ended; with a pid, replace that worker so",
        ((("worker",), {"metavar": "PID", "nargs": "?", "type": process}),),
    ),
    (("workers",), "more or fewer workers", ((("change",), {"metavar": "+N|-N", "type": change}),)),
    (
        ("ban",),
        "refuse an address or a user for a while",
        (
            _NAME,
            (
                ("--seconds",),
                {"metavar": "SECONDS", "type": float, "help": "for how long; else --ban-time"},
            ),
        ),
    ),
    (("unban",), "end a ban, and forget the failed logins", (_NAME,)),
    (("bans",), "show who is banned", ()),
    (("recover", "unlock"), "finish what a crash interrupted in a maildrop", (_USER,)),
    (("run-jobs",), "do the periodic work once, now", ()),
    (
        ("test-access",),
        "tell which rule lets an address in or keeps it out",
        ((("address",), {"metavar": "ADDR"}),),
    ),
    (
        ("test-auth",),
        "tell which backend knows a user, and whether the password is right",
        (
            _USER,
            (("--password-file",), {"metavar": "FILE", "help": "its first line; else asked for"}),
        ),
    ),
    (("why",), "tell all that decides about a user's login", (_USER,)),
    (
        ("uidl-diff",),
        "tell what clients would download again: saved answers to UIDL, before and after",
        ((("old",), {"metavar": "OLD"}), (("new",), {"metavar": "NEW"})),
    ),
    (("certs",), "show the certificates, their names, ends and problems", ()),
)


def target_of(options: _Options) -> Target:
    """Return the server that the options are about."""
    arguments = []
    if options.config is not None:
        arguments = ["--no-default-config", "--config", os.path.abspath(options.config)]
    place = options.place
    port = int(place) if place is not None and re.fullmatch(r"[0-9]{1,5}", place) else None
    return Target(
        arguments,
        control_socket=options.control_socket,
        pid_file=options.pid_file or (place if port is None else None),
        port=port,
        was_named=options.config is not None,
    )


# -- commands: each prints and returns the exit status --------------------------------------------


def _say(text: str) -> int:
    print(text)
    return 0


def _verdict(found: tuple[str, bool]) -> int:
    print(found[0])
    return 0 if found[1] else 1


def _reload(target: Target, options: _Options) -> int:
    if options.edit:
        ctl_daemon.edit(target)
    return _say(ctl_daemon.reload(target, options.timeout))


def _status(target: Target, options: _Options) -> int:
    found = target.ask("status")
    for technical in ("ok", "more"):
        found.pop(technical, None)
    return _say(json.dumps(found, indent=2) if options.json else ctl_show.status(found))


def _who(target: Target, options: _Options) -> int:
    sessions = target.ask("who")["sessions"]
    return _say(json.dumps(sessions, indent=2) if options.json else ctl_show.who(sessions))


def _top(target: Target, options: _Options) -> int:
    shown = 0
    while True:
        text = ctl_show.status(target.ask("status")) + "\n\n"
        text += ctl_show.who(target.ask("who")["sessions"])
        print(("\033[H\033[2J" if sys.stdout.isatty() else "") + text, flush=True)
        shown += 1
        if shown == options.count:
            return 0
        time.sleep(max(0.1, options.delay))


def _kick(target: Target, options: _Options) -> int:
    kicked = target.ask("kick", who=options.who)["kicked"]
    return _say("\n".join(f"kicked {one['id']} {one['address']} {one['user']}" for one in kicked))


def _drain(target: Target, options: _Options) -> int:
    if options.worker is None:
        return _say(ctl_daemon.stop(target, options.timeout, graceful=True))
    target.ask("drain", worker=options.worker)
    return _say("told")


def _workers(target: Target, options: _Options) -> int:
    return _say(f"told: {target.ask('workers', change=options.change)['change']:+d}")


def _ban(target: Target, options: _Options) -> int:
    found = target.ask("ban", name=options.name, seconds=options.seconds)
    return _say(f"{options.name} is banned until {_clock(found['banned_until'])}")


def _unban(target: Target, options: _Options) -> int:
    target.ask("unban", name=options.name)
    return _say(f"{options.name} is not banned, and no failed login of it is remembered")


def _bans(target: Target, options: _Options) -> int:
    found = target.ask("penalties")["bans"]
    if options.json:
        return _say(json.dumps(found, indent=2))
    rows = [
        (one["name"], _clock(one["until"]), "by hand" if one["by_hand"] else "failed logins")
        for one in found
    ]
    return _say(ctl_show.table([("banned", "until", "why"), *rows]) if rows else "nobody is banned")


def _clock(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%F %T", time.localtime(seconds))


def _recover(target: Target, options: _Options) -> int:
    from pop3.tools import ctl_server  # noqa: PLC0415 - half a second that the others can spare

    return _say(ctl_server.recover(ctl_server.make(target), options.user))


def _run_jobs(target: Target, _options: _Options) -> int:
    from pop3.tools import ctl_server  # noqa: PLC0415 - same

    return _say(ctl_server.run_jobs(ctl_server.make(target)))


def _test_access(target: Target, options: _Options) -> int:
    from pop3.tools import ctl_server  # noqa: PLC0415 - same

    return _verdict(ctl_server.test_access(ctl_server.make(target), options.address))


def _test_auth(target: Target, options: _Options) -> int:
    from pop3.tools import ctl_server  # noqa: PLC0415 - same

    server = ctl_server.make(target)
    if options.password_file is None:
        octets = os.fsencode(getpass(f"password of {options.user}: "))
    else:
        with open(options.password_file, "rb") as lines:
            octets = lines.readline().rstrip(b"\r\n")
    return _verdict(ctl_server.test_auth(server, options.user, Secret(octets)))


def _why(target: Target, options: _Options) -> int:
    from pop3.tools import ctl_server  # noqa: PLC0415 - same

    try:
        penalty = target.ask("penalty", name=options.user)
    except ControlError:
        penalty = None
    return _verdict(ctl_server.why(ctl_server.make(target), options.user, penalty))


def _certs(target: Target, options: _Options) -> int:
    from pop3.tools import ctl_certs, ctl_server  # noqa: PLC0415 - same

    settings = ctl_server.settings_of(target)
    found = [ctl_certs.examine(*pair) for pair in ctl_certs.configured(settings)]
    print(json.dumps(found, indent=2) if options.json else ctl_certs.as_text(found))
    return 1 if any(one["problems"] for one in found) else 0


def _uidl_diff(_target: Target, options: _Options) -> int:
    listings = []
    for name in (options.old, options.new):
        with open(name, "rb") as file:
            try:
                listings.append(read_listing(file.read()))
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from None
    found = uidl_diff(*listings)
    lines = [f"{found.same} ids are the same, {found.moved} of them under another number"]
    lines += [f"again: {number} {uid.decode('ascii')}" for number, uid in found.again]
    lines += [f"gone: {number} {uid.decode('ascii')}" for number, uid in found.gone]
    lines += [f"doubled: {uid.decode('ascii')}" for uid in found.doubled]
    return _verdict(("\n".join(lines), found.is_safe))


_RUN: dict[str, Callable[[Target, _Options], int]] = {
    "start": lambda target, options: _say(ctl_daemon.start(target, options.timeout)),
    "stop": lambda target, options: _say(ctl_daemon.stop(target, options.timeout)),
    "restart": lambda target, options: _say(ctl_daemon.restart(target, options.timeout)),
    "reload": _reload,
    "refresh": _reload,
    "config": _reload,
    "status": _status,
    "who": _who,
    "top": _top,
    "kick": _kick,
    "drain": _drain,
    "workers": _workers,
    "ban": _ban,
    "unban": _unban,
    "bans": _bans,
    "recover": _recover,
    "unlock": _recover,
    "run-jobs": _run_jobs,
    "test-access": _test_access,
    "test-auth": _test_auth,
    "why": _why,
    "uidl-diff": _uidl_diff,
    "certs": _certs,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pop3-ctl with the given or the process's arguments; return the exit status."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _RUN[options.command](target_of(options), options)
        sys.stdout.flush()
    except ConfigError as error:
        return _complain(error, 2)
    except (ControlError, BindError, PrivilegeError, OSError, EOFError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        return _complain(error, 1)
    except KeyboardInterrupt:
        return 1
    return status


def _complain(error: Exception, status: int) -> int:
    print(f"pop3-ctl: {one_line(str(error) or type(error).__name__)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
