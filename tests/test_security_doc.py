"""share/doc/security.md names tests that there are, for every row."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "share/doc/security.md").read_text()
_ROW = re.compile(r"^\| ([0-9]+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`([a-z0-9_/]+\.py)((?:::[A-Za-z0-9_]+)+)`")
NAMED = sorted({(path, names) for path, names in _TEST.findall(TEXT)})


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the tests in a file as pytest names them, without their parameters."""
    found: set[str] = set()
    for node in ast.parse((ROOT / "tests" / path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(f"::{node.name}")
        elif isinstance(node, ast.ClassDef):
            methods = [one.name for one in node.body if isinstance(one, ast.FunctionDef)]
            found.update(f"::{node.name}::{name}" for name in methods)
    return frozenset(found)


def test_every_row_names_a_test() -> None:
    """The rows are counted through, and what none shows is said below them."""
    rows = _ROW.findall(TEXT)
    assert [int(row[0]) for row in rows] == list(range(1, 53))
    assert [row[0] for row in rows if not _TEST.search(row[3])] == []
    assert "## Not shown by a test\n" in TEXT


@pytest.mark.parametrize(("path", "names"), NAMED)
def test_it_is_there(path: str, names: str) -> None:
    """A test that was renamed or removed is not shown any more."""
    assert names in names_in(path)
    assert names.rpartition("::")[2].startswith("test_")


def test_the_documents_it_points_at_are_there() -> None:
    """Links lead to files beside it."""
    for name in re.findall(r"\]\(([a-z0-9-]+\.md)\)", TEXT):
        assert (ROOT / "share/doc" / name).exists(), name
