"""PollWaiter: a socket and the signals, waited for together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from netserver.connection import Connection
from netserver.errors import IdleTimeout, ServerStopping
from netserver.signals import SignalQueue
from netserver.waiting import PollWaiter

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY: Any = None
ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A serving process with one client, whose signals come by hand."""

    def __init__(self) -> None:
        self.signals = SignalQueue()
        self.stop = False
        self.beats = 0
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.waiter = PollWaiter(self.signals, lambda: self.stop, self.beat, heartbeat=0.05)
        self.connection = Connection(self.near, "", NOBODY, self.waiter, NOBODY, 20.0)

    def beat(self) -> None:
        """Count; the third sign of life brings the stop if ``stop_at_beat`` says so."""
        self.beats += 1
        if self.beats == self.stop_at_beat:
            self.stop = True

    stop_at_beat = 0


@pytest.fixture
def process() -> Iterator[Process]:
    """Return one, closed in the end."""
    made = Process()
    yield made
    made.connection.close()
    made.far.close()
    os.close(made.signals._reader)
    os.close(made.signals._writer)


def test_input_ends_the_wait(process: Process) -> None:
    """Readable when there is something to read, or the end of it."""
    process.far.sendall(b"x")
    process.waiter.readable(process.connection)
    assert process.near.recv(10) == b"x"
    process.far.close()
    process.waiter.readable(process.connection)
    assert process.near.recv(10) == b""


def test_room_ends_the_wait(process: Process) -> None:
    """Writable as soon as the socket takes more."""
    process.waiter.writable(process.connection)


def test_the_deadline_ends_the_wait(process: Process) -> None:
    """By IdleTimeout, not before its time, with signs of life meanwhile."""
    start = time.monotonic()
    process.connection.deadline = start + 0.2
    with pytest.raises(IdleTimeout):
        process.waiter.readable(process.connection)
    assert time.monotonic() >= start + 0.2
    assert process.beats >= 2


def test_a_stalled_client_runs_into_the_deadline(process: Process) -> None:
    """Waiting to send ends as well."""
    with suppress(BlockingIOError):
        while process.near.send(b"x" * 65536):
            pass
    process.connection.deadline = time.monotonic() + 0.1
    with pytest.raises(IdleTimeout):
        process.waiter.writable(process.connection)


@pytest.mark.parametrize("wait", ["readable", "pause", "breathe"])
def test_a_stop_ends_each_wait(process: Process, wait: str) -> None:
    """By ServerStopping, at once."""
    process.stop = True
    arguments = (30.0,) if wait == "pause" else ()
    with pytest.raises(ServerStopping):
        getattr(process.waiter, wait)(process.connection, *arguments)


@pytest.mark.parametrize("wait", ["readable", "pause"])
def test_a_stop_amid_a_wait_ends_it(process: Process, wait: str) -> None:
    """The stop is seen with the next wake-up, long before the wait would be over."""
    process.stop_at_beat = 3
    arguments = (30.0,) if wait == "pause" else ()
    with pytest.raises(ServerStopping):
        getattr(process.waiter, wait)(process.connection, *arguments)
    assert process.beats == 3


def test_a_stop_waits_for_a_commit(process: Process) -> None:
    """While something is made durable nothing is raised; with the next wait it is."""
    process.stop = True
    process.far.sendall(b"x")
    with process.connection.uninterrupted():
        process.waiter.readable(process.connection)
        process.waiter.breathe(process.connection)
        process.waiter.pause(process.connection, 0.05)
    with pytest.raises(ServerStopping):
        process.waiter.readable(process.connection)


def test_a_pause_takes_its_time(process: Process) -> None:
    """Whatever the client says meanwhile, and whatever the deadline of its reads is."""
    process.far.sendall(b"impatient")
    process.connection.deadline = 0
    start = time.monotonic()
    process.connection.pause(0.15)
    assert time.monotonic() >= start + 0.15


def test_a_pause_sends_what_was_written(process: Process) -> None:
    """The client has its answer before the server does nothing for a while."""
    process.connection.write(b"-ERR\r\n")
    process.connection.pause(0)
    process.far.settimeout(10)
    assert process.far.recv(10) == b"-ERR\r\n"


def test_blocking_work_runs_at_once(process: Process) -> None:
    """Nobody else is held up here; errors come out as they are."""
    run = process.connection.run_blocking
    assert run("disk", divmod, 7, 2) == (3, 1)
    assert run("hash", int, "11", base=2) == 3
    with pytest.raises(ZeroDivisionError):
        run("dns", divmod, 1, 0)


SIGNALLED = """
import os, signal, socket, time
from types import SimpleNamespace
from netserver.connection import Connection
from netserver.errors import IdleTimeout, ServerStopping
from netserver.personalities.orders import Orders
from netserver.scoreboard import Scoreboard
from netserver.settings import ServerSettings
from netserver.signals import SignalQueue
from netserver.waiting import PollWaiter

signals = SignalQueue()
signals.install()
server = SimpleNamespace(signals=signals, settings=ServerSettings())
orders = Orders(server, Scoreboard.create(1, 0).row(0), os.getppid())
near, far = socket.socketpair()
near.setblocking(False)
waiter = PollWaiter(signals, orders.stopping, orders.beat, orders.heartbeat)
connection = Connection(near, "", None, waiter, None, 20.0)
"""

TERM = """
os.write(1, b"waiting\\n")
try:
    {wait}
except ServerStopping:
    print("stopped")
"""


@pytest.mark.parametrize("wait", ["connection.read_line()", "connection.pause(30)"])
def test_a_real_signal_ends_a_wait(wait: str) -> None:
    """TERM while the process waits for its client, and while it pauses."""
    code = SIGNALLED + TERM.replace("{wait}", wait)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"waiting\n"
        child.terminate()
        try:
            out, _ = child.communicate(timeout=10)
        finally:
            child.kill()
    assert (out, child.returncode) == (b"stopped\n", 0)


SPIN = """
signal.signal(signal.SIGUSR2, lambda *_: None)
os.kill(os.getpid(), signal.SIGUSR2)
connection.idle_timeout = 1.0
before = time.process_time()
try:
    connection.read_line()
except IdleTimeout:
    print("idle", time.process_time() - before)
"""


def test_a_signal_of_somebody_else_does_not_make_it_spin() -> None:
    """A handler that a source has set wakes the wait; it must sleep on afterwards."""
    code = SIGNALLED + SPIN
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=ROOT,
    )
    word, _, seconds = done.stdout.partition(" ")
    assert word == "idle"
    assert float(seconds) < 0.3
