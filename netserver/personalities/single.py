"""One process, one client at a time; needs nothing of Unix."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any, ClassVar

from netserver import native
from netserver.errors import ConfigError
from netserver.personalities.accepting import Acceptor
from netserver.personalities.base import Personality, Stop, contained
from netserver.personalities.children import ChildTable
from netserver.personalities.orders import Orders
from netserver.personalities.serving import SerialServing
from netserver.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore
    from netserver.scoreboard import Row
    from netserver.settings import ServerSettings

# seconds between two looks at the clock when nobody comes
TURN = 5.0


class Single(Personality):
    """Accepts, serves, repeats; a client that comes meanwhile waits in the kernel's queue."""

    name: ClassVar[str] = "single"
    concurrent: ClassVar[bool] = False
    per_connection_process: ClassVar[bool] = False

    @classmethod
    def check(cls, settings: ServerSettings) -> None:
        """Refuse --workers."""
        if settings.workers not in (None, 1):
            raise ConfigError("--workers: the personality single has one process")

    def serve(self, listeners: Sequence[Listener]) -> Stop:
        """Serve until a signal says stop."""
        server = self.server
        row = server.boards[0].row(0)
        row.begin(time.monotonic())
        row.pid = os.getpid()
        server.clients.use(row)
        orders = _SingleOrders(server, row)
        orders.start_jobs()
        server.publish()  # while this process may write where the others who read it look
        server.child_init()
        serving = SerialServing(server, row, orders)
        acceptor = Acceptor(server)
        server.ready()
        while orders.reason is None:
            row.state = State.IDLE
            for listener in self._readable(listeners, acceptor.pause()):
                if orders.reason is not None:
                    continue
                accepted = acceptor.accept(listener)
                if accepted is not None:
                    row.state = State.BUSY
                    serving.serve(*accepted, listener)
            contained(server.log, server.idle_loop_hook)
            orders.stopping()
        orders.stop_jobs()
        server.child_finish()
        return orders.reason

    def _readable(self, listeners: Sequence[Listener], pause: float) -> list[Listener]:
        """Return the listeners that have a client; none while accepting is pointless."""
        signals = self.server.signals
        if pause > 0:
            signals.wait(pause)
        if signals.pending or pause > 0:
            return []
        sources: list[Any] = [signals.fileno(), *listeners]
        ready, _, _ = native.select(sources, [], [], TURN)
        signals.drain()
        return [listener for listener in listeners if listener in ready]


class _SingleOrders(Orders):
    """Master and worker in one: TERM and INT stop at once, QUIT and HUP after the client."""

    def __init__(self, server: ServerCore, row: Row) -> None:
        super().__init__(server, row, 0)
        self.reason: Stop | None = None
        self._children = ChildTable(server)

    def start_jobs(self) -> None:
        """Make the child that runs periodic work, if there is any to run."""
        if self._server.has_jobs() and hasattr(os, "fork"):
            row = self._server.boards[0].row(1)
            self._children.fork("jobs", row, lambda: self._server.run_jobs(row))

    def stop_jobs(self) -> None:
        """End that child."""
        self._children.tell(signal.SIGTERM, self._children)

    def look(self) -> None:
        """Deal with the signals that came."""
        for number in self._server.signals.take():
            if number in (signal.SIGTERM, signal.SIGINT):
                self.stop, self.reason = True, Stop.TERM
            elif number == getattr(signal, "SIGQUIT", None):
                self.reason = self.reason or Stop.QUIT
            elif number == getattr(signal, "SIGHUP", None):
                if self._server.config_is_good():
                    self.reason = self.reason or Stop.HUP
            elif number == getattr(signal, "SIGUSR1", None):
                self._server.reopen_logs()
            elif number == getattr(signal, "SIGCHLD", None) and len(self._children):
                for ended in self._children.reap():
                    if not ended.clean:
                        self._server.log.error("the jobs child ended badly", how=str(ended))

    def beat(self) -> None:
        """Nobody watches."""
