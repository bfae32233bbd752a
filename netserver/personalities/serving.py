"""One connection after the other in one process, as single, inetd, fork and prefork serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netserver.connection import Connection
from netserver.waiting import PollWaiter

if TYPE_CHECKING:
    from netserver import native
    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore
    from netserver.personalities.orders import Orders
    from netserver.scoreboard import Row


class SerialServing:
    """Serves accepted sockets one at a time and keeps the process's row in the scoreboard."""

    def __init__(self, server: ServerCore, row: Row, orders: Orders) -> None:
        self._server = server
        self._row = row
        self._waiter = PollWaiter(server.signals, orders.stopping, orders.beat, orders.heartbeat)
        self.served = 0

    def serve(self, socket: native.socket, address: object, listener: Listener) -> None:
        """Serve one client to its end; never raises."""
        server = self._server
        self._row.served = (self.served, 1)
        server.run_client_connection(
            Connection(socket, address, listener, self._waiter, server.log, server.settings.timeout)
        )
        self.served += 1
        self._row.served = (self.served, 0)
