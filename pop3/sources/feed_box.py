"""The feeds that one login reads, in a session and in the background."""

import time
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pop3.errors import TemporaryFailure
from pop3.message import Listing

if TYPE_CHECKING:
    from netserver.logs import Log
    from pop3.feed.look import Rules
    from pop3.feed.subscriptions import Feed
    from pop3.scrape.store import Kept, Store
    from pop3.session import Session

_RETRY_SECONDS = 60.0  # before a feed that was never read is asked for again
_LOGIN_SECONDS = 30.0  # what has not come by then is left to the background
_BATCH_SECONDS = 30.0  # of background work at a time
_READ_SECONDS = 30 * 86400.0  # a feed that nobody has read for so long is not asked for
_AHEAD = 50  # messages read at once: a client reads one after the other
_MOST_AHEAD = 1024 * 1024  # octets of them
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05


class Keeping:
    """What all sessions share: the store, what is wanted, and for how long it is good."""

    def __init__(self, store: "Store", rules: "Rules", *, refresh: float, keep_days: float) -> None:
        """Take the rules; `refresh` is in seconds."""
        self.store = store
        self.rules = rules
        self.refresh = refresh
        self.keep_days = keep_days
        self._introduced = False

    def in_background(
        self, feeds: Sequence["Feed"], log: "Log", interrupted: Callable[[], bool]
    ) -> None:
        """Look at the feeds that are due, for half a minute or until interrupted."""
        from pop3.feed.rounds import SITE, Round  # noqa: PLC0415 - heavy, see feed

        began = time.time()
        if not self._introduced:
            self._introduced = True
            for feed in feeds:  # so that the first reader need not wait
                if not self.store.load(feed.mailbox).opened:
                    self.store.note_visit(feed.mailbox, SITE, feed.key, began)
        by_key = {feed.key: feed for feed in feeds}
        due = self.store.due(SITE, began - self.refresh, began - _READ_SECONDS)
        wanted = [by_key[key] for _, key in due if key in by_key]
        looking = Round(wanted, self.rules, self.store, _directly, self.keep_days)
        while not looking.done:
            if interrupted() or time.time() - began > _BATCH_SECONDS:
                looking.cancel()
            time.sleep(_LONGEST_PAUSE)
        for outcome in looking.outcomes:
            outcome.tell(log)


def _directly(_: str, function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


class FeedBox:
    """What one login knows: its feeds, and messages that were read ahead."""

    def __init__(self, feeds: Sequence["Feed"], keeping: Keeping) -> None:
        """Name the feeds; nothing is read yet."""
        self._feeds = feeds
        self._keeping = keeping
        self._store = keeping.store
        self._sizes: dict[str, int] = {}
        self._ahead: dict[str, bytes] = {}
        self._ends: list[tuple[int, str]] = []  # how many messages up to the end of a mailbox

    # -- the list -----------------------------------------------------------------------------

    def listing(self, session: "Session[Any]", grace: float) -> Listing:
        """Return the messages, feed by feed; what is kept is good for `grace` seconds more.

        Raises TemporaryFailure if none of the feeds has ever been read.
        """
        kept = {feed.mailbox: self._kept(session, feed) for feed in self._feeds}
        now = time.time()
        due = [feed for feed in self._feeds if self._is_due(kept[feed.mailbox], now, grace)]
        if due:
            self._look(session, due)
            for feed in due:
                kept[feed.mailbox] = self._kept(session, feed)
        if not any(one.checked for one in kept.values()):
            raise TemporaryFailure("the feed cannot be reached")
        uids: list[bytes] = []
        sizes = array("q")
        for mailbox, one in kept.items():
            uids += [uid.encode("ascii") for uid, _ in one.messages]
            sizes.extend([octets for _, octets in one.messages])
            self._sizes.update(one.messages)
            self._ends.append((len(uids), mailbox))
        return Listing(uids, sizes, trusted=True)

    def _kept(self, session: "Session[Any]", feed: "Feed") -> "Kept":
        from pop3.feed.rounds import SITE  # noqa: PLC0415 - heavy, see feed

        run = session.connection.run_blocking
        return self._store.visit(run, feed.mailbox, SITE, feed.key)

    def _is_due(self, kept: "Kept", now: float, grace: float) -> bool:
        if not kept.checked:
            return now - kept.tried > min(_RETRY_SECONDS, self._keeping.refresh)
        return now - kept.tried > self._keeping.refresh + grace

    def _look(self, session: "Session[Any]", feeds: "Sequence[Feed]") -> None:
        """Ask for the feeds while this connection shows signs of life; ServerStopping ends it."""
        from pop3.feed.rounds import Round  # noqa: PLC0415 - heavy, see feed

        keeping = self._keeping
        run = session.connection.run_blocking
        end = time.monotonic() + _LOGIN_SECONDS
        looking = Round(feeds, keeping.rules, self._store, run, keeping.keep_days)
        pause = _FIRST_PAUSE
        try:
            while not looking.done and time.monotonic() < end:
                session.connection.pause(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
        finally:
            if not looking.done:
                looking.cancel()
        for outcome in list(looking.outcomes):
            outcome.tell(session.log)

    # -- a message ----------------------------------------------------------------------------

    def read(self, session: "Session[Any]", uid: str) -> bytes:
        """Return the octets of a message. Raises FileNotFoundError, TemporaryFailure."""
        body = self._ahead.pop(uid, None)
        if body is not None:
            return body
        self._ahead.clear()
        mailbox, wanted = self._next_ones(uid)
        rows = session.connection.run_blocking("disk", self._store.rows, mailbox, wanted)
        self._ahead = {one.uid: one.body for one in rows.values() if one.body is not None}
        body = self._ahead.pop(uid, None)
        if body is None:
            raise FileNotFoundError(uid)
        return body

    def _next_ones(self, uid: str) -> tuple[str, list[str]]:
        """Return the mailbox of a uid, and with it those that follow in there and are small."""
        uids = list(self._sizes)
        begin = uids.index(uid)
        end, mailbox = next(one for one in self._ends if begin < one[0])
        wanted = [uid]
        octets = self._sizes[uid]
        for other in uids[begin + 1 : min(end, begin + _AHEAD)]:
            octets += self._sizes[other]
            if octets > _MOST_AHEAD:
                break
            wanted.append(other)
        return mailbox, wanted
