"""One child for each connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from netserver import native
from netserver.errors import ConfigError
from netserver.personalities.accepting import Acceptor
from netserver.personalities.master import TURN, Master
from netserver.personalities.serving import SerialServing
from netserver.scoreboard import State

if TYPE_CHECKING:
    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore
    from netserver.personalities.orders import Orders
    from netserver.scoreboard import Row
    from netserver.settings import ServerSettings

MAX_SERVERS = 256


class Fork(Master):
    """Accepts and forks; the handshake, the access rules and all else happen in the child."""

    name: ClassVar[str] = "fork"
    concurrent: ClassVar[bool] = False
    per_connection_process: ClassVar[bool] = True
    serving_kind: ClassVar[str] = "client"

    def __init__(self, server: ServerCore) -> None:
        super().__init__(server)
        self._max_servers = server.settings.max_servers or MAX_SERVERS
        self._acceptor = Acceptor(server)
        self._accepted: tuple[native.socket, object, Listener] | None = None

    @classmethod
    def check(cls, settings: ServerSettings) -> None:
        """Refuse --workers."""
        if settings.workers is not None:
            raise ConfigError("--workers: the personality fork has none; see --max-servers")

    def tend(self, now: float) -> None:
        """Nothing to do: children come with clients."""

    def is_serving(self) -> bool:
        """Whether clients are served now: from the start."""
        return True

    def change_target(self, step: int) -> None:
        """Allow one child more or less."""
        rows = self.server.boards[0].rows - 1  # the last is the jobs child's
        self._max_servers = max(1, min(rows, self._max_servers + step))

    def wait(self) -> None:
        """Fork for clients until a signal comes or a turn is over."""
        signals = self.server.signals
        end = time.monotonic() + TURN
        while not signals.pending and (left := end - time.monotonic()) > 0:
            sources: list[Any] = [signals.fileno()]
            # at the ceiling, or when fork has just failed, clients wait in the kernel's queue
            if self._room():
                listeners, pause = self._acceptor.worth_asking(self.listeners)
                sources += listeners
                left = min(left, pause)
            else:
                left = min(left, 0.1)
            ready, _, _ = native.select(sources, [], [], left)
            for listener in self.listeners:
                if listener in ready and self._room():
                    self._take(listener)
            if signals.fileno() in ready:
                return

    def _room(self) -> bool:
        children = len(self.children.of_kind("client")) + len(
            self.children.of_kind("client", inherited=True)
        )
        return children < self._max_servers and time.monotonic() >= self._not_before

    def _take(self, listener: Listener) -> None:
        accepted = self._acceptor.accept(listener)
        if accepted is None:
            return
        socket, address = accepted
        self._accepted = (socket, address, listener)
        try:
            self.new_worker()  # if the fork fails the client is closed: it may come again
        finally:
            self._accepted = None
            socket.close()

    def work(self, row: Row, orders: Orders) -> None:
        """Serve, in the child, the client it was made for."""
        assert self._accepted is not None
        socket, address, listener = self._accepted
        for other in self.listeners:
            other.close()
        row.state = State.BUSY
        SerialServing(self.server, row, orders).serve(socket, address, listener)
