"""Read the octets of a feed. Nothing is fetched here, and no declaration in the XML is obeyed.

feedparser knows the many dialects; it is given text that starts at the root element, so that there
is no DOCTYPE: no entities to multiply, no files to include (it opened such files once). How deep
and how many the elements are is counted before, as its time grows with the square of the depth.
"""

import calendar
import re
import sys
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from typing import Any

from pop3.feed import jsonfeed
from pop3.feed.items import MOST_ENCLOSURES, Document, Enclosure, Item, NotAFeed, absolute, sane
from pop3.scrape import html_text
from pop3.scrape.filters import read_date
from pop3.scrape.page import Page

DEEPEST = 500
MOST_ELEMENTS = 300_000  # and attributes
_LONGEST_TAG = 1024 * 1024
_MOST_ATTRIBUTES = 200
_LONGEST_AUTHOR = 500
_LONGEST_NUMBER = 8
_PROLOGUE = 65536
_ROOT = re.compile(r"<(?:[A-Za-z_][\w.-]*:)?(?:rss|RDF|feed|channel)(?=[\s>/])")
_ADDRESS = re.compile(r"(?:mailto:)?([^\s<>()\"',;:@]+@[^\s<>()\"',;:@]+)")
_REFERENCE = re.compile("&#(?:[xX]([0-9A-Fa-f]+)|([0-9]+));?")
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_HEADERS = {"content-type": "application/xml; charset=utf-8"}


def read(page: Page) -> Document:
    """Read a feed of any format. Raises NotAFeed; its text holds nothing of the page."""
    text = text_of(page)
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        return jsonfeed.read(text, page.url)
    found = _ROOT.search(text, 0, _PROLOGUE)
    if found is None or "<html" in text[: found.start()].lower():
        raise NotAFeed("this is no feed")
    octets = _bounded(_only_xml(text[found.start() :])).encode("utf-8", "replace")
    try:
        # from a stream: it would take a text for a URL or the name of a file
        made = _feedparser().parse(
            BytesIO(octets),
            sanitize_html=False,
            resolve_relative_uris=False,
            response_headers=_HEADERS,
        )
    except Exception as error:  # it raises many kinds (its issue 599)
        raise NotAFeed("the feed cannot be read") from error
    if not made.get("version") and not made.entries:  # of nothing it makes no version
        raise NotAFeed("this is no feed")
    return _document(made, page.url)


@cache
def _feedparser() -> Any:
    """Import feedparser (0.1 s), without its search for addresses in the names of authors.

    That takes a time that grows with the square of their length, hours for some 100 KB, and it
    knows no domain of more than four letters at the end.
    """
    import feedparser  # noqa: PLC0415 - see above
    from feedparser import mixin  # noqa: PLC0415 - same

    parser = mixin._FeedParserMixin  # noqa: SLF001 - no other place to do this
    join = parser._sync_author_detail  # noqa: SLF001 - same

    def join_only(self: Any, key: str = "author") -> None:
        if self._get_context().get(f"{key}s", [None])[-1]:
            join(self, key)

    parser._sync_author_detail = join_only  # noqa: SLF001 - same
    return feedparser


def text_of(page: Page) -> str:
    """Decode a page: what is good UTF-8 is UTF-8, whatever a server or its template says."""
    if b"\x1b" not in page.body and b"\0" not in page.body:
        try:
            return page.body.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    return page.text


def _only_xml(text: str) -> str:
    """Take out the letters that XML has not, as they are and as references (XML 1.0 §2.2)."""

    def kept(found: re.Match[str]) -> str:
        digits, base = (found[1], 16) if found[1] else (found[2], 10)
        code = int(digits, base) if len(digits) <= _LONGEST_NUMBER else 0
        known = code <= sys.maxunicode and not _NO_XML.match(chr(code))
        return found[0] if known else "\ufffd"

    return _REFERENCE.sub(kept, _NO_XML.sub("", text))


