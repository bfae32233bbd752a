"""What can be asked and ordered on the control socket, as far as every server has it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import netserver
from netserver import entries
from netserver.control import ControlError, holder
from netserver.personalities.predecessors import SERVING
from netserver.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from netserver.scoreboard import Row, Scoreboard
    from netserver.server import NetServer

    Answer = dict[str, Any]

# clients on one line of an answer: each takes at most some 500 octets
_BATCH = 100
_SERVING = (*SERVING, "single")
# workers more or less that one request may ask for
_MOST_CHANGE = 1000
LIMITS = (
    "max_connections",
    "max_per_source",
    "max_per_user",
    "max_servers",
    "max_requests",
    "timeout",
    "login_timeout",
    "graceful_timeout",
    "worker_timeout",
)


class Refused(ControlError):
    """A command that cannot be obeyed."""


class Commands:
    """The commands; made in the admin child."""

    def __init__(self, server: NetServer) -> None:
        self.server = server
        self.master = os.getppid()
        self.web_address: str | None = None
        self._table: Mapping[str, Callable[[Answer], Answer]] = {
            "status": self._status,
            "kick": self._kick,
            "stop": lambda request: self._tell_master(request, signal.SIGTERM),
            "drain": self._drain,
            "reload": lambda request: self._tell_master(request, signal.SIGHUP),
            "workers": self._workers,
            "command-line": self._command_line,
        }

    def answers(self, request: Answer) -> Iterator[Answer]:
        """Yield the lines of the answer to one request; raises ``Refused``."""
        command = request.get("command")
        if command == "who":
            yield from self._who()
            return
        call = self._table.get(command) if isinstance(command, str) else None
        if call is not None:
            yield call(request)
            return
        try:
            found = self.server.control_hook(str(command), request)
        except ValueError as error:
            raise Refused("argument", str(error)) from None
        if found is None:
            known = ", ".join(sorted({*self._table, "who"}))
            raise Refused("unknown-command", f"there is no such command; there are: {known}")
        yield found

    def anybody_serves(self) -> bool:
        """Whether a process that serves clients is left, of those this one was made beside."""
        board = self.server.boards[0]
        return any(row.kind in _SERVING and _lives(row.pid) for row in board.living())

    def is_predecessor(self, path: str) -> bool:
        """Whether the control socket at the path is that of another child of our master."""
        pid = holder(path)
        return pid is not None and _parent(pid) == self.master

    # -- looking --------------------------------------------------------------------------------

    def _status(self, _request: Answer) -> Answer:
        server, settings = self.server, self.server.settings
        now = time.monotonic()
        board, *leaving = server.boards
        served, octets = board.totals()
        rows = list(board.living())
        return {
            "program": server.prog,
            "class": type(server).__name__,
            "version": netserver.__version__,
            "personality": server.personality.name,
            "pid": self.master,
            "admin": os.getpid(),
            "born": server.control.born,
            "seconds": round(time.time() - server.control.born, 1),
            "listeners": [listener.address for listener in server.listeners],
            "admin_listen": self.web_address,
            "limits": {name: getattr(settings, name, None) for name in LIMITS},
            "served": served,
            "octets": octets,
            "open": sum(row.served[1] for row in rows if row.kind in _SERVING),
            "workers": [_process(row, now) for row in rows if row.kind in _SERVING],
            "side": [_process(row, now) for row in rows if row.kind not in _SERVING],
            "leaving": [
                _process(row, now)
                for one in leaving
                for row in one.living()
                if row.kind in _SERVING and _lives(row.pid)
            ],
            "more": False,
        }

    def clients(self) -> Iterator[entries.Client]:
        """Yield who is here, those of processes that are leaving too."""
        for board in self.server.boards:
            yield from entries.clients(board)

    def _who(self) -> Iterator[Answer]:
        batch: list[dict[str, object]] = []
        for client in self.clients():
            batch.append(client.as_dict())
            if len(batch) == _BATCH:
                yield {"sessions": batch, "more": True}
                batch = []
        yield {"sessions": batch, "more": False}

    def _command_line(self, _request: Answer) -> Answer:
        """Tell how the server was started: for what a tool does with the same configuration."""
        server = self.server
        prefix = server.environment_prefix
        return {
            "arguments": list(server.arguments),
            "directory": server.command_line.directory,
            "environment": {
                name: value for name, value in os.environ.items() if name.startswith(prefix)
            },
            "state_directory": os.environ.get("STATE_DIRECTORY"),
        }

    # -- acting ---------------------------------------------------------------------------------

    def _kick(self, request: Answer) -> Answer:
        name = request.get("who")
        if not isinstance(name, str) or not name:
            raise Refused("argument", "kick: whom? a user, an address or a session's id")
        kicked = [
            client for client in self.clients() if client.is_meant_by(name) and entries.kick(client)
        ]
        for pid in {client.pid for client in kicked}:
            _tell(pid, signal.SIGUSR2)
        if not kicked:
            raise Refused("nobody", f"nobody here is {name!r}")
        self.server.log.info("kicked", who=name, sessions=len(kicked))
        return {"kicked": [client.as_dict() for client in kicked]}

    def _drain(self, request: Answer) -> Answer:
        worker = request.get("worker")
        if worker is None:
            return self._tell_master(request, signal.SIGQUIT)
        if self.server.personality.name == "single":
            raise Refused("personality", "drain: the personality single has one process")
        for board in self.server.boards:
            for row in board.living():
                if row.pid == worker and row.kind in SERVING:
                    _tell(row.pid, signal.SIGQUIT)
                    return {"worker": worker}
        raise Refused("argument", f"drain: {worker!r} is the pid of no worker")

    def _workers(self, request: Answer) -> Answer:
        change = request.get("change")
        if not isinstance(change, int) or isinstance(change, bool) or abs(change) > _MOST_CHANGE:
            raise Refused("argument", "workers: how many more or less?")
        if self.server.personality.name == "single":
            raise Refused("personality", "workers: the personality single has one process")
        board: Scoreboard = self.server.boards[0]
        board.change += change
        _tell(self.master, signal.SIGUSR2)
        return {"change": change}

    def _tell_master(self, _request: Answer, number: int) -> Answer:
        if os.getppid() != self.master:
            raise Refused("lost", "the server's master has gone")
        _tell(self.master, number)
        return {"pid": self.master}


def _process(row: Row, now: float) -> dict[str, Any]:
    served, is_open = row.served
    return {
        "pid": row.pid,
        "kind": row.kind,
        "state": State(row.state).name.lower(),
        "seconds": round(now - row.started, 1),
        "beat": round(now - row.beat, 1),
        "served": served,
        "open": is_open,
    }


def _tell(pid: int, number: int) -> None:
    if pid <= 1:
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise Refused("rights", f"process {pid} belongs to somebody else") from None


def _lives(pid: int) -> bool:
    if pid <= 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _parent(pid: int) -> int:
    """Return the parent of a process, 0 if it cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
