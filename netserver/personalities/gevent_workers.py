"""Workers in which gevent serves many clients at once."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

import gevent
from gevent import getcurrent, monkey
from gevent.event import Event
from gevent.threadpool import ThreadPool

from netserver import boot
from netserver.connection import Connection
from netserver.errors import ConfigError, IdleTimeout, Kicked, ServerStopping
from netserver.personalities.accepting import Acceptor
from netserver.personalities.prefork import Prefork
from netserver.scoreboard import State
from netserver.waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from netserver import native
    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore
    from netserver.personalities.orders import Orders
    from netserver.scoreboard import Row
    from netserver.settings import ServerSettings

P = ParamSpec("P")
T = TypeVar("T")

# seconds between two looks at all deadlines and two signs of life
TURN = 1.0
# threads a worker uses at most, by what they do: a slow resolver must not hold up logins
POOLS = {"hash": 2, "disk": 4, "dns": 8, "auth": 8}
# greenlets of a worker that are kept for the next clients
PARKED = 128
_EXPIRED = "expired"
_STOPPED = "stopped"
_KICKED = "kicked"


class GeventWorkers(Prefork):
    """The master of ``prefork``, over workers that serve ``--max-connections`` clients each."""

    name: ClassVar[str] = "gevent"
    concurrent: ClassVar[bool] = True

    def __init__(self, server: ServerCore) -> None:
        super().__init__(server)
        if self._fixed is None:
            self._fixed = usable_cpus()

    @classmethod
    def check(cls, settings: ServerSettings) -> None:
        """Refuse to run unpatched: one plain ``sleep`` in a source would stop all clients."""
        if not monkey.is_module_patched("socket"):
            raise ConfigError(
                "--personality gevent: this process is not patched; start it by net-server or "
                "pop3-server with --personality gevent, or begin the program with: "
                "from gevent import monkey; monkey.patch_all()"
            )
        if settings.workers == 0:
            raise ConfigError("--workers: at least 1 is needed")
        if settings.max_connections < 1:
            raise ConfigError("--max-connections: at least 1 is needed")

    def work(self, row: Row, orders: Orders) -> None:
        """Serve until the orders say otherwise and the last client is gone."""
        gc.freeze()
        worker = _Worker(self.server, row, orders, alone=self._fixed == 1)
        # no watcher may be left on a descriptor that is about to be closed
        orders.before_drain(worker.accept_no_more)
        worker.run(list(self.listeners), lambda: self.report_idle(row))


class _Worker:
    """One worker process: its hub's watchers, and a greenlet for each client."""

    def __init__(self, server: ServerCore, row: Row, orders: Orders, *, alone: bool) -> None:
        self._server = server
        self._row = row
        self._orders = orders
        boot.patch_worker()
        self._hub = gevent.get_hub()
        self._loop = self._hub.loop
        self._acceptor = Acceptor(server)
        self._waiter = HubWaiter(self._hub, orders)
        self._clients: set[Connection] = set()
        self._most = server.most_clients
        # several workers on one socket share clients fairly only if none takes many at a time
        self._batch = 16 if alone else 1
        self._served = 0
        self._requests = server.settings.max_requests or 0
        self._accepting: dict[Any, Listener] = {}
        self._parked: list[Any] = []  # greenlets that wait for their next client
        self._done = Event()
        self._stop_told = False

    def run(self, listeners: list[Listener], report: Callable[[], None]) -> None:
        loop = self._loop
        signals = loop.io(self._server.signals.fileno(), 1)
        signals.start(self._look)
        turn = min(TURN, self._orders.heartbeat)
        timer = loop.timer(turn, turn)
        timer.start(self._turn)
        for listener in listeners:
            self._accepting[loop.io(listener.fileno(), 1)] = listener
        self._accept_more()
        report()
        self._look()
        self._done.wait()
        timer.stop()
        signals.stop()

    # -- clients --------------------------------------------------------------------------------

    def _accept_more(self) -> None:
        for watcher, listener in self._accepting.items():
            if not watcher.active:
                watcher.start(self._accept, listener)

    def accept_no_more(self) -> None:
        """Leave the clients in the queue."""
        for watcher in self._accepting:
            watcher.stop()

    def _rest(self, listener: Listener) -> None:
        """Accept no more from this listener until the next turn."""
        for watcher, watched in self._accepting.items():
            if watched is listener:
                watcher.stop()

    def _accept(self, listener: Listener) -> None:
        """Take clients; runs in the hub and must not block."""
        for _ in range(self._batch):
            accepted = self._acceptor.accept(listener)
            if accepted is None:
                if self._acceptor.holds(listener):
                    self._rest(listener)
                return
            self._take(*accepted, listener)
            if len(self._clients) >= self._most or self._orders.drain:
                self.accept_no_more()
                return

    def _take(self, socket: native.socket, address: object, listener: Listener) -> None:
        server = self._server
        connection = Connection(
            socket, address, listener, self._waiter, server.log, server.settings.timeout
        )
        self._clients.add(connection)
        self._served += 1
        self._row.served = (self._served, len(self._clients))
        if self._requests and self._served >= self._requests:
            self._orders.finish()
        if self._parked:
            self._loop.run_callback(self._parked.pop().switch, connection)
        else:
            gevent.spawn_raw(self._serve_all, connection)

    def _serve_all(self, connection: Connection) -> None:
        """Serve one client after the other: a greenlet's stack is dear to make and to unmap."""
        while True:
            self._serve(connection)
            if len(self._parked) >= PARKED:
                return
            self._parked.append(getcurrent())
            del connection
            connection = self._hub.switch()

    def _serve(self, connection: Connection) -> None:
        self._server.run_client_connection(connection)
        self._clients.discard(connection)
        self._row.served = (self._served, len(self._clients))
        if self._orders.drain:
            self._look()
        elif len(self._clients) == self._most - 1:
            self._accept_more()

    # -- orders ---------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Show that the hub turns, and end the waits that are over; runs in the hub each second."""
        self._orders.beat()
        now = time.monotonic()
        for connection in list(self._clients):
            if connection.deadline < now and connection.waiting is not None:
                connection.waiting.switch(_EXPIRED)
        self._look_at_entries()
        if len(self._clients) < self._most and not self._orders.drain:
            self._accept_more()
        self._look()

    def _look(self) -> None:
        """Obey what was ordered; runs in the hub or in a greenlet that ends."""
        self._orders.look()
        if self._orders.asked:
            self._orders.asked = False
            self._loop.run_callback(self._look_at_entries)
        if self._orders.drain:
            self._row.state = State.STOPPING
            if not self._clients:
                self._done.set()
        if self._orders.stop and not self._stop_told:
            self._stop_told = True
            self._loop.run_callback(self._stop_all)

    def _look_at_entries(self) -> None:
        """Tell others what clients got, and end those whose end was asked for; runs in the hub."""
        for connection in list(self._clients):
            entry = connection.entry
            if (
                entry is not None
                and entry.look(connection.octets_out)
                and connection.waiting is not None
                and not connection.committing
            ):
                connection.waiting.switch(_KICKED)

    def _stop_all(self) -> None:
        for connection in list(self._clients):
            if connection.waiting is not None and not connection.committing:
                connection.waiting.switch(_STOPPED)