def _bounded(text: str) -> str:
    """Return the text without a tag that has no end. Raises NotAFeed if it is too deep or large."""
    depth = elements = position = 0
    while (position := text.find("<", position)) >= 0:
        for begin, end in (("<![CDATA[", "]]>"), ("<!--", "-->")):
            if text.startswith(begin, position):
                after = text.find(end, position)
                break
        else:
            after = text.find(">", position)
            attributes = text.count("=", position, after)
            elements += 1 + attributes
            mark = text[position + 1 : position + 2]
            if mark == "/":
                depth -= 1
            elif mark not in ("!", "?") and text[after - 1 : after] != "/":
                depth += 1
            if after - position > _LONGEST_TAG or attributes > _MOST_ATTRIBUTES:
                raise NotAFeed("a tag is too long")
        if after < 0:
            return text[:position]
        if depth > DEEPEST or elements > MOST_ELEMENTS:
            raise NotAFeed("too many elements")
        position = after
    return text


def _document(made: Any, url: str) -> Document:
    feed = made.feed
    items = tuple(_item(entry, url) for entry in made.entries)
    return Document(_plain(feed, "title"), absolute(url, _text(feed.get("link"))), items)


def _item(entry: Any, url: str) -> Item:
    base = url
    html = text = ""
    for part in (*entry.get("content", ()), entry.get("summary_detail") or {}):
        value = _text(part.get("value"))
        if not value.strip():
            continue
        if part.get("type") == "text/plain":
            text = text or value
        elif not html:
            html = value
            base = absolute(url, _text(part.get("base"))) or url
    author, address = _author(entry)
    published, updated = (_seconds(entry, name) for name in ("published", "updated"))
    reply = next((entry[key] for key in entry if key.endswith("in-reply-to")), None)
    answered = reply if isinstance(reply, Mapping) else {}
    return Item(
        guid=_text(entry.get("id")).strip(),
        title=_plain(entry, "title"),
        link=_link(entry, url),
        author=author,
        address=address,
        date=published if published is not None else updated,
        updated=updated,
        html=html,
        text="" if html else text,
        base=base,
        enclosures=tuple(_enclosures(entry, url))[:MOST_ENCLOSURES],
        reply_to=_text(answered.get("ref") or answered.get("href")).strip(),
    )


def _author(entry: Any) -> tuple[str, str]:
    """Return name and address: Atom has them apart, RSS as "ed@example.org (Ed)" or otherwise."""
    detail = entry.get("author_detail") or {}
    if detail.get("name") or detail.get("email"):
        return _text(detail.get("name")), _text(detail.get("email"))
    text = _text(entry.get("author"))[:_LONGEST_AUTHOR]
    found = _ADDRESS.search(text)
    if found is None:
        return text.strip(), ""
    return (text[: found.start()] + text[found.end() :]).strip(" \t\r\n()<>\"'"), found[1]


def _link(entry: Any, url: str) -> str:
    link = _text(entry.get("link"))
    if entry.get("guidislink") and link == entry.get("id") and "://" not in link:
        return ""  # a guid such as "17", without isPermaLink="false"
    return absolute(url, link)


def _enclosures(entry: Any, url: str) -> list[Enclosure]:
    found: dict[str, Enclosure] = {}
    for link in entry.get("links", ()):
        target = absolute(url, _text(link.get("href")))
        if link.get("rel") == "enclosure" and target:
            length = _text(link.get("length"))
            octets = int(length) if re.fullmatch("[0-9]{1,10}", length) else None
            found.setdefault(target, Enclosure(target, _text(link.get("type")), octets))
    return list(found.values())


def _plain(owner: Any, name: str) -> str:
    """Return a title as one line of plain text."""
    value = _text(owner.get(name))
    if (owner.get(f"{name}_detail") or {}).get("type") != "text/plain" and "<" in value:
        value = html_text.text_of(value)
    return " ".join(value.split())


def _seconds(entry: Any, name: str) -> float | None:
    parsed = dict.get(entry, f"{name}_parsed")  # its own `get` takes one date for the other
    if parsed is not None:
        try:
            return sane(float(calendar.timegm(parsed)))
        except (ValueError, OverflowError, TypeError):
            return None
    moment = read_date(_text(dict.get(entry, name)))
    return None if moment is None else sane(moment.timestamp())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
