"""After kill -9: of the master, of who fetches from a website, of who works in the background."""

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.ctl import CONTROLLED, ask, place, ready
from tests.support.feedsite import FeedSite
from tests.support.made_mail import subjects, uids
from tests.support.maildirs import PLAIN, make_maildir, with_crlf
from tests.support.processes import is_alive, marked, wait_until
from tests.support.scrapes import OLD_SITE, write_spec
from tests.support.servers import RunningServer
from tests.support.website import Answer, Asked, OldSite
from tests.support.wire import Wire

USER = "perl:5:Berlin"


def killed(server: RunningServer, client: Wire) -> None:
    """Kill the master, and see that whoever it has made ends by itself, with the last client."""
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait_for_exit() == -signal.SIGKILL
    server.stopped = True  # its exit code is ours
    client.close()
    try:
        wait_until(lambda: not marked(server.mark), 20, "the end of all that it had made")
    finally:
        for pid in filter(is_alive, marked(server.mark)):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", CONTROLLED)
def test_a_server_starts_where_one_was_killed(start: Start, tmp_path: Path, kind: str) -> None:
    """Pid file, control socket, locks, tables and state are no hindrance; no mail is gone."""
    options = ("--control-socket", place(tmp_path), "--pid-file", str(tmp_path / "pid"))
    if os.geteuid() == 0:
        options += ("--auth", "system")  # with auth children
    make_maildir(tmp_path / "mail" / "anna", [PLAIN, PLAIN])
    first = start(personality=kind, options=options)
    ready(tmp_path)
    wire = first.session()
    before = uids(wire)
    wire.ok(b"DELE 1")
    killed(first, wire)
    second = start(personality=kind, options=options)
    ready(tmp_path)
    assert ask(second, "status")["pid"] == second.pid
    assert (tmp_path / "pid").read_text() == f"{second.pid}\n"
    with second.session() as again:
        assert uids(again) == before
        assert again.message(b"RETR 1") == with_crlf(PLAIN)
        again.quit()


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent", "single"])
def test_who_fetched_from_a_site_is_killed(start: Start, tmp_path: Path, kind: str) -> None:
    """Half of the items are kept or none; the next login has each of them once, whole."""
    waiting, go_on = threading.Event(), threading.Event()

    class Slow(OldSite):
        def _job(self, asked: Asked) -> Answer:
            if asked.query["id"] == list(self.jobs)[1] and not go_on.is_set():
                waiting.set()
                go_on.wait(20)
            return super()._job(asked)

    with Slow() as site:
        spec = write_spec(tmp_path / "jobs.yaml", site, OLD_SITE, "")
        options = ("--auth", "any", "--scrape", f"jobs={spec}", "--check-for-dequeue", "0")
        server = start(personality=kind, source="webscrape", options=options)
        with server.connect() as wire:
            wire.ok(b"USER " + USER.encode())
            wire.send(b"PASS x\r\n")
            assert waiting.wait(10)
            if kind == "single":
                killed(server, wire)
            else:
                for pid in server.workers():
                    os.kill(pid, signal.SIGKILL)
        go_on.set()
        if kind == "single":
            server = start(personality=kind, source="webscrape", options=options)
        with server.session(USER) as wire:
            found = uids(wire)
            assert len(subjects(wire)) == len(set(found)) == 3
            wire.quit()
        with server.session(USER) as wire:
            assert uids(wire) == found
            wire.quit()


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent", "single"])
def test_who_read_feeds_is_killed(start: Start, kind: str) -> None:
    """The jobs child is made again, and what it was about to read comes all the same."""
    waiting, go_on = threading.Event(), threading.Event()
    with FeedSite("a", "b", "c") as site:
        feed = site.routes["/feed"]

        def slow(asked: Asked) -> Answer:
            if not go_on.is_set():
                waiting.set()
                go_on.wait(20)
            return feed(asked)

        site.routes["/feed"] = slow
        options = ("--auth", "any", "--feed-allow", "127.0.0.0/8", "--check-for-dequeue", "1")
        server = start(
            personality=kind, source="feed", options=(*options, "--feed", f"news={site.feed_url}")
        )
        assert waiting.wait(15)
        mine = set(marked(server.mark)) - {server.pid}
        for pid in mine:  # the jobs child, and the workers if there are any
            os.kill(pid, signal.SIGKILL)
        go_on.set()
        with server.session("news") as wire:
            found = uids(wire)
            assert len(subjects(wire)) == len(set(found)) == 3
            wire.quit()
        wait_until(
            lambda: set(marked(server.mark)) - {server.pid} - mine, 20, "the children made again"
        )
