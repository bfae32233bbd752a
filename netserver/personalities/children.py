"""The table of child processes: make, reap, tell, adopt."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from netserver import native
from netserver.errors import NetServerError
from netserver.personalities.base import contained
from netserver.personalities.orders import IGNORED
from netserver.personalities.predecessors import OUTLIVING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from netserver.personalities.base import ServerCore
    from netserver.scoreboard import Row

# exit status of a child that cannot work as configured: another one could not either
EXIT_UNUSABLE = 78


@dataclass(slots=True)
class Child:
    """One child process."""

    pid: int
    kind: str  # "worker", "client", "leaving", "check", or a side child's
    row: Row | None
    born: float
    inherited: bool = False  # made by the process image before the last restart
    outlives: bool = False  # a side child that those who serve may still ask


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended."""

    child: Child
    status: int  # as waitpid gives it

    @property
    def clean(self) -> bool:
        """Whether it ended as it should."""
        return self.status == 0

    @property
    def unusable(self) -> bool:
        """Whether it said that it cannot work as configured."""
        return os.WIFEXITED(self.status) and os.WEXITSTATUS(self.status) == EXIT_UNUSABLE

    def __str__(self) -> str:
        if os.WIFSIGNALED(self.status):
            return signal.Signals(os.WTERMSIG(self.status)).name
        return f"exit status {os.waitstatus_to_exitcode(self.status)}"


class ChildTable:
    """All children of the master."""

    def __init__(self, server: ServerCore) -> None:
        self._server = server
        self._children: dict[int, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._children.values()))

    def __len__(self) -> int:
        return len(self._children)

    def of_kind(self, *kinds: str, inherited: bool = False) -> list[Child]:
        """Return the children of these kinds, those of the image before us or our own."""
        return [
            child
            for child in self._children.values()
            if child.kind in kinds and child.inherited == inherited
        ]

    def fork(self, kind: str, row: Row, life: Callable[[], None]) -> Child | None:
        """Make a child that runs ``life`` and ends; None (and a log line) if there is no room.

        Signals wait while there is no handler for them: none may be lost or meet the wrong one.
        """
        server = self._server
        contained(server.log, server.refresh_files)
        contained(server.log, server.pre_fork_hook)
        row.begin(time.monotonic(), kind)
        server.signals.block()
        try:
            pid = native.fork()
        except OSError as error:
            server.signals.unblock()
            row.clear()
            reason = error.strerror
            server.log.error("fork failed", error=reason, children=len(self))  # noqa: TRY400
            return None
        if pid == 0:
            self._live(row, life)
        child = self._children[pid] = Child(pid, kind, row, time.monotonic())
        row.pid = pid
        server.signals.unblock()
        contained(server.log, server.register_child, pid, kind)
        return child

    def _live(self, row: Row, life: Callable[[], None]) -> NoReturn:
        """Be the child; never returns into the master's code."""
        server = self._server
        status = 1
        try:
            row.pid = os.getpid()
            self._children.clear()
            server.signals.renew(ignored=IGNORED)
            server.clients.use(row)
            life()
            status = 0
        except NetServerError as error:
            server.log.critical("a child cannot start", error=str(error))
            status = EXIT_UNUSABLE
        except BaseException:
            with suppress(Exception):
                server.log.exception("a child failed")
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os._exit(status)

    def add(self, pid: int, kind: str) -> None:
        """Enter a child that was made by ``posix_spawn``."""
        self._children[pid] = Child(pid, kind, None, time.monotonic())

    def adopt(self, children: Iterable[tuple[int, str]]) -> None:
        """Enter the children that the process image before this one left."""
        for pid, kind in children:
            self._children[pid] = Child(
                pid, kind, None, time.monotonic(), inherited=True, outlives=kind == OUTLIVING
            )

    def bequest(self) -> list[tuple[int, str]]:
        """Return what the next process image has to know of them."""
        return [(child.pid, OUTLIVING if child.outlives else child.kind) for child in self]

    def reap(self) -> list[Exit]:
        """Return how children ended since the last call; of others the hook is told."""
        exits = []
        while True:
            try:
                pid, status = native.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            child = self._children.pop(pid, None)
            if child is None:
                contained(self._server.log, self._server.other_child_died_hook, pid)
                continue
            self._forget(child)
            exits.append(Exit(child, status))
        return exits

    def _forget(self, child: Child) -> None:
        if child.row is not None:
            child.row.clear()
        else:
            for board in self._server.boards[1:]:
                for row in board.living():
                    if row.pid == child.pid:
                        row.clear()
        if child.kind != "check":
            contained(self._server.log, self._server.delete_child_hook, child.pid)

    def tell(self, number: int, children: Iterable[Child]) -> None:
        """Send a signal; one that has just ended is no error.

        Nor is one that has kept rights which this process (`single`) gave up: it looks for itself
        whether anybody is left.
        """
        for child in children:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child.pid, number)
