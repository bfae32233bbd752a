"""Feeds as mail below the server: every format, hostile input, ids and messages that stay."""

import ipaddress
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from pop3.feed import look, parse, render
from pop3.feed.items import Document, NotAFeed, identified
from pop3.feed.rounds import Round
from pop3.feed.subscriptions import Feed
from pop3.scrape.page import Page
from pop3.scrape.store import Kept, Store
from pop3.sources.feed_box import Keeping
from pop3.state import State
from tests.support.feedsite import FeedSite, News, rss
from tests.support.website import Answer, Asked, redirect, zeros

FEEDS = Path(__file__).parents[2] / "data" / "feeds"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
URL = "http://town.example/feed.xml"


def page(body: bytes, kind: str = "application/xml") -> Page:
    """Return a page of a feed."""
    return Page(URL, 200, {"content-type": kind}, body)


def mails(document: Document, url: str = URL, **rules: Any) -> list[EmailMessage]:
    """Return the messages of a feed; each is well-formed and has short lines."""
    feed = Feed("x", url)
    entries = look._entries(feed, look.Rules(**rules), document)
    frame = render.Frame(feed.key, document.title)
    rows = look._rows(frame, entries, [one.item.enclosures for one in entries], 1e9)
    return [parsed(row.body or b"") for row in rows]


def parsed(octets: bytes) -> EmailMessage:
    """Parse a message that must have nothing wrong with it."""
    assert octets.endswith(b"\r\n")
    assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 78
    message = message_from_bytes(octets, policy=default)
    for part in message.walk():
        assert not part.defects
        for name in part:
            assert not part[name].defects, name
    assert isinstance(message, EmailMessage)
    return message


def text(message: EmailMessage, kind: str = "plain") -> str:
    """Return one of the two bodies."""
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def shipped(name: str) -> Document:
    """Read a feed of tests/data/feeds."""
    return parse.read(page((FEEDS / name).read_bytes()))


def test_rss_20() -> None:
    """Author, date, both bodies; links absolute, nothing in the HTML acts, files as links."""
    market, bridge = mails(shipped("rss20.xml"))
    assert bridge["From"] == "Ed Moor <ed@town.example>"
    assert bridge["Subject"] == "Bridge reopens: “at last”, says mayor"
    assert bridge["Date"].datetime.isoformat() == "2024-03-05T08:00:00+00:00"
    assert bridge["List-Id"].startswith('"Town News" <')
    assert bridge.get_content_type() == "multipart/alternative"
    html = text(bridge, "html")
    for unwanted in ("script", "alert", "onerror", "javascript"):
        assert unwanted not in html
    assert 'href="http://town.example/bridge"' in html
    assert 'src="http://town.example/img/b.jpg"' in html
    assert 'href="http://town.example/files/plan.pdf"' in html
    plain = text(bridge)
    assert "The bridge <http://town.example/bridge> is open." in plain
    assert "plan.pdf (application/pdf, 4,096 octets)\nhttp://town.example/files/plan.pdf" in plain
    assert market["From"] == "Town News <feed@town.example.invalid>"
    assert text(market).startswith("To the square.\n\nhttp://town.example/2024/market")


def test_older_rss() -> None:
    """0.91 with its DOCTYPE and an entity of HTML, 1.0 with Dublin Core."""
    peas, roses = mails(shipped("rss09.xml"))
    assert roses["Subject"] == "Roses & thorns"
    assert "Sow them early." in text(peas).replace("\xa0", " ")
    assert roses["Date"].datetime.timestamp() == 1e9  # when it was first seen
    (light,) = mails(shipped("rss10.xml"))
    assert light["From"] == "Ida Lund <feed@town.example.invalid>"
    assert light["Date"].datetime.isoformat() == "2024-02-03T03:05:06+00:00"


