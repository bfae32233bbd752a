"""Accepting clients when descriptors or memory run out: no spinning, no end, few log lines."""

from __future__ import annotations

import errno
import math
import os
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from netserver.endpoints import ListenSpec
from netserver.listeners import bind
from netserver.personalities.accepting import BACK_OFF, Acceptor
from tests.support.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Start


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, event: str, **fields: object) -> None:
        """Keep it."""
        self.lines.append(f"{event} {fields}")


@pytest.fixture
def acceptor() -> Iterator[Acceptor]:
    """Return one with a log of its own."""
    server: Any = SimpleNamespace(log=Log(), can_read_hook=lambda _: False)
    made = Acceptor(server)
    yield made
    made._spare.close()


def lines(acceptor: Acceptor) -> list[str]:
    """Return what it has logged."""
    log: Any = acceptor._server.log
    found: list[str] = log.lines
    return found


def test_a_client_is_taken(acceptor: Acceptor) -> None:
    """Its socket and its address; None when nobody waits."""
    (listener,) = bind([ListenSpec.parse("127.0.0.1:0")], backlog=5)
    try:
        assert acceptor.accept(listener) is None
        with socket.create_connection(listener.socket.getsockname(), 10) as client:
            accepted = acceptor.accept(listener)
            assert accepted is not None
            assert accepted[1] == client.getsockname()
            assert not accepted[0].getblocking()
            accepted[0].close()
        assert lines(acceptor) == []
        assert not acceptor.holds(listener)
        assert acceptor.worth_asking([listener]) == ([listener], math.inf)
    finally:
        listener.close()


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
def test_any_other_error_is_waited_out(acceptor: Acceptor, number: int) -> None:
    """Accepting rests for a moment, and one line says why, not one each time."""

    class Failing:
        address = "127.0.0.1:1"

        def accept(self) -> None:
            raise OSError(number, os.strerror(number))

    listener: Any = Failing()
    other: Any = Failing()
    for _ in range(20):
        assert acceptor.accept(listener) is None
    others, pause = acceptor.worth_asking([listener, other])
    assert others == [other]
    assert 0 < pause <= BACK_OFF
    (line,) = lines(acceptor)
    assert os.strerror(number) in line
    assert "127.0.0.1:1" in line


NO_SPARE = """
import os, resource, socket, time
from types import SimpleNamespace
from netserver.endpoints import ListenSpec
from netserver.listeners import bind
from netserver.personalities.accepting import Acceptor

log = SimpleNamespace(error=lambda event, **fields: None)
acceptor = Acceptor(SimpleNamespace(log=log, can_read_hook=lambda _: False))
(listener,) = bind([ListenSpec.parse("127.0.0.1:0")], backlog=5)
client = socket.create_connection(listener.socket.getsockname(), 10)
{before}
free = os.dup(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
os.close(free)
if {taken}:
    while True:
        try:
            os.dup(0)
        except OSError:
            break
accepted = acceptor.accept(listener)
rests = acceptor.holds(listener)
client.settimeout(5)
try:
    shed = client.recv(1) == b""
except ConnectionResetError:
    shed = True
except TimeoutError:
    shed = False
print(accepted, shed, rests)
"""


def exhaust(before: str = "", *, taken: bool) -> str:
    """Let a process run out of descriptors with a client in the queue."""
    code = NO_SPARE.replace("{before}", before).replace("{taken}", str(taken))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_descriptor_the_client_is_sent_away() -> None:
    """It would stay in the queue otherwise, and the listener readable."""
    assert exhaust(taken=True) == "None True False\n"


def test_without_even_the_spare_one_accepting_rests() -> None:
    """Another thread, or the whole system, took it: the client stays, and nobody spins."""
    assert exhaust("acceptor._spare.close()", taken=True) == "None False True\n"


# -- servers --------------------------------------------------------------------------------------

POOR = '''
import errno
import math
import os
import resource

from netserver import native
from netserver.echo import EchoServer
from netserver.listeners import Listener

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
real = Listener.accept


def accept(listener):
    if os.path.exists("no-memory"):
        with open("calls", "ab", buffering=0) as file:
            file.write(b"x")
        raise OSError(errno.ENOBUFS, "No buffer space available")
    return real(listener)


class Poor(EchoServer):
    """Has no descriptor left while the file says so; each turn before a client is accepted."""

    def pre_loop_hook(self):
        Listener.accept = accept

    def can_read_hook(self, listener):
        soft = 256
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if os.path.exists("no-descriptor"):
            soft = os.dup(0)
            native.close(soft)  # at once; gevent's waits for the loop
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return False
'''

KINDS = ["single", "fork", "prefork", "gevent"]


def cpu_seconds(*pids: int) -> float:
    """Return how long these processes have worked."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def start_poor(start: Start, home: Path, kind: str) -> Any:
    """Run the server above."""
    (home / "poor.py").write_text(POOR)
    return start(
        personality=kind,
        program="net-server",
        target="poor:Poor",
        env={"PYTHONPATH": f"{home}{os.pathsep}{ROOT}"},
        options=("--workers", "1") if kind in ("prefork", "gevent") else (),
    )


def greet(server: Any) -> None:
    """Be served, to the end."""
    with server.connect(greeted=False) as client:
        client.send(b"hello\r\nquit\r\n")
        assert client.line() == b"hello"
        assert client.ended()


@pytest.mark.parametrize("kind", KINDS)
def test_no_descriptor_left(start: Start, tmp_path: Path, kind: str) -> None:
    """Clients are sent away one by one, one line tells of it, and it costs next to nothing."""
    server = start_poor(start, tmp_path, kind)
    greet(server)
    pids = [server.pid, *server.workers()] if kind != "fork" else [server.pid]
    (tmp_path / "no-descriptor").touch()
    before = cpu_seconds(*pids)
    for _ in range(10):
        with server.connect(greeted=False) as client:
            assert client.ended()
    assert cpu_seconds(*pids) - before < 1.0
    assert server.log_text().count("accept failed") == 1
    (tmp_path / "no-descriptor").unlink()
    greet(server)


@pytest.mark.parametrize("kind", KINDS)
def test_no_memory_left(start: Start, tmp_path: Path, kind: str) -> None:
    """An error that would come again at once is not asked for again at once."""
    server = start_poor(start, tmp_path, kind)
    (tmp_path / "no-memory").touch()
    with server.connect(greeted=False, timeout=1.5) as client:
        client.send(b"hello\r\n")
        with pytest.raises(TimeoutError):
            client.line()
        (tmp_path / "no-memory").unlink()
        client.timeout = 15.0
        assert client.line() == b"hello"
    assert 1 <= (tmp_path / "calls").stat().st_size <= 40
    assert server.log_text().count("accept failed") == 1
