"""Which server pop3-ctl is about: by its control socket, its configuration, pid file or port."""

import fcntl
import os
import re
from dataclasses import dataclass, field
from typing import Any

from netserver.control import Caller, ControlError, default_path
from netserver.options import load
from pop3.settings import POP3Settings
from pop3.state import state_directory

_LISTENING = "0A"


@dataclass
class Target:
    """What was said about the server, and what follows from it.

    `arguments` are options of pop3-server: from -f, or nothing. Raises ConfigError, ControlError.
    """

    arguments: list[str] = field(default_factory=list)
    control_socket: str | None = None
    pid_file: str | None = None
    port: int | None = None
    seconds: float = 10.0
    was_named: bool = False  # by a configuration: else a running server's own is used

    def settings(self) -> POP3Settings:
        """Return what the configuration says, as far as all sources know it."""
        return load(
            POP3Settings,
            prog="pop3-server",
            argv=self.arguments,
            environ=os.environ,
            ignore_unknown=True,
        ).settings

    def caller(self) -> Caller:
        """Return what asks the server."""
        path = self.control_socket
        if path is None:
            settings = self.settings()
            path = settings.control_socket or default_path(
                "pop3-server", os.environ, str(state_directory(settings))
            )
        if path == "none":
            raise ControlError("not-running", "the server has no control socket")
        return Caller(os.path.abspath(path), self.seconds)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Ask the running server."""
        return self.caller().ask(command, **arguments)

    def pid(self) -> int:
        """Return the master's process id, by whatever was given."""
        if self.port is not None:
            return listening(self.port)
        path = self.pid_file
        if path is None and self.control_socket is None:
            path = self.settings().pid_file
        if path is not None:
            return held(path)
        return int(self.ask("status")["pid"])


def held(path: str) -> int:
    """Return the pid in a pid file whose owner is alive. Raises ControlError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ControlError("not-running", f"{path}: no server is running") from None
    except OSError as error:
        raise ControlError("lost", f"{path}: {(error.strerror or '').lower()}") from None
    try:
        text = os.read(descriptor, 32).strip()
        if re.fullmatch(rb"[0-9]{1,10}", text) is None:
            raise ControlError("lost", f"{path}: this is no pid file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(text)
        raise ControlError("not-running", f"{path}: no server is running")
    finally:
        os.close(descriptor)


def listening(port: int) -> int:
    """Return the master of the server that listens at a port here. Raises ControlError."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        inodes |= {
            row[9]
            for row in rows
            if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port
        }
    if not inodes:
        raise ControlError("not-running", f"nobody listens at port {port}")
    holders = {int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and _has(pid, inodes)}
    masters = [pid for pid in holders if _parent(pid) not in holders]
    if len(masters) != 1:
        raise ControlError("lost", f"it cannot be seen who listens at port {port}")
    return masters[0]


def _has(pid: str, inodes: set[str]) -> bool:
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            match = re.fullmatch(r"socket:\[([0-9]+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
            if match is not None and match[1] in inodes:
                return True
    except OSError:
        pass
    return False


def process_state(pid: int) -> tuple[str, int]:
    """Return the state of a process and its parent; "X" if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[1])


def _parent(pid: int) -> int:
    return process_state(pid)[1]


def is_running(pid: int) -> bool:
    """Whether the process is there and is no zombie."""
    return process_state(pid)[0] not in "ZX"
