"""Which feeds there are and by which names people log in to read them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from unicodedata import normalize
from urllib.parse import urlsplit

from netserver.errors import ConfigError

_NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_OPTION = re.compile(rf"(?:({_NAME})(?:@({_NAME}))?=)?(https?://.+)")
_LONGEST_URL = 2000
ALL = "all"
"""The box of all feeds, unless a feed or a group has that name."""


@dataclass(frozen=True)
class Feed:
    """One feed; `title` is what its list calls it, if one does."""

    name: str
    url: str
    groups: tuple[str, ...] = ()
    title: str = ""

    @cached_property
    def key(self) -> str:
        """What it is called in ids and in the state."""
        return feed_key(self.url)

    @property
    def port(self) -> int:
        """The port its URL names."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def mailbox(self) -> str:
        """What it is called in the state."""
        return f"feed/{self.key}"


def feed_option(text: str) -> str:
    """Check the form of --feed. Raises ValueError."""
    found = _OPTION.fullmatch(text)
    if found is None:
        raise ValueError("expected [NAME[@GROUP]=]URL of http or https, names of a-z, 0-9 and -")
    check_url(found[3])
    return text


def check_url(url: str) -> None:
    """Check the URL of a feed. Raises ValueError, which never repeats it."""
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https") or len(url) > _LONGEST_URL:
        raise ValueError("this is no URL of http or https")
    if not url.isascii() or re.search(r"[\x00-\x20\x7f<>\"]", url):
        raise ValueError("a URL has no blanks and no letters beyond ASCII; write %XX")
    if "@" in parts.netloc:
        raise ValueError("a URL with a user name is not taken")


def feed_key(url: str) -> str:
    """Name a feed in ids: its URL without the scheme, as https is the same feed as http."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = "" if parts.port in (None, 80, 443) else f":{parts.port}"
    return f"{host}{port}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")


def slug(text: str) -> str:
    """Return a name made of a title: "Zeit für Züge!" is zeit-fur-zuge; "" if nothing is left."""
    plain = normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].strip("-")


class Subscriptions:
    """All feeds of a server, and the boxes they are read in: each feed, each group, all."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        """Take feeds whose names are all different."""
        self.feeds: tuple[Feed, ...] = tuple(feeds)
        boxes: dict[str, dict[str, Feed]] = {}
        for feed in self.feeds:
            for name in (feed.name, *feed.groups):
                boxes.setdefault(name, {})[feed.key] = feed
        boxes.setdefault(ALL, {feed.key: feed for feed in self.feeds})
        self.boxes: Mapping[str, tuple[Feed, ...]] = {
            name: tuple(members.values()) for name, members in boxes.items()
        }

    def of(self, user: str) -> tuple[Feed, ...] | None:
        """Return what a user reads: BOX or WHO@BOX; with one feed all read it. None: no such."""
        local, at, domain = user.rpartition("@")
        if at and domain in self.boxes:
            return self.boxes[domain] if local else None
        if user in self.boxes:
            return self.boxes[user]
        return self.feeds if len(self.feeds) == 1 else None


def subscribe(options: Sequence[str], listed: Iterable[Feed]) -> Subscriptions:
    """Put the feeds of --feed and those of OPML lists together. Raises ConfigError.

    Names given by hand are kept. A feed of a list whose name is taken gets "-2", "-3" … at its end.
    """
    feeds: list[Feed] = []
    taken: set[str] = set()
    listed = list(listed)
    groups = {group for feed in listed for group in feed.groups}
    for text in options:
        found = _OPTION.fullmatch(text)
        assert found is not None  # `feed_option` has seen it
        url = found[3]
        name = found[1] or slug(urlsplit(url).hostname or "") or "feed"
        if name in taken or name in groups:
            raise ConfigError(f"--feed {text}: the name {name} is given twice")
        taken.add(name)
        groups.update([found[2]] if found[2] else ())
        feeds.append(Feed(name, url, (found[2],) if found[2] else ()))
    for name in sorted(groups & taken):
        raise ConfigError(f"--feed {name}=…: a group has the same name")
    for feed in _merged(listed):
        name = feed.name
        number = 1
        while name in taken or name in groups:
            number += 1
            name = f"{feed.name[:55]}-{number}"
        taken.add(name)
        feeds.append(Feed(name, feed.url, feed.groups, feed.title))
    if not feeds:
        raise ConfigError("--feed: at least one feed is needed, or an --opml list of them")
    return Subscriptions(feeds)


def _merged(listed: Iterable[Feed]) -> Iterable[Feed]:
    """Make one of what a list has in several folders."""
    found: dict[str, Feed] = {}
    for feed in listed:
        known = found.setdefault(feed.key, feed)
        groups = tuple(dict.fromkeys((*known.groups, *feed.groups)))
        found[feed.key] = replace(known, groups=groups)
    return found.values()
