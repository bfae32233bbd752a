"""Feeds as mail through the real server: in every process model, by a real client, in trouble."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.support.feedsite import FeedSite, News, rss
from tests.support.made_mail import subjects, uids
from tests.support.processes import wait_until
from tests.support.servers import ROOT, RunningServer, run_program
from tests.support.website import Answer, drip

Serve = Callable[..., RunningServer]
NEVER = ("--check-for-dequeue", "0")


@pytest.fixture
def site() -> Iterator[FeedSite]:
    """Return a site with three items and a second feed, running."""
    with FeedSite("a", "b", "c") as one:
        one.routes["/other"] = lambda _: Answer(rss([News("a", "Other")], "Other"))
        yield one


@pytest.fixture
def serve(start: Start, site: FeedSite) -> Serve:
    """Return what starts a server for the feeds `news` and `other` in the group `all-of-it`."""

    def started(personality: str, *options: str, **arguments: Any) -> RunningServer:
        given = (
            *("--auth", "any", "--feed-allow", "127.0.0.0/8", *options),
            *("--feed", f"news@all-of-it={site.feed_url}"),
            *("--feed", f"other@all-of-it={site.url}/other"),
        )
        return start(personality=personality, source="feed", options=given, **arguments)

    return started


def refused(server: RunningServer, user: str) -> bytes:
    """Return the answer to a login that fails."""
    with server.connect() as wire:
        wire.ok(b"USER " + user.encode())
        reply = wire.command(b"PASS x")
        assert reply.startswith(b"-ERR")
        return reply


def test_a_feed_is_a_mailbox(personality: str, serve: Serve, site: FeedSite) -> None:
    """Feed and group; ids and octets that stay; DELE hides for one reader, for good."""
    server = serve(personality, *NEVER, "--feed-refresh", "0")
    with server.session("news") as wire:
        ids = uids(wire)
        assert subjects(wire) == ["News c", "News b", "News a"]
        assert wire.message(b"TOP 1 0").endswith(b"\r\n\r\n")
    with server.session("anna@news") as wire:
        assert uids(wire) == ids
        wire.ok(b"DELE 2")
        assert wire.quit().startswith(b"+OK")
    site.items = [News("d", "News d"), *site.items[::-1]]
    with server.session("anna@news") as wire:
        assert subjects(wire) == ["News c", "News a", "News d"]
        assert [ids[0], ids[2]] == uids(wire)[:2]
    with server.session("bert@all-of-it") as wire:
        assert subjects(wire) == ["News c", "News b", "News a", "News d", "Other"]
        assert uids(wire)[:3] == ids
        wire.ok(b"DELE 1")
        assert wire.quit().startswith(b"+OK")
    with server.session("news") as wire:
        assert len(uids(wire)) == 4
    with server.session("news~phone") as wire:
        wire.ok(b"DELE 1")
        assert wire.quit().startswith(b"+OK")
    with server.session("news~phone") as wire:
        assert uids(wire)[0] == ids[1]
    assert site.fresh == 2
    assert site.unchanged > 2
    assert refused(server, "nobody") == refused(server, "anna@nothing")


def test_ids_survive_a_restart(start: Start, serve: Serve, site: FeedSite) -> None:
    """A new server with the same state asks for nothing; with a new state the ids are the same."""
    del start
    server = serve("single", *NEVER)
    with server.session("news") as wire:
        ids = uids(wire)
        first = [wire.message(b"RETR %d" % number) for number in (1, 2, 3)]
    server.stop()
    asked = len(site.asked)
    server = serve("fork", *NEVER)
    with server.session("news") as wire:
        assert uids(wire) == ids
        assert [wire.message(b"RETR %d" % number) for number in (1, 2, 3)] == first
    assert len(site.asked) == asked
    server.stop()
    (server.home / "state.db").unlink()
    with serve("prefork", *NEVER).session("news") as wire:
        assert uids(wire) == ids
        assert [wire.message(b"RETR %d" % number) for number in (1, 2, 3)] == first


def test_a_site_that_is_down(serve: Serve, site: FeedSite) -> None:
    """[SYS/TEMP] while nothing was ever read; then what is kept. A group needs one that answers."""
    site.down = True
    server = serve("gevent", *NEVER, "--feed-refresh", "0")
    assert refused(server, "news").startswith(b"-ERR [SYS/TEMP] the feed cannot be reached")
    with server.session("all-of-it") as wire:
        assert subjects(wire) == ["Other"]
    site.down = False
    with server.session("news") as wire:
        assert len(uids(wire)) == 3
    site.down = True
    with server.session("news") as wire:
        assert len(subjects(wire)) == 3
    server.wait_for_log("feed cannot be read")
    assert site.url not in server.log_text()  # such a URL can be a secret


@pytest.mark.parametrize("personality", ["single", "gevent"])
def test_the_background_reads_feeds(personality: str, serve: Serve, site: FeedSite) -> None:
    """Before the first login and after it, so that no login asks a site."""
    server = serve(personality, "--check-for-dequeue", "1", "--feed-refresh", "1")
    server.wait_for_log('"names":"news all-of-it other all"')
    server.wait_for_log('"listed":3,"new":3')
    with server.session("news") as wire:
        assert len(uids(wire)) == 3
    site.items.insert(0, News("d", "News d"))
    server.wait_for_log('"listed":4,"new":1')
    with server.session("news") as wire:
        assert subjects(wire)[3:] == ["News d"]


def test_a_stop_ends_a_login_that_waits(serve: Serve, site: FeedSite) -> None:
    """TERM while a site dawdles: the server ends in time."""
    site.routes["/feed"] = lambda _: drip(b"<rss>", b" ", 0.05)
    server = serve("prefork", *NEVER)
    with server.connect() as wire:
        wire.ok(b"USER news")
        wire.send(b"PASS x\r\n")
        wait_until(lambda: bool(site.asked), 10, "a request")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 10


def test_a_stop_ends_the_background_work(serve: Serve, site: FeedSite) -> None:
    """TERM while the jobs child waits for a site: the server ends in time all the same."""
    site.routes["/feed"] = lambda _: drip(b"<rss>", b" ", 0.05)
    server = serve("gevent", "--check-for-dequeue", "1")
    wait_until(lambda: "/feed" in site.paths(), 10, "a request")
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 10


def test_private_addresses_need_leave(start: Start, site: FeedSite) -> None:
    """Without --feed-allow nothing private is asked; with one feed any name reads it."""
    options = ("--auth", "any", "--feed", site.feed_url, *NEVER)
    server = start(personality="fork", source="feed", options=options)
    assert b"[SYS/TEMP]" in refused(server, "ida")
    assert site.asked == []


def test_curl_reads_a_feed(serve: Serve, tmp_path: Path) -> None:
    """A real client gets the octets that were listed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    server = serve("gevent", *NEVER)

    def curl(path: str) -> bytes:
        url = f"pop3://{server.host}:{server.port}/{path}"
        command = ["curl", "-q", "-sS", "--max-time", "20", "--user", "curl@news:x", url]
        return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout

    for number, size in (line.split() for line in curl("").splitlines()):
        octets = curl(number.decode())
        assert len(octets) == int(size)
        assert message_from_bytes(octets, policy=default)["List-Id"]