def test_atom_and_its_threads() -> None:
    """xml:base, a title in HTML, an answer to another entry."""
    document = shipped("atom.xml")
    assert document.title == "Talk & tea"
    kettles, answer = mails(document)
    assert kettles["From"] == "Ann Lee <ann@talk.example>"
    assert kettles.get_content_type() == "text/plain"
    assert text(kettles).startswith("Copper is best.")
    assert kettles["Date"].datetime.isoformat() == "2024-04-30T10:00:00+00:00"
    assert answer["In-Reply-To"] == answer["References"] == kettles["Message-ID"]
    assert 'href="http://talk.example/blog/pots"' in text(answer, "html")
    # a feed of its own for comments answers the same message
    (_, elsewhere) = mails(document, "http://talk.example/comments.xml")
    assert elsewhere["In-Reply-To"] == kettles["Message-ID"]


def test_json_feed() -> None:
    """Ids that are numbers, authors of item and feed, attachments."""
    left, arrived = mails(shipped("feed.json"))
    assert arrived["From"] == "Harbour master <feed@town.example.invalid>"
    assert arrived["Subject"] == "Arrived: Möwe"
    assert arrived["Date"].datetime.isoformat() == "2024-06-02T10:00:00+00:00"
    assert 'href="http://town.example/log/pier"' in text(arrived, "html")
    assert "2.jpg (image/jpeg, 900 octets)" in text(arrived)
    assert left["Subject"] == "Left at dawn."
    assert left["From"] == '"Jo, Al" <feed@town.example.invalid>'


def test_threads_by_link() -> None:
    """Items about one page answer the oldest of them; the site's front page makes no thread."""
    items = [
        News("c2", link="http://a.example/post#c2", date="Wed, 08 Sep 2021 00:00:00 GMT"),
        News("c1", link="http://a.example/post#c1", date="Tue, 07 Sep 2021 00:00:00 GMT"),
        News("post", link="http://a.example/post", date="Mon, 06 Sep 2021 00:00:00 GMT"),
        News("f1", link="http://a.example/"),
        News("f2", link="http://a.example/"),
    ]
    by_subject = {
        mail["Message-ID"]: mail["In-Reply-To"] for mail in mails(parse.read(page(rss(items))))
    }
    roots = [own for own, answers in by_subject.items() if answers is None]
    assert len(roots) == 3
    assert len(set(by_subject.values()) - {None}) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (rss([News("1", "Grüße")]), "text/xml; charset=iso-8859-1"),
        (rss([News("1", "Grüße")]).decode().encode("cp1252"), "text/xml"),
        (rss([News("1", "Grüße")]).decode().encode("cp1252"), "text/xml; charset=utf-8"),
        (rss([News("1", "Grüße")]).decode().encode("utf-16"), "text/xml; charset=utf-8"),
        (b"\xef\xbb\xbf" + rss([News("1", "Grüße")]), "text/html"),
    ],
)
def test_wrong_charsets(body: bytes, kind: str) -> None:
    """What the octets are counts for more than what is said about them."""
    (mail,) = mails(parse.read(page(body, kind)))
    assert mail["Subject"] == "Grüße"


@pytest.mark.parametrize(
    "title",
    [
        "a\r\nBcc: x@example.org",
        "a\x85Bcc: x@example.org",
        "a\u2028Bcc: x@example.org",
        "=?utf-8?q?a=0D=0ABcc:_x@example.org?=",
        "a&#13;&#10;Bcc: x@example.org",
    ],
)
def test_header_injection(title: str) -> None:
    """No title, author or file name starts a header field."""
    more = f"<author>x@example.org ({title.replace('&', '&amp;')})</author>"
    item = News("1", title, more=more)
    (mail,) = mails(parse.read(page(rss([item], title))))
    assert mail["Bcc"] is None
    assert set(mail.keys()) == {
        *("Date", "From", "Subject", "List-Id", "Message-ID", "MIME-Version", "Content-Type")
    }


