"""A pool of serial workers made before the clients come."""

from __future__ import annotations

import os
import random
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from netserver.errors import ConfigError
from netserver.personalities.accepting import Acceptor
from netserver.personalities.base import contained
from netserver.personalities.master import TURN, Master
from netserver.personalities.serving import SerialServing
from netserver.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore
    from netserver.personalities.orders import Orders
    from netserver.scoreboard import Row
    from netserver.settings import ServerSettings
    from netserver.signals import SignalQueue

MAX_REQUESTS = 1000
# seconds after which an idle worker looks for clients unasked
LONGEST_WAIT = 1.0
# seconds between two looks for workers too many; they are ended one at a time
CHECK_FOR_WAITING = 10.0


class Prefork(Master):
    """Each worker accepts and serves one client at a time.

    With ``--workers`` there are always so many.  Without it between ``--min-servers`` and
    ``--max-servers``, so that between ``--min-spare-servers`` and ``--max-spare-servers`` are idle.
    """

    name: ClassVar[str] = "prefork"
    concurrent: ClassVar[bool] = False
    per_connection_process: ClassVar[bool] = False

    def __init__(self, server: ServerCore) -> None:
        super().__init__(server)
        settings = server.settings
        self._fixed = settings.workers
        self._least = settings.min_servers
        self._most = settings.max_servers or DEFAULT_MAX_SERVERS
        self._next_check = 0.0
        # a worker that gave its rights up could not send the master a signal, but can write here
        self._nudge = server.signals.writer_copy()

    @classmethod
    def check(cls, settings: ServerSettings) -> None:
        """Refuse pools that cannot be."""
        most = settings.max_servers or DEFAULT_MAX_SERVERS
        if settings.workers == 0:
            raise ConfigError("--workers: at least 1 is needed")
        if not 1 <= settings.min_servers <= most:
            raise ConfigError("--min-servers: must be at least 1 and at most --max-servers")
        if not 1 <= settings.min_spare_servers <= settings.max_spare_servers:
            raise ConfigError(
                "--min-spare-servers: must be at least 1 and at most --max-spare-servers"
            )

    def change_target(self, step: int) -> None:
        """Want one worker more or less."""
        rows = self.server.boards[0].rows - 1
        if self._fixed is not None:
            self._fixed = max(1, min(rows, self._fixed + step))
        else:
            self._most = max(1, min(rows, self._most + step))
            self._least = max(1, min(self._most, self._least + step))
        self._next_check = 0.0

    # -- the pool -------------------------------------------------------------------------------

    def tend(self, now: float) -> None:
        """Make the workers that are missing, end one that is too many."""
        workers = sum(
            child.row is None or child.row.state is not State.STOPPING
            for child in self.children.of_kind("worker")
        )
        missing = self._missing(workers)
        if missing > 0:
            contained(self.server.log, self.server.run_n_children_hook, missing)
            for _ in range(missing):
                if self.new_worker() is None:
                    return
        elif missing < 0 and (now >= self._next_check or self._fixed is not None):
            self._next_check = now + CHECK_FOR_WAITING
            self._end_one()

    def _missing(self, workers: int) -> int:
        """Return how many workers are missing, negative: too many."""
        if self._fixed is not None:
            return self._fixed - workers
        board = self.server.boards[0]
        spare = board.count(State.IDLE) + board.count(State.STARTING)
        settings = self.server.settings
        wanted = max(self._least - workers, settings.min_spare_servers - spare)
        if wanted > 0 or workers > self._most:
            return min(wanted, self._most - workers)
        return -1 if spare > settings.max_spare_servers and workers > self._least else 0

    def _end_one(self) -> None:
        workers = self.children.of_kind("worker")
        # the one with the fewest clients
        workers.sort(key=lambda worker: worker.row.served[1] if worker.row is not None else 0)
        for child in workers[:1]:
            child.kind = "leaving"  # its end must not be taken for a loss
            self.children.tell(signal.SIGQUIT, [child])

    def wait(self) -> None:
        """Return when a signal came, or a worker found that few are idle."""
        self.server.signals.wait(TURN)

    # -- in the worker --------------------------------------------------------------------------

    def work(self, row: Row, orders: Orders) -> None:
        """Accept and serve until the orders, or the number of requests, say otherwise."""
        serving = SerialServing(self.server, row, orders)
        acceptor = Acceptor(self.server)
        requests = self._requests()
        poller = _Poller(self.listeners, self.server.signals)
        self.report_idle(row)
        while not orders.drain and serving.served < requests:
            for listener in self._readable(poller, acceptor, orders.heartbeat):
                accepted = acceptor.accept(listener)
                if accepted is not None:
                    row.state = State.BUSY
                    self._tell_if_few()
                    serving.serve(*accepted, listener)
                    row.state = State.IDLE
                if orders.drain:
                    break
            orders.beat()
            orders.stopping()

    def _readable(self, poller: _Poller, acceptor: Acceptor, seconds: float) -> Sequence[Listener]:
        listeners, pause = acceptor.worth_asking(self.listeners)
        if len(listeners) == len(self.listeners):
            return poller.wait(seconds)
        self.server.signals.wait(pause)  # the poller would return at once for the one held back
        return listeners

    def _requests(self) -> int | float:
        """Return how many clients a worker serves: up to a tenth fewer, lest all end at once."""
        most = self.server.settings.max_requests
        if most is None:
            most = MAX_REQUESTS
        return most - random.randrange(most // 10 + 1) if most else float("inf")  # noqa: S311

    def report_idle(self, row: Row) -> None:
        """Show that this worker serves from now on; the master may wait for the first."""
        row.state = State.IDLE
        self._nudge_master()

    def _tell_if_few(self) -> None:
        """Wake the master when fewer than wanted are idle; it looks by itself once a second."""
        if self._fixed is None:
            idle = self.server.boards[0].count(State.IDLE)
            if idle < self.server.settings.min_spare_servers:
                self._nudge_master()

    def _nudge_master(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._nudge, b"\0")


DEFAULT_MAX_SERVERS = 50


class _Poller:
    """Waits so that one client wakes one worker (EPOLLEXCLUSIVE), and for signals."""

    def __init__(self, listeners: Sequence[Listener], signals: SignalQueue) -> None:
        self._signals = signals
        self._epoll = select.epoll()
        self._by_fd = {listener.fileno(): listener for listener in listeners}
        exclusive = getattr(select, "EPOLLEXCLUSIVE", 0)
        for descriptor in self._by_fd:
            self._epoll.register(descriptor, select.EPOLLIN | exclusive)
        self._epoll.register(signals.fileno(), select.EPOLLIN)

    def wait(self, seconds: float) -> list[Listener]:
        """Return the listeners that have a client, or none after that time."""
        events = self._epoll.poll(min(seconds, LONGEST_WAIT))
        if not events:
            # whoever was woken for a client may have died of it, and nobody else was
            return list(self._by_fd.values())
        if any(fd == self._signals.fileno() for fd, _ in events):
            self._signals.drain()
        return [self._by_fd[fd] for fd, _ in events if fd in self._by_fd]
