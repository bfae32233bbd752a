"""Taking clients from listeners, when descriptors or memory run out as well."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from netserver.listeners import SpareDescriptor
from netserver.personalities.base import contained

if TYPE_CHECKING:
    from netserver import native
    from netserver.listeners import Listener
    from netserver.personalities.base import ServerCore

# the table of this process or of the system is full: the client in the queue cannot be taken, nor
# left
_FULL = (errno.EMFILE, errno.ENFILE)
# seconds without accepting after any other error of accept, which would come again at once
BACK_OFF = 0.1
# seconds between two log lines about it
QUIET = 10.0


class Acceptor:
    """Accepts; when no descriptor is left, a spare one serves to close the client: no spinning."""

    def __init__(self, server: ServerCore) -> None:
        self._server = server
        self._spare = SpareDescriptor()
        self._next_line = 0.0
        self.not_before = 0.0  # monotonic seconds: accepting is pointless until then

    def pause(self) -> float:
        """Return the seconds for which accepting is pointless."""
        return self.not_before - time.monotonic() if self.not_before else 0.0

    def accept(self, listener: Listener) -> tuple[native.socket, object] | None:
        """Return the next client's socket and address; None if there is none to be had."""
        if contained(self._server.log, self._server.can_read_hook, listener):
            self.not_before = time.monotonic() + BACK_OFF
            return None
        try:
            return listener.accept()
        except OSError as error:
            now = time.monotonic()
            if error.errno not in _FULL or not self._spare.shed(listener):
                self.not_before = now + BACK_OFF
            if now >= self._next_line:
                self._next_line = now + QUIET
                self._server.log.error(  # noqa: TRY400 - a traceback tells nothing here
                    "accept failed", listener=listener.address, error=error.strerror
                )
            return None
