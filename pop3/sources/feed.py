"""Serve feeds as mail: who logs in as `news` gets the items of the feed or group of that name.

Messages and their sizes are kept in the state, so that they stay when the feed drops them; the
jobs child looks for new ones in the background, so that a login does not wait for a site.
"""

import ipaddress
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, ClassVar

from netserver.errors import ConfigError
from netserver.options import option
from netserver.reach import Reach
from pop3 import state
from pop3.feed.subscriptions import Subscriptions, feed_option, subscribe
from pop3.message import Listing, Message
from pop3.server import POP3Server
from pop3.session import Session
from pop3.settings import POP3Settings
from pop3.sources.feed_box import FeedBox, Keeping


def network(text: str) -> str:
    """Check the form of --feed-allow. Raises ValueError."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("expected a network such as 192.168.0.0/16") from None
    return text


@dataclass(frozen=True)
class FeedSettings(POP3Settings):
    """The options of the feed source."""

    check_for_dequeue: float = option(
        60.0,
        metavar="SECONDS",
        group="processes",
        help="how often to look which feeds are to be refreshed; 0 means only at logins",
    )
    feed: tuple[str, ...] = option(
        (),
        repeat=True,
        kind=feed_option,
        metavar="[NAME[@GROUP]=]URL",
        group="mail",
        help="a feed (RSS, Atom, JSON Feed); users log in as NAME, GROUP or all, or WHO@NAME",
    )
    opml: tuple[str, ...] = option(
        (),
        repeat=True,
        metavar="FILE",
        group="mail",
        help="a list of feeds; each folder is a group",
    )
    feed_refresh: float = option(
        1800.0,
        metavar="SECONDS",
        group="mail",
        help="how often a feed is asked for what is new",
    )
    feed_keep_days: float = option(
        30.0,
        metavar="DAYS",
        group="mail",
        help="how long an item stays after its feed has dropped it",
    )
    feed_keep_items: int = option(
        1000,
        metavar="N",
        group="mail",
        help="how many items of a feed are taken and kept, the newest",
    )
    feed_enclosures: str = option(
        "link",
        choices=("link", "attach"),
        group="mail",
        help="files that go with an item: as links, or attached (3 of at most 5 MiB)",
    )
    feed_updates: str = option(
        "same",
        choices=("same", "new"),
        group="mail",
        help="an item that was changed stays as it is, or is a new message as well",
    )
    feed_allow: tuple[str, ...] = option(
        (),
        repeat=True,
        kind=network,
        metavar="CIDR",
        group="mail",
        help="a private network in which feeds may lie; else only public addresses are reached",
    )


class POP3Feed(POP3Server[FeedBox]):
    """A POP3 server for feeds."""

    settings: FeedSettings
    settings_class = FeedSettings
    keeps_mail: ClassVar[bool] = True

    def post_configure(self) -> None:
        """Read the lists. Raises ConfigError."""
        super().post_configure()
        settings = self.settings
        if not settings.feed_keep_items:
            raise ConfigError("--feed-keep-items: at least 1 is needed")
        self.subscriptions: Subscriptions = self._subscriptions()
        self.keeping: Keeping = self._keeping()

    def _subscriptions(self) -> Subscriptions:
        try:
            # httpx, lxml and feedparser come with them; now, as --chroot may hide them later
            import feedparser  # noqa: F401, PLC0415

            from pop3.feed import opml, rounds  # noqa: F401, PLC0415
            from pop3.scrape import transport  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"--source feed needs {error.name}: pip install 'netserver-pop3[feed]'"
            ) from None
        if self.settings.chroot is not None:
            transport.tls_context()
        listed = [feed for path in self.settings.opml for feed in opml.read(path)]
        return subscribe(self.settings.feed, listed)

    def _keeping(self) -> Keeping:
        from pop3.feed.look import Rules  # noqa: PLC0415 - see _subscriptions
        from pop3.scrape.store import Store  # noqa: PLC0415 - same
        from pop3.scrape.store_tables import tables  # noqa: PLC0415 - same

        settings = self.settings
        self.state.prepare()
        tables()
        rules = Rules(
            most=settings.feed_keep_items,
            attach=settings.feed_enclosures == "attach",
            new=settings.feed_updates == "new",
            allowed=tuple(ipaddress.ip_network(text) for text in settings.feed_allow),
        )
        database = state.state_url(settings, self.state_directory)
        prefix, _, path = database.partition(":///")
        store = Store(self.state, path if prefix.startswith("sqlite") else None)
        return Keeping(
            store, rules, refresh=settings.feed_refresh, keep_days=settings.feed_keep_days
        )

    def pre_loop_hook(self) -> None:
        """Tell the names by which people log in: those of lists are made of titles."""
        super().pre_loop_hook()
        if self.personality.name != "inetd":  # which comes here with each client
            self.log.info("feeds", names=" ".join(self.subscriptions.boxes))

    def mail_reach(self) -> Reach:
        """All of it is on the web and in the state."""
        return Reach(network=True)

    def valid_user(self, user: str) -> bool:
        """Refuse names that no feed and no group has."""
        return self.subscriptions.of(user) is not None

    def open_box(self, session: Session[FeedBox]) -> FeedBox:
        """Say which feeds it is; nothing is read yet."""
        feeds = self.subscriptions.of(session.user)
        assert feeds is not None  # `valid_user` was asked
        return FeedBox(feeds, self.keeping)

    def list_messages(self, session: Session[FeedBox]) -> Listing:
        """List what is kept; ask for the feeds first if that is too old.

        Raises TemporaryFailure if nothing is kept and no site can be reached.
        """
        grace = 0.0
        if self.settings.check_for_dequeue and self.personality.name != "inetd":
            # for the background to come first
            grace = self.settings.feed_refresh + 3 * self.settings.check_for_dequeue
        return session.box.listing(session, grace)

    def read_message(self, session: Session[FeedBox], message: Message) -> BinaryIO:
        """Return a message that is kept."""
        return BytesIO(session.box.read(session, message.uid))

    def run_dequeue(self) -> None:
        """Look at the feeds that are due, in the jobs child."""
        super().run_dequeue()
        self.keeping.in_background(self.subscriptions.feeds, self.log, lambda: self.signals.pending)
