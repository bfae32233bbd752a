"""From a site to messages that are kept: new items, failures, changes, sizes, hostile contents."""

from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from pop3.scrape import mailbox, spec, walk
from pop3.scrape.errors import FetchError
from pop3.scrape.store import MOST_TRIES, Kept, Row, Store, Update
from pop3.state import State
from tests.support.postgres import Postgres
from tests.support.scrapes import OLD_SITE, write_spec
from tests.support.website import Answer, Asked, OldSite, Website, page, zeros

NOW = 1_800_000_000.0
BOX = "webscrape/jobs/perl"
KEEP = 3600.0


@pytest.fixture
def site() -> Iterator[OldSite]:
    """Return the old job site, running."""
    with OldSite() as one:
        yield one


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty store."""
    state = State(f"sqlite:///{tmp_path}/state.sqlite")
    yield Store(state)
    state.close()


def load(tmp_path: Path, site: Website, text: str = OLD_SITE, more: str = "") -> spec.Spec:
    """Return the spec of a site."""
    return spec.load(str(write_spec(tmp_path / "x.yaml", site, text, more)))


def look(made: spec.Spec, store: Store, now: float = NOW) -> Update:
    """Look at the site and keep what is found."""
    kept = store.load(BOX, for_update=True)
    with mailbox.fetcher_for(made, kept) as fetcher:
        update = mailbox.refresh(made, made.user.read("perl"), kept, fetcher, now)
    store.save(BOX, "jobs", "perl", update, now, keep=KEEP)
    return update


def uids(store: Store) -> list[str]:
    """Return what would be listed."""
    return [uid for uid, _ in store.load(BOX).messages]


def test_items_are_fetched_once(tmp_path: Path, site: OldSite, store: Store) -> None:
    """A second look gets the list and new items only; octets behind a uid stay."""
    made = load(tmp_path, site)
    look(made, store)
    before = store.rows(BOX, uids(store))
    site.jobs["W1001"] = ("Changed", "Changed")
    site.jobs["W1004"] = ("New", "New")
    asked = len(site.asked)
    look(made, store, NOW + 1)
    assert [one.query["id"] for one in site.asked[asked:] if "id" in one.query] == ["W1004"]
    assert uids(store) == ["W1001", "W1002", "W1003", "W1004"]
    assert store.rows(BOX, ["W1001"])["W1001"] == before["W1001"]


def test_items_that_are_listed_no_more_stay_a_while(
    tmp_path: Path, site: OldSite, store: Store
) -> None:
    """What has left the list stays `keep` seconds; a list that was cut short removes nothing."""
    made = load(tmp_path, site)
    look(made, store)
    del site.jobs["W1002"]
    look(made, store, NOW + KEEP)
    assert len(uids(store)) == 3
    cut = load(tmp_path, site, more="limits: {items: 1}\n")
    assert not look(cut, store, NOW + KEEP + 1).complete
    assert len(uids(store)) == 3
    look(made, store, NOW + KEEP + 2)
    assert uids(store) == ["W1001", "W1003"]


def test_an_item_that_cannot_be_had_is_left_out(
    tmp_path: Path, site: OldSite, store: Store
) -> None:
    """It is asked for again some times, and listed when it is there."""
    made = load(tmp_path, site)
    lost = site._job
    gone = True

    def sometimes(asked: Asked) -> Answer:
        return Answer(b"", 410) if gone and asked.query["id"] == "W1002" else lost(asked)

    site._job = sometimes  # type: ignore[method-assign]
    assert look(made, store).failed == ["W1002"]
    assert uids(store) == ["W1001", "W1003"]
    gone = False
    look(made, store, NOW + 1)
    assert sorted(uids(store)) == ["W1001", "W1002", "W1003"]


def test_an_item_is_given_up(tmp_path: Path, site: OldSite, store: Store) -> None:
    """After some tries nobody asks for it any more."""
    made = load(tmp_path, site)
    site._job = lambda _: Answer(b"", 404)  # type: ignore[method-assign]
    for number in range(MOST_TRIES + 2):
        look(made, store, NOW + number)
    assert site.paths().count("/jobs/job.aspx") == 3 * MOST_TRIES
    assert uids(store) == []


def test_required_fields_that_are_missing_in_most(
    tmp_path: Path, site: OldSite, store: Store
) -> None:
    """No broken item is kept, one message tells what broke; later all is well again."""
    made = load(tmp_path, site, OLD_SITE.replace("css: h1", "css: h1.new"))
    update = look(made, store)
    assert update.problem == "most items have no title"
    (notice,) = uids(store)
    assert notice.startswith("site-changed-")
    body = store.rows(BOX, [notice])[notice].body
    assert body is not None
    message = message_from_bytes(body, policy=default)
    assert "most items have no title" in str(message.get_body())
    assert [part.get_filename() for part in message.iter_attachments()] == ["page.html"]
    look(made, store, NOW + 1)
    assert uids(store) == [notice]
    look(load(tmp_path, site), store, NOW + 2)
    assert uids(store) == ["W1001", "W1002", "W1003"]


def test_a_form_that_is_gone_is_a_change(tmp_path: Path, site: OldSite, store: Store) -> None:
    """A start page without the form: a notice, although nothing was ever listed."""
    site.routes["/"] = lambda _: page("<p>We have moved")
    update = look(load(tmp_path, site), store)
    assert update.problem == "no form: css: form#search"
    assert len(uids(store)) == 1


def test_a_search_that_finds_nothing_is_no_change(
    tmp_path: Path, site: OldSite, store: Store
) -> None:
    """An empty list at first, or one that says so itself, is an empty mailbox."""
    site.jobs.clear()
    made = load(tmp_path, site)
    assert not look(made, store).problem
    assert uids(store) == []
    says_so = OLD_SITE.replace("  next:", "  empty: {regex: 'Page 1 of 1'}\n  next:")
    assert not look(load(tmp_path, site, says_so), store).problem


def test_a_site_that_is_down_is_an_error(tmp_path: Path, site: OldSite, store: Store) -> None:
    """Nothing of what is kept is touched."""
    made = load(tmp_path, site, more="limits: {retries: 0}\n")
    look(made, store)
    site.down = True
    with pytest.raises(FetchError, match="answered 503"):
        look(made, store)
    assert len(uids(store)) == 3


@pytest.mark.parametrize("size", ["", "size: padded 1000\n"])
def test_nothing_of_a_page_becomes_a_header(
    tmp_path: Path, site: OldSite, store: Store, size: str
) -> None:
    """Line ends and encoded words in a title: one Subject, no other field, no defect."""
    bad = "Job\r\nBcc: a@b\r\n\r\nbody\u2028X: 1 =?utf-8?q?=0D=0ABcc:_c@d?= \x00\x85" + "x" * 5000
    site._job = lambda _: page(f"<h1>-</h1><p id=text>{bad}")  # type: ignore[method-assign]
    text = OLD_SITE.replace("{css: h1, required: true}", "{regex: '<p id=text>(.*)'}")
    text = text.replace("from: Old Jobs <jobs@example.org>", 'from: "{{ title }} <a@example.org>"')
    text = text.replace('date: "{{ posted }}"', 'date: "{{ title }}"\n  to: "{{ title }}"')
    made = load(tmp_path, site, text, size)
    user = made.user.read("perl")
    with mailbox.fetcher_for(made) as fetcher:
        entry = walk.list_items(made, user, fetcher).entries[0]
        item = walk.read_item(made, user, fetcher, entry)
        octets = walk.message_octets(made, fetcher, item, mailbox.datetime.now(mailbox.UTC))
    message = message_from_bytes(octets, policy=default)
    assert set(message.keys()) <= {
        *("Date", "From", "To", "Subject", "Message-ID", "MIME-Version"),
        *("Content-Type", "Content-Transfer-Encoding"),
    }
    assert not message.defects
    assert max(map(len, octets.split(b"\r\n"))) <= 78
    assert not size or len(octets) == 1000


def test_endless_lists_end(tmp_path: Path, site: OldSite) -> None:
    """A list that always has a next page ends at the limit, or when nothing new comes."""
    endless = Website()

    def listed(asked: Asked) -> Answer:
        number = int(asked.query.get("p", "1"))
        item = number if "new" in asked.path else 1
        return page(f"<li class=item><a href=/i/{item}>x</a><a rel=next href='?p={number + 1}'>")

    endless.routes = {"/new": listed, "/same": listed}
    text = """\
