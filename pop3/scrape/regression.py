"""A spec against saved pages and the messages that must come of them: `pop3-try scrape --test`.

A directory holds `test.yaml` (`user`: the name to log in with; `now`: the date of items that have
none), `pages/` as in `saved`, and `expected/`, a file for each message in the order of the list.
"""

import difflib
import re
from datetime import UTC, datetime
from pathlib import Path

from netserver.errors import ConfigError
from pop3 import wire
from pop3.scrape import filters, mailbox, walk, yaml_tree
from pop3.scrape import spec as specs
from pop3.scrape.errors import ScrapeError
from pop3.scrape.saved import SavedPages
from pop3.scrape.user import WrongName

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def messages(spec_file: str | Path, directory: str | Path) -> dict[str, bytes]:
    """Return the messages that a spec makes of saved pages, by file name, in their order.

    Raises ConfigError for what is wrong in the files, ScrapeError for what is in the pages.
    """
    spec = specs.load(str(spec_file))
    directory = Path(directory)
    settings = yaml_tree.read(str(directory / "test.yaml")).mapping({"user", "now"})
    now = _NOW
    if "now" in settings:
        now = filters.read_date(settings["now"].string()) or settings["now"].fail("is no date")
    name = settings["user"].text or "" if "user" in settings else ""
    try:
        user = spec.user.read(name)
    except WrongName as error:
        settings["user"].fail(str(error))
    made = {}
    with mailbox.fetcher_for(spec, transport=SavedPages(directory / "pages")) as fetcher:
        listed = walk.list_items(spec, user, fetcher)
        if listed.failure is not None:
            raise listed.failure
        for number, entry in enumerate(listed.entries, 1):
            item = walk.read_item(spec, user, fetcher, entry)
            if item.missing:
                raise ScrapeError(f"{entry.url}: no {', '.join(item.missing)}")
            key = f"{number:02d}-{re.sub(r'[^A-Za-z0-9._-]', '_', entry.uid)}.eml"
            made[key] = walk.message_octets(spec, fetcher, item, now)
    return made


def check(spec_file: str | Path, directory: str | Path) -> list[str]:
    """Return what differs from the expected messages, as lines of a diff; none: all is well.

    Raises ConfigError and ScrapeError.
    """
    made = messages(spec_file, directory)
    expected = _expected(Path(directory) / "expected")
    lines: list[str] = []
    for name in sorted({*made, *expected}):
        before, after = expected.get(name, b""), made.get(name, b"")
        if wire.crlf(before) != after:
            lines += difflib.unified_diff(
                _lines(before), _lines(after), f"expected/{name}", f"made/{name}", lineterm=""
            )
    return lines


def write_expected(spec_file: str | Path, directory: str | Path) -> list[str]:
    """Write the messages as they are now as the expected ones; returns the names of the files."""
    made = messages(spec_file, directory)
    place = Path(directory) / "expected"
    try:
        place.mkdir(exist_ok=True)
        for path in place.glob("*.eml"):
            path.unlink()
        for name, octets in made.items():
            (place / name).write_bytes(octets.replace(b"\r\n", b"\n"))
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written: {error.strerror}") from None
    return list(made)


def _expected(place: Path) -> dict[str, bytes]:
    try:
        return {path.name: path.read_bytes() for path in sorted(place.glob("*.eml"))}
    except OSError as error:
        raise ConfigError(f"{place}: cannot be read: {error.strerror}") from None


def _lines(octets: bytes) -> list[str]:
    return octets.decode("utf-8", "replace").splitlines()