def test_the_example_configuration(tmp_path: Path) -> None:
    """share/examples/feeds.yaml is a configuration; its users file is all that is missing."""
    shutil.copy(ROOT / "share" / "examples" / "feeds.yaml", tmp_path)
    (tmp_path / "users").write_text("news:{PLAIN}x\n")
    (tmp_path / "users").chmod(0o600)
    options = ("--config", "feeds.yaml", "--auth", "passwd-file:users", "--check-config")
    done = run_program("pop3-server", *options, home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--feed: at least one feed is needed, or an --opml list of them"),
        (("--feed", "UP=http://x.example/"), "--feed: "),
        (("--feed", "http://u:secret@x.example/"), "a URL with a user name is not taken"),
        (("--opml", "none.opml"), "--opml none.opml: No such file"),
        (("--feed", "http://x.example/", "--feed-allow", "home"), "--feed-allow: "),
        (("--feed", "http://x.example/", "--feed-keep-items", "0"), "--feed-keep-items: "),
        (("--feed", "http://x.example/", "--delete", "expunge"), "--delete expunge"),
    ],
)
def test_mistakes(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    """One line that names the option."""
    common = ("--source", "feed", "--auth", "any", "--no-default-config")
    done = run_program("pop3-server", *common, *options, home=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    """Without the extra: one line that says how to get it."""
    missing = "raise ModuleNotFoundError(\"No module named 'feedparser'\", name='feedparser')\n"
    (tmp_path / "feedparser.py").write_text(missing)
    options = ("--source", "feed", "--auth", "any", "--feed", "http://x.example/")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run_program("pop3-server", *options, "--no-default-config", home=tmp_path, env=env)
    assert done.returncode == 2
    assert "needs feedparser: pip install 'netserver-pop3[feed]'" in done.stderr
    assert done.stderr.count("\n") == 1
