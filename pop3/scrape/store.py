"""What is kept of sites between sessions: messages with their sizes, list pages, what is wrong.

It lies in the server's state (`pop3.state`), in tables of its own. A mailbox is named by a source
and what is looked for. All methods of Store but `visit` wait for a disk or a network: call them
through `connection.run_blocking("disk", …)`; they raise TemporaryFailure.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pop3.scrape.fresh import FreshWhile
from pop3.scrape.page import Page
from pop3.scrape.store_tables import make_tables, tables
from pop3.state import insert_new

if TYPE_CHECKING:
    from pop3.auth.passwd_file import RunBlocking
    from pop3.state import State

MOST_TRIES = 5
"""How often an item is asked for that cannot be had."""

_FOREVER = 1e18
_LAST = 2**62  # the number of a notice: after all mail
_PART = 400  # uids in one statement
_VISIT_SECONDS = 3600.0  # between two notes that an owner was here: each is a write to disk
_MOST_PAGES = 50  # of one mailbox, for conditional requests
_TIMES = ("tried", "checked", "opened")


@dataclass(frozen=True)
class Row:
    """One message to be: an item without `body` has not been fetched yet.

    `octets` is -1 where that is not known, and it is not listed then; `entry` is what is needed to
    fetch it.
    """

    uid: str
    octets: int = -1
    body: bytes | None = None
    entry: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Kept:
    """A mailbox as it was kept. Times are in seconds since 1970; 0 means never.

    `tried` is when its site was last asked, `checked` when it last answered, `opened` when its
    owner was last noted. `messages` are the uids and octets to be listed, in their order. `known`
    are the uids that need not be fetched, `pages` those for conditional requests.
    """

    tried: float = 0.0
    checked: float = 0.0
    opened: float = 0.0
    problem: str = ""
    messages: list[tuple[str, int]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    pages: dict[str, Page] = field(default_factory=dict)


@dataclass
class Update:
    """What a look at the site has changed.

    `listed` are the uids on it now, `rows` the new ones in their order, `failed` those that could
    not be had. `complete` tells that nothing else is on the site; items that are not listed may
    go then. `problem` with `notice` (a message) is set if the site has changed.
    """

    listed: list[str] = field(default_factory=list)
    complete: bool = True
    rows: list[Row] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    pages: dict[str, Page] = field(default_factory=dict)
    problem: str = ""
    notice: Row | None = None


class Store:
    """All mailboxes of web sources behind one State."""

    def __init__(self, state: "State", file: str | None = None) -> None:
        """Take the state; tables are made when first used. `file` is the state's, if it is one."""
        self._state = state
        self._ready = False
        self._fresh = FreshWhile([file, f"{file}-wal"] if file else [])

    def remembered(self, mailbox: str) -> Kept | None:
        """Return what `load` has returned, if nothing has been written since; never waits."""
        return self._fresh.get(mailbox)

    def load_listing(self, mailbox: str) -> Kept:
        """Do as `load` and remember it. What is returned must not be changed."""
        stamp = self._fresh.stamp()
        kept = self.load(mailbox)
        self._fresh.put(mailbox, kept, stamp)
        return kept

    def load(self, mailbox: str, *, for_update: bool = False) -> Kept:
        """Return what is kept; `known` and `pages` only if an update is meant."""
        t = tables()
        with self._transaction() as connection:
            boxes = t.mailboxes
            row = connection.execute(boxes.select().where(boxes.c.mailbox == mailbox)).first()
            if row is None:
                return Kept()
            kept = Kept(row.tried, row.checked, row.opened, row.problem)
            c = t.messages.c
            listed = (
                t.columns(c.uid, c.octets)
                .where(c.mailbox == mailbox, c.octets >= 0)
                .order_by(c.number, c.uid)
            )
            kept.messages = [(uid, octets) for uid, octets in connection.execute(listed)]
            if for_update:
                self._load_rest(connection, mailbox, kept)
        return kept

    def _load_rest(self, connection: Any, mailbox: str, kept: Kept) -> None:
        t = tables()
        c = t.messages.c
        known = t.columns(c.uid).where(
            c.mailbox == mailbox,
            c.notice == "",
            (c.octets >= 0) | (c.tries >= MOST_TRIES),
        )
        kept.known.update(connection.scalars(known))
        pages = t.pages.select().where(t.pages.c.mailbox == mailbox)
        for row in connection.execute(pages):
            kept.pages[row.url] = Page(row.final_url, 200, json.loads(row.headers), row.body)

    def save(
        self, mailbox: str, site: str, account: str, update: Update, now: float, *, keep: float
    ) -> None:
        """Keep what a look at the site has found; all of it or nothing.

        Items that were last listed `keep` seconds ago go.
        """
        t = tables()
        c = t.messages.c
        mine = c.mailbox == mailbox
        with self._transaction() as connection:
            run = connection.execute
            self._touch(connection, mailbox, site, account, now)
            boxes = t.mailboxes
            values = {"tried": now, "checked": now, "problem": update.problem}
            run(boxes.update().where(boxes.c.mailbox == mailbox).values(**values))
            self._add(connection, mailbox, update, now)
            for part in _parts(update.listed):
                run(t.messages.update().where(mine, c.uid.in_(part)).values(seen=now))
            self._notify(connection, mailbox, update.problem, update.notice)
            if update.complete and not update.problem:
                run(t.messages.delete().where(mine, c.seen < now - keep))
            self._keep_pages(connection, mailbox, update.pages)

    def trim(self, mailbox: str, most: int) -> None:
        """Let the oldest messages beyond `most` go, but none that the last look has listed."""
        t = tables()
        c = t.messages.c
        with self._transaction() as connection:
            uids = t.columns(c.uid).where(c.mailbox == mailbox, c.octets >= 0)
            excess = len(connection.scalars(uids).all()) - most
            if excess <= 0:
                return
            boxes = t.mailboxes.c
            checked = connection.scalar(t.columns(boxes.checked).where(boxes.mailbox == mailbox))
            old = uids.where(c.seen < checked).order_by(c.number).limit(excess)
            for part in _parts(connection.scalars(old).all()):
                gone = t.messages.delete().where(c.mailbox == mailbox, c.uid.in_(part))
                connection.execute(gone)

    def _add(self, connection: Any, mailbox: str, update: Update, now: float) -> None:
        t = tables()
        c = t.messages.c
        mine = c.mailbox == mailbox
        for part in _parts([row.uid for row in update.rows]):  # those that failed before
            connection.execute(t.messages.delete().where(mine, c.uid.in_(part), c.octets < 0))
        last = connection.scalar(t.highest(c.number).where(mine, c.number < _LAST)) or 0
        rows = [*update.rows, *map(Row, update.failed)]
        columns = [
            _as_columns(mailbox, row, last + number, now) for number, row in enumerate(rows, 1)
        ]
        insert_new(connection, t.messages, columns)
        for part in _parts(update.failed):
            failed = t.messages.update().where(mine, c.uid.in_(part), c.octets < 0)
            connection.execute(failed.values(tries=c.tries + 1))

    def _notify(self, connection: Any, mailbox: str, problem: str, notice: Row | None) -> None:
        """Leave one notice of what is wrong, as long as that is so."""
        t = tables()
        c = t.messages.c
        mine = (c.mailbox == mailbox, c.notice != "")
        connection.execute(t.messages.delete().where(*mine, c.notice != problem))
        if not problem or notice is None:
            return
        if connection.execute(t.columns(c.uid).where(*mine)).first() is None:
            columns = _as_columns(mailbox, notice, _LAST, _FOREVER)
            insert_new(connection, t.messages, [columns | {"notice": problem}])

    def _keep_pages(self, connection: Any, mailbox: str, pages: Mapping[str, Page]) -> None:
        table = tables().pages
        connection.execute(table.delete().where(table.c.mailbox == mailbox))
        rows = [
            {
                "mailbox": mailbox,
                "url": url,
                "final_url": page.url,
                "headers": json.dumps(dict(page.headers)),
                "body": page.body,
            }
            for url, page in list(pages.items())[:_MOST_PAGES]
        ]
        insert_new(connection, table, rows)

    def fill(self, mailbox: str, uid: str, body: bytes) -> None:
        """Keep the octets of an item that was listed without; those kept already stay."""
        c = tables().messages.c
        update = tables().messages.update()
        mine = (c.mailbox == mailbox, c.uid == uid, c.body.is_(None))
        with self._transaction() as connection:
            connection.execute(update.where(*mine).values(body=body, octets=len(body)))

    def rows(self, mailbox: str, uids: Sequence[str]) -> dict[str, Row]:
        """Return messages by uid."""
        t = tables()
        c = t.messages.c
        found: dict[str, Row] = {}
        with self._transaction() as connection:
            for part in _parts(uids):
                query = t.columns(c.uid, c.octets, c.body, c.entry)
                for row in connection.execute(query.where(c.mailbox == mailbox, c.uid.in_(part))):
                    found[row.uid] = Row(row.uid, row.octets, row.body, json.loads(row.entry))
        return found

    def visit(self, run: "RunBlocking", mailbox: str, site: str, account: str) -> Kept:
        """Return what is kept for an owner who is here, and note now and then that it is so.

        `run` is the connection's `run_blocking`.
        """
        kept = self.remembered(mailbox)
        if kept is None:
            kept = run("disk", self.load_listing, mailbox)
        now = time.time()
        if now - kept.opened > _VISIT_SECONDS:
            run("disk", self.note_visit, mailbox, site, account, now)
        return kept

    def note_visit(self, mailbox: str, site: str, account: str, now: float) -> None:
        """Note that the owner is here: the mailbox is refreshed in the background from now on."""
        boxes = tables().mailboxes
        with self._transaction() as connection:
            self._touch(connection, mailbox, site, account, now)
            mine = boxes.c.mailbox == mailbox
            connection.execute(boxes.update().where(mine).values(opened=now))

    def note_failure(self, mailbox: str, now: float) -> None:
        """Note that the site was asked in vain: not again for a while."""
        boxes = tables().mailboxes
        with self._transaction() as connection:
            mine = boxes.c.mailbox == mailbox
            connection.execute(boxes.update().where(mine).values(tried=now))

    def note_problem(self, mailbox: str, problem: str, notice: Row) -> None:
        """Note that a page was not what the spec expects, found out of turn."""
        boxes = tables().mailboxes
        with self._transaction() as connection:
            mine = boxes.c.mailbox == mailbox
            connection.execute(boxes.update().where(mine).values(problem=problem))
            self._notify(connection, mailbox, problem, notice)

    def due(self, site: str, tried_before: float, opened_after: float) -> list[tuple[str, str]]:
        """Return mailbox and account of those to refresh, the most stale first."""
        t = tables()
        c = t.mailboxes.c
        query = (
            t.columns(c.mailbox, c.account)
            .where(c.site == site, c.tried < tried_before, c.opened >= opened_after)
            .order_by(c.tried)
            .limit(1000)
        )
        with self._transaction() as connection:
            return [(mailbox, account) for mailbox, account in connection.execute(query)]

    def _touch(self, connection: Any, mailbox: str, site: str, account: str, now: float) -> None:
        new: dict[str, Any] = {"mailbox": mailbox, "site": site, "account": account}
        new |= {**dict.fromkeys(_TIMES, 0.0), "opened": now, "problem": ""}
        insert_new(connection, tables().mailboxes, [new])

    @contextmanager
    def _transaction(self) -> "Iterator[Any]":
        if not self._ready:
            with self._state.transaction() as connection:
                make_tables(connection)
            self._ready = True
        with self._state.transaction() as connection:
            yield connection


def _as_columns(mailbox: str, row: Row, number: int, seen: float) -> dict[str, Any]:
    return {
        "mailbox": mailbox,
        "uid": row.uid,
        "number": number,
        "octets": row.octets,
        "body": row.body,
        "entry": json.dumps(row.entry),
        "seen": seen,
        "tries": 0,
        "notice": "",
    }


def _parts(uids: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(uids), _PART):
        yield uids[begin : begin + _PART]
