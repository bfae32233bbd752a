"""Go through a site as its spec says: start, form, list pages, items, messages.

    listed = list_items(spec, user, fetcher)
    read = read_item(spec, user, fetcher, listed.entries[0])
    octets = message_octets(spec, user, fetcher, read, now)

Nothing here is kept; `mailbox` does that. A preview calls the same steps and shows what each gives.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from pop3.scrape import form, message
from pop3.scrape.errors import FetchError, ScrapeError, SiteChanged
from pop3.scrape.extract import Reading, Source, find, read_field
from pop3.scrape.fetch import Fetcher, Request
from pop3.scrape.filters import join_url
from pop3.scrape.page import Page
from pop3.scrape.spec import Spec

User = Mapping[str, str]
_UID = re.compile(r"[\x21-\x7e]{1,70}")


@dataclass(frozen=True)
class Entry:
    """One item as the list has it: its unique id, its page, and what the list says of it.

    `node` is its place in the page, for a preview.
    """

    uid: str
    url: str
    readings: Mapping[str, Reading]
    node: Source = field(repr=False, compare=False)

    @property
    def values(self) -> dict[str, Any]:
        """The fields of the list."""
        return {name: reading.value for name, reading in self.readings.items()}


@dataclass
class Listed:
    """What the list pages gave. `complete`: all of it, not cut short by a limit or an error.

    `is_empty` tells that the site itself says so; `failure` is why a later page could not be had.
    """

    entries: list[Entry] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    complete: bool = True
    is_empty: bool = False
    failure: ScrapeError | None = None


@dataclass(frozen=True)
class Item:
    """One item with all its fields; `page` is None if it has no page of its own."""

    entry: Entry
    page: Page | None
    readings: Mapping[str, Reading]
    values: Mapping[str, Any]

    @property
    def missing(self) -> list[str]:
        """The required fields that are not there."""
        return [
            name
            for name, reading in self.readings.items()
            if reading.missing and reading.field.required
        ]


def start_request(spec: Spec, user: User) -> Request:
    """Return the first request."""
    start = spec.start
    values = _names(spec, user)
    headers = {name: _one_line(template(values)) for name, template in start.headers.items()}
    data = b""
    if start.form:
        data = form.encoded({name: template(values) for name, template in start.form.items()})
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    elif start.json is not None:
        data = start.json(values).encode("utf-8", "replace")
        headers.setdefault("Content-Type", "application/json")
    return Request(start.url(values), start.method, data, headers)


def list_items(
    spec: Spec, user: User, fetcher: Fetcher, on_page: Callable[[Page], None] | None = None
) -> Listed:
    """Get the list pages and what they list.

    Raises FetchError and SiteChanged if not even the first page could be had or understood.
    """
    listed = Listed()
    seen = on_page or (lambda _: None)
    page = fetcher.send(start_request(spec, user))
    if spec.form is not None:
        seen(page)
        page = fetcher.send(form.submit(spec.form, page, _names(spec, user)))
    visited = {page.url}
    while True:
        listed.pages.append(page)
        seen(page)
        url = _take(spec, user, page, listed)
        more = bool(url) and url not in visited
        full = len(listed.pages) >= spec.most_pages or len(listed.entries) >= spec.most_items
        if full or not more:
            listed.complete = not more and len(listed.entries) <= spec.most_items
            del listed.entries[spec.most_items :]
            return listed
        visited.add(url)
        try:
            page = fetcher.get(url, _same_headers(spec, user, url))
        except FetchError as error:
            listed.complete = False
            listed.failure = error
            return listed


def _take(spec: Spec, user: User, page: Page, listed: Listed) -> str:
    """Take the items of a list page; returns the URL of the next page, "" if this is the last.

    A page with nothing new is the last, whatever it links to.
    """
    source = Source.of(page)
    known = {entry.uid for entry in listed.entries}
    before = len(known)
    for entry in entries_of(spec, user, source):
        if entry.uid not in known:
            known.add(entry.uid)
            listed.entries.append(entry)
    if not known and spec.listing.empty is not None:
        listed.is_empty = bool(find(spec.listing.empty, source))
    if len(known) == before:
        return ""
    return next_page(spec, user, source, len(listed.pages))


def entries_of(spec: Spec, user: User, source: Source) -> list[Entry]:
    """Return the items on one list page. Raises ScrapeError."""
    entries = []
    for node in find(spec.listing.items, source):
        url = _link(spec, node)
        sources: dict[str, Source | str] = {"list": node, "url": url}
        values = {**_names(spec, user), "url": url}
        readings = {}
        for one in spec.listing.fields:
            readings[one.name] = reading = read_field(one, sources, values)
            values[one.name] = reading.value
        if spec.item.url is not None:
            values["url"] = sources["url"] = url = join_url(source.url, spec.item.url(values))
        identity = url
        if spec.item.id is not None:
            identity = str(read_field(spec.item.id, sources, values).value)
        for one in spec.item.fields:  # what needs no page is known already
            if one.source != "page" and one.template is None:
                readings[one.name] = read_field(one, sources, values)
        if identity and (url or not spec.item.fetch):
            entries.append(Entry(valid_uid(identity), url, readings, node))
    return entries


def valid_uid(identity: str) -> str:
    """Return an id as POP3 can announce it (RFC 1939 §7)."""
    if _UID.fullmatch(identity):
        return identity
    return sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def next_page(spec: Spec, user: User, source: Source, number: int) -> str:
    """Return the URL of the next list page, "" after the last; this one is the `number`th."""
    listing = spec.listing
    page = _number(listing.page, source) or number
    pages = _number(listing.pages, source)
    if pages is not None and page >= pages:
        return ""
    if listing.next_url is not None:
        return listing.next_url({**_names(spec, user), "page": page + 1})
    if listing.next is None:
        return ""
    found = find(listing.next, source)
    return join_url(source.url, _href(found[0])) if found else ""


def read_item(spec: Spec, user: User, fetcher: Fetcher, entry: Entry) -> Item:
    """Get an item's page and read its fields. Raises ScrapeError."""
    page = None
    if spec.item.fetch:
        page = fetcher.get(entry.url, _same_headers(spec, user, entry.url))
    sources: dict[str, Source | str] = {"list": entry.node, "url": entry.url}
    if page is not None:
        sources["page"] = Source.of(page)
    values = {**_names(spec, user), "url": entry.url, "id": entry.uid, **entry.values}
    readings = dict(entry.readings)
    for one in spec.item.fields:
        if one.name not in readings:
            readings[one.name] = read_field(one, sources, values)
        values[one.name] = readings[one.name].value
    if spec.postprocess is not None:
        values = _postprocessed(spec, values, page)
    return Item(entry, page, readings, values)