def test_entities_are_not_obeyed(tmp_path: Path) -> None:
    """Neither those that multiply nor those that read files; the DOCTYPE is never parsed."""
    secret = tmp_path / "secret"
    secret.write_text("hidden words")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    doctype = f'<!DOCTYPE rss [<!ENTITY l0 "ha">{laughs}<!ENTITY f SYSTEM "file://{secret}">]>'
    item = "<item><title>x &l9; &f;</title></item>"
    body = f"{doctype}<rss version='2.0'><channel>{item}</channel></rss>"
    (mail,) = mails(parse.read(page(body.encode())))
    assert "hidden" not in mail["Subject"]
    assert "haha" not in mail["Subject"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body><rss></rss></body></html>",
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"<rss>" + b"<a>" * 100_000,
        b"<rss>" + b"<a/>" * 400_000,
        b"<rss><x " + b'a="" ' * 1000 + b"/>",
    ],
)
def test_what_is_no_feed(body: bytes) -> None:
    """A page of another kind, or one whose parts are too deep or too many, is refused at once."""
    began = time.process_time()
    with pytest.raises(NotAFeed):
        parse.read(page(body))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "item",
    [
        "<description>" + "&lt;div&gt;" * 50_000 + "deep</description>",
        "<author>" + "a" * 200_000 + "</author>",
        "<title>" + "x " * 100_000 + "</title>",
        "<pubDate>" + "1" * 100_000 + "</pubDate>",
        "<title " * 20_000,
        "<description><![CDATA[" * 20_000,
        "<guid>\x00\x0b\ufffe</guid><title>&#1114112;&#55296;</title>",
    ],
)
def test_costly_items(item: str) -> None:
    """Nothing takes time that grows faster than the feed: HTML, authors, tags without an end."""
    began = time.process_time()
    body = f"<rss version='2.0'><channel><item>{item}</item></channel></rss>"
    assert len(mails(parse.read(page(body.encode())))) <= 1
    assert time.process_time() - began < 10


def test_ids_do_not_depend_on_the_order() -> None:
    """Equal guids of different items, guids that are missing: the same ids in any order."""
    items = [
        News("1", "A", link="http://a.example/1"),
        News("1", "B", link="http://a.example/2"),
        News("1", "B", link="http://a.example/2"),
        News("2", "C"),
        News("", "D", link="http://a.example/4"),
        News("", "E"),
    ]
    names = [name for name, _ in identified(parse.read(page(rss(items))).items)]
    assert len(set(names)) == len(names) == 5
    again = [name for name, _ in identified(parse.read(page(rss(items[::-1]))).items)]
    assert set(again) == set(names)


def test_no_more_items_than_wanted() -> None:
    """Of 5,000 items the newest ones are taken, from the oldest of them on."""
    dates = [f"{day:02d} Sep 2021 0{hour}:00:00 GMT" for day in range(1, 31) for hour in range(9)]
    items = [News(str(n), f"N{n}", date=dates[n % 200]) for n in range(5000)]
    made = mails(parse.read(page(rss(items))), most=50)
    assert len(made) == 50
    assert [mail["Date"].datetime for mail in made] == sorted(m["Date"].datetime for m in made)
    assert made[0]["Date"].datetime.day >= 22


# -- with a site and a store --------------------------------------------------------------------

Look = Callable[..., Kept]


class Told:
    """A log that keeps what is told."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **values: Any) -> None:
        """Keep it."""
        self.events.append((event, values))

    warning = error = info


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty store."""
    state = State(f"sqlite:///{tmp_path}/state.sqlite")
    yield Store(state)
    state.close()


@pytest.fixture
def site() -> Iterator[FeedSite]:
    """Return a site with three items, running."""
    with FeedSite("a", "b", "c") as one:
        yield one


