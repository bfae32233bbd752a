"""Children beside those that serve clients: periodic work, control, checks that need rights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netserver.daemon import let_go_of_terminal
from netserver.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore
    from netserver.personalities.children import Child, ChildTable
    from netserver.scoreboard import Row

# seconds from the birth of one to that of its replacement, at least
SPACING = 1.0
# seconds until one that failed is replaced
AFTER_FAILURE = 5.0
# seconds until one of those is replaced whom clients wait for
AFTER_FAILURE_IN_USE = 1.0


@dataclass(frozen=True, slots=True)
class SideChild:
    """A kind of child that takes no clients, and how many of it there are.

    ``run`` is its life: it gets its row of the scoreboard, still has the master's rights (see
    ``NetServer.child_init``), and returns when it was told to stop (see ``jobs.run``).

    One that ``outlives`` answers those who serve: it is not told to end before they have ended,
    and those that the image before a restart left end by themselves, when nobody can ask them any
    more.
    """

    kind: str
    run: Callable[[Row], None]
    count: int = 1
    outlives: bool = False


class SideChildren:
    """Makes the side children that are missing; the table of children knows how they ended."""

    def __init__(
        self,
        server: ServerCore,
        children: ChildTable,
        listeners: Sequence[Listener],
        wanted: Iterable[SideChild] | None = None,
    ) -> None:
        self._server = server
        self._children = children
        self._listeners = listeners
        self._wanted = {
            side.kind: side for side in (server.side_children() if wanted is None else wanted)
        }
        self._not_before = dict.fromkeys(self._wanted, 0.0)

    def tend(self, now: float) -> None:
        """Make what is missing and may be made now."""
        for kind, side in self._wanted.items():
            missing = side.count - len(self._children.of_kind(kind))
            if missing <= 0 or now < self._not_before[kind]:
                continue
            self._not_before[kind] = now + SPACING
            for _ in range(missing):
                self._make(side)

    def failed(self, child: Child, now: float) -> None:
        """Let some time pass before one that ended badly is replaced."""
        side = self._wanted.get(child.kind)
        if side is not None:
            pause = AFTER_FAILURE_IN_USE if side.outlives else AFTER_FAILURE
            self._not_before[child.kind] = now + pause

    def _make(self, side: SideChild) -> None:
        index = self._server.boards[0].free_row()
        if index is None:
            return
        row = self._server.boards[0].row(index)
        child = self._children.fork(side.kind, row, lambda: self._live(side, row))
        if child is not None:
            child.outlives = side.outlives

    def _live(self, side: SideChild, row: Row) -> None:
        for listener in self._listeners:
            listener.close()
        if self._server.settings.background:
            let_go_of_terminal()  # whoever started the server waits for their end
        row.state = State.STOPPING  # it serves nobody and must not be counted as idle
        side.run(row)
