"""The table of child processes, in a process of its own for each test."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import wait_until
from tests.support.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start

START = """
import errno, os, signal, sys
from types import SimpleNamespace
from netserver import native
from netserver.errors import ConfigError
from netserver.personalities.children import ChildTable
from netserver.scoreboard import ClientTable, Scoreboard, State
from netserver.signals import SignalQueue

notes = []

class Log:
    def __getattr__(self, level):
        return lambda event, **fields: os.write(1, f"{level}: {event} {fields}\\n".encode())

class Server:
    signals = SignalQueue()
    boards = [Scoreboard.create(8, 0)]
    clients = ClientTable(boards)
    log = Log()
    def refresh_files(self):
        pass

    def pre_fork_hook(self):
        notes.append("pre_fork")
    def register_child(self, pid, kind):
        notes.append(("register", pid, kind))
    def delete_child_hook(self, pid):
        notes.append(("delete", pid))
    def other_child_died_hook(self, pid):
        notes.append(("other", pid))

server = Server()
server.signals.install()
table = ChildTable(server)

def fork(life, index=0, kind="worker"):
    return table.fork(kind, server.boards[0].row(index), life)

def reaped(count=1):
    exits = []
    while len(exits) < count:
        server.signals.wait(30)
        server.signals.take()
        exits += table.reap()
    return exits
"""


def run(code: str) -> str:
    """Run it after START in a fresh interpreter, return what it and its children printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START + code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_child_lives_and_is_reaped() -> None:
    """With its row, its hooks around it, and its own table empty."""
    code = """
row = server.boards[0].row(2)
def life():
    assert len(table) == 0 and row.pid == os.getpid() and row.state is State.STARTING
    row.state = State.BUSY
child = fork(life, 2)
assert row.pid == child.pid and len(table) == 1 and table.of_kind("worker") == [child]
(ended,) = reaped()
assert ended.child is child and ended.clean and not ended.unusable
assert row.state is State.EMPTY and row.pid == 0 and len(table) == 0
assert notes == ["pre_fork", ("register", child.pid, "worker"), ("delete", child.pid)]
"""
    assert run(code) == ""


@pytest.mark.parametrize(
    ("life", "how", "logged"),
    [
        ("pass", "exit status 0", ""),
        ("os._exit(3)", "exit status 3", ""),
        ("sys.exit(0)", "exit status 1", "exception: a child failed"),
        ("1 / 0", "exit status 1", "exception: a child failed"),
        ("raise ConfigError('no')", "exit status 78", "critical: a child cannot start"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", ""),
    ],
)
def test_how_a_child_ends(life: str, how: str, logged: str) -> None:
    """It never goes on as a second master, whatever its life raises."""
    code = f"""
def life():
    {life}
fork(life)
(ended,) = reaped()
print(str(ended), ended.clean, ended.unusable)
"""
    printed = run(code)
    assert printed.endswith(f"{how} {'status 0' in how} {'78' in how}\n")
    assert printed.startswith(logged)
    assert printed.count("\n") == (2 if logged else 1)


def test_a_signal_during_the_fork_is_not_lost() -> None:
    """TERM that comes before the child has its handlers is found by it, HUP is ignored."""
    code = """
def life():
    server.signals.wait(30)
    os._exit(40 + len(server.signals.take()))
real = native.fork
def fork_and_tell():
    if (pid := real()) != 0:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGHUP)
    return pid
native.fork = fork_and_tell
fork(life)
print(*reaped())
"""
    assert run(code) == "exit status 41\n"


def test_a_fork_that_fails_leaves_no_trace() -> None:
    """None and a log line; the row is free, signals are heard, hooks know of no child."""
    code = """
def full():
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
native.fork = full
assert fork(lambda: None) is None
assert server.boards[0].row(0).state is State.EMPTY and len(table) == 0
os.kill(os.getpid(), signal.SIGUSR1)
assert signal.SIGUSR1 in server.signals.take()
assert notes == ["pre_fork"]
assert table.reap() == []
"""
    assert run(code).startswith("error: fork failed {'error': 'Resource temporarily unavailable'")


def test_children_of_the_image_before_are_known() -> None:
    """They are told apart, reaped like others, and their rows in the old board are cleared."""
    code = """
old = Scoreboard.create(3, 0)
server.boards.append(old)
listen, held = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(held)
    os.read(listen, 1)  # until the parent has gone, at the latest
    os._exit(0)
old.row(1).begin(0.0)
old.row(1).pid = pid
table.adopt([(pid, "worker"), (2 ** 22 + 1, "client")])
assert [child.pid for child in table.of_kind("worker", inherited=True)] == [pid]
assert table.of_kind("worker", "client") == []
table.tell(signal.SIGKILL, table)
(ended,) = reaped()
assert str(ended) == "SIGKILL" and ended.child.inherited
assert list(old.living()) == []
"""
    run(code)


def test_processes_of_others_are_reaped_too() -> None:
    """As when the master is process 1 of a container; the hook is told."""
    code = """
pid = os.fork()
if pid == 0:
    os._exit(5)
while ("other", pid) not in notes:
    server.signals.wait(30)
    server.signals.take()
    assert table.reap() == []
"""
    run(code)


def test_many_children_that_end_at_once_are_all_reaped() -> None:
    """Signals of one kind melt together; none of the children may stay a zombie."""
    code = """
for index in range(8):
    fork(lambda: None, index)
assert len({ended.child.pid for ended in reaped(8)}) == 8
try:
    os.waitpid(-1, os.WNOHANG)
    sys.exit("a child is left")
except ChildProcessError:
    pass
"""
    run(code)


# -- a master whose forks fail --------------------------------------------------------------------

FAILING = '''
import errno
import os

from netserver import native
from netserver.echo import EchoServer

real = native.fork


def fork():
    if os.path.exists("full"):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
    return real()


class Failing(EchoServer):
    """The system has no room for another process while the file exists."""

    def pre_loop_hook(self):
        native.fork = fork
'''


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_a_master_survives_failing_forks(start: Start, tmp_path: Path, kind: str) -> None:
    """It tries again after a while, and serves when there is room."""
    (tmp_path / "failing.py").write_text(FAILING)
    server = start(
        personality=kind,
        program="net-server",
        target="failing:Failing",
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        options=() if kind == "fork" else ("--workers", "1"),
    )
    (tmp_path / "full").touch()
    if kind == "fork":
        with server.connect(greeted=False) as client:
            assert client.ended()
    else:
        (worker,) = server.workers()
        os.kill(worker, 9)
    wait_until(lambda: server.log_text().count("fork failed") >= 1, 10, "a failed fork")
    assert server.process is not None
    assert server.process.poll() is None
    (tmp_path / "full").unlink()
    with server.connect(greeted=False) as client:
        client.send(b"hello\r\n")
        assert client.line() == b"hello"


def test_a_passing_trouble_is_forgotten(start: Start, tmp_path: Path) -> None:
    """Failures long before do not make the master wait ever longer for each new one."""
    (tmp_path / "failing.py").write_text(FAILING)
    server = start(
        personality="fork",
        program="net-server",
        target="failing:Failing",
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    for _ in range(7):  # 0.1 s, doubled each time, would be 6.4 s
        (tmp_path / "full").touch()
        with server.connect(greeted=False) as client:
            assert client.ended()
        (tmp_path / "full").unlink()
        with server.connect(greeted=False, timeout=3.0) as client:
            client.send(b"hello\r\nquit\r\n")
            assert client.line() == b"hello"
