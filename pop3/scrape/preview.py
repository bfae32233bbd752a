"""Go through a site by a spec and keep all there is to see on the way: for `pop3-try scrape`.

The steps are those of `walk`, the same as in a server; nothing is kept in any state.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from netserver.errors import ConfigError
from pop3.scrape import extract, filters, mailbox, preview_hints, walk
from pop3.scrape import spec as specs
from pop3.scrape.errors import ScrapeError
from pop3.scrape.extract import Reading, Source, find
from pop3.scrape.fetch import Fetcher, Step
from pop3.scrape.page import Page
from pop3.scrape.preview_timing import Stopwatch, timed
from pop3.scrape.saved import SavedPages
from pop3.scrape.selection import Field
from pop3.scrape.spec import Spec
from pop3.scrape.user import WrongName


@dataclass(frozen=True)
class FieldSeen:
    """A field of one item: `hint` says why it is not there, and what might be done."""

    reading: Reading
    place: str  # file:line: key
    hint: str = ""

    @property
    def selector(self) -> str:
        """What gave it, as written."""
        field = self.reading.field
        if field.selection is not None:
            return str(field.selection)
        return "value" if field.template is not None else field.source

    @property
    def state(self) -> str:
        """ok, missing (and required), empty (and not), or default."""
        if not self.reading.missing:
            return "ok"
        if self.reading.field.default:
            return "default"
        return "missing" if self.reading.field.required else "empty"

    @property
    def text(self) -> str:
        """The value for people."""
        value = self.reading.value
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass
class ItemSeen:
    """One item; `octets` is the finished message, None if there is none."""

    entry: walk.Entry
    page: Page | None = None
    fields: list[FieldSeen] = field(default_factory=list)
    octets: bytes | None = None
    problem: str = ""

    @property
    def message(self) -> EmailMessage | None:
        """The message, parsed."""
        if self.octets is None:
            return None
        made = message_from_bytes(self.octets, policy=default)
        assert isinstance(made, EmailMessage)
        return made


@dataclass
class PageSeen:
    """One list page: how many places of it `list.items` matches, and the items made of them."""

    page: Page
    matches: int
    entries: list[walk.Entry]


@dataclass
class Look:
    """All that was seen. `problems` must be mended, `advice` may be; each is one line."""

    file: str
    name: str
    spec: Spec | None = None
    user: Mapping[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    pages: list[PageSeen] = field(default_factory=list)
    items: list[ItemSeen] = field(default_factory=list)
    listed: int = 0
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether a mailbox would be filled as the spec wants it."""
        return not self.problems and bool(self.items)


Sessions = Callable[[Spec, Callable[[Step], None]], Fetcher]
"""Opens a session on the web that tells of its steps."""


def on_the_site(spec: Spec, observe: Callable[[Step], None]) -> Fetcher:
    """Open a session on the site itself."""
    return mailbox.fetcher_for(spec, observe=observe)


def from_pages(directory: str) -> Sessions:
    """Return what opens a session on saved pages; raises ConfigError when it is called."""
    return lambda spec, observe: mailbox.fetcher_for(
        spec, observe=observe, transport=SavedPages(directory)
    )


def look(
    file: str,
    name: str,
    sessions: Sessions = on_the_site,
    *,
    offline: bool = False,
    most: int = 3,
) -> Look:
    """Go through the site for a user name, up to the messages of the first `most` items.

    A mistake in the spec, the name or the site is in the result, nothing is raised.
    """
    began = time.monotonic()
    seen = Look(file, name)
    try:
        seen.spec = specs.load(file)
        seen.user = seen.spec.user.read(name)
        fetcher = sessions(seen.spec, seen.steps.append)
    except ConfigError as error:
        seen.problems.append(str(error))
        return seen
    except WrongName as error:
        seen.problems.append(f"the user name: {error}")
        return seen
    watch = Stopwatch(file)
    walker = _Walk(seen, timed(seen.spec, watch), offline=offline)
    with fetcher:
        walker.run(fetcher, most)
    for key, line, took in watch.slow():
        seen.advice.append(
            f"{file}:{line}: {key}: a regular expression took {took:.1f} s; the server has no "
            "limit on them and would serve nobody else meanwhile: make it simpler"
        )
    seen.seconds = time.monotonic() - began
    return seen


