"""Look at one feed and say what that changes in its mailbox; nothing is kept here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pop3.compose import Attachment
from pop3.feed import parse, render
from pop3.feed.items import Document, Enclosure, Item, identified, message_id, threads, uid_of
from pop3.feed.subscriptions import Feed
from pop3.scrape.addresses import AddressPolicy, Network
from pop3.scrape.errors import FetchError, OutOfBudget
from pop3.scrape.fetch import Fetcher, FetchLimits
from pop3.scrape.page import Page
from pop3.scrape.store import Kept, Row, Update

Run = Callable[..., Any]
"""Calls `run(pool, function, *args)`: elsewhere, if other clients would have to wait."""

# one look ends by itself before a login or the background has had enough of it
LIMITS = FetchLimits(
    seconds=20.0,
    octets=32 * 1024 * 1024,
    page_octets=8 * 1024 * 1024,
    requests=20,
    retries=1,
)
# three that are slow still fit, so that each look makes some progress
ENCLOSURES = FetchLimits(
    seconds=25.0,
    page_seconds=7.0,
    octets=64 * 1024 * 1024,
    page_octets=5 * 1024 * 1024,
    requests=200,
    retries=0,
)
_MOST_ATTACHED = 3  # of one item; what is beyond them is linked
_ACCEPT = "application/atom+xml, application/rss+xml, application/feed+json, */*;q=0.8"


@dataclass(frozen=True)
class Rules:
    """What is wanted of all feeds; `most` items are taken of one, `allowed` are private networks.

    With `attach` enclosures are part of the message, with `new` what was changed is a new message.
    """

    most: int = 1000
    attach: bool = False
    new: bool = False
    allowed: tuple[Network, ...] = ()

    def policy(self, feed: Feed) -> AddressPolicy:
        """Return where a feed may lead: the web, and the port its own URL names."""
        return AddressPolicy(self.allowed, {feed.port})

    def fetcher(self, feed: Feed, limits: FetchLimits, kept: Kept | None = None) -> Fetcher:
        """Return a session on the web; robots.txt is for those who search on their own."""
        known = None if kept is None else dict(kept.pages)
        return Fetcher(limits, self.policy(feed), robots=False, known=known)


@dataclass(frozen=True)
class _Entry:
    """An item as it is to be a message."""

    uid: str
    item: Item
    message_id: str
    answers: str | None


def look(
    feed: Feed,
    rules: Rules,
    kept: Kept,
    fetchers: Sequence[Fetcher],
    *,
    now: float,
    contents: Callable[[list[str]], Mapping[str, str]],
    run: Run,
) -> Update:
    """Get a feed, with one fetcher for itself and one for enclosures, and make the new messages.

    `contents` returns the digests kept with some messages. Raises FetchError, NotAFeed.
    """
    page = fetchers[0].get(feed.url, {"Accept": _ACCEPT})
    if page.cached:  # its body is what was listed then, see _remembered
        return Update(listed=page.body.decode("ascii").split(), pages={page.url: page})
    document = run("disk", parse.read, page)
    entries = _entries(feed, rules, document)
    listed = [entry.uid for entry in entries]
    if rules.new:
        entries = _with_changes(feed, entries, contents(listed))
        listed = list(dict.fromkeys([*listed, *(entry.uid for entry in entries)]))
    fresh = [entry for entry in entries if entry.uid not in kept.known]
    frame = render.Frame(feed.key, document.title or feed.title or feed.name)
    files: list[Files] = [entry.item.enclosures for entry in fresh]
    if rules.attach:
        files = _attachments(fresh, fetchers[1])
    rows = run("disk", _rows, frame, fresh, files, now)
    update = Update(listed=listed, rows=rows)
    if len(files) == len(fresh):  # else the rest comes with the next look, which needs the items
        update.pages = _remembered(fetchers[0], page, listed)
    return update


def _entries(feed: Feed, rules: Rules, document: Document) -> list[_Entry]:
    """Return the items from the oldest to the newest, and no more of these than wanted."""
    named = identified(document.items)
    answers = threads(document, named)
    named.reverse()  # most feeds begin with the newest
    named.sort(key=lambda pair: pair[1].date or 0.0)
    return [
        _Entry(
            uid_of(feed.key, name),
            item,
            message_id(feed.key, name),
            message_id(feed.key, answers[name]) if name in answers else None,
        )
        for name, item in named[-rules.most :]
    ]


def _with_changes(feed: Feed, entries: list[_Entry], contents: Mapping[str, str]) -> list[_Entry]:
    """Put what has been changed since it was kept in the place of the item."""
    result = []
    for entry in entries:
        changed = entry.item.content
        if contents.get(entry.uid, changed) != changed:
            item = replace(entry.item, date=entry.item.updated)
            own = message_id(feed.key, f"{entry.message_id}\0{changed}")
            entry = _Entry(f"{entry.uid}.{changed}", item, own, entry.message_id)  # noqa: PLW2901
        result.append(entry)
    return result


Files = tuple[Attachment | Enclosure, ...]


def _attachments(entries: Sequence[_Entry], fetcher: Fetcher) -> list[Files]:
    """Get the enclosures of items; of what cannot be had the link remains.

    The result is shorter where the octets or seconds of one look were used up.
    """
    found: list[Files] = []
    for entry in entries:
        try:
            files = [_fetched(one, fetcher) for one in entry.item.enclosures[:_MOST_ATTACHED]]
        except OutOfBudget:
            break
        found.append((*files, *entry.item.enclosures[_MOST_ATTACHED:]))
    return found


def _fetched(one: Enclosure, fetcher: Fetcher) -> Attachment | Enclosure:
    if one.octets is not None and one.octets > fetcher.limits.page_octets:
        return one
    try:
        page = fetcher.get(one.url)
    except OutOfBudget:
        raise
    except FetchError:
        return one
    return Attachment(render.file_name(one.url), one.kind or page.content_type, page.body)


def _rows(
    frame: render.Frame, entries: Sequence[_Entry], files: Sequence[Files], now: float
) -> list[Row]:
    rows = []
    for entry, own in zip(entries, files, strict=False):
        attached = [one for one in own if isinstance(one, Attachment)]
        linked = [one for one in own if isinstance(one, Enclosure)]
        body = render.message(
            frame,
            entry.item,
            message_id=entry.message_id,
            date=now,
            answers=entry.answers,
            files=attached,
            linked=linked,
        )
        rows.append(Row(entry.uid, len(body), body, {"content": entry.item.content}))
    return rows


def _remembered(fetcher: Fetcher, page: Page, listed: Sequence[str]) -> dict[str, Page]:
    """Return the page for a conditional request, with the ids of its items for a body."""
    if page.url not in fetcher.known:
        return {}
    headers = {
        name: value for name, value in page.headers.items() if name in ("etag", "last-modified")
    }
    return {page.url: Page(page.url, page.status, headers, "\n".join(listed).encode("ascii"))}
