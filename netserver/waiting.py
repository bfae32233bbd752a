"""How a connection waits: the one thing in which the personalities' I/O differs."""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from netserver import native
from netserver.errors import IdleTimeout, Kicked, ServerStopping

if TYPE_CHECKING:
    from collections.abc import Callable

    from netserver.connection import Connection
    from netserver.signals import SignalQueue

P = ParamSpec("P")
T = TypeVar("T")


class Waiter(ABC):
    """Waits for a connection's socket, within its deadline.

    Every method but ``run_blocking`` raises ``IdleTimeout`` when ``connection.deadline`` has
    passed, and ``ServerStopping`` when the process must end at once.
    """

    @abstractmethod
    def readable(self, connection: Connection) -> None:
        """Return when there is something to read."""

    @abstractmethod
    def writable(self, connection: Connection) -> None:
        """Return when the socket takes more."""

    @abstractmethod
    def pause(self, connection: Connection, seconds: float) -> None:
        """Return after ``seconds``."""

    def forget(self, connection: Connection) -> None:  # noqa: B027 - few have to
        """Give back what is kept for a connection that is about to be closed."""

    def breathe(self, connection: Connection) -> None:  # noqa: B027 - few have to
        """Let others have a turn in the middle of much sending."""

    @abstractmethod
    def run_blocking(
        self, pool: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run what would hold up other clients; ``pool`` is "hash", "disk" or "dns"."""


class PollWaiter(Waiter):
    """Waits by ``poll`` on the socket and the signal pipe together (one connection a process).

    ``stopping`` is asked after each wake-up of the pipe; ``beat`` shows the master that this
    process is alive although its client is silent.
    """

    def __init__(
        self,
        signals: SignalQueue,
        stopping: Callable[[], bool],
        beat: Callable[[], None] = lambda: None,
        heartbeat: float = 5.0,
    ) -> None:
        self._signals = signals
        self._stopping = stopping
        self._beat = beat
        self._heartbeat = heartbeat

    def readable(self, connection: Connection) -> None:
        """Return when there is something to read."""
        self._wait(connection, writing=False)

    def writable(self, connection: Connection) -> None:
        """Return when the socket takes more."""
        self._wait(connection, writing=True)

    def pause(self, connection: Connection, seconds: float) -> None:
        """Return after ``seconds``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._look(connection)
            self._beat()
            self._signals.wait(min(left, self._heartbeat))
            self._look(connection)

    def breathe(self, connection: Connection) -> None:
        """Look whether the process must stop."""
        self._look(connection)

    def run_blocking(
        self, pool: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call it: nobody else is held up here."""
        del pool
        return function(*args, **kwargs)

    def _look(self, connection: Connection) -> None:
        if self._stopping() and not connection.committing:
            raise ServerStopping
        entry = connection.entry
        if entry is not None and entry.look(connection.octets_out) and not connection.committing:
            raise Kicked

    def _wait(self, connection: Connection, *, writing: bool) -> None:
        fd = connection.fileno()
        while True:
            self._look(connection)
            left = connection.deadline - time.monotonic()
            if left <= 0:
                raise IdleTimeout
            self._beat()
            if _ready(fd, self._signals.fileno(), min(left, self._heartbeat), writing=writing):
                return
            self._signals.drain()


def _ready(fd: int, pipe: int, seconds: float, *, writing: bool) -> bool:
    """Whether ``fd`` is ready; returns early (False) when the signal pipe is."""
    if not hasattr(select, "poll"):  # Windows
        reads, writes = ([pipe], [fd]) if writing else ([pipe, fd], [])
        got_reads, got_writes, _ = native.select(reads, writes, [], seconds)
        return bool(got_writes) or fd in got_reads
    poll = select.poll()
    poll.register(fd, select.POLLOUT if writing else select.POLLIN)
    poll.register(pipe, select.POLLIN)
    # one millisecond more than asked, so that a deadline has passed when the wait for it is over
    return any(ready == fd for ready, _ in poll.poll(seconds * 1000 + 1))
