"""What is fuzzed: a name, a function that must not raise, and where to begin."""

import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"

MODULES: Final = (
    "files",
    "mail",
    "maildir",
    "mbox",
    "names",
    "network",
    "sasl",
    "session",
    "users",
    "web",
)
"""Each declares its targets when it is imported, as `tests.fuzz.on_NAME`."""

Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """One function and its inputs; `words` are put into inputs, `seeds` are the first of them.

    The function raises for whatever is wrong: an exception that came out of the server, or an
    assertion of its own.
    """

    name: str
    run: Run
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    longest: int

    def corpus(self) -> Iterator[tuple[str, bytes]]:
        """Yield all inputs that are kept, with a name each."""
        for number, seed in enumerate(self.seeds):
            yield f"seed {number}", seed
        directory = CORPUS / self.name
        if directory.is_dir():
            for file in sorted(directory.iterdir()):
                yield file.name, file.read_bytes()


_declared: dict[str, Target] = {}


def target(
    name: str, *, seeds: Sequence[bytes], words: Sequence[bytes] = (), longest: int = 1024
) -> Callable[[Run], Run]:
    """Declare the function below as a target."""

    def declare(run: Run) -> Run:
        assert name not in _declared
        _declared[name] = Target(name, run, tuple(seeds), tuple(words), longest)
        return run

    return declare


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    for module in MODULES:
        importlib.import_module(f"tests.fuzz.on_{module}")
    return _declared


def pieces(data: bytes, sizes: bytes) -> list[bytes]:
    """Cut data into pieces of these sizes, in turn; without a size that is not 0 it stays whole."""
    if not any(sizes):
        return [data] if data else []
    cut: list[bytes] = []
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return cut
        if size:
            cut.append(data[at : at + size])
            at += size
    return cut
