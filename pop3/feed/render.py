"""Make the mail message of an item: always the same octets for the same item."""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import unquote, urlsplit

import nh3
from lxml import etree

from pop3 import wire
from pop3.compose import Attachment, compose
from pop3.feed.items import Enclosure, Item, absolute, digest
from pop3.scrape import html_text

_LONGEST_HTML = 512 * 1024  # letters
_LONGEST_SUBJECT = 300
_LONGEST_NAME = 200
_FROM_TEXT = 70  # letters of a text that make the subject of an item without a title
_SCHEMES = {"http", "https", "mailto"}
_LINKS = ("href", "src", "cite", "longdesc", "poster")
_PLAIN_PHRASE = re.compile(r"[A-Za-z0-9 .,:!?'&/()-]+")
_HOST = re.compile(r"[a-z0-9-]{1,30}(\.[a-z0-9-]{1,30}){1,4}")


@dataclass(frozen=True)
class Frame:
    """What all messages of a feed share: its key and title."""

    key: str
    title: str

    @property
    def host(self) -> str:
        """The feed's host as part of an address, always one that goes nowhere (RFC 2606 §2)."""
        host = self.key.partition("/")[0].partition(":")[0]
        return f"{host}.invalid" if _HOST.fullmatch(host) and len(host) <= 50 else "feed.invalid"  # noqa: PLR2004 - fits an address

    @property
    def list_id(self) -> str:
        """The List-Id (RFC 2919), by which mail programs sort."""
        title = self.title[:60].strip()
        phrase = f'"{title}" ' if _PLAIN_PHRASE.fullmatch(title) else ""
        return f"{phrase}<{digest(self.key)[:16]}.feed.localhost>"


def message(
    frame: Frame,
    item: Item,
    *,
    message_id: str,
    date: float,
    answers: str | None = None,
    files: Sequence[Attachment] = (),
    linked: Sequence[Enclosure] = (),
) -> bytes:
    """Return the message as sent, with CRLF.

    `date` is for an item without one, `answers` the Message-ID of what it answers; `files` are
    attached, `linked` are named with their links.
    """
    body = _clean(item)
    text = html_text.text_of(body, links=True) if body else item.text[:_LONGEST_HTML].strip()
    plain = "\n\n".join(filter(None, (text, item.link, *map(_as_line, linked))))
    headers = {"List-Id": frame.list_id}
    if answers is not None:
        headers |= {"In-Reply-To": answers, "References": answers}
    subject = item.title or " ".join(text.split())[:_FROM_TEXT] or "(no title)"
    with compose(
        subject=subject[:_LONGEST_SUBJECT],
        sender=_sender(frame, item),
        date=int(date if item.date is None else item.date),
        text=plain + "\n",
        html=_page(subject, body, item, linked) if body else None,
        message_id=message_id,
        headers=headers,
        attachments=files,
    ) as stream:
        return wire.crlf(stream.read())


def _sender(frame: Frame, item: Item) -> str:
    name = " ".join((item.author or frame.title).split())[:_LONGEST_NAME]
    name = name.replace("\\", "\\\\").replace('"', '\\"')
    address = item.address.strip()
    if not re.fullmatch(r"[^@\s<>\"(),:;\\\[\]]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", address):
        address = f"feed@{frame.host}"
    return f'"{name}" <{address}>' if name else address


def _clean(item: Item) -> str:
    """Return the HTML with absolute links, and nothing in it that acts.

    It goes through libxml2 first, see `html_text.markup`.
    """
    if not item.html:
        return ""
    root = html_text.parse(item.html[:_LONGEST_HTML])
    for element in root.iter(etree.Element):
        for name in _LINKS:
            link = element.get(name)
            if link is not None and not _keeps(link):
                element.set(name, absolute(item.base, link))
    return nh3.clean(html_text.markup(root), url_schemes=_SCHEMES).strip()


def _keeps(link: str) -> bool:
    return link.lstrip().lower().startswith(("http://", "https://", "mailto:"))


def _page(subject: str, body: str, item: Item, linked: Sequence[Enclosure]) -> str:
    title = f'<meta charset="utf-8"><title>{escape(subject)}</title>'
    links = [(item.link, item.link)] if item.link else []
    links += [(one.url, _described(one)) for one in linked]
    after = [f'<p><a href="{escape(url)}">{escape(text)}</a></p>\n' for url, text in links]
    return (
        f"<!DOCTYPE html>\n<html><head>{title}</head>\n<body>\n{body}\n"
        f"{''.join(after)}</body></html>\n"
    )


def _as_line(one: Enclosure) -> str:
    return f"{_described(one)}\n{one.url}"


def _described(one: Enclosure) -> str:
    """Say what a file is: its name, kind and size as the feed gives them."""
    size = "" if one.octets is None or one.octets < 1 else f"{one.octets:,} octets"
    details = ", ".join(filter(None, (one.kind[:100], size)))
    return " ".join((file_name(one.url) + (f" ({details})" if details else "")).split())


def file_name(url: str) -> str:
    """Return the last part of a URL's path, for people."""
    return posixpath.basename(unquote(urlsplit(url).path).rstrip("/"))[:100] or "attachment"
