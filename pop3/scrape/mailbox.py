"""Look at a site and say what that changes in its mailbox; nothing is kept here.

with fetcher_for(spec, kept) as fetcher:
    update = refresh(spec, user, kept, fetcher, time.time())
store.save(mailbox, site, account, update, time.time(), keep=spec.cache.keep)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx
from markupsafe import Markup

from pop3 import wire
from pop3.compose import Attachment, compose
from pop3.scrape import walk
from pop3.scrape.errors import FetchError, OutOfBudget, ScrapeError, SiteChanged
from pop3.scrape.extract import Reading, Source
from pop3.scrape.fetch import Fetcher, Step
from pop3.scrape.page import Page
from pop3.scrape.spec import Spec
from pop3.scrape.store import Kept, Row, Update

_LONGEST_PAGE = 256 * 1024  # octets of it that go with a notice
_SENDER = "Your mailbox <mailer-daemon@localhost>"


@dataclass(frozen=True)
class _Made:
    uid: str
    body: bytes
    missing: list[str]


def fetcher_for(
    spec: Spec,
    kept: Kept | None = None,
    *,
    cookies: httpx.Cookies | None = None,
    observe: Callable[[Step], None] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> Fetcher:
    """Return a session on the web with the limits of a spec; a `transport` needs no delays."""
    return Fetcher(
        spec.limits if transport is None else replace(spec.limits, delay=0.0, retries=0),
        spec.policy,
        robots=spec.robots,
        known={} if kept is None else dict(kept.pages),
        cookies=cookies,
        observe=observe,
        transport=transport,
    )


def refresh(spec: Spec, user: walk.User, kept: Kept, fetcher: Fetcher, now: float) -> Update:
    """Get the list and, for exact sizes, all new items.

    Raises FetchError if the site cannot be reached. A page that is not what the spec expects is no
    error: the update has a notice of it then, and the mail that is there stays.
    """
    try:
        listed = walk.list_items(spec, user, fetcher)
    except SiteChanged as error:
        page = error.page if isinstance(error.page, Page) else None
        return _broken(spec, Update(complete=False), str(error), page, now)
    update = Update(
        listed=[entry.uid for entry in listed.entries],
        complete=listed.complete,
        pages=_list_pages(fetcher, listed.pages),
    )
    if not listed.entries and not listed.is_empty and (kept.known or spec.listing.empty):
        problem = f"the list has no items any more ({spec.listing.items})"
        return _broken(spec, update, problem, listed.pages[0], now)
    fresh = [entry for entry in listed.entries if entry.uid not in kept.known]
    if spec.size is not None:
        update.rows = [Row(entry.uid, spec.size, None, as_json(entry)) for entry in fresh]
        if kept.problem and listed.entries:  # of an item, found out when it was read
            item = walk.read_item(spec, user, fetcher, listed.entries[0])
            if item.missing:
                return _broken(spec, update, lacks(item), item.page, now)
        return update

    example: list[Page] = []  # one page that is broken: hundreds would fill the memory

    def make(entry: walk.Entry) -> _Made:
        item = walk.read_item(spec, user, fetcher, entry)
        if item.missing and item.page is not None and not example:
            example.append(item.page)
        body = walk.message_octets(spec, fetcher, item, datetime.fromtimestamp(int(now), UTC))
        return _Made(entry.uid, body, item.missing)

    made = _take_items(fresh, fetcher.side_by_side(make, fresh), update)
    broken = [one for one in made if one.missing]
    if 2 * len(broken) > len(made):  # none of these is taken: their octets would stay for ever
        update.failed = []
        made = [one for one in made if not one.missing]
        problem = f"most items have no {', '.join(broken[0].missing)}"
        update = _broken(spec, update, problem, example[0] if example else None, now)
    update.rows = [Row(one.uid, len(one.body), one.body) for one in made]
    return update


def lacks(item: walk.Item) -> str:
    """Say what an item has not."""
    return f"an item has no {', '.join(item.missing)}"


def _list_pages(fetcher: Fetcher, pages: list[Page]) -> dict[str, Page]:
    urls = {page.url for page in pages}
    return {url: page for url, page in fetcher.known.items() if page.url in urls}


def _take_items(
    fresh: list[walk.Entry], results: list[_Made | ScrapeError], update: Update
) -> list[_Made]:
    """Return the items that could be had; note those that could not, unless time was short."""
    made: list[_Made] = []
    for entry, result in zip(fresh, results, strict=True):
        if isinstance(result, _Made):
            made.append(result)
        elif not isinstance(result, OutOfBudget):
            update.failed.append(entry.uid)
    return made


def _broken(spec: Spec, update: Update, problem: str, page: Page | None, now: float) -> Update:
    update.problem = problem
    update.notice = notice(spec, problem, page, now)
    update.complete = False
    update.pages = {}  # to be asked for again as if for the first time
    return update


def notice(spec: Spec, problem: str, page: Page | None, now: float) -> Row:
    """Return the message that tells the owner what is wrong with the site, with the page."""
    where = f"The page is attached; it came from\n{page.url}\n\n" if page is not None else ""
    text = (
        f"The site {spec.name} is not what this mailbox expects any more:\n\n{problem}\n\n{where}"
        f"The mail that is here stays. This message goes by itself when the site can be read\n"
        f"again; whoever keeps the server mends {spec.file.rpartition('/')[2]} for that.\n"
    )
    files = []
    if page is not None:
        kind = "application/json" if page.is_json else "text/html"
        name = "page.json" if page.is_json else "page.html"
        files.append(Attachment(name, kind, page.body[:_LONGEST_PAGE]))
    with compose(
        subject=f"The site {spec.name} has changed",
        sender=_SENDER,
        date=int(now),
        text=text,
        attachments=files,
    ) as stream:
        body = wire.crlf(stream.read())
    return Row(f"site-changed-{int(now)}", len(body), body)


def fetch_later(spec: Spec, user: walk.User, row: Row, fetcher: Fetcher, now: float) -> bytes:
    """Get an item that was listed without its octets. Raises ScrapeError, SiteChanged."""
    entry = from_json(spec, row)
    spec = replace(spec, size=row.octets)  # as it was listed: the spec may say another by now
    try:
        item = walk.read_item(spec, user, fetcher, entry)
        refused = bool(item.missing)
    except FetchError as error:
        if not 400 <= error.status < 500:  # noqa: PLR2004 - the site's own faults
            raise
        refused = True
    if refused:  # perhaps for want of a session: begin one as a visitor would
        walk.list_items(spec, user, fetcher)
        item = walk.read_item(spec, user, fetcher, entry)
    if item.missing:
        raise SiteChanged(lacks(item), item.page)
    return walk.message_octets(spec, fetcher, item, datetime.fromtimestamp(int(now), UTC))


def as_json(entry: walk.Entry) -> dict[str, Any]:
    """Return an entry as it can be kept."""
    return {"url": entry.url, "values": entry.values}


def from_json(spec: Spec, row: Row) -> walk.Entry:
    """Return the entry that was kept."""
    values = row.entry.get("values", {})
    readings = {}
    for one in (*spec.listing.fields, *spec.item.fields):
        if one.name in values:
            value = values[one.name]
            if one.markup and isinstance(value, str):
                value = Markup(value)  # noqa: S704 - it was sanitised before it was kept
            readings[one.name] = Reading(one, value, 1 if value else 0)
    url = str(row.entry.get("url", ""))
    return walk.Entry(row.uid, url, readings, Source(url, value=""))
