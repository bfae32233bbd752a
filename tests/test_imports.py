"""Who may import whom: the rules of share/doc/DESIGN.md, read from the source of every module."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
GEVENT: Final = {"netserver.boot", "netserver.native", "netserver.personalities.gevent_workers"}
FORKERS: Final = {"netserver.personalities.children", "netserver.daemon", "netserver.native"}
FIRST: Final = {"netserver", "pop3", "netserver.boot", "netserver.__main__", "pop3.tools.server"}
LIGHT: Final = {"configargparse", "yaml"}
HEAVY: Final = {
    *("socket", "ssl", "threading", "logging", "asyncio", "subprocess", "concurrent", "selectors"),
    *("importlib.metadata", "multiprocessing", "queue", "http", "email"),
}
PURE: Final = {"pop3.wire", "pop3.message", "pop3.maildrop", "pop3.errors"}


class Import(NamedTuple):
    """One imported name; `early` if it is loaded as soon as the module is."""

    target: str
    name: str
    line: int
    early: bool
    typing_only: bool


def module_name(path: Path, root: Path) -> str:
    """Return the dotted name of a file below the root."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(node: ast.AST, *, early: bool = True, typing_only: bool = False) -> Iterator[Import]:
    """Yield the imports below a node; those in functions are late, not even those left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, "", child.lineno, early, typing_only)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                target = "." * child.level + (child.module or "")
                yield Import(target, alias.name, child.lineno, early, typing_only)
        else:
            late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for part in child.body:
                    yield from imports(ast.Module([part], []), early=False, typing_only=True)
                for part in child.orelse:
                    yield from imports(ast.Module([part], []), early=early, typing_only=typing_only)
            else:
                yield from imports(child, early=early and not late, typing_only=typing_only)


def uses(tree: ast.AST, owners: set[str], names: set[str]) -> Iterator[int]:
    """Yield the lines that say owner.name or import name from owner."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                found = owner in owners and name in names
            case ast.ImportFrom(module=str(owner), names=aliases):
                given = {alias.name for alias in aliases}
                found = owner.split(".")[-1] in owners and bool(names & given)
            case _:
                found = False
        if found:
            yield node.lineno  # type: ignore[attr-defined] # both kinds have one


def loaded_by(module: str, trees: dict[str, ast.AST]) -> set[str]:
    """Return the project's modules that are loaded with this one, itself included."""
    seen: set[str] = set()
    todo = {module}
    while todo:
        one = todo.pop()
        seen.add(one)
        for found in imports(trees[one]):
            if found.early:
                names = {found.target, f"{found.target}.{found.name}"}
                names |= {found.target.rpartition(".")[0]}
                todo |= {name for name in names if name in trees} - seen
    return seen


def broken(module: str, found: Import, first: set[str]) -> Iterator[str]:
    """Yield the rules that one import of a module breaks; `first` is what boot loads."""
    top = found.target.partition(".")[0]
    whole = f"{found.target}.{found.name}".rstrip(".")
    yield from ["no relative or star import"] * (top == "" or found.name == "*")
    yield from ["rule 1"] * (module.startswith("netserver") and top == "pop3")
    yield from ["rule 2"] * (module.startswith("pop3.sources.") and not may_use(module, whole))
    yield from ["rule 3"] * (top == "gevent" and module not in GEVENT)
    if module in first and found.early:
        light = top in {"netserver", "pop3"} | LIGHT | sys.stdlib_module_names
        heavy = {top, found.target} & HEAVY
        yield from ["rule 4"] * bool(heavy or not light)
    logs = module == "netserver.logs" or found.typing_only
    yield from ["rule 6"] * (top == "structlog" and not logs)
    pure = top in sys.stdlib_module_names or {found.target, whole} & PURE
    yield from ["rule 7"] * (module in PURE and not pure)


def may_use(source: str, whole: str) -> bool:
    """Tell whether a source may import a name: a public one, and of sources only its own parts."""
    parts = whole.split(".")
    if parts[0] != "pop3":
        return True
    own = source.split(".")[2].partition("_")[0]
    named = parts[2].partition("_")[0] if parts[1:2] == ["sources"] and len(parts) > 2 else own
    return named == own and not any(part.startswith("_") for part in parts)


