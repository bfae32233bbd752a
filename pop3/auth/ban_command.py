"""--ban-command: a program, such as one that sets firewall rules, is told of bans of addresses.

It is called by a child that serves nobody, one call at a time; a worker never starts programs.
"""

import os
import shlex
import shutil
import signal
import time
from typing import TYPE_CHECKING

from netserver import native
from netserver.errors import ConfigError
from netserver.personalities.orders import Orders
from netserver.personalities.side import SideChild
from pop3.auth.bans import Ban, network_name

if TYPE_CHECKING:
    from netserver.scoreboard import Row
    from netserver.server import NetServer
    from pop3.auth.guard import Guard

SPACING = 1.0  # seconds between two calls at least, and between two looks at the bans
LIMIT = 10.0  # seconds after which a call is ended
_TICK = 0.1


def argv_of(command: str) -> list[str]:
    """Split what --ban-command says, without a shell; the program's path is made absolute.

    Raises ConfigError.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"--ban-command {command!r}: {error}") from None
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise ConfigError(f"--ban-command {command!r}: there is no such program")
    return [os.path.abspath(program), *words[1:]]


def side_children(guard: "Guard", server: "NetServer") -> list[SideChild]:
    """Return the child that calls the command, if there is one to call."""
    command = guard.ban_command
    if not command:
        return []
    return [SideChild("bans", lambda row: run(guard, command, server, row))]


def run(guard: "Guard", command: list[str], server: "NetServer", row: "Row") -> None:
    """Tell of bans, and of those that were lifted, until told to stop."""
    orders = Orders(server, row, os.getppid())
    while not orders.drain:
        for ban in guard.bans.untold()[:1]:
            guard.bans.tell(ban)  # before, so that a call that fails is not made for ever
            if network_name(ban.name) is not None:
                _call(command, ban, server, orders)
        due = time.monotonic() + SPACING
        while not orders.drain and (left := due - time.monotonic()) > 0:
            server.signals.wait(left)
            orders.beat()
            orders.look()


def _call(command: list[str], ban: Ban, server: "NetServer", orders: Orders) -> None:
    """Run the program to its end or for LIMIT seconds."""
    left = round(ban.end - time.time())
    told = ["unban", ban.name] if ban.end == 0 else ["ban", ban.name, str(max(left, 1))]
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    actions = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    server.log.info("ban command", words=told)
    try:
        pid = native.posix_spawn(
            command[0], [*command, *told], environment, file_actions=actions, setsigmask=[]
        )
    except OSError as error:
        server.log.error("ban command failed", why=error.strerror)  # noqa: TRY400 - it says all
        return
    end = time.monotonic() + LIMIT
    killed = False
    while not (ended := native.waitpid(pid, os.WNOHANG))[0]:
        if not killed and (time.monotonic() > end or orders.stop):
            killed = True
            os.kill(pid, signal.SIGKILL)
        server.signals.wait(_TICK)
        orders.beat()
        orders.look()
    code = os.waitstatus_to_exitcode(ended[1])
    if code:
        how = "it took too long" if killed else f"exit {code}"
        server.log.error("ban command failed", why=how, words=told)
