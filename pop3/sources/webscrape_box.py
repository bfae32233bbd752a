"""One mailbox of a website, in a session and in the background."""

import threading
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pop3.errors import TemporaryFailure
from pop3.message import Listing

if TYPE_CHECKING:
    import httpx

    from netserver.logs import Log
    from pop3.scrape.fetch import Fetcher
    from pop3.scrape.spec import Spec
    from pop3.scrape.store import Kept, Row, Store, Update
    from pop3.session import Session

T = TypeVar("T")

_AHEAD = 50  # messages read at once: a client reads one after the other
_MOST_AHEAD = 1024 * 1024  # octets of them
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05
_BATCH_SECONDS = 30.0  # of background work at a time


class WebBox:
    """What one login knows of a site: the search, and messages that were read ahead."""

    def __init__(
        self, spec: "Spec", site: str, account: str, fields: dict[str, str], store: "Store"
    ) -> None:
        """Name the mailbox: all who search a site for the same thing share its messages."""
        self.spec = spec
        self.site = site
        self.account = account
        self.fields = fields
        self.store = store
        self.mailbox = mailbox_name(site, account)
        self._sizes: dict[str, int] = {}
        self._ahead: dict[str, bytes] = {}
        self._cookies: httpx.Cookies | None = None

    # -- the list -----------------------------------------------------------------------------

    def listing(self, session: "Session[Any]", grace: float) -> Listing:
        """Return the messages; what is kept counts as fresh for some seconds more than the spec's.

        Raises TemporaryFailure.
        """
        run = session.connection.run_blocking
        kept = self.store.visit(run, self.mailbox, self.site, self.account)
        if time.time() - kept.tried > self.spec.cache.list + grace or not kept.checked:
            kept = self._refreshed(session)
        self._sizes = dict(kept.messages)
        uids = [uid.encode("ascii") for uid, _ in kept.messages]
        sizes = array("q", [octets for _, octets in kept.messages])
        return Listing(uids, sizes, trusted=True)

    def _refreshed(self, session: "Session[Any]") -> "Kept":
        """Ask the site and keep what it says; if it is silent, what was kept must do."""
        from pop3.scrape.errors import ScrapeError  # noqa: PLC0415 - heavy, see webscrape
        from pop3.scrape.mailbox import refresh  # noqa: PLC0415 - same

        run = session.connection.run_blocking
        kept = run("disk", lambda: self.store.load(self.mailbox, for_update=True))
        now = time.time()
        try:
            update = self._on_the_web(
                session, lambda fetcher: refresh(self.spec, self.fields, kept, fetcher, now), kept
            )
        except ScrapeError as error:
            session.log.warning("site cannot be read", site=self.site, reason=str(error))
            run("disk", self.store.note_failure, self.mailbox, now)
            if not kept.checked:
                raise TemporaryFailure("the site cannot be reached") from error
            return kept
        keep = self.spec.cache.keep
        names = (self.mailbox, self.site, self.account)
        run("disk", lambda: self.store.save(*names, update, now, keep=keep))
        _tell(session.log, self.site, update)
        return run("disk", self.store.load, self.mailbox)

    def _on_the_web(
        self,
        session: "Session[Any]",
        work: "Callable[[Fetcher], T]",
        kept: "Kept | None" = None,
    ) -> T:
        """Do what waits for a site in a thread of its own, while this one shows signs of life.

        Under gevent threads are greenlets. The server may stop: ServerStopping ends the work.
        """
        from pop3.scrape.mailbox import fetcher_for  # noqa: PLC0415 - heavy, see webscrape

        with fetcher_for(self.spec, kept, cookies=self._cookies) as fetcher:
            self._cookies = fetcher.cookies
            task = _Task(lambda: work(fetcher))
            pause = _FIRST_PAUSE
            try:
                while not task.done:
                    session.connection.pause(pause)
                    pause = min(pause * 1.5, _LONGEST_PAUSE)
            finally:
                if not task.done:
                    fetcher.cancel()
                    task.join(1.0)
            return task.result()

    # -- a message ----------------------------------------------------------------------------

    def read(self, session: "Session[Any]", uid: str) -> bytes:
        """Return the octets of a message. Raises FileNotFoundError, TemporaryFailure."""
        body = self._ahead.pop(uid, None)
        if body is not None:
            return body
        self._ahead.clear()
        wanted = self._next_ones(uid)
        rows = session.connection.run_blocking("disk", self.store.rows, self.mailbox, wanted)
        row = rows.pop(uid, None)
        if row is None:
            raise FileNotFoundError(uid)
        self._ahead = {one.uid: one.body for one in rows.values() if one.body is not None}
        return row.body if row.body is not None else self._fetch(session, row)

    def _next_ones(self, uid: str) -> list[str]:
        """Return the uid and those that follow it, as long as they are small."""
        uids = list(self._sizes)
        begin = uids.index(uid)
        wanted = [uid]
        octets = self._sizes[uid]
        for other in uids[begin + 1 : begin + _AHEAD]:
            octets += self._sizes[other]
            if octets > _MOST_AHEAD:
                break
            wanted.append(other)
        return wanted

    def _fetch(self, session: "Session[Any]", row: "Row") -> bytes:
        """Get an item whose size is known before its contents ("padded")."""
        from pop3.scrape import mailbox  # noqa: PLC0415 - heavy, see webscrape
        from pop3.scrape.errors import ScrapeError, SiteChanged  # noqa: PLC0415 - same
        from pop3.scrape.page import Page  # noqa: PLC0415 - same

        run = session.connection.run_blocking
        now = time.time()
        try:
            body = self._on_the_web(
                session,
                lambda fetcher: mailbox.fetch_later(self.spec, self.fields, row, fetcher, now),
            )
        except SiteChanged as error:
            problem = str(error)
            page = error.page if isinstance(error.page, Page) else None
            notice = mailbox.notice(self.spec, problem, page, now)
            run("disk", self.store.note_problem, self.mailbox, problem, notice)
            raise TemporaryFailure("the site has changed") from error
        except ScrapeError as error:
            session.log.warning("item cannot be read", site=self.site, reason=str(error))
            raise TemporaryFailure("the site cannot be reached") from error
        run("disk", self.store.fill, self.mailbox, row.uid, body)
        return body


