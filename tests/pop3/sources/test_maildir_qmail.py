"""~/.qmail says where a user's maildir is, and leads nowhere else."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pop3.errors import TemporaryFailure
from pop3.sources.maildir_qmail import MAX_OCTETS, maildir_of
from tests.conftest import Start
from tests.pop3.fakes import Log
from tests.support.maildirs import PLAIN, add_message, make_maildir


def session_of(home: Path | None) -> Any:
    """Return what of a session is looked at."""
    return SimpleNamespace(home=None if home is None else str(home), log=Log())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("./Maildir/\n", "Maildir"),
        ("./mail/in box/", "mail/in box"),
        (".hidden/\n", ".hidden"),
        (
            "# a comment\n|vacation\n&other@example.org\n./mbox\n./Maildir/ \r\n./Second/\n",
            "Maildir",
        ),
        ("{home}/Mail//deep/./\n", "Mail/deep"),
        ("&other@example.org\n", None),
        ("other@example.org\n./mbox\nMaildir/\n", None),
        ("", None),
    ],
)
def test_the_first_line_that_names_a_maildir(tmp_path: Path, text: str, found: str | None) -> None:
    """Only a directory counts, and the first one."""
    (tmp_path / ".qmail").write_text(text.replace("{home}", str(tmp_path)))
    assert maildir_of(session_of(tmp_path)) == (None if found is None else tmp_path / found)


@pytest.mark.parametrize(
    "text",
    ["../other/", "./a/../../b/", "/etc/", "/", "./", "./link/", "./link/deep/", "./a\0b/"],
)
def test_out_of_the_home_is_refused(tmp_path: Path, text: str) -> None:
    """Neither "..", another place, the home itself, nor a link; the cause is logged only."""
    (tmp_path / "link").symlink_to("/tmp")
    (tmp_path / ".qmail").write_text(text)
    session = session_of(tmp_path)
    with pytest.raises(TemporaryFailure, match=r"^mail store cannot be read$"):
        maildir_of(session)
    assert "its line" in session.log.fields(".qmail cannot be followed")["why"]


def test_a_home_beside_is_another(tmp_path: Path) -> None:
    """A directory whose name begins as the home's does is not inside."""
    home = tmp_path / "ann"
    home.mkdir()
    (home / ".qmail").write_text(f"{tmp_path}/anna/Maildir/")
    with pytest.raises(TemporaryFailure):
        maildir_of(session_of(home))


def test_no_file_and_no_home(tmp_path: Path) -> None:
    """Then it decides nothing."""
    assert maildir_of(session_of(tmp_path)) is None
    assert maildir_of(session_of(None)) is None


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "large"])
def test_what_is_no_such_file(tmp_path: Path, kind: str) -> None:
    """A link, a pipe (without waiting), a directory, and a file without end are refused."""
    path = tmp_path / ".qmail"
    if kind == "link":
        (tmp_path / "x").write_text("./Maildir/")
        path.symlink_to("x")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text("#" * (MAX_OCTETS + 1))
    with pytest.raises(TemporaryFailure):
        maildir_of(session_of(tmp_path))


def test_a_server(start: Start, tmp_path: Path) -> None:
    """One user with a .qmail, one without; a change holds from the next login."""
    for name in ("anna", "ben"):
        (tmp_path / name).mkdir()
    (tmp_path / "anna/.qmail").write_text("|spam-filter\n./Mail/in/\n")
    make_maildir(tmp_path / "anna/Mail/in", [PLAIN])
    make_maildir(tmp_path / "anna/Maildir", [PLAIN] * 2)
    make_maildir(tmp_path / "ben/Maildir", [PLAIN] * 3)
    users = "".join(
        f"{name}:{{PLAIN}}secret:1000:1000::{tmp_path}/{name}:\n" for name in ("anna", "ben")
    )
    (tmp_path / "homes").write_text(users)
    (tmp_path / "homes").chmod(0o600)
    options = ["--auth", f"passwd-file:{tmp_path}/homes", "--maildir", "~/Maildir"]
    server = start(personality="single", users={}, options=[*options, "--maildir-from-qmail"])
    with server.session("ben") as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 3 ")
        wire.quit()
    with server.session("anna") as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 1 ")
        wire.ok(b"DELE 1")
        (tmp_path / "anna/.qmail").write_text("./Maildir/\n")
        wire.quit()
    assert list((tmp_path / "anna/Mail/in/new").iterdir()) == []
    add_message(tmp_path / "anna/Mail/in", PLAIN, 9)
    with server.session("anna") as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 2 ")
        wire.quit()
    (tmp_path / "anna/.qmail").write_text("/etc/\n")
    with server.connect() as wire:
        wire.ok(b"USER anna")
        assert wire.err(b"PASS secret") == b"-ERR [SYS/TEMP] mail store cannot be read"