start: URL/PATH
list: {items: li.item, next: "a[rel=next]"}
item: {}
message: {from: a@b, subject: x, text: x}
addresses: [127.0.0.0/8]
limits: {pages: 4}
"""
    with endless:
        for path, pages, complete in (("new", 4, False), ("same", 2, True)):
            made = load(tmp_path, endless, text.replace("PATH", path))
            with mailbox.fetcher_for(made) as fetcher:
                listing = walk.list_items(made, {}, fetcher)
            assert (len(listing.pages), listing.complete) == (pages, complete)


def test_a_bomb_among_the_items(tmp_path: Path, site: OldSite, store: Store) -> None:
    """One page that is a gigabyte of zeros: left out, the others are there."""
    sound = site._job

    def bomb(asked: Asked) -> Answer:
        return zeros(1 << 30) if asked.query["id"] == "W1002" else sound(asked)

    site._job = bomb  # type: ignore[method-assign]
    look(load(tmp_path, site), store)
    assert uids(store) == ["W1001", "W1003"]


def test_a_hook_can_change_fields(
    tmp_path: Path, site: OldSite, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the spec cannot say, `postprocess` can; an item in which it fails is left out."""
    (tmp_path / "jobhook.py").write_text(
        "def shout(fields, page):\n"
        "    if 'Sysadmin' in fields['title']: raise ValueError('no')\n"
        "    return {'title': fields['title'].upper() + page.url[-1:]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = load(tmp_path, site, more="postprocess: jobhook:shout\n")
    look(made, store)
    assert uids(store) == ["W1001", "W1002"]
    body = store.rows(BOX, ["W1001"])["W1001"].body or b""
    assert b"Subject: PERL PROGRAMMER & FRIENDt\r\n" in body


def test_lists_are_asked_for_conditionally(tmp_path: Path, store: Store) -> None:
    """With an ETag the second look costs the site one 304."""
    answers = []

    def listed(asked: Asked) -> Answer:
        if asked.headers.get("if-none-match") == '"1"':
            answers.append(304)
            return Answer(b"", 304)
        return page("<li class=item><a href=/i>x</a>", ETag='"1"')

    with Website({"/": listed, "/i": lambda _: page("<h1>x</h1><p>y")}) as one:
        text = OLD_SITE[OLD_SITE.index("list:") : OLD_SITE.index("item:")]
        text = "start: URL/\n" + text.replace("tr.job", "li.item").replace(
            '  pages: {regex: "Page [0-9]+ of ([0-9]+)"}\n', ""
        )
        text += "item: {}\nmessage: {from: a@b, subject: x, text: x}\naddresses: [127.0.0.0/8]\n"
        made = load(tmp_path, one, "user: {fields: {a: }}\n" + text)
        for number in range(3):
            look(made, store, NOW + number)
        assert answers == [304, 304]
        assert one.paths().count("/i") == 1
        assert len(uids(store)) == 1


def test_a_state_in_postgresql(tmp_path: Path, site: OldSite, postgres: Postgres) -> None:
    """All of it again in PostgreSQL: messages, notices, pages, visits, what is due."""
    state = State(postgres.url())
    store = Store(state)
    made = load(tmp_path, site)
    look(made, store)
    before = store.rows(BOX, ["W1001"])["W1001"].body or b""
    assert b"Perl Programmer" in before
    site.jobs["W1004"] = ("New \u20ac", "New")
    look(made, store, NOW + 1)
    assert uids(store) == ["W1001", "W1002", "W1003", "W1004"]
    site.broken = True
    look(made, store, NOW + 2)
    assert len(uids(store)) == 5
    site.broken = False
    padded = load(tmp_path, site, more="size: padded 1000\n")
    site.jobs["W1005"] = ("Later", "Later")
    look(padded, store, NOW + 3)
    assert store.rows(BOX, ["W1005"])["W1005"].body is None
    store.fill(BOX, "W1005", b"x" * 1000)
    del site.jobs["W1002"]
    look(made, store, NOW + 4 + KEEP)
    assert uids(store) == ["W1001", "W1003", "W1004", "W1005"]
    store.note_visit(BOX, "jobs", "perl", NOW)
    assert store.due("jobs", NOW + 2 * KEEP, NOW - 1) == [(BOX, "perl")]
    state.close()


def test_mailboxes_that_are_due(store: Store) -> None:
    """Those opened lately and not asked for long, the most stale first."""
    for number, account in enumerate(("a", "b", "c")):
        store.note_visit(f"x/{account}", "x", account, NOW - 100 * number)
        store.save(f"x/{account}", "x", account, Update(), NOW - 10 * number, keep=KEEP)
    assert [name for _, name in store.due("x", NOW + 1, 0)] == ["c", "b", "a"]
    assert [name for _, name in store.due("x", NOW - 5, NOW - 150)] == ["b"]
    assert store.due("y", NOW + 1, 0) == []
    store.note_failure("x/c", NOW + 5)
    assert [name for _, name in store.due("x", NOW + 1, 0)] == ["b", "a"]


@pytest.mark.parametrize("now", ["size: padded 1500\n", ""])
def test_a_size_that_was_listed_stays(
    tmp_path: Path, site: OldSite, store: Store, now: str
) -> None:
    """An item listed under an older spec comes in the size of then, whatever the spec says now."""
    look(load(tmp_path, site, more="size: padded 1200\n"), store)
    made = load(tmp_path, site, more=now)
    row = store.rows(BOX, ["W1001"])["W1001"]
    assert row.octets == 1200
    with mailbox.fetcher_for(made) as fetcher:
        octets = mailbox.fetch_later(made, made.user.read("perl"), row, fetcher, NOW)
    assert len(octets) == 1200


def test_two_who_keep_the_same(store: Store) -> None:
    """The first octets of a uid stay, whoever comes later with others."""
    for body in (b"first", b"second"):
        update = Update(listed=["u"], rows=[Row("u", len(body), body)])
        store.save(BOX, "s", "a", update, NOW, keep=KEEP)
    assert store.rows(BOX, ["u"])["u"].body == b"first"
    store.fill(BOX, "u", b"third")
    assert store.load(BOX).messages == [("u", 5)]
    assert Kept().messages == []
    assert store.load("other") == Kept()