class _Task(Generic[T]):
    """Something that runs in a thread and whose result is asked for here."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: T
        self._error: BaseException | None = None
        self.done = False
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._error = error
        self.done = True

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def result(self) -> T:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value


def mailbox_name(site: str, account: str) -> str:
    """Name a mailbox in the state."""
    return f"webscrape/{site}/{account}"


def _tell(log: "Log", site: str, update: "Update") -> None:
    if update.problem:
        log.warning("site has changed", site=site, problem=update.problem)
    log.info(
        "site read",
        site=site,
        listed=len(update.listed),
        new=len(update.rows),
        failed=len(update.failed),
        complete=update.complete,
    )


def refresh_due(
    site: str, spec: "Spec", store: "Store", log: "Log", interrupted: Callable[[], bool]
) -> None:
    """Refresh the mailboxes of a site that are due, for half a minute or until interrupted."""
    from pop3.scrape.errors import ScrapeError  # noqa: PLC0415 - heavy, see webscrape
    from pop3.scrape.user import WrongName  # noqa: PLC0415 - same

    began = time.time()
    for mailbox, account in store.due(site, began - spec.cache.list, began - spec.cache.refresh):
        now = time.time()
        if now - began > _BATCH_SECONDS or interrupted():
            return
        try:
            fields = spec.user.read(account)
            kept = store.load(mailbox, for_update=True)
            update = _refreshed(spec, fields, kept, now, interrupted)
        except WrongName:  # the spec has other fields by now
            store.note_failure(mailbox, now)
        except ScrapeError as error:
            if interrupted():
                return
            log.warning("site cannot be read", site=site, reason=str(error))
            store.note_failure(mailbox, now)
        else:
            store.save(mailbox, site, account, update, now, keep=spec.cache.keep)
            _tell(log, site, update)


def _refreshed(
    spec: "Spec",
    fields: dict[str, str],
    kept: "Kept",
    now: float,
    interrupted: Callable[[], bool],
) -> "Update":
    """Look at a site in a thread, since a stop must not wait for it. Raises ScrapeError."""
    from pop3.scrape.mailbox import fetcher_for, refresh  # noqa: PLC0415 - heavy, see webscrape

    with fetcher_for(spec, kept) as fetcher:
        task = _Task(lambda: refresh(spec, fields, kept, fetcher, now))
        while not task.done:
            if interrupted():
                fetcher.cancel()
            time.sleep(_LONGEST_PAUSE)
        return task.result()
