"""Websites as mail through the real server: mailboxes of searches, in every process model."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.conftest import Start
from tests.support.made_mail import subjects, uids
from tests.support.scrapes import BIG_SITE, OLD_SITE, write_spec
from tests.support.servers import ROOT, RunningServer, run_program
from tests.support.website import Answer, Asked, OldSite, big_site, drip, redirect, zeros

Serve = Callable[..., RunningServer]
USER = "perl:5:Berlin"


@pytest.fixture
def site() -> Iterator[OldSite]:
    """Return the old job site, running."""
    with OldSite() as one:
        yield one


@pytest.fixture
def serve(start: Start, tmp_path: Path, site: OldSite) -> Serve:
    """Return what starts a server for the old site; anybody may log in."""

    def started(personality: str, *options: str, more: str = "", **arguments: Any) -> RunningServer:
        spec = write_spec(tmp_path / "jobs.yaml", site, OLD_SITE, more)
        given = ("--auth", "any", "--scrape", f"jobs={spec}", "--check-for-dequeue", "0", *options)
        return start(personality=personality, source="webscrape", options=given, **arguments)

    return started


def test_a_search_is_a_mailbox(personality: str, serve: Serve, site: OldSite) -> None:
    """Three items over two pages, found through the form; then from what is kept."""
    server = serve(personality)
    with server.session(USER) as wire:
        assert uids(wire) == [b"W1001", b"W1002", b"W1003"]
        assert subjects(wire) == ["Perl Programmer & Friend", "Café <Database> Expert", "Sysadmin"]
        wire.ok(b"DELE 2")
        assert wire.quit().startswith(b"+OK")
    assert site.asked[2].form["txtSkill"] == "perl"
    asked = len(site.asked)
    # the same search, written in other ways
    for name in (f"{USER}@jobs", "miles=5;skill=perl;place=Berlin", "p%65rl:5:Berlin"):
        with server.session(name) as wire:
            assert uids(wire) == [b"W1001", b"W1003"]
            assert wire.message(b"TOP 1 0").endswith(b"\r\n\r\n")
    assert len(site.asked) == asked
    with server.session("perl:25:Berlin") as wire:
        assert len(uids(wire)) == 3  # another search, in which nothing was deleted
    assert len(site.asked) > asked


def test_wrong_searches_are_refused(serve: Serve) -> None:
    """A field that is missing, too many, or not allowed: one line that says what is expected."""
    server = serve("single")
    for name, text in {
        ":5:Berlin": b"skill is missing; a name is skill:[miles]:[place]",
        "perl:7": b"miles is one of 5, 25",
        "a:5:b:c": b"more than 3 fields",
    }.items():
        with server.connect() as wire:
            wire.ok(b"USER " + name.encode())
            reply = wire.command(b"PASS x")
            assert reply.startswith(b"-ERR [SYS/PERM] ")
            assert text in reply


def test_two_sites_and_listeners(start: Start, site: OldSite, tmp_path: Path) -> None:
    """The domain of the name, or the listener, says which site is meant."""
    first = write_spec(tmp_path / "jobs.yaml", site)
    second = write_spec(tmp_path / "other.yaml", site, OLD_SITE.replace("{{ title }}", "2"))
    server = start(
        personality="single",
        source="webscrape",
        options=("--auth", "any", "--scrape", str(first), "--scrape", f"more={second}"),
        listen=("127.0.0.1:0", "127.0.0.1:0?scrape=more"),
    )
    with server.session(f"{USER}@more") as wire:
        assert subjects(wire) == ["2", "2", "2"]
    with server.connect(number=1) as wire:
        wire.login(USER, "x")
        assert subjects(wire) == ["2", "2", "2"]
    with server.connect() as wire:
        wire.ok(b"USER perl")
        assert b"log in as search@site; sites: jobs, more" in wire.command(b"PASS x")


def test_a_site_that_is_down(serve: Serve, site: OldSite) -> None:
    """[SYS/TEMP] while nothing is kept; what is kept is served later, whatever the site does."""
    site.down = True
    server = serve("prefork", more="cache: {list: 0}\nlimits: {retries: 0}\n")
    with server.connect() as wire:
        wire.ok(b"USER perl")
        assert wire.command(b"PASS x").startswith(b"-ERR [SYS/TEMP] the site cannot be reached")
    site.down = False
    with server.session("perl") as wire:
        assert len(uids(wire)) == 3
    site.down = True
    with server.session("perl") as wire:
        assert len(subjects(wire)) == 3
    server.wait_for_log("site cannot be read")


def test_a_site_that_has_changed(serve: Serve, site: OldSite) -> None:
    """One message says so, with the page; the mail stays; it goes when the site is well again."""
    server = serve("fork", more="cache: {list: 0}\n")
    with server.session("perl") as wire:
        before = uids(wire)
    site.broken = True
    with server.session("perl") as wire:
        assert uids(wire)[:-1] == before
        notice = message_from_bytes(wire.message(b"RETR 4"), policy=default)
        assert notice["Subject"] == "The site Old Jobs has changed"
        assert "the list has no items any more (css: tr.job)" in str(notice.get_body())
        (attached,) = notice.iter_attachments()
        assert b"vacancy" in attached.get_content().encode()
    with server.session("perl") as wire:
        assert len(uids(wire)) == 4  # still one
    site.broken = False
    with server.session("perl") as wire:
        assert uids(wire) == before


def test_the_background_looks_for_new_items(serve: Serve, site: OldSite) -> None:
    """The jobs child finds what is new while nobody is there; the login does not ask the site."""
    server = serve("gevent", "--check-for-dequeue", "1", more="cache: {list: 1}\n")
    with server.session("perl") as wire:
        assert len(uids(wire)) == 3
    site.jobs["W1004"] = ("Tester", "Break it.")
    server.wait_for_log('"new":1,')
    with server.session("perl") as wire:
        assert uids(wire) == [b"W1001", b"W1002", b"W1003", b"W1004"]


def test_padded_items_are_fetched_when_read(personality: str, serve: Serve, site: OldSite) -> None:
    """Sizes are known without the items; every message has exactly 1000 octets."""
    server = serve(personality, more="size: padded 1000\n")
    site.jobs["W1003"] = ("Long", "word " * 1000)
    with server.session("perl") as wire:
        assert wire.ok(b"STAT").split()[1:3] == [b"3", b"3000"]
        assert "/jobs/job.aspx" not in site.paths()
        text = wire.message(b"RETR 1")
        assert len(text) == 1000
        assert text.count(b"\r\n") == text.count(b"\n")
        assert site.paths().count("/jobs/job.aspx") == 1
        assert wire.message(b"RETR 1") == text
        message = message_from_bytes(text, policy=default)
        assert not message.defects
        words = " ".join(message.get_content().split())
        assert words == "Berlin, Gro\xdfraum Mitte Write Perl \u2013 daily. For \u20ac 500."
        assert len(wire.message(b"RETR 3")) == 1000
        assert wire.message(b"TOP 1 2").startswith(text.partition(b"\r\n\r\n")[0])
    assert site.paths().count("/jobs/job.aspx") == 2


def test_ignored_deletions(serve: Serve) -> None:
    """With `delete: ignore` everything is there again at the next login."""
    server = serve("single", more="delete: ignore\n")
    for _ in range(2):
        with server.session("perl") as wire:
            assert len(uids(wire)) == 3
            wire.ok(b"DELE 1")
            assert wire.quit().startswith(b"+OK")


@pytest.mark.parametrize("bad", ["loop", "bomb", "inside"])
def test_a_hostile_site_costs_a_login_no_more(serve: Serve, site: OldSite, bad: str) -> None:
    """Redirects in a circle, a gigabyte of zeros, a way into the local network: [SYS/TEMP]."""
    site.routes["/"] = {
        "loop": lambda _: redirect("/"),
        "bomb": lambda _: zeros(1 << 30),
        "inside": lambda _: redirect("http://169.254.169.254/latest/meta-data/"),
    }[bad]
    server = serve("gevent")
    with server.connect() as wire:
        wire.ok(b"USER perl")
        assert wire.command(b"PASS x").startswith(b"-ERR [SYS/TEMP] the site cannot be reached")


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    """Without the extra: one line that says how to get it."""
    missing = "raise ModuleNotFoundError(\"No module named 'parsel'\", name='parsel')\n"
    (tmp_path / "parsel.py").write_text(missing)
    options = (
        "--source",
        "webscrape",
        "--auth",
        "any",
        "--no-default-config",
        "--scrape",
        "a.yaml",
    )
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run_program("pop3-server", *options, home=tmp_path, env=env)
    assert done.returncode == 2
    assert "needs parsel: pip install 'netserver-pop3[scrape]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--scrape: at least one spec is needed; share/scrapes has some"),
        (("--scrape", "UP=x.yaml"), '--scrape: "UP=x.yaml": expected name=FILE'),
        (("--scrape", "a=none.yaml"), "--scrape: none.yaml: cannot be read: No such file"),
        (("--scrape", "bad.yaml"), "--scrape: bad.yaml:2: list.itemz: no such key"),
        (("--scrape", "good.yaml", "--listen", "127.0.0.1:0?scrape=b"), "has the name b"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, site: OldSite, options: tuple[str, ...], told: str
) -> None:
    """Wrong options and specs: one line with file, line and key, exit 2."""
    (tmp_path / "bad.yaml").write_text("list:\n  itemz: a\nstart: http://x/\nitem: {}\nmessage: {}")
    write_spec(tmp_path / "good.yaml", site)
    common = ("--source", "webscrape", "--auth", "any", "--personality", "single")
    done = run_program("pop3-server", *common, "--no-default-config", *options, home=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def timed(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_a_site_of_300_items(start: Start, tmp_path: Path) -> None:
    """A first login takes little more than the pages alone, eight at a time; sizes are exact."""
    with big_site(seconds=0.05) as big:
        spec = write_spec(tmp_path / "big.yaml", big, BIG_SITE)
        server = start(
            personality="gevent",
            source="webscrape",
            options=("--auth", "any", "--scrape", str(spec)),
        )

        def get(path: str) -> None:
            with urlopen(big.url + path, timeout=10) as answer:
                answer.read()

        def all_pages() -> None:
            for number in range(12):
                get(f"/?page={number + 1}")
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(get, [f"/item/{number}" for number in range(300)]))

        ratios = []
        for name in ("carl", "dora", "emil"):  # each a mailbox of its own; others use this machine
            alone = timed(all_pages)
            with server.connect() as wire:
                ratios.append(timed(lambda wire=wire, name=name: wire.login(name, "x")) / alone)
                listed = [line.split() for line in wire.lines(b"LIST")]
                assert len(listed) == 300
                for number, size in listed:
                    assert len(wire.message(b"RETR " + number)) == int(size)
            if ratios[-1] < 1.5:
                break
        asked = len(big.asked)
        with server.session("carl", "x") as wire:
            assert len(uids(wire)) == 300
        assert len(big.asked) == asked
    print(f"first login: {min(ratios):.2f} times the pages alone")
    assert min(ratios) < 1.5


def test_a_stop_ends_a_login_that_waits(serve: Serve, site: OldSite) -> None:
    """TERM while a site dawdles: the server ends in time, and says so to the client."""
    waiting = threading.Event()

    def dawdle(_: Asked) -> Answer:
        waiting.set()
        return drip(b"<html>", b" ", 0.05)

    site.routes["/"] = dawdle
    server = serve("prefork")
    with server.connect() as wire:
        wire.ok(b"USER perl")
        wire.send(b"PASS x\r\n")
        assert waiting.wait(10)
        assert timed(server.stop) < 10


def test_a_stop_ends_the_background_work(serve: Serve, site: OldSite) -> None:
    """TERM while the jobs child waits for a site: the server ends in time all the same."""
    server = serve("prefork", "--check-for-dequeue", "1", more="cache: {list: 1}\n")
    with server.session("perl") as wire:
        assert len(uids(wire)) == 3
    waiting = threading.Event()

    def dawdle(_: Asked) -> Answer:
        waiting.set()
        return drip(b"<html>", b" ", 0.05)

    site.routes["/"] = dawdle
    assert waiting.wait(10)
    assert timed(server.stop) < 10
