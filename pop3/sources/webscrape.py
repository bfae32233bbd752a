"""Serve websites as mail: who logs in as `perl:5:Berlin@jobs` gets what that search finds.

What a site looks like is said by a spec (share/doc/scrape-spec.md). Messages and their sizes are
kept in the state, so that a site is asked for each item once; the jobs child looks for new ones in
the background, so that a login seldom has to wait for a site.
"""

import re
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from netserver.endpoints import ListenSpec
from netserver.errors import ConfigError
from netserver.options import option
from pop3 import state
from pop3.errors import PermanentFailure
from pop3.message import Listing, Message
from pop3.server import POP3Server
from pop3.session import Session
from pop3.settings import POP3Settings
from pop3.sources.webscrape_box import WebBox, refresh_due

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pop3.scrape.spec import Spec
    from pop3.scrape.store import Store

_NAMED_FILE = re.compile(r"(?:([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)=)?(.+)")


def named_file(text: str) -> str:
    """Check the form of --scrape. Raises ValueError."""
    name, path = _split(text)
    if not name or not path:
        raise ValueError("expected name=FILE, the name of a-z, 0-9 and -")
    return text


def _split(text: str) -> tuple[str, str]:
    """Return name and path; without a name the file's own stands for it."""
    found = _NAMED_FILE.fullmatch(text)
    if found is None:
        return "", ""
    if found[1] is not None:
        return found[1], found[2]
    stem = found[2].rpartition("/")[2].partition(".")[0].lower()
    return (stem if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", stem) else ""), found[2]


@dataclass(frozen=True)
class WebscrapeSettings(POP3Settings):
    """The options of the webscrape source."""

    check_for_dequeue: float = option(
        60.0,
        metavar="SECONDS",
        group="processes",
        help="how often to look which mailboxes are to be refreshed; 0 means only at logins",
    )
    scrape: tuple[str, ...] = option(
        (),
        repeat=True,
        kind=named_file,
        metavar="[NAME=]FILE",
        group="mail",
        help="a site's spec; users log in as search@NAME, or as search if there is only one or the "
        "listener says ?scrape=NAME",
    )


class POP3Webscrape(POP3Server[WebBox]):
    """A POP3 server for websites."""

    settings: WebscrapeSettings
    settings_class = WebscrapeSettings
    keeps_mail: ClassVar[bool] = True
    strict_login_names: ClassVar[bool] = False
    descriptors_per_client: ClassVar[int] = 4  # with the state; few wait for a site at once
    listen_options: ClassVar[frozenset[str]] = POP3Server.listen_options | {"scrape"}

    def post_configure(self) -> None:
        """Read the specs. Raises ConfigError."""
        super().post_configure()
        self.specs: Mapping[str, Spec] = self._read_specs()
        self.store: Store = self._make_store()
        for text in self.settings.listen:
            site = ListenSpec.parse(text, extra_keys=self.listen_options).options.get("scrape")
            if site is not None and site not in self.specs:
                raise ConfigError(f"--listen {text}: no --scrape has the name {site}")

    def _read_specs(self) -> "dict[str, Spec]":
        if not self.settings.scrape:
            raise ConfigError("--scrape: at least one spec is needed; share/scrapes has some")
        try:
            # httpx, lxml and Jinja2 come with them; now, as --chroot may hide them later
            from pop3.scrape import mailbox, spec, transport  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"--source webscrape needs {error.name}: pip install 'netserver-pop3[scrape]'"
            ) from None
        del mailbox
        if self.settings.chroot is not None:
            transport.tls_context()
        specs: dict[str, Spec] = {}
        for text in self.settings.scrape:
            name, path = _split(text)
            if name in specs:
                raise ConfigError(f"--scrape {text}: the name {name} is given twice")
            try:
                specs[name] = spec.load(path)
            except ConfigError as error:
                raise ConfigError(f"--scrape: {error}") from None
        return specs

    def _make_store(self) -> "Store":
        from pop3.scrape.store import Store  # noqa: PLC0415 - see _read_specs
        from pop3.scrape.store_tables import tables  # noqa: PLC0415 - same

        self.state.prepare()
        tables()
        database = state.state_url(self.settings, self.state_directory)
        prefix, _, path = database.partition(":///")
        return Store(self.state, path if prefix.startswith("sqlite") else None)

    # -- a session ----------------------------------------------------------------------------

    def search(self, session: Session[WebBox]) -> tuple[str, str, dict[str, str]]:
        """Return the site's name, the one name of the search and its fields.

        Raises PermanentFailure for a site there is not, and fields the site does not have.
        """
        from pop3.scrape.user import WrongName  # noqa: PLC0415 - see _read_specs

        site, text = self._site_of(session)
        rules = self.specs[site].user
        try:
            fields = rules.read(text)
        except WrongName as error:
            raise PermanentFailure(str(error)) from None
        return site, rules.name(fields), fields

    def _site_of(self, session: Session[WebBox]) -> tuple[str, str]:
        """Return the site and what is left of the name."""
        login = session.login
        local, domain = (session.user, None) if login is None else (login.localpart, login.domain)
        site = session.connection.listener.options.get("scrape")
        if site is None and domain in self.specs:
            return str(domain), local
        if site is None and len(self.specs) == 1:
            site = next(iter(self.specs))
        if site is None:
            raise PermanentFailure(f"log in as search@site; sites: {', '.join(self.specs)}")
        return site, local if domain in (None, site) else session.user

    def maildrop_name(self, session: Session[WebBox]) -> str:
        """Name what one user sees: the search; the user where a site has no search terms."""
        site, name, fields = self.search(session)
        return f"{type(self).__name__}/{site}/{name if fields else session.user}"

    def delete_policy_for(self, session: Session[WebBox]) -> str:
        """Return what the spec says, unless --delete says something."""
        if self.settings.delete is not None:
            return self.delete_policy
        return self.specs[self.search(session)[0]].delete

    def open_box(self, session: Session[WebBox]) -> WebBox:
        """Say which mailbox it is; nothing is fetched yet."""
        site, name, fields = self.search(session)
        return WebBox(self.specs[site], site, name, fields, self.store)

    def list_messages(self, session: Session[WebBox]) -> Listing:
        """List what is kept; ask the site first if that is too old.

        Raises TemporaryFailure if nothing is kept and the site cannot be read.
        """
        grace = 0.0
        if self.settings.check_for_dequeue and self.personality.name != "inetd":
            grace = 3 * self.settings.check_for_dequeue  # for the background to come first
        return session.box.listing(session, grace)

    def read_message(self, session: Session[WebBox], message: Message) -> BinaryIO:
        """Return a message that is kept; an item of "padded" size is fetched now."""
        return BytesIO(session.box.read(session, message.uid))

    # -- the background -----------------------------------------------------------------------

    def run_dequeue(self) -> None:
        """Refresh the mailboxes that are due, in the jobs child."""
        super().run_dequeue()
        for site, spec in self.specs.items():
            refresh_due(site, spec, self.store, self.log, lambda: self.signals.pending)
