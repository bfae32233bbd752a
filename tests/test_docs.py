"""The documents in share/doc say what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from netserver.hooks import Hooks
from netserver.options import options_of, options_reference
from netserver.server import NetServer
from netserver.settings import PERSONALITIES, ServerSettings
from pop3.sources.maildir import POP3Maildir

if TYPE_CHECKING:
    from tests.conftest import Start

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "share" / "doc"
REGENERATE = "options.md is out of date; run: .venv/bin/python -m tests.test_docs"

OPTIONS_HEAD = """\
# Options of pop3-server

An option may be given as a flag, as a variable in the environment, or as a key in a file: the
flag's name without the dashes in front, such as `lock-wait: 5`. Flags win over the environment,
that over files, those over the defaults. Where an option may be repeated, the environment takes
several values as words of a shell, and a file takes a list. Times are in seconds.

Files are YAML, TOML or INI. `-c FILE`, `--config FILE` names one and may be repeated. Without it
those in `/etc/pop3-server/` are read, then those in `$XDG_CONFIG_HOME/pop3-server/`, unless
`--no-default-config` is given. A key that is not known is an error with file and line.
`--check-config` checks and ends (0 or 2); `--print-config` shows every value with where it came
from; `--help` and `--version` do what they always do.

These are the options with the maildir source; another one has its own in place of `--maildir` and
`--trust-maildir-sizes`.

"""


def options_document() -> str:
    """Return what options.md must be."""
    return OPTIONS_HEAD + options_reference(POP3Maildir.settings_class, "POP3_")


def document(name: str) -> str:
    """Return a document's text."""
    return (DOC / name).read_text()


def test_options_are_the_ones_there_are() -> None:
    """options.md is made from the settings classes."""
    assert document("options.md") == options_document(), REGENERATE


def test_every_hook_is_named() -> None:
    """hooks.md has them all, and every step around them is a method."""
    text = document("hooks.md")
    names = [name for name in vars(Hooks) if not name.startswith("_")]
    assert len(names) > 20
    assert [name for name in names if f"`{name}(" not in text] == []
    table = text[: text.index("## Which process")]
    named = re.findall(r"^\|[^|]*\| \**`([a-z_]+)\(", table, re.MULTILINE)
    assert [name for name in named if not callable(getattr(NetServer, name, None))] == []
    assert len(set(named)) == len(named) > 35


def test_what_is_said_to_be_missing_is_missing() -> None:
    """The last part of hooks.md names nothing that has come since."""
    text = document("hooks.md")
    missing = text[text.index("## What Net::Server has") :]
    names = re.findall(r"`([a-z_]+)`", missing)
    assert "child_is_talking_hook" in names
    assert [name for name in names if hasattr(NetServer, name)] == []


def test_every_process_model_is_described() -> None:
    """processes.md names all personalities and, with their defaults, the options about them."""
    text = document("processes.md")
    assert [name for name in PERSONALITIES if f"`{name}`" not in text] == []
    known = {option.flag for option in options_of(ServerSettings)} | {"--check-config"}
    assert {flag for flag in re.findall(r"`(--[a-z-]+)", text) if flag not in known} == set()
    for option in options_of(ServerSettings):
        for shown in re.findall(rf"`{option.flag}` \((\d+)\)", text):
            if option.default is not None:
                assert shown == f"{option.default:g}", option.flag


def test_documents_point_at_each_other_rightly() -> None:
    """Every document that is named exists."""
    for path in DOC.glob("*.md"):
        for name in re.findall(r"`(?:share/doc/)?([A-Za-z-]+\.md)`", path.read_text()):
            assert (DOC / name).exists() or (ROOT / name).exists(), (path.name, name)


# -- the server in writing-a-server.md ------------------------------------------------------------


def example() -> str:
    """Return the program in writing-a-server.md."""
    found = re.search(r"```python\n(.*?)```", document("writing-a-server.md"), re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("kind", PERSONALITIES)
def test_the_example_server_runs(start: Start, tmp_path: Path, kind: str) -> None:
    """As it stands, under every personality."""
    (tmp_path / "guestbook.py").write_text(example())
    server = start(
        personality=kind,
        program="net-server",
        target="guestbook:Guestbook",
        env={
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
            "NET_SERVER_BOOK": str(tmp_path / "book"),
        },
    )
    with server.connect(greeted=False) as guest:
        assert guest.line() == b"+ welcome"
        guest.send(b"SIGN hello there\r\nSIGN " + b"x" * 300 + b"\r\nSIGN\r\nREAD\r\nQUIT\r\n")
        answers = [guest.line() for _ in range(6)]
        assert answers[:3] == [b"+ thank you", b"- too long", b"- SIGN words, READ or QUIT"]
        assert answers[3:] == [b": hello there", b".", b"+ signed 1"]
        assert guest.ended()


def test_the_example_server_checks_its_option(tmp_path: Path) -> None:
    """A wrong --book is one line and exit code 2; so the program is run by its own name too."""
    (tmp_path / "guestbook.py").write_text(example())
    done = subprocess.run(
        [sys.executable, "guestbook.py", "--book", str(tmp_path), "--check-config"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (
        2,
        f"net-server: --book {tmp_path}: is a directory\n",
    )


if __name__ == "__main__":
    (DOC / "options.md").write_text(options_document())
