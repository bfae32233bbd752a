"""Websites as mailboxes, as Mail::POP3 had them: rows 43 to 52 (see test_c1_rows)."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pop3.sources.webscrape import POP3Webscrape, WebscrapeSettings
from tests.support.scrapes import OLD_SITE, write_spec
from tests.support.servers import run_program
from tests.support.website import OldSite, redirect

USER = "perl:5:Berlin"
ALL = [b"W1001", b"W1002", b"W1003"]


class Web:
    """A server for the old job site, on files in this process."""

    def __init__(self, directory: Path, site: OldSite) -> None:
        self.directory = directory
        self.site = site

    def hear(self, said: bytes, user: str = USER, *, text: str = OLD_SITE) -> list[bytes]:
        """Let a client with any password say this; return what it hears after the greeting."""
        spec = write_spec(self.directory / "jobs.yaml", self.site, text)
        out = io.BytesIO()
        with POP3Webscrape(
            WebscrapeSettings(
                source="webscrape",
                scrape=(f"jobs={spec}",),
                auth=("any",),
                state=f"sqlite:///{self.directory}/state/state.sqlite",
                log_file=str(self.directory / "log"),
            )
        ) as server:
            login = b"USER %b\r\nPASS whatever\r\n" % user.encode()
            server.serve(io.BytesIO(login + said), out)
        return out.getvalue().split(b"\r\n")[2:-1]

    def uids(self, user: str = USER, **options: Any) -> list[bytes]:
        """Return the unique ids in this user's mailbox."""
        return [line.split()[1] for line in self.hear(b"UIDL\r\n", user, **options)[2:-1]]

    def asked(self, page: str) -> int:
        """Return how often the site was asked for a page."""
        return self.site.paths().count(f"/jobs/{page}.aspx")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """Return the server, its site running."""
    with OldSite() as site:
        yield Web(tmp_path, site)


def test_c1_row_43_search_terms_are_the_user(web: Web) -> None:
    """With ":" between fields and "+" for a blank, or by names; any password."""
    assert web.uids("c%2B%2B+expert:5:New+York") == ALL
    sent = next(one.form for one in web.site.asked if one.form)
    assert [sent[name] for name in ("txtSkill", "selMiles", "txtPlace")] == [
        "c++ expert",
        "5",
        "New York",
    ]
    before = len(web.site.asked)
    assert web.uids("miles=5;place=New+York;skill=c%2B%2B+expert") == ALL
    assert len(web.site.asked) == before  # the same mailbox


def test_c1_row_44_a_form_is_filled_in(web: Web) -> None:
    """That of the first page, with its hidden fields; a value can be one that no user chooses."""
    text = OLD_SITE.replace('txtPlace: "{{ user.place }}"', "txtPlace: Rome")
    assert web.uids(text=text) == ALL
    sent = next(one.form for one in web.site.asked if one.form)
    assert sent["txtPlace"] == "Rome"
    assert sent["__VIEWSTATE"]
    assert "chkOld" not in sent


def test_c1_row_45_lists_have_pages(web: Web) -> None:
    """Links to items and to the next page by CSS or by the old kind of pattern, up to the end."""
    web.site.per_page = 1
    assert web.uids() == ALL
    assert web.asked("list") == 3
    text = OLD_SITE.replace(
        "items: tr.job", 'items: {regex: "<tr class=.job.><td><a href=\\"([^\\"]*)\\""}'
    ).replace("next: a.next", 'next: {regex: "class=.next. href=\\"([^\\"]*)\\""}')
    assert web.uids("cobol", text=text) == ALL


def test_c1_row_46_items_become_messages(web: Web) -> None:
    """Fields by patterns, changed by filters; an id out of the URL; a template of the message."""
    assert web.uids() == ALL
    message = web.hear(b"RETR 1\r\n")[2:-1]
    assert b"Subject: Perl Programmer & Friend" in message
    assert [line[:22] for line in message if line.startswith(b"Date: ")] == [
        b"Date: Sat, 14 Nov 2026"
    ]
    assert b"Berlin" in b"\n".join(message[message.index(b"") :])


def test_c1_row_48_pages_are_fetched_at_need(web: Web) -> None:
    """Nothing before the login, no item before RETR or TOP where sizes allow it, nothing twice."""
    text = OLD_SITE + "size: padded 2000\n"
    assert web.hear(b"STAT\r\n", text=text)[1] == b"+OK 3 6000"
    assert (web.asked("list"), web.asked("job")) == (2, 0)
    assert web.hear(b"STAT\r\n", text=text)[1] == b"+OK 3 6000"
    assert (web.asked("list"), web.asked("job")) == (2, 0)
    web.hear(b"RETR 2\r\nTOP 2 0\r\nRETR 2\r\n", "cobol", text=text)
    assert (web.asked("list"), web.asked("job")) == (4, 1)


def test_c1_row_49_cookies_refresh_and_no_way_inside(web: Web) -> None:
    """The site's cookie and its waiting page are followed; an address inside is not."""
    assert web.uids() == ALL
    assert web.site.paths()[:4] == [
        "/",
        "/jobs/search.aspx",
        "/jobs/wait.aspx",
        "/jobs/list.aspx",
    ]
    assert "session=s3cret" in web.site.asked[-1].headers["cookie"]
    web.site.routes["/"] = lambda _: redirect("http://10.0.0.1/")
    assert web.hear(b"", "cobol")[0].startswith(b"-ERR [SYS/TEMP] the site cannot be reached")


def test_c1_row_50_deleted_stays_away(web: Web) -> None:
    """What this user deleted is gone in the next session too, for this user only."""
    assert web.hear(b"DELE 2\r\nQUIT\r\n")[-1] == b"+OK bye"
    assert web.uids() == [ALL[0], ALL[2]]
    assert web.uids("perl:25:Berlin") == ALL


def test_c1_row_52_a_look_at_a_site_and_at_a_source(web: Web) -> None:
    """`pop3-try scrape` shows what a spec finds and makes; `source` lists what a source has."""
    spec = write_spec(web.directory / "jobs.yaml", web.site)
    done = run_program("pop3-try", "scrape", str(spec), USER, home=web.directory)
    assert done.returncode == 0, done.stderr
    assert "POST" in done.stdout
    assert all(f"  {uid.decode()}" in done.stdout for uid in ALL)
    assert "| Subject: Perl Programmer & Friend" in done.stdout
    words = ("--no-default-config", "--auth", "any", "--scrape", str(spec), USER)
    done = run_program("pop3-try", "source", "--source", "webscrape", *words, home=web.directory)
    assert done.returncode == 0, done.stderr
    assert all(uid.decode() in done.stdout for uid in ALL)
