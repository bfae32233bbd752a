"""What a serving process was told by signals, and its signs of life."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from netserver.personalities.base import ServerCore
    from netserver.scoreboard import Row

# seconds between two signs of life at most
HEARTBEAT = 5.0
# what a child of the master does not listen to: these are for the master alone
IGNORED = ("SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU")


class Orders:
    """A child's signals: TERM stops at once, QUIT after the sessions, USR1 reopens logs.

    USR2 says that something was asked for in the scoreboard.
    """

    def __init__(
        self, server: ServerCore, row: Row, master: int, on_drain: Callable[[], None] = lambda: None
    ) -> None:
        self._server = server
        self._row = row
        self._master = master
        self._on_drain = on_drain
        self.stop = False
        self.drain = False
        self.asked = False
        # seconds between two signs of life: several within the time after which we count as dead
        limit = server.settings.worker_timeout
        self.heartbeat = min(HEARTBEAT, limit / 4) if limit else HEARTBEAT

    def stopping(self) -> bool:
        """Whether this process must end now."""
        if self._server.signals.pending:
            self.look()
        return self.stop

    def look(self) -> None:
        """Deal with the signals that came."""
        for number in self._server.signals.take():
            if number == signal.SIGTERM:
                self.stop = True
                self.finish()
            elif number == getattr(signal, "SIGQUIT", None):
                self.finish()
            elif number == getattr(signal, "SIGUSR1", None):
                self._server.reopen_logs()
            elif number == getattr(signal, "SIGUSR2", None):
                self.asked = True

    def beat(self) -> None:
        """Show that this process lives, and see whether the master does."""
        self._row.beat = time.monotonic()
        if os.getppid() != self._master:
            self.finish()  # nobody would ever replace or stop us: serve who is here, then go

    def before_drain(self, call: Callable[[], None]) -> None:
        """Let ``call`` run when no more clients are to be taken, before listeners are closed."""
        then = self._on_drain

        def both() -> None:
            call()
            then()

        self._on_drain = both

    def finish(self) -> None:
        """Take no more clients."""
        if not self.drain:
            self.drain = True
            self._on_drain()
