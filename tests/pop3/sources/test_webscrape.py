"""The webscrape source below its sessions: names of sites, background work, what is remembered."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pop3.scrape import spec
from pop3.scrape.fresh import FreshWhile
from pop3.scrape.store import Kept, Store
from pop3.sources.webscrape import named_file
from pop3.sources.webscrape_box import mailbox_name, refresh_due
from pop3.state import State
from tests.support.scrapes import write_spec
from tests.support.website import OldSite


class Told:
    """A log that keeps what is told."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **values: Any) -> None:
        """Keep it."""
        self.events.append((event, values))

    warning = info


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty store."""
    state = State(f"sqlite:///{tmp_path}/state.sqlite")
    yield Store(state, f"{tmp_path}/state.sqlite")
    state.close()


@pytest.mark.parametrize("text", ["jobs=a.yaml", "a.yaml", "x/y-1.yaml", "j-1=/a/b=c", "Jobs.yaml"])
def test_names_of_specs(text: str) -> None:
    """A name before the file, or the file's own."""
    assert named_file(text) == text


@pytest.mark.parametrize("text", ["", "=a", "-a.yaml", "\u00fc.yaml", "a b.yaml"])
def test_names_that_are_none(text: str) -> None:
    """A name must be fit for a domain."""
    with pytest.raises(ValueError, match="expected name=FILE"):
        named_file(text)


def test_the_background_refreshes_what_is_due(tmp_path: Path, store: Store) -> None:
    """Each search that was opened lately is refreshed; errors are told and end nothing."""
    log = Told()
    with OldSite() as site:
        made = spec.load(str(write_spec(tmp_path / "x.yaml", site, more="limits: {retries: 0}\n")))
        for account in ("perl:25:", "old:name:of:a:search", "ruby:5:Rome"):
            store.note_visit(mailbox_name("x", account), "x", account, time.time())
        refresh_due("x", made, store, log, lambda: False)  # type: ignore[arg-type] # enough of a log
        assert [values["new"] for event, values in log.events] == [3, 3]
        assert len(store.load(mailbox_name("x", "ruby:5:Rome")).messages) == 3
        asked = len(site.asked)
        refresh_due("x", made, store, log, lambda: False)  # type: ignore[arg-type] # same
        assert len(site.asked) == asked  # fresh enough
        site.down = True
        log.events.clear()
        store.note_visit(mailbox_name("x", "c:5:"), "x", "c:5:", time.time())
        refresh_due("x", made, store, log, lambda: False)  # type: ignore[arg-type] # same
        assert [event for event, _ in log.events] == ["site cannot be read"]
        assert store.due("x", time.time() - 1, 0) == []


def test_a_listing_is_remembered_until_somebody_writes(tmp_path: Path) -> None:
    """Only what was read from a file that rests; any change of it makes us read again."""
    path = tmp_path / "file"
    path.write_text("x")
    fresh = FreshWhile([str(path), f"{path}-wal"])
    kept = Kept()
    fresh.put("a", kept, fresh.stamp())
    assert fresh.get("a") is None  # written a moment ago
    os.utime(path, (1000, 1000))
    fresh.put("a", kept, fresh.stamp())
    assert fresh.get("a") is kept
    assert fresh.get("b") is None
    (tmp_path / "file-wal").write_text("y")
    assert fresh.get("a") is None
    (tmp_path / "file-wal").unlink()
    assert fresh.get("a") is kept
    path.write_text("z")
    assert fresh.get("a") is None
    nothing = FreshWhile([])
    nothing.put("a", kept, nothing.stamp())
    assert nothing.get("a") is None


def test_a_remembered_listing_is_the_one_on_disk(store: Store, tmp_path: Path) -> None:
    """What another process writes is seen at once."""
    store.note_visit("m", "s", "a", 1.0)
    path = tmp_path / "state.sqlite"
    os.utime(path, (1000, 1000))
    assert store.load_listing("m").opened == 1.0
    assert store.remembered("m") is not None
    other = State(f"sqlite:///{path}")
    Store(other).note_visit("m", "s", "a", 2.0)
    assert store.remembered("m") is None
    assert store.load_listing("m").opened == 2.0
    other.close()
