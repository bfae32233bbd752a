"""Each behaviour of Mail::POP3 that was kept or improved has a test with its number.

The numbers are those of the table at the end of share/doc/from-mail-pop3.md.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPEN: set[int] = set()
"""Tested elsewhere, under other names, or not finished: to be named."""

_ROW = re.compile(r"^\| ([0-9]+) \| (.+) \| (.+) \| (kept|improved|replaced) \|$", re.MULTILINE)
_TEST = re.compile(r"^def test_c1_row_([0-9]+)_[a-z]", re.MULTILINE)


def rows() -> dict[int, str]:
    """Return what became of each behaviour."""
    text = (ROOT / "share/doc/from-mail-pop3.md").read_text()
    return {int(row[1]): row[4] for row in _ROW.finditer(text)}


def numbers_tested() -> list[int]:
    """Return the numbers in names of tests, in their order."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [int(number) for file in files for number in _TEST.findall(file.read_text())]


def test_all_behaviours_are_in_the_document() -> None:
    """67 of them, each once, with the old beside the new."""
    assert list(rows()) == list(range(1, 68))


def test_every_one_that_stayed_is_tested() -> None:
    """A kept or improved behaviour has a test; one that has is not called open."""
    stayed = {number for number, fate in rows().items() if fate != "replaced"}
    assert stayed - OPEN - set(numbers_tested()) == set()
    assert set(numbers_tested()) <= stayed


def test_open_ones_are_open() -> None:
    """Whoever adds a test takes its number out of the list."""
    assert OPEN & set(numbers_tested()) == set()
