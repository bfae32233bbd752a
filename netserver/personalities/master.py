"""The process that holds the listeners and the children, and serves nobody."""

from __future__ import annotations

import gc
import os
import signal
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from netserver.errors import PrivilegeError
from netserver.personalities.base import Personality, Stop, contained
from netserver.personalities.children import Child, ChildTable, Exit
from netserver.personalities.orders import Orders
from netserver.personalities.predecessors import LAST_CHANCE, SERVING, Predecessors
from netserver.personalities.side import SideChildren
from netserver.scoreboard import Row, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore

# seconds between two looks at the children when no signal comes
TURN = 1.0
_AT_ONCE = (signal.SIGTERM, signal.SIGINT)
# a child that ends badly this soon after its birth is a sign of more to come: wait before the next
YOUNG = 1.0
LONGEST_BACK_OFF = 30.0
# after so many seconds without a failure the next one is the first again
PEACE = 60.0


class Master(Personality):
    """Makes children, replaces those that fail, ends them in good order.

    A subclass says in ``tend`` which children it wants now.
    """

    serving_kind: ClassVar[str] = "worker"  # what its children that serve are called

    def __init__(self, server: ServerCore) -> None:
        super().__init__(server)
        self.children = ChildTable(server)
        self.listeners: Sequence[Listener] = ()
        self.pid = 0
        self._announced = False
        self._changed = 0  # of the change that was asked for, what has been made
        self._failures = 0
        self._last_failure = 0.0
        self._no_fork = False
        self._not_before = 0.0
        self._predecessors = Predecessors(server, self.children)
        self._side = SideChildren(server, self.children, (), ())

    # -- for subclasses -------------------------------------------------------------------------

    @abstractmethod
    def tend(self, now: float) -> None:
        """Make or end children, so that there are as many as wanted."""

    def wait(self) -> None:
        """Return when a signal came, or something else has to be looked at."""
        self.server.signals.wait(TURN)

    def change_target(self, step: int) -> None:
        """Want one worker more (1) or less (-1)."""

    def renew_children(self) -> None:
        """Replace the children that could not open the log themselves; they take ours with them."""
        self._replace("worker", "jobs")
        others = [child for child in self.children if child.kind not in ("check", *SERVING)]
        self.children.tell(signal.SIGUSR1, others)

    def _replace(self, *kinds: str) -> None:
        """Let children go when their clients have gone, and make others."""
        for child in self.children.of_kind(*kinds):
            child.kind = "leaving"  # it counts no longer: its place is free for the next
            self.children.tell(signal.SIGQUIT, [child])

    def is_serving(self) -> bool:
        """Whether clients are served now."""
        board = self.server.boards[0]
        return board.count(State.IDLE) + board.count(State.BUSY) > 0

    # -- life -----------------------------------------------------------------------------------

    def serve(self, listeners: Sequence[Listener]) -> Stop:
        """Run until a signal says stop."""
        self.listeners = listeners
        self.pid = os.getpid()  # not before: --background has forked in between
        self._predecessors.adopt()
        self._side = SideChildren(self.server, self.children, listeners)
        # what exists now is never looked at again by a child's collector, so its pages stay shared
        gc.collect()
        gc.freeze()
        try:
            return self._run()
        except BaseException:
            if len(self.children):
                self._end(Stop.TERM)
            raise

    def _run(self) -> Stop:
        while True:
            now = time.monotonic()
            if self._reap(now):
                return Stop.HUP
            if contained(self.server.log, self.server.refresh_certificates):
                self._replace("worker")  # those that come have the new ones, and no right to read
            self._side.tend(now)  # first: who serves may ask them
            if now >= self._not_before:
                self.tend(now)
            self._watch(now)
            self._announce()
            self._predecessors.tend(now)
            contained(self.server.log, self.server.refresh_files)
            contained(self.server.log, self.server.idle_loop_hook)
            self.wait()
            # the order to stop at once goes before all others that came with it
            taken = sorted(self.server.signals.take(), key=lambda number: number not in _AT_ONCE)
            for number in taken:
                stop = self._obey(number)
                if stop is not None:
                    self._end(stop)
                    return stop

    def _obey(self, number: int) -> Stop | None:
        if number in _AT_ONCE:
            return Stop.TERM
        if number == signal.SIGQUIT:
            return Stop.QUIT
        if number == signal.SIGHUP:
            self._check_config()
        elif number == signal.SIGUSR1:
            self.server.reopen_logs()
            if self.server.rights_are_given_up:
                self.renew_children()
            else:
                self.children.tell(signal.SIGUSR1, [c for c in self.children if c.kind != "check"])
        elif number == signal.SIGTTIN:
            self.change_target(1)
        elif number == signal.SIGTTOU:
            self.change_target(-1)
        elif number == signal.SIGUSR2:
            self._change_as_asked()
        return None

    def _change_as_asked(self) -> None:
        """Want as many workers more or less as the scoreboard says: signals may be merged."""
        asked = self.server.boards[0].change
        for _ in range(abs(asked - self._changed)):
            self.change_target(1 if asked > self._changed else -1)
        self._changed = asked

    def _announce(self) -> None:
        if not self._announced and self.is_serving():
            self._announced = True
            self.server.ready()
            self._predecessors.retire()

    # -- children -------------------------------------------------------------------------------

    def new_worker(self) -> Child | None:
        """Fork a child that serves; None if there is no room for it now."""
        index = self.server.boards[0].free_row()
        if index is None:
            return None
        row = self.server.boards[0].row(index)
        child = self.children.fork(self.serving_kind, row, lambda: self._worker(row))
        if child is None:
            self._back_off(time.monotonic())
        elif self._no_fork:
            self._failures = 0  # there is room again
        self._no_fork = child is None
        return child

    def _worker(self, row: Row) -> None:
        orders = Orders(self.server, row, self.pid, self._close_listeners)
        self.server.child_init()
        try:
            self.work(row, orders)
        finally:
            row.state = State.STOPPING
            self.server.child_finish()

    def _close_listeners(self) -> None:
        # a listener stays open while any process has it: clients would queue for nobody
        for listener in self.listeners:
            listener.close()

    @abstractmethod
    def work(self, row: Row, orders: Orders) -> None:
        """Serve, in the child, until the orders say otherwise."""

    def _reap(self, now: float) -> bool:
        """Deal with ended children; True when the new configuration has been found good."""
        restart = False
        young = False
        for ended in self.children.reap():
            if ended.child.kind == "check":
                restart = restart or self._checked(ended)
            elif not ended.clean:
                young = self._failed(ended, now) or young
        if young:
            self._back_off(now)
        return restart

    def _failed(self, ended: Exit, now: float) -> bool:
        """Log how a child failed; True if it was so young that the next might fail as soon."""
        child = ended.child
        self.server.log.error("child ended badly", child=child.pid, kind=child.kind, how=str(ended))
        if child.inherited:
            return False
        if ended.unusable and not self._announced:
            # clients of the image before this one may finish
            self._end(Stop.QUIT if self.server.inheritance.restarted else Stop.TERM)
            raise PrivilegeError("no worker can start; the log says why")
        self._side.failed(child, now)
        return child.kind == "worker" and now - child.born < YOUNG

    def _back_off(self, now: float) -> None:
        if now < self._not_before:
            return  # made together with the one that failed before: one failure, not many
        if now - self._last_failure > PEACE:
            self._failures = 0
        self._last_failure = now
        self._not_before = now + min(LONGEST_BACK_OFF, 0.1 * 2**self._failures)
        self._failures = min(self._failures + 1, 10)

    def _watch(self, now: float) -> None:
        """Kill children that showed no sign of life for too long; the next turn replaces them."""
        limit = self.server.settings.worker_timeout
        if not limit:
            return
        for child in self.children:
            watched = child.row is not None and (child.kind in SERVING or child.outlives)
            if watched and child.row is not None and now - child.row.beat > limit:
                self.server.log.error("no sign of life, killed", child=child.pid, kind=child.kind)
                self.children.tell(signal.SIGKILL, [child])

    # -- restart --------------------------------------------------------------------------------

    def _check_config(self) -> None:
        if self.children.of_kind("check"):
            return  # one check answers for all who asked
        self.server.log.info("reload: checking the configuration")
        try:
            pid = self.server.spawn_config_check()
        except OSError as error:
            self.server.log.error("reload refused", error=error.strerror)  # noqa: TRY400
            return
        self.children.add(pid, "check")

    def _checked(self, ended: Exit) -> bool:
        if ended.clean:
            return True
        self.server.reload_refused()
        return False

    # -- the end --------------------------------------------------------------------------------

    def _end(self, stop: Stop) -> None:
        """End all children: in good order for QUIT, at once for TERM; a kill is the last resort."""
        self.server.log.info("stopping", how=stop.value, children=len(self.children))
        self._close_listeners()
        patience = self.server.settings.graceful_timeout
        if stop is Stop.QUIT:
            self._tell_and_wait(signal.SIGQUIT, patience, lambda child: not child.outlives)
        self._tell_and_wait(signal.SIGTERM, LAST_CHANCE if stop is Stop.QUIT else patience)
        if len(self.children):
            self.server.log.error("killed what would not stop", children=len(self.children))
            self._tell_and_wait(signal.SIGKILL, LAST_CHANCE)
        contained(self.server.log, self.server.post_child_cleanup_hook)

    def _tell_and_wait(
        self, number: int, seconds: float, whom: Callable[[Child], bool] = lambda _: True
    ) -> None:
        """Send a signal to children; return when these have ended, or after that time.

        A TERM that comes meanwhile cuts the patience short.
        """
        self.children.tell(number, filter(whom, self.children))
        end = time.monotonic() + seconds
        while True:
            for ended in self.children.reap():
                if not ended.clean and number != signal.SIGKILL and ended.child.kind != "check":
                    how = str(ended)
                    self.server.log.warning("child ended badly", child=ended.child.pid, how=how)
            left = end - time.monotonic()
            if not any(map(whom, self.children)) or left <= 0:
                return
            self.server.signals.wait(min(left, TURN))
            if number == signal.SIGQUIT and {signal.SIGTERM, signal.SIGINT} & set(
                self.server.signals.take()
            ):
                return
            if number != signal.SIGQUIT:
                self.server.signals.take()
