"""Watch the regular expressions of a spec: how long each takes, and an end for one that hangs.

The server has no such end: Python cannot stop a pattern in a thread. Here it runs in the main
thread, where a signal can.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pop3.scrape.errors import ScrapeError
from pop3.scrape.selection import Field, Selection
from pop3.scrape.spec import Spec

SLOW = 0.25
"""Seconds of processor time for one use of a pattern that are worth a warning."""
HANGS = 5.0
"""Seconds after which a pattern is stopped."""


@dataclass
class Stopwatch:
    """The longest time of each thing in a spec that uses patterns: (key, line) to seconds.

    `hung` are those that were stopped; they are not tried again.
    """

    file: str
    longest: dict[tuple[str, int], float] = field(default_factory=dict)
    hung: set[tuple[str, int]] = field(default_factory=set)

    @contextmanager
    def running(self, key: str, line: int) -> Iterator[None]:
        """Take the time of what is in the `with`. Raises ScrapeError if it hangs."""
        if (key, line) in self.hung:
            raise self._hangs(key, line)
        began = time.thread_time()
        try:
            with _stopped_after(HANGS):
                yield
        except _Stopped:
            self.hung.add((key, line))
            raise self._hangs(key, line) from None
        took = time.thread_time() - began
        self.longest[key, line] = max(took, self.longest.get((key, line), 0.0))

    def _hangs(self, key: str, line: int) -> ScrapeError:
        return ScrapeError(
            f"{self.file}:{line}: {key}: a regular expression took more than {HANGS:g} s and was "
            "stopped, and the server would hang: no repetition within a repetition, such as (a+)+ "
            "or (.*x)*"
        )

    def slow(self) -> list[tuple[str, int, float]]:
        """Return what took long: key, line, seconds."""
        return [(*place, took) for place, took in self.longest.items() if took >= SLOW]


class _Stopped(Exception):
    """A pattern has had its time."""


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Interrupt what is in the `with`; only the main thread can be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class _TimedPattern:
    """Stands for a pattern where `extract.find` uses one."""

    def __init__(self, pattern: Any, key: str, line: int, watch: Stopwatch) -> None:
        self._pattern = pattern
        self._place = (key, line)
        self._watch = watch

    def finditer(self, text: str) -> Iterator[Any]:
        matches = self._pattern.finditer(text)
        while True:
            with self._watch.running(*self._place):
                found = next(matches, None)
            if found is None:
                return
            yield found


def timed(spec: Spec, watch: Stopwatch) -> Spec:
    """Return the same spec with a watch on its patterns."""

    def selection(key: str, one: Selection | None) -> Any:
        if one is None or one.kind != "regex":
            return one
        return replace(one, compiled=_TimedPattern(one.compiled, key, one.line, watch))

    def one_field(prefix: str, one: Field | None) -> Any:
        if one is None:
            return None
        key = f"{prefix}{one.name}"
        filters = tuple(_timed_filter(each, key, one.line, watch) for each in one.filters)
        return replace(one, selection=selection(key, one.selection), filters=filters)

    listing, item = spec.listing, spec.item
    return replace(
        spec,
        listing=replace(
            listing,
            link=one_field("list.", listing.link),
            fields=tuple(one_field("list.fields.", one) for one in listing.fields),
            **{
                key: selection(f"list.{key}", getattr(listing, key))
                for key in ("items", "page", "pages", "next", "empty")
            },
        ),
        item=replace(
            item,
            id=one_field("item.", item.id),
            fields=tuple(one_field("item.fields.", one) for one in item.fields),
        ),
    )


def _timed_filter(
    filter_: Callable[[str, str], str], key: str, line: int, watch: Stopwatch
) -> Callable[[str, str], str]:
    def run(text: str, url: str) -> str:
        with watch.running(f"{key}.filters", line):
            return filter_(text, url)

    return run