def violations(root: Path) -> Iterator[str]:
    """Yield "rule module:line" for everything that breaks a rule."""
    files = [path for name in ("netserver", "pop3") for path in (root / name).rglob("*.py")]
    trees: dict[str, ast.AST] = {
        module_name(path, root): ast.parse(path.read_text()) for path in files
    }
    first = {one for name in FIRST & trees.keys() for one in loaded_by(name, trees)}
    for module, tree in trees.items():
        for found in imports(tree):
            yield from (f"{rule} {module}:{found.line}" for rule in broken(module, found, first))
        if module != "netserver.boot":
            yield from (f"rule 3 {module}:{n}" for n in uses(tree, {"monkey"}, {"patch_all"}))
        if module not in FORKERS:
            yield from (f"rule 5 {module}:{n}" for n in uses(tree, {"os", "native"}, {"fork"}))


def test_every_module_keeps_the_rules() -> None:
    """The project as it is."""
    assert list(violations(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("netserver/x.py", "def f():\n    import pop3.wire", "rule 1 netserver.x:2"),
        ("pop3/sources/x.py", "from pop3.sources.maildir import A", "rule 2 pop3.sources.x:1"),
        ("pop3/sources/x.py", "from pop3.sources import maildir", "rule 2 pop3.sources.x:1"),
        ("pop3/sources/x.py", "from pop3 import _hidden", "rule 2 pop3.sources.x:1"),
        ("pop3/x.py", "import gevent", "rule 3 pop3.x:1"),
        (
            "netserver/native.py",
            "from gevent import monkey\nmonkey.patch_all()",
            "rule 3 netserver",
        ),
        ("netserver/boot.py", "import structlog", "rule 4 netserver.boot:1"),
        ("netserver/__init__.py", "try:\n    import socket\nfinally: pass", "rule 4 netserver:2"),
        ("pop3/__init__.py", "from importlib.metadata import version", "rule 4 pop3:1"),
        ("netserver/x.py", "import os\nos.fork()", "rule 5 netserver.x:2"),
        ("netserver/x.py", "from os import fork", "rule 5 netserver.x:1"),
        ("netserver/x.py", "from netserver import native\nnative.fork()", "rule 5 netserver.x:2"),
        ("pop3/x.py", "import structlog", "rule 6 pop3.x:1"),
        ("pop3/wire.py", "import pop3.session", "rule 7 pop3.wire:1"),
        ("pop3/maildrop.py", "from netserver import option", "rule 7 pop3.maildrop:1"),
        ("pop3/x.py", "from . import wire", "no relative or star import pop3.x:1"),
    ],
)
def test_a_broken_rule_is_seen(tmp_path: Path, file: str, text: str, told: str) -> None:
    """Each rule has been seen to fail."""
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert [one for one in violations(tmp_path) if one.startswith(told)]


def test_what_boot_loads_is_followed(tmp_path: Path) -> None:
    """A heavy import two steps away is found, one in a function or for types is not."""
    home = tmp_path / "netserver"
    home.mkdir()
    (home / "boot.py").write_text("from netserver import a")
    (home / "a.py").write_text("def f():\n    import netserver.b")
    (home / "b.py").write_text("import ssl")
    assert list(violations(tmp_path)) == []
    (home / "a.py").write_text("if TYPE_CHECKING:\n    import structlog, netserver.b")
    assert list(violations(tmp_path)) == []
    (home / "a.py").write_text("from netserver.b import x")
    assert list(violations(tmp_path)) == ["rule 4 netserver.b:1"]


@pytest.mark.parametrize(
    "text",
    [
        "from pop3 import Message, compose\nimport os",
        "from pop3.sources.x_index import Index\nimport pop3.message",
    ],
)
def test_what_is_allowed_is_not_told(tmp_path: Path, text: str) -> None:
    """A source may use what is public, and files of its own."""
    home = tmp_path / "pop3" / "sources"
    home.mkdir(parents=True)
    (home / "x.py").write_text(text)
    assert list(violations(tmp_path)) == []


def imported_by(*patterns: str) -> dict[str, set[str]]:
    """Return what the modules of some files import, whenever it is."""
    files = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    assert len(files) >= len(patterns)
    return {
        module_name(path, ROOT): {one.target.split(".")[0] for one in imports(parsed)}
        for path in files
        for parsed in [ast.parse(path.read_text())]
    }


def test_stored_mail_is_never_parsed() -> None:
    """What serves mailboxes knows a header from a body, and nothing of what is in them."""
    found = imported_by(
        "pop3/sources/maildir*.py", "pop3/sources/mbox*.py", "pop3/commands*.py", "pop3/wire.py"
    )
    assert [name for name, targets in found.items() if targets & {"email", "mailbox"}] == []


def test_nothing_is_left_to_the_module_random() -> None:
    """Its state is copied by fork and can be foreseen; only how long a worker lives may be."""
    found = imported_by("netserver/**/*.py", "pop3/**/*.py")
    users = {name for name, targets in found.items() if "random" in targets}
    assert users <= {"netserver.personalities.prefork"}
