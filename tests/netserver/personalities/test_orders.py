"""Orders: what a serving process makes of its signals."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from netserver.personalities.orders import HEARTBEAT, Orders
from netserver.scoreboard import Scoreboard
from netserver.settings import ServerSettings
from netserver.signals import SignalQueue

if TYPE_CHECKING:
    from collections.abc import Iterator


class Worker:
    """A process and its orders; signals come by ``receive``."""

    def __init__(self, master: int | None = None, worker_timeout: float = 120.0) -> None:
        self.board = Scoreboard.create(1, 0)
        self.signals = SignalQueue()
        self.done: list[str] = []
        server: Any = SimpleNamespace(
            signals=self.signals,
            settings=ServerSettings(worker_timeout=worker_timeout),
            reopen_logs=lambda: self.done.append("reopen"),
        )
        master = os.getppid() if master is None else master
        self.row = self.board.row(0)
        self.orders = Orders(server, self.row, master, lambda: self.done.append("drain"))

    def receive(self, *numbers: int) -> None:
        """Note signals as the handler does."""
        for number in numbers:
            self.signals._note(number, None)

    def close(self) -> None:
        """Give its descriptors back."""
        self.board.close()
        os.close(self.signals._reader)
        os.close(self.signals._writer)


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Return one."""
    made = Worker()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("number", "stop", "drain", "done"),
    [
        (signal.SIGTERM, True, True, ["drain"]),
        (signal.SIGQUIT, False, True, ["drain"]),
        (signal.SIGUSR1, False, False, ["reopen"]),
        (signal.SIGCHLD, False, False, []),
        (signal.SIGINT, False, False, []),
        (signal.SIGHUP, False, False, []),
    ],
)
def test_what_each_signal_means(
    worker: Worker, number: int, done: list[str], *, stop: bool, drain: bool
) -> None:
    """TERM stops, QUIT drains, USR1 opens the logs again, all else is for the master."""
    worker.receive(number)
    assert worker.orders.stopping() is stop
    assert (worker.orders.drain, worker.done) == (drain, done)


def test_a_drain_begins_once(worker: Worker) -> None:
    """However often it is ordered."""
    worker.receive(signal.SIGQUIT, signal.SIGQUIT, signal.SIGTERM)
    worker.orders.look()
    worker.orders.finish()
    assert worker.done == ["drain"]
    assert worker.orders.stop


def test_what_must_be_done_before_the_listeners_close(worker: Worker) -> None:
    """before_drain puts it first, the latest of several in front."""
    worker.orders.before_drain(lambda: worker.done.append("second"))
    worker.orders.before_drain(lambda: worker.done.append("first"))
    worker.orders.finish()
    assert worker.done == ["first", "second", "drain"]


def test_a_beat_is_written_down(worker: Worker) -> None:
    """The row has the time, and with its master alive nothing else happens."""
    worker.orders.beat()
    assert worker.row.beat > 0
    assert not worker.orders.drain


def test_without_a_master_the_worker_finishes() -> None:
    """Who is here is served; nobody new, since nobody could ever stop this process."""
    worker = Worker(master=os.getpid())
    try:
        worker.orders.beat()
        assert (worker.orders.drain, worker.orders.stop) == (True, False)
    finally:
        worker.close()


@pytest.mark.parametrize(("limit", "heartbeat"), [(120.0, HEARTBEAT), (2.0, 0.5), (0.0, HEARTBEAT)])
def test_several_beats_fit_into_the_timeout(limit: float, heartbeat: float) -> None:
    """A worker that waits for a silent client must not be taken for dead."""
    worker = Worker(worker_timeout=limit)
    try:
        assert worker.orders.heartbeat == heartbeat
    finally:
        worker.close()
