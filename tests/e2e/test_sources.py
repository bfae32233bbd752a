"""Sources written by users: the example of share/examples, and a read-only one of three methods."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.servers import ROOT, RunningServer, run_program, running, write_users

EXAMPLES = ROOT / "share" / "examples"
NOTES = str(EXAMPLES / "notes.py")
READ_ONLY = '''
"""A source of three methods: it cannot delete."""
import io
from pop3 import Message, POP3Server


class POP3Fixed(POP3Server[None]):
    """The same three messages for everybody."""

    def open_box(self, session):
        return None

    def list_messages(self, session):
        return [Message(uid=f"fixed-{number}") for number in (1, 2, 3)]

    def read_message(self, session, message):
        return io.BytesIO(b"Subject: " + message.uid.encode() + b"\\n\\n.dotted\\n")
'''


@pytest.fixture
def notes(personality: str, tmp_path: Path) -> Iterator[RunningServer]:
    """Serve the notes of the examples under each personality."""
    directory = tmp_path / "notes" / "anna"
    directory.mkdir(parents=True)
    for name in ("apple", "pear", "plum"):
        (directory / f"{name}.txt").write_text(f"about the {name}\n.a line with a dot\n")
    with running(
        tmp_path,
        personality=personality,
        source="notes:POP3Notes",
        options=("--notes", f"{tmp_path}/notes/{{user}}"),
        env={"PYTHONPATH": f"{EXAMPLES}{os.pathsep}{ROOT}"},
    ) as server:
        yield server


def test_the_notes_example(notes: RunningServer, tmp_path: Path) -> None:
    """Exact sizes without the source knowing them, unique-ids, deletion by the source."""
    with notes.session() as wire:
        sizes = [int(line.split()[1]) for line in wire.lines(b"LIST")]
        assert len(sizes) == 3
        assert len({line.split()[1] for line in wire.lines(b"UIDL")}) == 3
        for number, size in enumerate(sizes, 1):
            text = wire.message(b"RETR %d" % number)
            assert len(text) == size
            assert b"\r\n.a line with a dot\r\n" in text
        assert wire.message(b"TOP 1 0").endswith(b"\r\n\r\n")
        wire.ok(b"DELE 2")
        wire.quit()
    assert sorted(path.name for path in (tmp_path / "notes" / "anna").iterdir()) == [
        "apple.txt",
        "plum.txt",
    ]
    with notes.session() as wire:
        assert wire.ok(b"STAT").split()[1] == b"2"
        wire.quit()


def test_a_read_only_source_hides(personality: str, tmp_path: Path) -> None:
    """DELE and QUIT hide a message for good, for this user only, also after a restart."""
    (tmp_path / "fixed.py").write_text(READ_ONLY)
    arguments = {
        "personality": personality,
        "source": "fixed:POP3Fixed",
        "users": {"anna": "secret", "bert": "secret"},
        "env": {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    }
    with running(tmp_path, **arguments) as server:
        with server.session() as wire:
            before = wire.lines(b"UIDL")
            assert len(before) == 3
            assert wire.message(b"RETR 2") == b"Subject: fixed-2\r\n\r\n.dotted\r\n"
            wire.ok(b"DELE 2")
        with server.session() as wire:
            assert wire.lines(b"UIDL") == before  # no QUIT, nothing hidden
            wire.ok(b"DELE 2")
            assert wire.quit().startswith(b"+OK")
        with server.session() as wire:
            after = [line.split()[1] for line in wire.lines(b"UIDL")]
            assert after == [line.split()[1] for line in (before[0], before[2])]
            assert wire.message(b"RETR 2") == b"Subject: fixed-3\r\n\r\n.dotted\r\n"
            assert wire.ok(b"STAT").split()[1] == b"2"
        with server.session("bert") as wire:
            assert wire.lines(b"UIDL") == before
    with running(tmp_path, **arguments) as server, server.session() as wire:
        assert wire.ok(b"STAT").split()[1] == b"2"
        wire.quit()


@pytest.mark.parametrize("kind", [None, "prefork", "single"])
def test_a_source_runs_as_a_script(start: Start, tmp_path: Path, kind: str | None) -> None:
    """`python notes.py` is a whole server, under gevent as well, and HUP starts the script anew."""
    (tmp_path / "notes" / "anna").mkdir(parents=True)
    (tmp_path / "notes" / "anna" / "plum.txt").write_text("about the plum\n")
    users = write_users(tmp_path / "users", {"anna": "secret"})
    server = start(
        personality=kind,
        program=NOTES,
        options=(
            *("--auth", f"passwd-file:{users}", "--notes", f"{tmp_path}/notes/{{user}}"),
            *("--state", f"sqlite:///{tmp_path}/state.db"),
        ),
    )
    for _ in range(2):
        with server.session() as wire:
            assert wire.ok(b"STAT").split()[1] == b"1"
            wire.quit()
        server.reload()
    assert f'"personality":"{kind or "gevent"}"' in server.log_text()


def test_a_script_tells_of_mistakes(tmp_path: Path) -> None:
    """By one line and its exit code, under the name whose variables and directories it reads."""
    done = run_program(NOTES, "--nope", home=tmp_path)
    assert (done.returncode, done.stderr) == (2, "pop3-server: unknown option --nope\n")
