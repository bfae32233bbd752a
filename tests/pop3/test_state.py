"""What is kept for longer than a session."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.errors import TemporaryFailure
from pop3.settings import POP3Settings
from pop3.state import State, make_directory, seen_from, state_directory, state_url
from tests.support.servers import run_program

HIDER = """
import sys
from pop3.state import State
state = State(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for n in range(20):
    state.hide("drop", "", [f"{sys.argv[2]}.{n}"])
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'state.sqlite'}"


@pytest.fixture
def state(url: str) -> Iterator[State]:
    """Return a new state."""
    made = State(url)
    yield made
    made.close()


def test_hidden_sets_are_apart(state: State) -> None:
    """Each maildrop and each of its views hides for itself."""
    state.hide("drop", "", ["a", "b"])
    state.hide("drop", "phone", ["c"])
    state.hide("other", "", ["d"])
    assert state.hidden("drop", "") == {"a", "b"}
    assert state.hidden("drop", "phone") == {"c"}
    assert state.hidden("other", "") == {"d"}
    assert state.hidden("nobody", "") == set()


def test_hiding_twice_is_hiding(state: State) -> None:
    """What is hidden already is no error, and nothing to hide is none either."""
    state.hide("drop", "", ["a"])
    state.hide("drop", "", ["a", "b"])
    state.hide("drop", "", [])
    assert state.hidden("drop", "") == {"a", "b"}


def test_many_at_once(state: State) -> None:
    """Thousands are one transaction."""
    uids = {f"uid{n}" for n in range(5000)}
    state.hide("drop", "", uids)
    assert state.hidden("drop", "") == uids


def test_sizes_are_remembered(state: State) -> None:
    """A size found once stays: the octets of a uid never change."""
    state.remember_sizes("drop", {"a": 1, "b": 2**40})
    state.remember_sizes("drop", {"a": 99, "c": 3})
    assert state.sizes("drop") == {"a": 1, "b": 2**40, "c": 3}
    assert state.sizes("other") == {}


def test_it_outlives_the_process(state: State, url: str) -> None:
    """Another process finds what this one wrote."""
    state.hide("drop", "", ["a"])
    again = State(url)
    assert again.hidden("drop", "") == {"a"}
    again.close()


def test_a_commit_is_on_disk(state: State, tmp_path: Path) -> None:
    """Write-ahead log and full sync: +OK to QUIT is a promise."""
    state.hide("drop", "", ["a"])
    with state.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert (tmp_path / "state.sqlite").exists()


def test_processes_that_begin_together(url: str) -> None:
    """Workers that all make the tables at once get along, and no hide is lost."""
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", HIDER, url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
        )
        for number in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
    for worker in workers:
        worker.communicate(b"go\n", timeout=50)
    assert [worker.returncode for worker in workers] == [0] * 4
    state = State(url)
    assert len(state.hidden("drop", "")) == 80
    state.close()


def test_who_comes_while_the_tables_are_made_waits(state: State, tmp_path: Path) -> None:
    """A new file that another process writes is waited for, though SQLite itself would not."""
    other = sqlite3.connect(
        tmp_path / "state.sqlite", isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, other.execute, ("COMMIT",))
    timer.start()
    try:
        assert state.hidden("joe", "") == set()
    finally:
        timer.join()
        other.close()


def test_a_forked_child_opens_its_own(state: State) -> None:
    """A connection never crosses a fork."""
    state.hide("drop", "", ["a"])
    engine = state._engine
    pid = os.fork()
    if pid == 0:
        fine = state.hidden("drop", "") == {"a"} and state._engine is not engine
        os._exit(0 if fine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert state._engine is engine


def test_what_cannot_be_opened_is_temporary(tmp_path: Path) -> None:
    """A login gets [SYS/TEMP], no traceback."""
    with pytest.raises(TemporaryFailure):
        State(f"sqlite:///{tmp_path}/missing/state.sqlite").hidden("drop", "")
    (tmp_path / "junk").write_bytes(b"this is no database" * 100)
    with pytest.raises(TemporaryFailure):
        State(f"sqlite:///{tmp_path}/junk").hidden("drop", "")


def test_another_version_is_not_touched(state: State, url: str, tmp_path: Path) -> None:
    """A state of a later release is refused, not rewritten."""
    state.hide("drop", "", ["a"])
    with sqlite3.connect(tmp_path / "state.sqlite") as database:
        database.execute("UPDATE schema_version SET version = 99")
    database.close()
    with pytest.raises(TemporaryFailure, match="version"):
        State(url).hidden("drop", "")


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--state decides, then systemd, then the user's own directories."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    settings = POP3Settings()
    assert state_directory(settings) == tmp_path / "xdg/pop3-server"
    assert (
        state_url(settings, state_directory(settings))
        == f"sqlite:///{tmp_path}/xdg/pop3-server/state.sqlite"
    )
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/systemd:/other")
    assert state_directory(settings) == tmp_path / "systemd"
    own = POP3Settings(state=f"sqlite:///{tmp_path}/own/db.sqlite")
    assert state_directory(own) == tmp_path / "own"
    assert state_url(own, state_directory(own)) == f"sqlite:///{tmp_path}/own/db.sqlite"
    shared = POP3Settings(state="postgresql+psycopg://host/db")
    assert state_url(shared, state_directory(shared)) == "postgresql+psycopg://host/db"
    assert state_directory(shared) == tmp_path / "systemd"


def test_chroot_must_hold_it(tmp_path: Path) -> None:
    """The state is named as it is seen inside; outside of it nothing could be kept."""
    assert seen_from(None, tmp_path) == tmp_path
    assert seen_from(str(tmp_path), tmp_path / "var/state") == Path("/var/state")
    with pytest.raises(ConfigError, match="does not lie inside"):
        seen_from(str(tmp_path / "jail"), tmp_path / "state")


def test_the_place_stays_when_root_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker finds what the master made, although it is not root any more."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "as-root"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert state_directory(POP3Settings()) == Path("/var/lib/pop3-server")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert state_directory(POP3Settings()) == Path("/var/lib/pop3-server")


def test_make_directory(tmp_path: Path) -> None:
    """It is for the owner only, has its rooms, and may be there already."""
    directory = tmp_path / "a/b"
    make_directory(directory)
    make_directory(directory)
    for room in (directory, directory / "locks", directory / "index"):
        assert room.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--state"):
        make_directory(tmp_path / "file/state")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:state.db", "SQLite needs a file"),
        ("sqlite:///", "SQLite needs a file"),
        ("nonsense", "Could not parse"),
        ("no-such://user:hush@host/db", "--state no-such://host/db: "),
    ],
)
def test_a_useless_url_ends_the_start(tmp_path: Path, url: str, why: str) -> None:
    """For a source that would not need it before its first view, too; no password is shown."""
    options = ("--no-default-config", "--check-config", "--auth", f"passwd-file:{tmp_path}/users")
    (tmp_path / "users").write_text("anna:!\n")
    done = run_program(
        "pop3-server", *options, "--maildir", "/m/{user}", "--state", url, home=tmp_path
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert why in done.stderr
    assert "hush" not in done.stderr
