"""What a serving process was told by signals, and its signs of life."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netserver.personalities.base import ServerCore
    from netserver.scoreboard import Row

# what a child of the master does not listen to: these are for the master alone
IGNORED = ("SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU")


class Orders:
    """Looks at a child's signal queue: TERM stops at once, QUIT after the sessions, USR1 reopens logs."""

    def __init__(self, server: ServerCore, row: Row, master: int) -> None:
        self._server = server
        self._row = row
        self._master = master
        self.stop = False
        self.drain = False

    def stopping(self) -> bool:
        """Whether this process must end now."""
        if self._server.signals.pending:
            self.look()
        return self.stop

    def look(self) -> None:
        """Deal with the signals that came."""
        for number in self._server.signals.take():
            if number == signal.SIGTERM:
                self.stop = self.drain = True
            elif number == getattr(signal, "SIGQUIT", None):
                self.drain = True
            elif number == getattr(signal, "SIGUSR1", None):
                self._server.reopen_logs()

    def beat(self) -> None:
        """Show that this process lives, and see whether the master does."""
        self._row.beat = time.monotonic()
        if os.getppid() != self._master:
            self.drain = True  # nobody would ever replace or stop us: serve who is here, then go
