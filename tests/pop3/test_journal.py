"""The journal of ids: what was given stays, what has gone is forgotten late, a loss is noticed."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3.errors import TemporaryFailure
from pop3.journal import KEPT_DAYS, Journal
from pop3.state import State, make_directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a state directory."""
    make_directory(tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def database(directory: Path) -> Path:
    """Return the path of the database."""
    return directory / "state.sqlite"


@pytest.fixture
def journal(directory: Path, database: Path) -> Iterator[Journal]:
    """Return a new journal."""
    state = State(f"sqlite:///{database}")
    yield Journal(state, directory)
    state.close()


def again(journal: Journal) -> Journal:
    """Return the same journal as another process sees it."""
    return Journal(State(journal._state._url), journal.name_file.parent)


def test_what_was_given_stays(journal: Journal) -> None:
    """Ids are there for the next process; maildrops know nothing of each other."""
    assert journal.read("box").uids == {}
    journal.write("box", {"m1": "A", "m2": "B"}, "file:1")
    journal.write("other", {"m1": "A"}, "")
    found = again(journal).read("box")
    assert found.uids == {"m1": "A", "m2": "B"}
    assert found.stamp == "file:1"
    assert again(journal).read("other").stamp == ""


def test_many_ids(journal: Journal) -> None:
    """A first login to a large mailbox is one transaction."""
    new = {f"m{number}": f"<{number}@x>" for number in range(5000)}
    journal.write("box", new, "")
    assert journal.read("box").uids == new


@pytest.mark.parametrize("new", [{"m1": "C"}, {"m9": "A"}, {"m8": "D", "m9": "A"}])
def test_another_session_was_quicker(journal: Journal, new: dict[str, str]) -> None:
    """An id in conflict with what is there is not announced, and nothing of it is written."""
    journal.write("box", {"m1": "A"}, "")
    with pytest.raises(TemporaryFailure):
        journal.write("box", new, "")
    assert journal.read("box").uids == {"m1": "A"}


def test_what_has_gone_is_kept_for_a_while(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come back and has its id then; after a month it is forgotten."""
    journal.write("box", {"m1": "A", "m2": "B", "m3": "C"}, "")
    journal.note_gone("box", journal.read("box"), ["m1"])
    assert set(journal.read("box").gone) == {"m2", "m3"}
    journal.note_gone("box", journal.read("box"), ["m1", "m2"])
    found = journal.read("box")
    assert set(found.gone) == {"m3"}
    assert found.uids["m2"] == "B"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + (KEPT_DAYS + 1) * 86400)
    journal.note_gone("box", found, ["m1", "m2"])
    assert journal.read("box").uids == {"m1": "A", "m2": "B"}


def test_a_login_without_news_writes_nothing(journal: Journal, database: Path) -> None:
    """The database is only read."""
    journal.write("box", {"m1": "A", "m2": "B"}, "")
    journal.note_gone("box", journal.read("box"), ["m1"])
    journal._state.close()
    before = sqlite3.connect(database).execute("PRAGMA data_version").fetchone()
    with sqlite3.connect(database) as watcher:
        first = watcher.execute("PRAGMA data_version").fetchone()
        journal.note_gone("box", journal.read("box"), ["m1"])
        assert watcher.execute("PRAGMA data_version").fetchone() == first
        journal.write("box", {"m4": "D"}, "")  # the watcher would have seen it
        assert watcher.execute("PRAGMA data_version").fetchone() != first
    watcher.close()
    assert before


def test_a_lost_journal_is_noticed(journal: Journal, database: Path) -> None:
    """An empty database in place of the old one gives no ids until somebody says that it may."""
    journal.write("box", {"m1": "A"}, "")
    journal._state.close()
    for path in database.parent.glob("state.sqlite*"):
        path.unlink()
    with pytest.raises(TemporaryFailure):  # the running process
        journal.read("box")
    for path in database.parent.glob("state.sqlite*"):
        path.unlink()
    with pytest.raises(TemporaryFailure, match="lost"):  # a new one
        again(journal).read("box")
    journal.name_file.unlink()
    assert again(journal).read("box").uids == {}


def test_a_state_that_is_none(directory: Path) -> None:
    """A damaged database is a failure that passes."""
    (directory / "state.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(TemporaryFailure):
        Journal(State(f"sqlite:///{directory / 'state.sqlite'}"), directory).read("box")
