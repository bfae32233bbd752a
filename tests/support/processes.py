"""What /proc tells about processes and their sockets."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(condition: Callable[[], object], deadline: float, what: str) -> None:
    """Ask every 20 ms until `condition` holds; fail with `what` after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.02)


def _stat(pid: int) -> tuple[str, int]:
    """Return state and parent of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[1])


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def children_of(pid: int) -> list[int]:
    """Return the living children of a process."""
    found = []
    for child in _pids():
        with contextlib.suppress(OSError):
            state, parent = _stat(child)
            if parent == pid and state not in "ZX":
                found.append(child)
    return sorted(found)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def marked(mark: str) -> list[int]:
    """Return the living processes that carry `mark` in their environment."""
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes() and is_alive(pid):
                found.append(pid)
    return found


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid: int) -> list[str]:
    """Return what the descriptors of a process lead to."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(entry))
    return found


def holder_of(client: socket.socket, pids: list[int]) -> int:
    """Return the process among `pids` that serves this client on 127.0.0.1."""
    client_port, server_port = client.getsockname()[1], client.getpeername()[1]
    ends = rf"0100007F:{server_port:04X} 0100007F:{client_port:04X}"
    table = Path("/proc/net/tcp").read_text()
    row = re.search(rf"^ *\d+: {ends} \S+ \S+ \S+ \S+ +\d+ +\d+ (\d+)", table, re.MULTILINE)
    assert row, f"no connection from port {client_port}"
    for pid in pids:
        if f"socket:[{row[1]}]" in descriptors(pid):
            return pid
    message = f"no process of {pids} serves the client on port {client_port}"
    raise AssertionError(message)


def reachable(path: Path) -> None:
    """Let others pass through the private directories above."""
    for parent in (path, *path.parents):
        if parent != Path("/") and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