def run_round(store: Store, *feeds: Feed, keep_days: float = 30.0, **rules: Any) -> list[str]:
    """Look at feeds once; return the reasons of failures."""
    wanted = look.Rules(**{"allowed": LOOPBACK, **rules})
    looking = Round(feeds, wanted, store, lambda _, function, *args: function(*args), keep_days)
    for thread in looking._threads:
        thread.join(30)
    assert looking.done
    for outcome in looking.outcomes:
        assert outcome.error is None
    return [outcome.reason for outcome in looking.outcomes if outcome.reason]


def bodies(store: Store, feed: Feed) -> dict[str, bytes]:
    """Return what is kept of a feed, by uid, in the order of the listing."""
    kept = store.load(feed.mailbox)
    rows = store.rows(feed.mailbox, [uid for uid, _ in kept.messages])
    for uid, octets in kept.messages:
        assert len(rows[uid].body or b"") == octets
    return {uid: rows[uid].body or b"" for uid, _ in kept.messages}


def subjects(store: Store, feed: Feed) -> list[str]:
    """Return the subjects of what is kept."""
    return [str(parsed(body)["Subject"]) for body in bodies(store, feed).values()]


def test_conditional_requests(site: FeedSite, store: Store) -> None:
    """What has not changed is not sent again; what is new comes after what was there."""
    feed = Feed("x", site.feed_url)
    for _ in range(3):
        assert run_round(store, feed) == []
    assert (site.fresh, site.unchanged) == (1, 2)
    first = bodies(store, feed)
    site.items.insert(0, News("d", "News d"))
    site.items.reverse()
    assert run_round(store, feed) == []
    assert list(bodies(store, feed).items())[:3] == list(first.items())
    assert subjects(store, feed) == ["News c", "News b", "News a", "News d"]


def test_items_stay_when_the_feed_drops_them(site: FeedSite, store: Store) -> None:
    """For some days, and no more of them than wanted; what is still in the feed always stays."""
    feed = Feed("x", site.feed_url)
    run_round(store, feed)
    site.items = [News("d", "News d"), News("e", "News e")]
    run_round(store, feed)
    assert len(subjects(store, feed)) == 5
    run_round(store, feed, most=3)
    assert subjects(store, feed) == ["News a", "News e", "News d"]
    site.items = [News("f", "News f")]
    run_round(store, feed, keep_days=0)
    assert subjects(store, feed) == ["News f"]


def test_an_item_without_a_date_keeps_its_first(site: FeedSite, store: Store) -> None:
    """The date is when it was first seen, whatever is added later."""
    site.items = [News("a", date="")]
    feed = Feed("x", site.feed_url)
    run_round(store, feed)
    before = bodies(store, feed)
    site.items[0].date = "Mon, 06 Sep 2021 00:01:00 +0000"
    run_round(store, feed)
    assert bodies(store, feed) == before


def test_changed_items(site: FeedSite, store: Store) -> None:
    """They stay as they are; or the change is a new message that answers the first, once."""
    feed = Feed("x", site.feed_url)
    run_round(store, feed)
    before = bodies(store, feed)
    site.items[0].text = "<p>Corrected</p>"
    run_round(store, feed)
    assert bodies(store, feed) == before
    for title in ("News a", "News a", "News A", "News a"):
        site.items[0].title = title
        site.items[1].link += "/x"  # no change that a reader would see, but another document
        run_round(store, feed, new=True)
    after = bodies(store, feed)
    assert list(after.items())[:3] == list(before.items())
    assert subjects(store, feed)[3:] == ["News a", "News A"]
    corrected = parsed(list(after.values())[3])
    assert "Corrected" in text(corrected)
    assert corrected["In-Reply-To"] == parsed(list(before.values())[2])["Message-ID"]


