"""pop3-ctl as a program, and servers with a control socket."""

import json
import os
import sys
from pathlib import Path
from subprocess import run

from netserver.control import Caller
from tests.support.maildirs import PLAIN, make_maildir
from tests.support.processes import wait_until
from tests.support.servers import ROOT, RunningServer, environment

CONTROLLED = ("gevent", "prefork", "fork", "single")
SECONDS = 60
USERS = {"anna": "secret", "bert": "secret"}


def place(home: Path) -> str:
    """Return where the control socket of a test's server is."""
    return str(home / "control.sock")


def ctl(
    home: Path, *words: str, env: dict[str, str] | None = None, text: str = ""
) -> tuple[int, str, str]:
    """Run bin/pop3-ctl; return its exit code, output and errors."""
    done = run(
        [sys.executable, str(ROOT / "bin" / "pop3-ctl"), *words],
        capture_output=True,
        text=True,
        input=text,
        timeout=SECONDS,
        check=False,
        cwd=home,
        env=environment(home, env),
    )
    return done.returncode, done.stdout, done.stderr


def started(home: Path, personality: str, **arguments: object) -> RunningServer:
    """Start a server with a control socket; return when it answers there."""
    options = [*arguments.pop("options", ()), "--control-socket", place(home)]  # type: ignore[misc]
    server = arguments.pop("start")(  # type: ignore[operator]
        home, personality=personality, users=USERS, options=options, **arguments
    )
    ready(home)
    for user in USERS:
        make_maildir(server.maildir(user), [PLAIN])
    return server  # type: ignore[no-any-return]


def ready(home: Path) -> None:
    """Wait until the control socket answers."""
    wait_until(lambda: os.path.exists(place(home)), 10, "a control socket")


def ask(server: RunningServer, command: str, **arguments: object) -> dict[str, object]:
    """Ask over the control socket."""
    return Caller(place(server.home)).ask(command, **arguments)


def names(server: RunningServer) -> list[object]:
    """Return the users who are here now."""
    return sorted(str(one["user"]) for one in ask(server, "who")["sessions"])  # type: ignore[attr-defined]


def write_config(config: Path, home: Path, **more: object) -> None:
    """Write a small configuration."""
    (home / "mail").mkdir(exist_ok=True)
    (home / "users").write_text("anna:{PLAIN}secret\n")
    (home / "users").chmod(0o600)
    values = {
        "personality": "prefork",
        "workers": 1,
        "listen": ["127.0.0.1:0"],
        "maildir": f"{home}/mail/{{user}}",
        "auth": [f"passwd-file:{home}/users"],
        "state": f"sqlite:///{home}/state/state.db",
        "log_file": f"{home}/server.log",
        **more,
    }
    config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))
