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
from netserver.personalities.children import ChildTable, Exit
from netserver.personalities.orders import Orders
from netserver.personalities.predecessors import Predecessors
from netserver.personalities.serving import SerialServing
from netserver.personalities.side import SideChildren
from netserver.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore
    from netserver.scoreboard import Row
    from netserver.settings import ServerSettings

# seconds between two looks at the clock when nobody comes
TURN = 5.0
_CAN_FORK = hasattr(os, "fork")


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

    def __init__(self, server: ServerCore) -> None:
        super().__init__(server)
        self.children = ChildTable(server)

    def serve(self, listeners: Sequence[Listener]) -> Stop:
        """Serve until a signal says stop."""
        server = self.server
        row = server.boards[0].row(0)
        row.begin(time.monotonic(), "single")
        row.pid = os.getpid()
        server.clients.use(row)
        orders = _SingleOrders(server, row, self.children)
        side = SideChildren(server, self.children, listeners, None if _CAN_FORK else ())
        predecessors = Predecessors(server, self.children)
        predecessors.adopt()
        side.tend(time.monotonic())  # while this process has the rights that they may need
        server.publish()  # while this process may write where the others who read it look
        server.child_init()
        serving = SerialServing(server, row, orders)
        acceptor = Acceptor(server)
        server.ready()
        predecessors.retire()
        while orders.reason is None:
            row.state = State.IDLE
            for listener in self._readable(*acceptor.worth_asking(listeners)):
                if orders.reason is not None:
                    continue
                accepted = acceptor.accept(listener)
                if accepted is not None:
                    row.state = State.BUSY
                    serving.serve(*accepted, listener)
            contained(server.log, server.refresh_certificates)
            contained(server.log, server.idle_loop_hook)
            orders.stopping()
            now = time.monotonic()
            for ended in orders.ended_badly():
                server.log.error("child ended badly", kind=ended.child.kind, how=str(ended))
                side.failed(ended.child, now)
            if orders.reason is None:
                side.tend(now)
                predecessors.tend(now)
        if orders.reason is not Stop.HUP:
            self.children.tell(signal.SIGTERM, self.children)
        server.child_finish()
        return orders.reason

    def _readable(self, listeners: Sequence[Listener], seconds: float) -> list[Listener]:
        """Return the listeners that have a client, or none after that time."""
        signals = self.server.signals
        if signals.pending:
            return []
        sources: list[Any] = [signals.fileno(), *listeners]
        ready, _, _ = native.select(sources, [], [], min(seconds, TURN))
        signals.drain()
        return [listener for listener in listeners if listener in ready]


class _SingleOrders(Orders):
    """Master and worker in one: TERM and INT stop at once, QUIT and HUP after the client."""

    def __init__(self, server: ServerCore, row: Row, children: ChildTable) -> None:
        super().__init__(server, row, 0)
        self.reason: Stop | None = None
        self._children = children
        self._bad_ends: list[Exit] = []

    def ended_badly(self) -> list[Exit]:
        """Return how children failed since the last call."""
        bad, self._bad_ends = self._bad_ends, []
        return bad

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
                self._children.tell(number, self._children)
            elif number == getattr(signal, "SIGCHLD", None) and len(self._children):
                self._bad_ends += [ended for ended in self._children.reap() if not ended.clean]

    def beat(self) -> None:
        """Nobody watches."""
