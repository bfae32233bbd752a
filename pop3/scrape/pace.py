"""Be gentle with a site: so many requests at once and so long between two, in each process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pop3.scrape.errors import OutOfBudget

_sites: dict[str, "_Site"] = {}
_guard = threading.Lock()
_MOST_SITES = 1000


class _Site:
    """All sessions of this process that are on one host."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.running = 0
        self.next = 0.0

    def enter(self, most: int, delay: float, seconds: float) -> float:
        """Take a place; returns how long to wait before the request may leave."""
        with self.condition:
            if not self.condition.wait_for(lambda: self.running < most, max(seconds, 0)):
                raise OutOfBudget("no turn on this site in time")
            self.running += 1
            now = time.monotonic()
            begin = max(now, self.next)
            self.next = begin + delay
            return begin - now

    def leave(self) -> None:
        with self.condition:
            self.running -= 1
            self.condition.notify()


@contextmanager
def turn(
    host: str, most: int, delay: float, seconds: float, sleep: Callable[[float], object]
) -> Iterator[None]:
    """Hold one of `most` places on a host. Raises OutOfBudget if `seconds` are not enough."""
    with _guard:
        if len(_sites) > _MOST_SITES:
            _sites.clear()  # those who are in hold their own
        site = _sites.setdefault(host, _Site())
    wait = site.enter(most, delay, seconds)
    try:
        if wait > seconds:
            raise OutOfBudget("no turn on this site in time")
        if wait > 0:
            sleep(wait)
        yield
    finally:
        site.leave()