def message_octets(spec: Spec, fetcher: Fetcher, item: Item, now: datetime) -> bytes:
    """Return the finished message, in its size if the spec gives one. Raises ScrapeError."""
    made = message.draft(spec, item.entry.uid, item.values, now)
    if spec.size is not None:
        return message.padded(made, spec.size)
    if spec.message.attachments:
        base = item.page.url if item.page is not None else item.entry.url
        files = message.attachments(spec, item.values, base, fetcher)
        made = message.with_attachments(made, files)
    return message.octets(made)


def _postprocessed(spec: Spec, values: dict[str, Any], page: Page | None) -> dict[str, Any]:
    assert spec.postprocess is not None
    try:
        made = spec.postprocess(dict(values), page)
    except Exception as error:
        raise ScrapeError(f"postprocess: {type(error).__name__}: {error}") from error
    if not isinstance(made, dict):
        raise ScrapeError("postprocess returned no fields")
    return {**values, **made}


def _names(spec: Spec, user: User) -> dict[str, Any]:
    return {"user": user, "site": spec.name}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _same_headers(spec: Spec, user: User, url: str) -> dict[str, str]:
    """Return the spec's own header fields for a page of the site that the walk began at."""
    if not spec.start.headers:
        return {}
    values = _names(spec, user)
    if form.origin(url) != form.origin(spec.start.url(values)):
        return {}
    return {name: _one_line(template(values)) for name, template in spec.start.headers.items()}


def _link(spec: Spec, node: Source) -> str:
    if spec.listing.link is not None:
        text = str(read_field(spec.listing.link, {"list": node}, {}).value)
    elif spec.item.fetch and spec.item.url is None:
        text = _href(node)
    else:
        return ""
    return join_url(node.url, text) if text else ""


def _href(source: Source) -> str:
    """Return the link that an element is or holds; a text is one itself."""
    if not source.is_element or source.node is None:
        return source.value if isinstance(source.value, str) else source.text
    return source.node.xpath("self::a/@href | .//a/@href").get() or ""


def _number(selection: Any, source: Source) -> int | None:
    if selection is None:
        return None
    for one in find(selection, source):
        if digits := re.search(r"[0-9]{1,9}", one.text):
            return int(digits[0])
    raise SiteChanged(f"no number: {selection}", source.page)