def test_enclosures_attached(site: FeedSite, store: Store) -> None:
    """What can be had and is not too large is attached; of the rest the link remains."""
    files = [("ok.mp3", 10), ("gone.mp3", 10), ("huge.mp3", 10**9)]
    more = "".join(
        f'<enclosure url="{site.url}/{name}" length="{size}" type="audio/mpeg"/>'
        for name, size in files
    )
    site.items = [News("a", more=more)]
    site.routes["/ok.mp3"] = lambda _: Answer(b"\x00\xffsound", kind="audio/mpeg")
    feed = Feed("x", site.feed_url)
    run_round(store, feed, attach=True)
    (body,) = bodies(store, feed).values()
    mail = parsed(body)
    (attached,) = mail.iter_attachments()
    assert attached.get_filename() == "ok.mp3"
    assert attached.get_content() == b"\x00\xffsound"
    assert [path for path in site.paths() if path != "/feed"] == ["/ok.mp3", "/gone.mp3"]
    assert "/ok.mp3" not in text(mail)
    assert f"{site.url}/gone.mp3" in text(mail)
    assert f"{site.url}/huge.mp3" in text(mail)


def test_too_many_files_for_one_look(
    site: FeedSite, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items whose files have no room come with the next look, though the feed did not change."""
    monkeypatch.setattr("pop3.feed.rounds.ENCLOSURES", look.FetchLimits(octets=250_000, retries=0))
    site.routes["/f"] = lambda _: Answer(bytes(100_000), kind="audio/mpeg")
    for item in site.items:
        item.more = f'<enclosure url="{site.url}/f" type="audio/mpeg"/>'
    feed = Feed("x", site.feed_url)
    run_round(store, feed, attach=True)
    assert subjects(store, feed) == ["News c", "News b"]
    run_round(store, feed, attach=True)
    assert subjects(store, feed) == ["News c", "News b", "News a"]
    run_round(store, feed, attach=True)
    assert (site.fresh, site.unchanged) == (2, 1)


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (lambda _: redirect("http://169.254.169.254/"), "is not public"),
        (lambda _: redirect("/feed"), "more than 5 redirects"),
        (lambda _: zeros(1 << 26), "the page is larger than"),
        (lambda _: Answer(b"<html>parked</html>"), "this is no feed"),
    ],
)
def test_hostile_sites(
    site: FeedSite, store: Store, route: Callable[[Asked], Answer], reason: str
) -> None:
    """Ways into the local network, circles, bombs, another page: what is kept stays."""
    feed = Feed("x", site.feed_url)
    run_round(store, feed)
    site.routes["/feed"] = route
    (told,) = run_round(store, feed)
    assert reason in told
    assert site.url not in told
    assert len(subjects(store, feed)) == 3


def test_private_addresses_need_leave(site: FeedSite, store: Store) -> None:
    """A feed on a private address is not asked for unless --feed-allow says so."""
    (told,) = run_round(store, Feed("x", site.feed_url), allowed=())
    assert "is not public" in told
    assert site.asked == []


def test_the_background_prepares_all_feeds(site: FeedSite, store: Store) -> None:
    """All feeds are read before anybody comes, and again only when they are due."""
    site.routes["/other"] = lambda _: Answer(rss([News("o")]))
    feeds = [Feed("x", site.feed_url), Feed("y", f"{site.url}/other"), Feed("z", f"{site.url}/no")]
    rules = look.Rules(allowed=LOOPBACK)
    keeping = Keeping(store, rules, refresh=1000.0, keep_days=30.0)
    log = Told()
    keeping.in_background(feeds, log, lambda: False)  # type: ignore[arg-type] # enough of a log
    assert sorted(values["feed"] for _, values in log.events) == ["x", "y", "z"]
    assert len(subjects(store, feeds[0])) == 3
    asked = len(site.asked)
    keeping.in_background(feeds, log, lambda: False)  # type: ignore[arg-type] # same
    assert len(site.asked) == asked
    # feeds that nobody reads any more are left alone
    for feed in feeds:
        store.note_visit(feed.mailbox, "", "", time.time() - 40 * 86400)
    soon = Keeping(store, rules, refresh=0.0, keep_days=30.0)
    soon.in_background(feeds, log, lambda: False)  # type: ignore[arg-type] # same
    assert len(site.asked) == asked
