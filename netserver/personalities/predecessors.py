"""The children of the process image before a restart: they finish their clients and go."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netserver.personalities.base import ServerCore
    from netserver.personalities.children import ChildTable

#: Kinds of children that have clients.
SERVING = ("worker", "client", "leaving")
#: What a restart calls a child that ends by itself, after those who serve.
OUTLIVING = "outliving"
# seconds between the order to stop at once and the kill
LAST_CHANCE = 5.0


class Predecessors:
    """Serve on until somebody else does; then they have ``--graceful-timeout`` to finish."""

    def __init__(self, server: ServerCore, children: ChildTable) -> None:
        self._server = server
        self._children = children
        self._deadlines: list[tuple[float, int]] = []  # when which signal is sent

    def adopt(self) -> None:
        """Enter them in the table; those without clients end at once."""
        inherited = self._server.inheritance.children
        self._children.adopt(inherited)
        aside = {kind for _, kind in inherited} - {*SERVING, OUTLIVING}
        inherited.clear()
        # in good order: what controls the server stays until another one has its place
        leave = getattr(signal, "SIGQUIT", signal.SIGTERM)
        self._children.tell(leave, self._children.of_kind(*aside, inherited=True))

    def retire(self) -> None:
        """Let them finish, now that others serve."""
        old = self._children.of_kind(*SERVING, inherited=True)
        if not old:
            return
        self._children.tell(signal.SIGQUIT, old)
        patience = time.monotonic() + self._server.settings.graceful_timeout
        self._deadlines = [(patience, signal.SIGTERM), (patience + LAST_CHANCE, signal.SIGKILL)]

    def tend(self, now: float) -> None:
        """Send the signals that are due; let go of the scoreboards when the last has ended."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = self._deadlines.pop(0)
            self._children.tell(number, self._children.of_kind(*SERVING, inherited=True))
        boards = self._server.boards
        if len(boards) > 1 and not any(child.inherited for child in self._children):
            while len(boards) > 1:
                boards.pop().close()
