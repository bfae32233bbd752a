"""JSON Feed, versions 1 and 1.1 (https://www.jsonfeed.org/version/1.1/)."""

import json
from collections.abc import Iterator
from typing import Any

from pop3.feed.items import MOST_ENCLOSURES, Document, Enclosure, Item, NotAFeed, absolute, sane
from pop3.scrape.filters import read_date

_VERSION = "jsonfeed.org/version/1"


def read(text: str, url: str) -> Document:
    """Read the text of a feed. Raises NotAFeed."""
    try:
        feed = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        raise NotAFeed("this is no JSON") from None
    if not isinstance(feed, dict) or _VERSION not in _text(feed.get("version")):
        raise NotAFeed("this is JSON, but no JSON Feed")
    items = tuple(_item(one, feed, url) for one in _objects(feed.get("items")))
    link = absolute(url, _text(feed.get("home_page_url")))
    return Document(" ".join(_text(feed.get("title")).split()), link, items)


def _item(one: dict[str, Any], feed: dict[str, Any], url: str) -> Item:
    html = _text(one.get("content_html"))
    text = _text(one.get("content_text")) or _text(one.get("summary"))
    link = absolute(url, _text(one.get("url")))
    date, updated = (_seconds(one.get(name)) for name in ("date_published", "date_modified"))
    return Item(
        guid=_text(one.get("id")).strip(),
        title=" ".join(_text(one.get("title")).split()),
        link=link or absolute(url, _text(one.get("external_url"))),
        author=_author(one) or _author(feed),
        date=date if date is not None else updated,
        updated=updated,
        html=html,
        text="" if html else text,
        base=link or url,
        enclosures=tuple(_enclosures(one, url))[:MOST_ENCLOSURES],
    )


def _author(owner: dict[str, Any]) -> str:
    """Return the names; version 1 had one author, 1.1 has a list."""
    authors = [*_objects(owner.get("authors"))] or [*_objects([owner.get("author")])]
    return ", ".join(filter(None, (_text(one.get("name")) for one in authors)))


def _enclosures(one: dict[str, Any], url: str) -> Iterator[Enclosure]:
    for file in _objects(one.get("attachments")):
        target = absolute(url, _text(file.get("url")))
        size = file.get("size_in_bytes")
        octets = size if isinstance(size, int) and 0 <= size < 10**10 else None
        if target:
            yield Enclosure(target, _text(file.get("mime_type")), octets)


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))


def _seconds(value: object) -> float | None:
    moment = read_date(_text(value))
    return None if moment is None else sane(moment.timestamp())


def _text(value: object) -> str:
    """Return a text; ids are numbers in some feeds."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # JSON may carry half surrogate pairs
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
