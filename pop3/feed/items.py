"""What a feed says, whatever its format, and the names by which its items are known for good."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urldefrag, urlsplit

from pop3.scrape.errors import FetchError
from pop3.scrape.filters import join_url

MOST_ENCLOSURES = 20
"""Of one item; what is beyond them is left out."""

_LAST_DATE = 4102444800.0  # 2100: what is later is a mistake
_GLOBAL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:.{8,}")  # a URL, tag:, urn: … as the RFCs want it


class NotAFeed(FetchError):
    """A page is no feed, or one that cannot be meant well."""


@dataclass(frozen=True)
class Enclosure:
    """A file that goes with an item; `octets` is what the feed says, None if it does not."""

    url: str
    kind: str = ""
    octets: int | None = None


@dataclass(frozen=True)
class Item:
    """One item. Links are absolute or empty, dates in seconds since 1970 or None.

    `guid` is the feed's own id or "". `html` and `text` are as the feed has them, `base` is what
    links in the HTML are relative to. `reply_to` is the guid of the item that this one answers.
    """

    guid: str = ""
    title: str = ""
    link: str = ""
    author: str = ""
    address: str = ""
    date: float | None = None
    updated: float | None = None
    html: str = ""
    text: str = ""
    base: str = ""
    enclosures: tuple[Enclosure, ...] = ()
    reply_to: str = ""

    @property
    def content(self) -> str:
        """A short digest of what a reader would see."""
        files = [one.url for one in self.enclosures]
        return digest(self.title, self.html, self.text, *files)[:10]


@dataclass(frozen=True)
class Document:
    """A feed: its title, the site it belongs to, and its items in its own order."""

    title: str
    link: str
    items: tuple[Item, ...]


def digest(*parts: str) -> str:
    """Return 64 hex digits that stand for some texts."""
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def identified(items: Sequence[Item]) -> list[tuple[str, Item]]:
    """Name each item by its guid, else its link, else what it says; in the same order.

    Items that share such a name (a feed in which each guid is "1") are told apart by link and
    title, wherever they stand; what is the same in these too is the same item.
    """
    twins: dict[str, set[tuple[str, str]]] = {}
    for item in items:
        twins.setdefault(_name(item), set()).add((item.link, item.title))
    found: dict[str, Item] = {}
    for item in items:
        name = _name(item)
        if len(twins[name]) > 1:
            name = f"{name}\0{item.link}\0{item.title}"
        found.setdefault(name, item)
    return list(found.items())


def _name(item: Item) -> str:
    return item.guid or item.link or f"\0{item.title}\0{item.date}\0{item.html}{item.text}"


def uid_of(key: str, name: str) -> str:
    """Return the unique id of an item of a feed."""
    return digest(key, name)[:32]


def message_id(key: str, name: str) -> str:
    """Return the Message-ID of an item: the same in all feeds if its guid is one for all the world.

    So an item of a feed of comments answers one of the feed of articles.
    """
    name = name if _GLOBAL.match(name) else f"{key}\0{name}"
    return f"<{digest(name)[:28]}@feed.localhost>"


def threads(document: Document, named: Sequence[tuple[str, Item]]) -> dict[str, str]:
    """Say which item (by name) each one answers: as the feed says, else the first of equal link."""
    answers: dict[str, str] = {}
    first: dict[str, tuple[float, int, str]] = {}
    for place, (name, item) in enumerate(named):
        link = _article(document, item)
        if link:
            # in a feed without dates the oldest stands last
            rank = (item.date or 0.0, -place, name)
            first[link] = min(first.get(link, rank), rank)
    for name, item in named:
        root = first.get(_article(document, item))
        if item.reply_to:
            answers[name] = item.reply_to
        elif root is not None and root[2] != name:
            answers[name] = root[2]
    return answers


def _article(document: Document, item: Item) -> str:
    """Return the page an item belongs to; "" for one that is the site's front page."""
    url = urldefrag(item.link).url
    parts = urlsplit(url)
    is_front = parts.path in ("", "/") and not parts.query
    return "" if is_front or url == urldefrag(document.link).url else url


def absolute(base: str, url: str) -> str:
    """Return the absolute http or https URL, "" for anything else."""
    joined = join_url(base, url) if url.strip() else ""
    return joined if joined.startswith(("http://", "https://")) else ""


def sane(seconds: float) -> float | None:
    """Return a date that a mail can have, None for one before 1970 or after 2100."""
    return seconds if 0 <= seconds < _LAST_DATE else None
