"""The jobs child: periodic work that survives its errors and stops when told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import is_alive, wait_until
from tests.support.servers import ROOT, RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Start

    Work = Callable[[str, float], subprocess.Popen[str]]

RUN = """
import os, signal, sys, time
from types import SimpleNamespace
from netserver import jobs
from netserver.scoreboard import Scoreboard
from netserver.settings import ServerSettings
from netserver.signals import SignalQueue

def say(*words):
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")

class Log:
    def exception(self, event, **_):
        say(event, repr(sys.exc_info()[1]))

server = SimpleNamespace(signals=SignalQueue(), settings=ServerSettings(), log=Log())
server.signals.install()
row = Scoreboard.create(1, 0).row(0)
row.begin(0.0)
calls = 0

def job():
    global calls
    calls += 1
    say("call", calls)
    {job}

jobs.run(server, row, job, {seconds})
say("ended", row.beat > 0)
"""


@pytest.fixture
def work() -> Iterator[Work]:
    """Return what runs a job in a process of its own; it is ended with the test."""
    children = []

    def started(job: str, seconds: float) -> subprocess.Popen[str]:
        code = RUN.replace("{job}", job).replace("{seconds}", str(seconds))
        children.append(
            subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
        )
        return children[-1]

    yield started
    for child in children:
        child.kill()
        child.communicate(timeout=10)


def stop(child: subprocess.Popen[str], number: int = signal.SIGTERM) -> list[str]:
    """Send the signal, return what it said since; it must end by itself."""
    child.send_signal(number)
    out, _ = child.communicate(timeout=10)
    assert child.returncode == 0
    return out.split("\n")


def lines(child: subprocess.Popen[str], count: int) -> list[str]:
    """Return the next lines it says."""
    assert child.stdout is not None
    return [child.stdout.readline().rstrip() for _ in range(count)]


def test_an_error_ends_no_more_than_one_call(work: Work) -> None:
    """It is logged, and the next call comes in its time."""
    child = work("raise RuntimeError('broken')", 0.05)
    failed = "periodic work failed RuntimeError('broken')"
    assert lines(child, 4) == ["call 1", failed, "call 2", failed]
    assert stop(child)[-2] == "ended True"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_it_stops_at_once_when_idle(work: Work, number: int) -> None:
    """TERM and QUIT end the wait for the next call, however far that is."""
    child = work("pass", 3600)
    assert lines(child, 1) == ["call 1"]
    assert stop(child, number) == ["ended True", ""]


def test_a_call_is_finished_before_the_stop(work: Work) -> None:
    """A signal amid the work does not tear it."""
    child = work("signal.raise_signal(signal.SIGTERM); say('whole')", 3600)
    assert lines(child, 3) == ["call 1", "whole", "ended True"]
    child.communicate(timeout=10)
    assert child.returncode == 0


def test_work_that_is_always_late_can_be_stopped(work: Work) -> None:
    """Where each call takes longer than the time between two, TERM is heard all the same."""
    child = work("time.sleep(0.1)", 0.01)
    assert lines(child, 2) == ["call 1", "call 2"]
    assert stop(child)[-2] == "ended True"


def test_it_ends_when_its_parent_has_gone() -> None:
    """Nobody would ever stop it."""
    code = RUN.replace("{job}", "pass").replace("{seconds}", "0.05")
    parent = f"import os\nif os.fork() == 0:\n    exec({code!r})\nelse:\n    os.read(0, 1)"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"call 1\n"
        out, _ = child.communicate(b"x", timeout=20)
    assert out.endswith(b"ended True\n")


# -- under the personalities ----------------------------------------------------------------------

WORKING = '''
import os
from netserver.echo import EchoServer


class Working(EchoServer):
    """Notes which process works."""

    def run_dequeue(self):
        with open("notes", "a") as file:
            file.write(f"{os.getpid()}\\n")
        if os.path.exists("die"):
            os._exit(3)
'''


def workers(server: RunningServer) -> list[int]:
    """Return the processes that have worked, in order."""
    path = server.home / "notes"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def working(start: Start, home: Path, personality: str, *options: str) -> RunningServer:
    """Start the server above."""
    (home / "working.py").write_text(WORKING)
    return start(
        personality=personality,
        program="net-server",
        target="working:Working",
        env={"PYTHONPATH": f"{home}{os.pathsep}{ROOT}"},
        options=("--check-for-dequeue", "0.1", *options),
    )


@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_work_is_done_in_one_child_of_its_own(start: Start, tmp_path: Path, kind: str) -> None:
    """Neither the master nor a worker does it, and the child ends with the server."""
    server = working(start, tmp_path, kind)
    wait_until(lambda: len(workers(server)) >= 3, 15, "three calls")
    assert len(set(workers(server))) == 1
    (child,) = set(workers(server))
    assert child != server.pid
    assert child in server.workers()
    server.stop()
    assert not is_alive(child)


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_a_child_that_dies_is_replaced(start: Start, tmp_path: Path, kind: str) -> None:
    """A kill costs one call and no more."""
    server = working(start, tmp_path, kind)
    wait_until(lambda: workers(server), 15, "a first call")
    os.kill(workers(server)[-1], signal.SIGTERM)
    first = workers(server)[0]
    wait_until(lambda: workers(server)[-1] != first, 15, "a call in another child")


def test_without_an_interval_there_is_no_such_child(start: Start, tmp_path: Path) -> None:
    """--check-for-dequeue 0 turns it off."""
    options = ("--check-for-dequeue", "0", "--workers", "2")
    server = working(start, tmp_path, "prefork", *options)
    assert len(server.workers()) == 2
    assert workers(server) == []


def test_after_hup_there_is_one_child_again(start: Start, tmp_path: Path) -> None:
    """The old one is told to end by the new process image."""
    server = working(start, tmp_path, "prefork", "--workers", "1")
    wait_until(lambda: workers(server), 15, "a first call")
    first = workers(server)[0]
    server.reload()
    wait_until(lambda: workers(server)[-1] != first, 15, "a call in another child")
    wait_until(lambda: not is_alive(first), 15, "the end of the old child")
