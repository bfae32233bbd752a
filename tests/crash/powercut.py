"""What a disk may hold after a power cut: a model in user space.

A recorder notes what a commit does to files. What came before an fsync of the same file (of the
directory, for names) is on the disk. Of what came after it anything may be: all, nothing, some of
it in any order, writes torn into sectors.
"""

import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pop3.sources.mbox_commit import Files

SECTOR = 512
BOX = "box"

Operation = tuple[Any, ...]
"""("write", file, data, offset), ("truncate", file, size), ("fsync", file), ("create", name, file),
("rename", name, name), ("unlink", name), ("sync names",)."""


class Recorder(Files):
    """Does what it is asked, and notes it; with `sync` False it notes no fsync."""

    def __init__(self, mailbox: int, *, sync: bool = True) -> None:
        self.operations: list[Operation] = []
        self._sync = sync
        self._files = {mailbox: BOX}
        self._made = 0

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:  # type: ignore[override]
        """Open a file; one that is made gets a name of ours."""
        descriptor = os.open(path, flags, mode)
        if flags & os.O_DIRECTORY:
            self._files[descriptor] = "directory"
        elif flags & os.O_CREAT:
            self._made += 1
            self._files[descriptor] = f"file {self._made}"
            self.operations.append(("create", path, f"file {self._made}"))
        return descriptor

    def pwrite(self, descriptor: int, data: bytes, at: int) -> int:  # type: ignore[override]
        """Write."""
        self.operations.append(("write", self._files[descriptor], bytes(data), at))
        return os.pwrite(descriptor, data, at)

    def ftruncate(self, descriptor: int, size: int) -> None:  # type: ignore[override]
        """Cut."""
        self.operations.append(("truncate", self._files[descriptor], size))
        os.ftruncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:  # type: ignore[override]
        """Put on disk."""
        file = self._files[descriptor]
        if self._sync:
            self.operations.append(("sync names",) if file == "directory" else ("fsync", file))

    def rename(self, old: str, new: str) -> None:  # type: ignore[override]
        """Give another name."""
        self.operations.append(("rename", old, new))
        os.rename(old, new)

    def unlink(self, path: str) -> None:  # type: ignore[override]
        """Take the name away."""
        self.operations.append(("unlink", path))
        os.unlink(path)


@dataclass
class Disk:
    """Names, and what the files hold."""

    names: dict[str, str] = field(default_factory=dict)
    content: dict[str, bytearray] = field(default_factory=dict)

    def copy(self) -> "Disk":
        """Return another one that holds the same."""
        content = {file: bytearray(data) for file, data in self.content.items()}
        return Disk(dict(self.names), content)

    def apply(self, operation: Operation) -> None:
        """Do one thing, as far as there is what it is done to."""
        match operation:
            case ("write", file, data, at):
                held = self.content.setdefault(file, bytearray())
                held.extend(bytes(max(at + len(data) - len(held), 0)))
                held[at : at + len(data)] = data
            case ("truncate", file, size):
                held = self.content.setdefault(file, bytearray())
                held[:] = held[:size].ljust(size, b"\0")
            case ("create", name, file):
                self.names[name] = file
                self.content.setdefault(file, bytearray())
            case ("rename", old, new) if old in self.names:
                self.names[new] = self.names.pop(old)
            case ("unlink", name):
                self.names.pop(name, None)


def _is_about_names(operation: Operation) -> bool:
    return operation[0] in {"create", "rename", "unlink"}


def split(operations: list[Operation]) -> tuple[list[Operation], list[Operation]]:
    """Return what is surely on the disk, and what is not."""
    sure: list[Operation] = []
    pending: list[Operation] = []
    for operation in operations:
        if operation[0] in {"fsync", "sync names"}:
            synced = [
                one
                for one in pending
                if (
                    _is_about_names(one)
                    if operation[0] == "sync names"
                    else one[1] == operation[1] and not _is_about_names(one)
                )
            ]
            sure += synced
            pending = [one for one in pending if one not in synced]
        else:
            pending.append(operation)
    return sure, pending


def _torn(operation: Operation, rng: random.Random) -> list[Operation]:
    """Return the sectors of a write that reached the disk."""
    if operation[0] != "write":
        return [operation]
    _, file, data, at = operation
    cuts = [0, *range(SECTOR - at % SECTOR, len(data), SECTOR), len(data)]
    return [
        ("write", file, data[begin:end], at + begin)
        for begin, end in itertools.pairwise(cuts)
        if rng.random() < 0.5
    ]


def after_power_cut(
    operations: list[Operation], before: Disk, rng: random.Random, count: int
) -> Iterator[Disk]:
    """Yield what the disk may hold: with none, all, and `count` times some of what is not sure."""
    sure, pending = split(operations)
    base = before.copy()
    for operation in sure:
        base.apply(operation)
    choices: list[list[Operation]] = [[], pending]
    if pending:
        choices += [[one for one in pending if one is not left_out] for left_out in pending[-3:]]
        for _ in range(count):
            some = [one for one in pending if rng.random() < 0.7]
            about_names = [one for one in some if _is_about_names(one)]
            content = [part for one in some if one not in about_names for part in _torn(one, rng)]
            rng.shuffle(content)
            choices.append([*about_names, *content])
    for choice in choices:
        disk = base.copy()
        for operation in choice:
            disk.apply(operation)
        yield disk
