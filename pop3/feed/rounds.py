"""Look at several feeds side by side, in threads, while whoever started it has other things to do.

Under gevent threads are greenlets. Nothing here logs: `outcomes` tell what there is to say.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pop3.feed.look import ENCLOSURES, LIMITS, Rules, Run, look
from pop3.feed.subscriptions import Feed
from pop3.scrape.errors import ScrapeError

if TYPE_CHECKING:
    from netserver.logs import Log
    from pop3.scrape.fetch import Fetcher
    from pop3.scrape.store import Store, Update

SITE = "feeds of the feed source"
"""Under which all mailboxes of feeds stand in the state; no --scrape can be called so."""

_AT_ONCE = 8
_DAY = 86400.0


@dataclass(frozen=True)
class Outcome:
    """What one look has found, or the reason why there is nothing."""

    feed: Feed
    update: "Update | None" = None
    reason: str = ""
    error: Exception | None = None

    def tell(self, log: "Log") -> None:
        """Log it. URLs are left out: some are secrets."""
        if self.update is not None:
            new = len(self.update.rows)
            log.info("feed read", feed=self.feed.name, listed=len(self.update.listed), new=new)
        elif self.error is not None:
            log.error("feed not kept", feed=self.feed.name, exc_info=self.error)
        else:
            hint = " (--feed-allow)" if "not public" in self.reason else ""
            log.warning("feed cannot be read", feed=self.feed.name, reason=self.reason + hint)


class Round:
    """One look at some feeds; it runs as soon as it is made."""

    def __init__(
        self, feeds: Iterable[Feed], rules: Rules, store: "Store", run: Run, keep_days: float
    ) -> None:
        """Begin; `run` does what takes long on a disk or a processor, see `look.Run`."""
        self.outcomes: list[Outcome] = []
        self._rules = rules
        self._store = store
        self._run = run
        self._keep = keep_days * _DAY
        self._waiting = deque(feeds)
        self._guard = threading.Lock()
        self._open: set[Fetcher] = set()
        self._cancelled = False
        self._threads = [
            threading.Thread(target=self._work, name="feeds", daemon=True)
            for _ in range(min(_AT_ONCE, len(self._waiting)))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> bool:
        """Whether all is over."""
        return not any(thread.is_alive() for thread in self._threads)

    def cancel(self) -> None:
        """Begin nothing any more and let what is under way end soon."""
        with self._guard:
            self._cancelled = True
            self._waiting.clear()
            for fetcher in self._open:
                fetcher.cancel()

    def _work(self) -> None:
        while True:
            try:
                feed = self._waiting.popleft()
            except IndexError:
                return
            outcome = self._outcome(feed)
            if not self._cancelled or outcome.update is not None:
                self.outcomes.append(outcome)

    def _outcome(self, feed: Feed) -> Outcome:
        now = time.time()
        try:
            return Outcome(feed, self._look(feed, now))
        except ScrapeError as error:
            reason = getattr(error, "text", str(error))
            failed = Outcome(feed, reason=reason)
        except Exception as error:  # noqa: BLE001 - told by whoever reads the outcomes
            failed = Outcome(feed, error=error)
        if not self._cancelled:
            try:
                self._run("disk", self._store.note_failure, feed.mailbox, now)
            except Exception as error:  # noqa: BLE001 - same
                return Outcome(feed, error=error)
        return failed

    def _look(self, feed: Feed, now: float) -> "Update":
        run, store, rules = self._run, self._store, self._rules
        kept = run("disk", lambda: store.load(feed.mailbox, for_update=True))

        def contents(uids: list[str]) -> dict[str, str]:
            rows = run("disk", store.rows, feed.mailbox, uids)
            return {uid: row.entry.get("content", "") for uid, row in rows.items()}

        fetchers = (rules.fetcher(feed, LIMITS, kept), rules.fetcher(feed, ENCLOSURES))
        try:
            with self._guard:
                self._open.update(fetchers)
                if self._cancelled:
                    for fetcher in fetchers:
                        fetcher.cancel()
            update = look(feed, rules, kept, fetchers, now=now, contents=contents, run=run)
        finally:
            with self._guard:
                self._open.difference_update(fetchers)
            for fetcher in fetchers:
                fetcher.close()
        names = (feed.mailbox, SITE, feed.key)
        run("disk", lambda: store.save(*names, update, now, keep=self._keep))
        run("disk", store.trim, feed.mailbox, rules.most)
        return update
