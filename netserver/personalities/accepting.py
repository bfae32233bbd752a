"""Taking clients from listeners, when descriptors or memory run out as well."""

from __future__ import annotations

import errno
import math
import time
from typing import TYPE_CHECKING

from netserver.listeners import SpareDescriptor
from netserver.personalities.base import contained

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        self._held: dict[Listener, float] = {}  # until when accepting from them is pointless

    def worth_asking(self, listeners: Sequence[Listener]) -> tuple[Sequence[Listener], float]:
        """Return the listeners to accept from, and the seconds until there will be more of them."""
        if not self._held:
            return listeners, math.inf
        now = time.monotonic()
        self._held = {listener: end for listener, end in self._held.items() if end > now}
        pause = min(self._held.values(), default=math.inf) - now
        return [listener for listener in listeners if listener not in self._held], pause

    def holds(self, listener: Listener) -> bool:
        """Whether accepting from it was found pointless for now."""
        return self._held.get(listener, 0.0) > time.monotonic()

    def accept(self, listener: Listener) -> tuple[native.socket, object] | None:
        """Return the next client's socket and address; None if there is none to be had."""
        if contained(self._server.log, self._server.can_read_hook, listener):
            self._hold(listener)
            return None
        try:
            return listener.accept()
        except OSError as error:
            if error.errno not in _FULL or not self._spare.shed(listener):
                self._hold(listener)
            now = time.monotonic()
            if now >= self._next_line:
                self._next_line = now + QUIET
                self._server.log.error(  # noqa: TRY400 - a traceback tells nothing here
                    "accept failed", listener=listener.address, error=error.strerror
                )
            return None

    def _hold(self, listener: Listener) -> None:
        self._held[listener] = time.monotonic() + BACK_OFF
