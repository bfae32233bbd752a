"""Take guards away: `python -m tests.mutation [PATH…]`.

In a copy of the tree each guard of guards.toml is taken out alone, and the tests named for its file
are run.  A guard that no test misses has survived; the status is 1 when one did.  PATH: only these
files.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PARTS: Final = ("bin", "netserver", "pop3", "share", "tests", "pyproject.toml", "README.md")
SECONDS: Final = 300
PYTEST: Final = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly")
TESTS_FAILED: Final = 1
BROKEN: Final = 2  # not even the collection of the tests went well: noticed as well


def main() -> int:
    """Run and report."""
    with tempfile.TemporaryDirectory(prefix="pop3-mutation-") as directory:
        tree = Path(directory)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / part)
        survivors = [guard for one in _files() for guard in _survivors(tree, one)]
    return int(bool(survivors))


def _files() -> list[dict[str, Any]]:
    with (Path(__file__).parent / "guards.toml").open("rb") as stream:
        listed: list[dict[str, Any]] = tomllib.load(stream)["file"]
    asked = sys.argv[1:]
    return [one for one in listed if not asked or one["path"] in asked]


def _survivors(tree: Path, one: dict[str, Any]) -> Iterator[str]:
    """Yield the guards of one file that nobody missed."""
    file = tree / one["path"]
    whole = file.read_text()
    if _run(tree, one["tests"]):
        print(f"{one['path']}: its tests fail without any change", file=sys.stderr)
        yield one["path"]
        return
    killed = 0
    for guard in one["guards"]:
        find = guard["find"]
        if whole.count(find) != 1:
            print(f"{one['path']}: stands {whole.count(find)} times: {find!r}", file=sys.stderr)
            yield find
            continue
        file.write_text(whole.replace(find, guard["put"]))
        if _run(tree, one["tests"]) in (TESTS_FAILED, BROKEN):
            killed += 1
        else:
            print(f"{one['path']}: survived: {find!r} -> {guard['put']!r}", file=sys.stderr)
            yield find
    file.write_text(whole)
    report = {"figure": "G16", "file": one["path"], "guards": len(one["guards"]), "killed": killed}
    print(json.dumps(report), flush=True)


def _run(tree: Path, tests: list[str]) -> int:
    """Run tests; a guard that keeps a test from ending is missed as well."""
    command = [sys.executable, "-B", "-m", "pytest", *PYTEST, *tests]
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return TESTS_FAILED
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
