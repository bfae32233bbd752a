"""File calls that fail at a chosen one, as if the process had died or the disk had refused."""

import os
from collections.abc import Callable
from typing import Any

from pop3.sources.mbox_commit import Files

WRITING = frozenset({"open", "pwrite", "fsync", "ftruncate", "rename", "unlink"})


class Killed(BaseException):
    """The process is dead: nothing it would still do has an effect."""


class FaultyOS(Files):
    """Counts the calls; at call `at` it is killed, or the call fails with `error`.

    A write that is cut off has done the first half. With `lasting` every later call fails as well.
    After a kill all calls raise Killed; `bury` closes what the dead process had open.
    """

    def __init__(self, at: int = -1, error: int | None = None, *, lasting: bool = False) -> None:
        self.at = at
        self.error = error
        self.lasting = lasting
        self.calls: list[str] = []
        self.dead = False
        self.descriptors: set[int] = set()

    def __getattribute__(self, name: str) -> Any:
        if not hasattr(Files, name):
            return object.__getattribute__(self, name)
        real = object.__getattribute__(self, name)

        def call(*args: Any) -> Any:
            return self.run(name, real, args)

        return call

    def run(self, name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Make one call, or let it fail."""
        if self.dead:
            raise Killed
        number = len(self.calls)
        self.calls.append(name)
        if self.error is None:
            if number == self.at:
                self.dead = True
                self.half(name, args)
                raise Killed
        elif name != "close" and (number == self.at or (self.lasting and number > self.at >= 0)):
            self.half(name, args)
            raise OSError(self.error, os.strerror(self.error))
        result = real(*args)
        if name == "open":
            self.descriptors.add(result)
        elif name == "close":
            self.descriptors.discard(args[0])
        return result

    @staticmethod
    def half(name: str, args: tuple[Any, ...]) -> None:
        """Do the first half of a write."""
        if name == "pwrite":
            descriptor, data, at = args
            os.pwrite(descriptor, data[: len(data) // 2], at)

    def bury(self) -> None:
        """Close what is still open, as the system does."""
        while self.descriptors:
            os.close(self.descriptors.pop())
