"""Signals as a queue: handlers only note, a pipe tells whoever waits."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from netserver import native

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

NAMES = (
    "SIGTERM",
    "SIGINT",
    "SIGQUIT",
    "SIGHUP",
    "SIGUSR1",
    "SIGUSR2",
    "SIGTTIN",
    "SIGTTOU",
    "SIGCHLD",
)


def numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of those of the named signals that this system has."""
    return [int(getattr(signal, name)) for name in names if hasattr(signal, name)]


class SignalQueue:
    """Signals that arrived and are not dealt with yet.

    The handler appends a number and CPython itself writes to the pipe (``set_wakeup_fd``): nothing
    that could block or log runs inside a handler, whatever it interrupted.
    """

    def __init__(self, handled: Iterable[str] = NAMES) -> None:
        self._handled = numbers(handled)
        self._pending: list[int] = []
        self._open()

    def _open(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def close(self) -> None:
        """Give the pipe back: nobody will wait any more."""
        for descriptor in (self._reader, self._writer):
            if descriptor >= 0:
                os.close(descriptor)
        self._reader = self._writer = -1

    def install(self, ignored: Iterable[str] = ()) -> None:
        """Take over the handled signals, ignore the ``ignored``, let blocked ones through."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._handled:
            native.set_handler(number, self._note)
        for number in numbers(ignored):
            native.set_handler(number, signal.SIG_IGN)
        if hasattr(signal, "SIGPIPE"):
            native.set_handler(signal.SIGPIPE, signal.SIG_IGN)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers(NAMES))

    def block(self) -> None:
        """Hold all of them back, as before an exec or a fork: none may find the wrong handler."""
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, numbers(NAMES))

    def unblock(self) -> None:
        """Let them through again."""
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers(NAMES))

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._pending.append(number)

    def writer_copy(self) -> int:
        """Return a descriptor by which a child can wake this process; it must not block on it."""
        return os.dup(self._writer)

    def fileno(self) -> int:
        """Return the descriptor that is readable when something arrived."""
        return self._reader

    @property
    def pending(self) -> bool:
        """Whether a signal waits in the queue."""
        return bool(self._pending)

    def wait(self, seconds: float) -> None:
        """Return when something arrived, or after ``seconds``."""
        if not self._pending:
            native.select([self._reader], [], [], max(0.0, seconds))
            self.drain()

    def drain(self) -> None:
        """Empty the pipe, also of what others' signals left in it; what is pending stays."""
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def take(self) -> list[int]:
        """Return and forget what arrived, in order."""
        self.drain()
        # item by item: a handler may append between any two steps
        taken = []
        while self._pending:
            taken.append(self._pending.pop(0))
        return taken

    def renew(self, ignored: Iterable[str] = ()) -> None:
        """Begin anew in a forked child: its own pipe, nothing pending, its own handlers."""
        os.close(self._reader)
        os.close(self._writer)
        self._pending.clear()
        self._open()
        self.install(ignored)
