"""Settings made by a program: checked in the constructor, read from a file or a text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netserver.declarations import Settings, option
from netserver.errors import ConfigError


def even(text: str) -> int:
    """Read an even number."""
    if int(text) % 2:
        raise ValueError("odd")
    return int(text)


@dataclass(frozen=True)
class Some(Settings):
    """One option of each type."""

    place: str = option("here", help="")
    count: int = option(3, help="")
    seconds: float | None = option(1.5, help="")
    loud: bool = option(False, help="")
    names: tuple[str, ...] = option(("a",), repeat=True, help="")
    mode: str = option("x", choices=("x", "y"), help="")
    pair: int = option(2, kind=even, help="")
    pairs: tuple[int, ...] = option((), kind=even, repeat=True, help="")


def test_values_of_a_program() -> None:
    """Values and texts of values are taken, and lists become tuples."""
    some = Some(place=Path("/x"), count="7", seconds=None, names=["b", "c"], pair="4", pairs=["2"])  # type: ignore[arg-type]
    assert (some.place, some.count, some.seconds, some.names) == ("/x", 7, None, ("b", "c"))
    assert (some.pair, some.pairs) == (4, (2,))
    assert (Some().place, Some(pair=6).pair, Some(pairs=(8,)).pairs) == ("here", 6, (8,))


@pytest.mark.parametrize(
    "given",
    [
        {"place": 5},
        {"place": None},
        {"place": b"x"},
        {"count": "many"},
        {"count": -1},
        {"count": True},
        {"seconds": "soon"},
        {"loud": "maybe"},
        {"names": "b"},
        {"names": [1]},
        {"mode": "z"},
        {"pair": "3"},
        {"pair": None},
    ],
)
def test_a_bad_value_is_named(given: dict[str, Any]) -> None:
    """One line names the class and the option."""
    with pytest.raises(ConfigError, match=f"^Some: {next(iter(given))}: [^\n]+$"):
        Some(**given)


def test_from_text() -> None:
    """Each form of file, its values read as an option does."""
    assert Some.from_text("count: 5\nnames: [b]\n").names == ("b",)
    assert Some.from_text("loud = true\npair = 4\n", "toml") == Some(loud=True, pair=4)
    assert Some.from_text("count = 5\n", "ini") == Some(count=5)
    assert Some.from_text("") == Some()


def test_from_file(tmp_path: Path) -> None:
    """A file, and what is wrong in it with its line."""
    path = tmp_path / "some.yaml"
    path.write_text("place: there\npair: 8\n")
    assert Some.from_file(path) == Some(place="there", pair=8)
    for text, told in (
        ("\nplac: x", r":2: plac: unknown option \(did you mean place"),
        ("pair: 3", r':1: pair: "3": odd'),
        ("- x", ":1: expected lines"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"some.yaml{told}"):
            Some.from_file(path)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        Some.from_file(tmp_path / "none.yaml")
