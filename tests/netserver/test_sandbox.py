"""The sandbox, entered by processes of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from netserver import sandbox
from netserver.reach import Reach, around

ROOT = Path(__file__).parents[2]
ENTER = """
import os, socket, subprocess, sys
from netserver.reach import Reach
from netserver import sandbox
assert sandbox.enter({reach}) is None
try:
    {action}
except OSError as error:
    print("refused", error.errno)
else:
    print("done")
"""

pytestmark = pytest.mark.skipif(sandbox.unavailable() is not None, reason="no Landlock here")


def attempt(action: str, reach: Reach | None, directory: Path) -> str:
    """Return what comes of an action in the sandbox."""
    code = ENTER.format(reach=repr(reach), action=action.format(dir=directory))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Make a directory that is in reach, and one that is not."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out" / "file")
    return tmp_path


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        ("open('{dir}/in/file').close()", "done"),
        ("open('{dir}/in/file', 'w').close()", "done"),
        ("os.mkdir('{dir}/in/sub'); os.rename('{dir}/in/file', '{dir}/in/sub/file')", "done"),
        ("os.unlink('{dir}/in/file')", "done"),
        ("open('{dir}/out/file').close()", "refused"),
        ("open('{dir}/in/link').close()", "refused"),
        ("os.listdir('{dir}/out')", "refused"),
        ("os.unlink('{dir}/out/file')", "refused"),
        ("os.rename('{dir}/in/file', '{dir}/out/new')", "refused"),
        ("os.truncate('{dir}/out/file', 0)", "refused"),
        ("os.mkfifo('{dir}/in/fifo')", "refused"),
        ("os.symlink('/', '{dir}/in/out')", "refused"),
        ("subprocess.run(['/bin/true'])", "refused"),
        ("os.kill(os.getppid(), 0)", "refused"),
        ("os.kill(os.getpid(), 0)", "done"),
        ("import wave", "done"),
        ("open('/dev/null', 'w').close()", "done"),
        ("socket.getaddrinfo('localhost', 1)", "done"),
    ],
)
def test_within_reach_and_out_of_it(place: Path, action: str, outcome: str) -> None:
    """What serving needs works, all else is refused."""
    assert attempt(action, Reach(write=(str(place / "in"),)), place) == outcome


def test_reading_is_not_writing(place: Path) -> None:
    """What is there for reading is not changed."""
    reach = Reach(read=(str(place / "in"),))
    assert attempt("open('{dir}/in/file').close()", reach, place) == "done"
    assert attempt("open('{dir}/in/file', 'w').close()", reach, place) == "refused"


@pytest.mark.parametrize("network", [True, False])
def test_connections_where_they_are_needed(place: Path, *, network: bool) -> None:
    """To a listener that was there before."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        action = f"with socket.socket() as far: far.connect({listener.getsockname()!r})"
        outcome = attempt(action, Reach(network=network), place)
    assert outcome == ("done" if network else "refused")


def test_without_a_reach_files_stay(place: Path) -> None:
    """But other processes are out of reach all the same."""
    assert attempt("open('{dir}/out/file').close()", None, place) == "done"
    assert attempt("subprocess.run(['/bin/true'])", None, place) == "done"
    assert attempt("os.kill(os.getppid(), 0)", None, place) == "refused"


def test_what_is_not_there_is_no_error(place: Path) -> None:
    """A mail root that is missing makes no sandbox fail."""
    reach = Reach(write=(str(place / "nowhere"),))
    assert attempt("os.stat('/')", reach, place) == "done"


def test_reaches_add_up() -> None:
    """Source, backends and state each say what they need."""
    both = Reach(read=("/a",)) | Reach(write=("/b",), network=True)
    assert both == Reach(read=("/a",), write=("/b",), network=True)
    assert os.path.isabs(both.read[0])


def test_the_root_on_the_module_path_opens_nothing(place: Path) -> None:
    """Python started in "/" may have that on its path; files stay out of reach all the same."""
    code = ENTER.replace("assert", "sys.path.insert(0, '/')\nassert", 1)
    code = code.format(reach=repr(Reach()), action=f"open({str(place / 'out' / 'file')!r})")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    assert done.stdout.startswith("refused"), done.stderr


def test_a_file_in_the_root_puts_nothing_else_in_reach() -> None:
    """Around a file is its directory, but not where that is everything; and everything is told."""
    assert around("/etc/pop3-server/users") == "/etc/pop3-server"
    assert around("/users") == "/users"
    assert not Reach(read=("/etc",)).has_everything
    assert Reach(write=("/tmp/..",)).has_everything
