"""The sources of share/examples do what their texts say."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pop3.fakes import LOGIN, make_server, replies, talk
from tests.support.maildirs import make_maildir
from tests.support.servers import environment, write_users

EXAMPLES = Path(__file__).parents[2] / "share/examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import one of them."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_readonly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message of exact size for everybody; who deletes it does not see it again."""
    kind = example("readonly", monkeypatch).POP3Welcome
    server = make_server(tmp_path, kind=kind, auth=("any",))
    out = replies(server, b"LIST\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
    message = b"From: postmaster@localhost\r\nSubject: welcome\r\n\r\nYour mailbox works.\r\n"
    assert (
        b"\r\n1 %d\r\n.\r\n+OK %d octets\r\n%b.\r\n" % (len(message), len(message), message) in out
    )
    assert replies(server, b"STAT\r\n") == b"+OK 0 0\r\n"
    other = talk(server, b"USER jane\r\nPASS x\r\nSTAT\r\n").out
    assert other.endswith(b"+OK 1 %d\r\n" % len(message))


def test_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is a message, and DELE and QUIT delete the file."""
    module = example("notes", monkeypatch)
    server = make_server(tmp_path, kind=module.POP3Notes)
    notes = tmp_path / "notes/joe"
    notes.mkdir(parents=True)
    for name in ("a", "b"):
        (notes / f"{name}.txt").write_text(f".note {name}\n")
    settings = module.NotesSettings(notes=f"{tmp_path}/notes/{{user}}", auth_failure_delay=0.0)
    object.__setattr__(server, "settings", settings)
    out = replies(server, b"UIDL\r\nRETR 2\r\nDELE 1\r\nQUIT\r\n")
    assert b"\r\n1 a.txt\r\n2 b.txt\r\n.\r\n" in out
    assert b"\r\nSubject: b\r\n" in out
    assert b"\r\n..note b\r\n.\r\n" in out
    assert [path.name for path in notes.iterdir()] == ["b.txt"]
    assert b"+OK 1 " in talk(server, LOGIN + b"STAT\r\n").out


def test_embed(tmp_path: Path) -> None:
    """One client on standard input and output of a program that is no server."""
    make_maildir(tmp_path / "mail/anna", [b"Subject: x\n\ntext\n"])
    users = write_users(tmp_path / "users", {"anna": "secret"})
    done = subprocess.run(
        [sys.executable, EXAMPLES / "embed.py", tmp_path / "mail", users],
        input=b"USER anna\nPASS secret\nRETR 1\nDELE 1\nQUIT\n",
        capture_output=True,
        timeout=30,
        check=False,
        env=environment(tmp_path),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\r\nSubject: x\r\n\r\ntext\r\n.\r\n+OK" in done.stdout
    assert list((tmp_path / "mail/anna/new").iterdir()) == []
