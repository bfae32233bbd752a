"""Serve the one client that inetd, or systemd with Accept=yes, left on descriptor 0."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from netserver import native
from netserver.errors import BindError
from netserver.personalities.base import Personality, Stop
from netserver.personalities.children import ChildTable
from netserver.personalities.orders import Orders
from netserver.personalities.serving import SerialServing
from netserver.personalities.side import SideChild, SideChildren

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore
    from netserver.scoreboard import Row


class Inetd(Personality):
    """Serves descriptor 0 once; with no shared scoreboard, limits across processes do not hold."""

    name: ClassVar[str] = "inetd"
    concurrent: ClassVar[bool] = False
    per_connection_process: ClassVar[bool] = True

    def __init__(self, server: ServerCore) -> None:
        super().__init__(server)
        self.children = ChildTable(server)

    def serve(self, listeners: Sequence[Listener]) -> Stop:
        """Serve the client on descriptor 0."""
        server = self.server
        row = server.boards[0].row(0)
        row.begin(time.monotonic())
        orders = Orders(server, row, os.getppid())
        # a copy: descriptor 0 stays open, so that nothing else can become it
        socket = native.socket(fileno=os.dup(0))
        try:
            address = socket.getpeername()
        except OSError as error:
            socket.close()
            if error.errno == errno.ENOTCONN and not listeners[0].listens:
                server.log.debug("the client left before it was served")
                return Stop.DONE
            raise BindError(
                "--personality inetd: standard input is no connected socket; "
                "start it from inetd, tcpserver or a systemd socket with Accept=yes"
            ) from error
        socket.setblocking(False)
        SideChildren(server, self.children, (), self._asked(socket)).tend(time.monotonic())
        server.child_init()
        SerialServing(server, row, orders).serve(socket, address, listeners[0])
        server.child_finish()
        return Stop.DONE

    def _asked(self, client: native.socket) -> list[SideChild]:
        """Return the side children that this one client may need: they must not hold its socket."""

        def without_client(side: SideChild) -> SideChild:
            def run(row: Row) -> None:
                client.close()
                null = os.open(os.devnull, os.O_RDWR)
                for descriptor in range(3):
                    os.dup2(null, descriptor)
                side.run(row)

            return replace(side, run=run, count=1)

        return [without_client(side) for side in self.server.side_children() if side.outlives]
