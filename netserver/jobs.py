"""The child that runs periodic work, so that neither the master nor a worker has to."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from netserver.personalities.orders import Orders

if TYPE_CHECKING:
    from collections.abc import Callable

    from netserver.personalities.base import ServerCore
    from netserver.scoreboard import Row


def run(server: ServerCore, row: Row, job: Callable[[], None], seconds: float) -> None:
    """Call ``job`` each ``seconds`` until told to stop; an error ends no more than one call."""
    orders = Orders(server, row, os.getppid())
    while not orders.drain:
        started = time.monotonic()
        orders.beat()
        try:
            job()
        except Exception:
            server.log.exception("periodic work failed")
        orders.look()
        due = started + seconds
        while not orders.drain and (left := due - time.monotonic()) > 0:
            server.signals.wait(min(left, 1.0))
            orders.beat()
            orders.look()