class HubWaiter(Waiter):
    """Waits by switching to the hub; the worker's one timer looks at the deadlines."""

    def __init__(self, hub: gevent.hub.Hub, orders: Orders) -> None:
        self._hub = hub
        self._loop = hub.loop
        self._orders = orders
        self._pools: dict[str, ThreadPool] = {}

    def readable(self, connection: Connection) -> None:
        """Return when there is something to read."""
        if connection.reader is None:
            connection.reader = self._loop.io(connection.fileno(), 1)
        self._wait(connection, connection.reader)

    def writable(self, connection: Connection) -> None:
        """Return when the socket takes more."""
        if connection.writer is None:
            connection.writer = self._loop.io(connection.fileno(), 2)
        self._wait(connection, connection.writer)

    def pause(self, connection: Connection, seconds: float) -> None:
        """Return after ``seconds``."""
        connection.deadline = float("inf")
        self._wait(connection, self._loop.timer(seconds))

    def breathe(self, connection: Connection) -> None:
        """Let the other clients have a turn."""
        self.pause(connection, 0)

    def forget(self, connection: Connection) -> None:
        """Give the watchers back before the descriptor is closed and used again."""
        if connection.reader is not None:
            connection.reader.close()
            connection.reader = None
        if connection.writer is not None:
            connection.writer.close()
            connection.writer = None

    def run_blocking(
        self, pool: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run it in a thread; the pool is made when first used, after the fork."""
        if pool not in self._pools:
            self._pools[pool] = ThreadPool(POOLS[pool], hub=self._hub)
        value, error = self._pools[pool].apply(_outcome, (function, args, kwargs))
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    def _wait(self, connection: Connection, watcher: Any) -> None:
        if self._orders.stop and not connection.committing:
            raise ServerStopping
        greenlet = connection.waiting = getcurrent()
        watcher.start(greenlet.switch)
        try:
            why = self._hub.switch()
        finally:
            watcher.stop()
            connection.waiting = None
        if why is _EXPIRED:
            raise IdleTimeout
        if why is _STOPPED:
            raise ServerStopping
        if why is _KICKED:
            raise Kicked


def _outcome(function: Any, args: Any, kwargs: Any) -> tuple[Any, BaseException | None]:
    # an error that leaves a pool's thread would be printed to standard error as well
    try:
        return function(*args, **kwargs), None
    except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
        return None, error


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