class _Walk:
    """One way through a site, noting all."""

    def __init__(self, seen: Look, spec: Spec, *, offline: bool) -> None:
        self.seen = seen
        self.spec = spec
        self.offline = offline
        self.now = datetime.fromtimestamp(int(time.time()), UTC)

    def run(self, fetcher: Fetcher, most: int) -> None:
        try:
            listed = walk.list_items(self.spec, self.seen.user, fetcher)
        except ScrapeError as error:
            self._problem(error)
            page = getattr(error, "page", None)
            if isinstance(page, Page):
                self.seen.pages.append(PageSeen(page, 0, []))
            return
        self.seen.listed = len(listed.entries)
        self._look_at_lists(listed)
        if listed.failure is not None:
            self._problem(listed.failure)
        for entry in listed.entries[:most]:
            self.seen.items.append(self._item(fetcher, entry))

    def _problem(self, error: Exception) -> None:
        assert self.seen.spec is not None
        self.seen.problems.append(
            preview_hints.what_to_do(self.seen.spec, error, offline=self.offline)
        )

    def _at(self, line: int, key: str, text: str) -> str:
        return f"{self.seen.file}:{line}: {key}: {text}"

    # -- the list -----------------------------------------------------------------------------

    def _look_at_lists(self, listed: walk.Listed) -> None:
        items = self.spec.listing.items
        for page in listed.pages:
            source = Source.of(page)
            matches = find(items, source)
            entries = walk.entries_of(self.spec, self.seen.user, source)
            self.seen.pages.append(PageSeen(page, len(matches), entries))
            self._look_at_matches(matches, entries)
        if listed.entries:
            return
        if listed.is_empty:
            self.seen.advice.append("the site says that it has nothing; try another user name")
        elif not self.seen.pages[0].matches:
            page = self.seen.pages[0].page
            reason = preview_hints.why_nothing(items, Source.of(page))
            text = f"`{items}` matches nothing in {preview_hints.without_secrets(page.url)}"
            self.seen.problems.append(
                self._at(items.line, "list.items", text + (f": {reason}" if reason else ""))
            )

    def _look_at_matches(self, matches: list[Source], entries: list[walk.Entry]) -> None:
        line = self.spec.listing.items.line
        if len(entries) < len(matches):
            lost = f"{len(matches) - len(entries)} of {len(matches)} matches are no items: "
            kept = {id(_content_of(entry.node)) for entry in entries}
            first = next((one for one in matches if id(_content_of(one)) not in kept), matches[0])
            place = self._at(*self._why_lost(first, lost))
            (self.seen.advice if entries else self.seen.problems).append(place)
        uids = {entry.uid for entry in entries}
        if len(uids) < len(entries):
            identity = self.spec.item.id
            self.seen.problems.append(
                self._at(
                    line if identity is None else identity.line,
                    "item.id",
                    f"{len(entries) - len(uids)} of {len(entries)} items have the id of another "
                    "and are left out; take what is different in each",
                )
            )

    def _why_lost(self, match: Source, lost: str) -> tuple[int, str, str]:
        """Return line, key and reason why a match gives no item: no link, or no id."""
        listing, item = self.spec.listing, self.spec.item
        if listing.link is not None:
            if extract.read_field(listing.link, {"list": match}, {}).missing:
                hint = preview_hints.why_missing(listing.link, match)
                return listing.link.line, "list.link", f"{lost}it {hint}"
        elif item.fetch and item.url is None and item.id is None:
            return listing.items.line, "list.items", f"{lost}no link in them; say it by list.link"
        if item.id is not None:
            return item.id.line, "item.id", f"{lost}this finds nothing in their {item.id.source}"
        return listing.items.line, "list.items", f"{lost}they have no link; say it by list.link"

    # -- an item ------------------------------------------------------------------------------

    def _item(self, fetcher: Fetcher, entry: walk.Entry) -> ItemSeen:
        seen = ItemSeen(entry)
        try:
            item = walk.read_item(self.spec, self.seen.user, fetcher, entry)
            seen.page = item.page
            seen.fields = self._fields(item)
            seen.octets = walk.message_octets(self.spec, fetcher, item, self.now)
            self._look_at_message(item, seen)
        except ScrapeError as error:
            assert self.seen.spec is not None
            seen.problem = preview_hints.what_to_do(self.seen.spec, error, offline=self.offline)
            if seen.problem not in self.seen.problems:
                self.seen.problems.append(seen.problem)
        return seen

    def _fields(self, item: walk.Item) -> list[FieldSeen]:
        sources: dict[str, Source | str] = {"list": item.entry.node, "url": item.entry.url}
        if item.page is not None:
            sources["page"] = Source.of(item.page)
        listed = {one.name for one in self.spec.listing.fields}
        seen = []
        for name, reading in item.readings.items():
            key = f"{'list' if name in listed else 'item'}.fields.{name}"
            place = f"{self.seen.file}:{_line(reading.field)}: {key}"
            hint = ""
            if reading.missing:
                hint = preview_hints.why_missing(reading.field, sources[reading.field.source])
            one = FieldSeen(reading, place, hint)
            seen.append(one)
            if one.state == "missing":
                self._once(f"{place}: required, and {one.selector} {hint}")
        return seen

    def _once(self, problem: str) -> None:
        if problem not in self.seen.problems:
            self.seen.problems.append(problem)

    def _look_at_message(self, item: walk.Item, seen: ItemSeen) -> None:
        form = self.spec.message
        message = seen.message
        assert message is not None
        text = "" if form.date is None else form.date(item.values).strip()
        if text and filters.read_date(text) is None:
            self._advise(
                "message.date",
                f'"{text[:40]}" is no date; use the filter date with its form, such as "%d %b %Y"',
            )
        if not str(message["Subject"] or "").strip():
            self._advise("message.subject", "it is empty")
        if not message["From"] or not message["From"].addresses:
            self._advise("message.from", "this is no address; write Name <user@example.org>")

    def _advise(self, key: str, text: str) -> None:
        line = preview_hints.line_of(self.seen.file, key) or 1
        advice = self._at(line, key, text)
        if advice not in self.seen.advice:
            self.seen.advice.append(advice)


def _line(one: Field) -> int:
    return one.line if one.selection is None else one.selection.line


def _content_of(source: Source) -> Any:
    return source.value if source.node is None else source.node.root


def parts_of(message: EmailMessage) -> tuple[str, str, list[tuple[str, str, int]]]:
    """Return text, HTML and the attachments (name, type, octets) of a message."""
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    files = [
        (part.get_filename() or "", part.get_content_type(), len(_octets(part)))
        for part in message.iter_attachments()
    ]
    return _content(text), _content(html), files


def _content(part: Any) -> str:
    return "" if part is None else str(part.get_content())


def _octets(part: Any) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""
