"""A site on loopback with one feed that changes, answers conditional requests, and can be down."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from html import escape

from tests.support.website import Answer, Asked, Website


@dataclass
class News:
    """One item of the feed; what is empty is left out."""

    guid: str
    title: str = "News"
    text: str = "<p>Text</p>"
    link: str = ""
    date: str = "Mon, 06 Sep 2021 00:01:00 +0000"
    more: str = ""

    def xml(self) -> str:
        """Return the element."""
        fields = {
            "guid": self.guid,
            "title": self.title,
            "description": self.text,
            "link": self.link,
            "pubDate": self.date,
        }
        made = [f"<{tag}>{escape(text)}</{tag}>" for tag, text in fields.items() if text]
        return f"<item>{''.join(made)}{self.more}</item>"


def rss(items: Iterable[News], title: str = "Site") -> bytes:
    """Return an RSS document."""
    made = "".join(item.xml() for item in items)
    return (
        f'<?xml version="1.0"?><rss version="2.0"><channel><title>{escape(title)}</title>'
        f"<link>http://site.example/</link>{made}</channel></rss>"
    ).encode()


class FeedSite(Website):
    """Serves `items` at /feed; `fresh` counts whole answers, `unchanged` those of 304."""

    def __init__(self, *guids: str) -> None:
        """Begin with an item for each guid."""
        super().__init__({"/feed": self._feed})
        self.items = [News(guid, f"News {guid}") for guid in guids]
        self.down = False
        self.fresh = 0
        self.unchanged = 0

    @property
    def feed_url(self) -> str:
        """The URL of the feed."""
        return f"{self.url}/feed"

    def _feed(self, asked: Asked) -> Answer:
        if self.down:
            return Answer(b"down", 500)
        body = rss(self.items)
        tag = f'"{sha256(body).hexdigest()[:16]}"'
        if asked.headers.get("if-none-match") == tag:
            self.unchanged += 1
            return Answer(b"", 304)
        self.fresh += 1
        return Answer(body, headers={"ETag": tag}, kind="application/rss+xml")
