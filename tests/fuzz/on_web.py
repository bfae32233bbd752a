"""What websites send: feeds, HTML, robots.txt; and the messages made of it."""

import email
import email.policy
import re
from gzip import compress as gzipped

from pop3.compose import compose, is_settable
from pop3.feed import parse
from pop3.feed.items import Document, NotAFeed
from pop3.scrape import html_text
from pop3.scrape.errors import FetchError
from pop3.scrape.inflate import Body
from pop3.scrape.page import Page
from pop3.scrape.robots import Robots
from tests.fuzz.target import pieces, target

RSS = (
    b"<?xml version='1.0'?><rss version='2.0'><channel><title>T</title><link>http://x/</link>"
    b"<item><title>A &amp; b</title><link>a</link><guid>1</guid><description>&lt;b&gt;x"
    b"</description><pubDate>Mon, 02 Jan 2006 15:04:05 GMT</pubDate>"
    b"<enclosure url='e.mp3' type='audio/mpeg' length='12'/></item></channel></rss>"
)
ATOM = (
    b"<feed xmlns='http://www.w3.org/2005/Atom'><title>T</title><entry><id>urn:1</id>"
    b"<title type='html'>x</title><author><name>N</name><email>n@x.example</email></author>"
    b"<updated>2006-01-02T15:04:05Z</updated><content type='xhtml'><div>y</div></content>"
    b"<link rel='enclosure' href='z'/></entry></feed>"
)
JSON = (
    b'{"version":"https://jsonfeed.org/version/1.1","title":"T","items":[{"id":1,"url":"a",'
    b'"content_html":"<p>x","date_published":"2006-01-02T15:04:05Z","authors":[{"name":"N"}],'
    b'"attachments":[{"url":"b","mime_type":"audio/mpeg","size_in_bytes":5}]}]}'
)


@target(
    "feed",
    seeds=(
        RSS,
        ATOM,
        JSON,
        b"<feed xmlns='",  # a root element without end
        b"<rdf:RDF><channel/><item><title>x</title></item></rdf:RDF>",
    ),
    words=(
        b"<item>",
        b"<entry>",
        b"&#x41;",
        b"<![CDATA[",
        b"]]>",
        b"<!--",
        b"<!DOCTYPE ",
        b'"items":[',
    ),
    longest=1500,
)
def feed(data: bytes) -> None:
    """A feed is a document with items, or it is none."""
    page = Page("https://example.org/feed", 200, {"content-type": "text/xml"}, data)
    try:
        document = parse.read(page)
    except NotAFeed:
        return
    assert isinstance(document, Document)
    assert isinstance(document.title, str)
    for item in document.items:
        assert hash(item)


@target(
    "html",
    seeds=(
        b"<html><body><h1>T</h1><p>a<br>b &amp; c</p><ul><li>x</ul><a href='u'>l</a></body></html>",
        b"<table><tr><td>1<td>2</table><pre> x\n y</pre><script>z</script>",
        b"<p>\xff\0&#0;&#x110000;&nbsp;",
    ),
    words=(
        b"<table>",
        b"<td>",
        b"<pre>",
        b"</",
        b"<a href=",
        b"<!--",
        b"&#x",
        b"<svg>",
        b"<template>",
    ),
)
def html(data: bytes) -> None:
    """Any octets are a page with a text."""
    page = Page("https://example.org/", 200, {"content-type": "text/html"}, data)
    root = html_text.parse(page.text, page.url)
    assert isinstance(html_text.markup(root), str)
    for links in (True, False):
        assert "\0" not in html_text.text_of(page.text, links=links)


@target(
    "robots",
    seeds=(
        b"User-agent: *\nDisallow: /a*b$\nAllow: /a\nCrawl-delay: 2\n",
        b"user-agent: pop3\nuser-agent: x\nDisallow:\n\nUser-agent: *\nDisallow: /\n",
    ),
    words=(
        b"User-agent: ",
        b"Disallow: ",
        b"Allow: ",
        b"*",
        b"$",
        b"Crawl-delay: ",
        b"%2f",
        b"nan",
    ),
)
def robots(data: bytes) -> None:
    """Any text is rules, that ask for no long delay."""
    rules = Robots(data.decode("utf-8", "replace"), "pop3/1.0")
    assert 0 <= rules.delay <= 30
    for path in ("/", "/a/b?c", "/" + "a" * 200):
        assert rules.allows(path) in (True, False)


GZIP = gzipped(b"abcdef", mtime=0)


@target(
    "gzip",
    seeds=(
        b"\0" + GZIP,
        bytes([len(GZIP)]) + 2 * GZIP,
        bytes([len(GZIP) + 1]) + 2 * GZIP,
        b"\1" + GZIP[:-4],
    ),
    words=(GZIP, b"\x1f\x8b"),
)
def gzip(data: bytes) -> None:
    """A body is inflated within its limit, however it comes in."""
    limit = 4096
    results: list[bytes | None] = []
    for chunks in ([data[1:]], pieces(data[1:], data[:1])):
        body = Body("gzip", limit)
        try:
            for chunk in chunks:
                body.feed(chunk)
            results.append(body.finish())
        except FetchError:
            results.append(None)
    assert results[0] == results[1]
    assert results[0] is None or len(results[0]) <= limit


@target(
    "compose",
    seeds=(
        b"Subject\0A <a@b.example>\0text\0<p>html\0c@d.example\0X-A\0value",
        b"=?utf-8?q?=0D=0ABcc:_x?=\0=?utf-8?q?=0D=0A?= <a@b>\0t\0h\0\0\0",
        '\u2028\x85Bcc: x\0"a\\" <x@y>\0\u00fc\0\0\0\0'.encode(),
    ),
    words=(b"\r\nBcc: x", b"=?utf-8?b?DQo=?=", "\u2028".encode(), b"\x0b", b"@", b"<", b'"'),
)
def composed(data: bytes) -> None:
    """Fields of strangers make a message with these header fields and no others."""
    words = [part.decode("utf-8", "replace") for part in data.split(b"\0")]
    subject, sender, text, page, to, name, value = [*words, *[""] * 7][:7]
    extra = {name: value} if is_settable(name) else {}
    made = compose(
        subject=subject, sender=sender, date=0.0, text=text, html=page, to=to, headers=extra
    ).read()
    head = made.partition(b"\r\n\r\n")[0]
    lines = head.split(b"\r\n")
    assert all(len(line) <= 998 and re.fullmatch(rb"[\x20-\x7e]+", line) for line in lines)
    found = [line.partition(b":")[0].lower() for line in lines if not line.startswith(b" ")]
    allowed = {b"date", b"from", b"to", b"subject", b"message-id", b"mime-version"}
    allowed |= {b"content-type", *(key.lower().encode() for key in extra)}
    assert set(found) <= allowed
    assert len(set(found)) == len(found)
    again = email.message_from_bytes(made, policy=email.policy.compat32)
    assert again.is_multipart()
    assert not again.defects
