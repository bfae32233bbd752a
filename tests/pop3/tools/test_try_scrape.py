"""`pop3-try scrape` and `pop3-try source`: what they show, and what they say when it is wrong."""

import io
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.lock import MaildropLock
from pop3.scrape import preview, preview_hints, preview_html, preview_marked, preview_timing
from pop3.scrape.page import Page
from pop3.scrape.preview_memory import Memory
from pop3.scrape.preview_server import endpoint
from pop3.tools import try_
from pop3.tools.try_scrape import Report
from tests.support.scrapes import OLD_SITE, write_spec
from tests.support.servers import ROOT
from tests.support.website import Asked, OldSite, Website, page

BOARD = ROOT / "share" / "scrapes" / "job-board.yaml"
PAGES = BOARD.with_suffix("") / "pages"
USER = "python:remote"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs pop3-try here: exit status, what it printed, what it complained."""

    def ran(*arguments: object) -> tuple[int, str, str]:
        status = try_.main([*map(str, arguments)])
        return status, *capsys.readouterr()

    return ran


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """Return the job board's spec with one thing other than it should be."""
    text = BOARD.read_text()
    assert old in text
    path = tmp_path / "jobs.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_every_step_is_shown(run: Run) -> None:
    """Requests, list, fields with what gave them, the message; nothing is coloured in a pipe."""
    status, shown, _ = run("scrape", BOARD, USER, "--pages", PAGES, "--items", 1)
    assert status == 0
    assert re.search(r"200 +[0-9.]+ s +531  GET https://jobs\.example\.org/search\?q=python", shown)
    assert "list page 1: 2 matches of [css: article.job-card], 2 items" in shown
    assert re.search(r"title +Python Developer  \[css: h1\]", shown)
    assert "| Subject: Python Developer" in shown
    assert "all is well: 1 of 3 items" in shown
    assert "\x1b" not in shown


def test_a_missing_field_is_red_on_a_terminal(tmp_path: Path) -> None:
    """What is required and not there is marked, with the reason."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    spec = changed(tmp_path, "css: h1,", "css: h1.titel,")
    out = Terminal()
    Report(out).look(preview.look(str(spec), USER, preview.from_pages(str(PAGES))))
    assert "\x1b[31m  title          MISSING  [css: h1.titel] matches nothing" in out.getvalue()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "article.job-card",
            "article.job-crd",
            r":14: list.items: .*no class job-crd; near: \.job-card$",
        ),
        ("h2 a::attr(href)", "h3 a::attr(href)", r":15: list.link: 2 of 2 matches are no items: "),
        ("/jobs/([0-9]+)", "/job/([0-9]+)", r":23: item.id: 2 of 2 .*nothing in their url$"),
        ("css: h1,", "css: body h7,", r":25: .*`body` alone matches 1$"),
        ("filters: [squeeze]", "filters: [{regex: zzz}]", r":25: .*filters leave nothing of: Pyth"),
        ('"{{ title }}"', '"{{ title / 2 }}"', r":32: message.subject: template: TypeError$"),
        ('date: "{{ posted }}"', 'date: "{{ company }}"', r":33: message.date: .* is no date"),
        ("{prefix: job-}", "{cut: 1}", r":23: item.id: 1 of 2 items have the id of another"),
    ],
)
def test_a_mistake_is_told_with_its_place(
    run: Run, tmp_path: Path, old: str, new: str, told: str
) -> None:
    """One line says file, line, key, and what might be meant."""
    spec = changed(tmp_path, old, new)
    _, shown, _ = run("scrape", spec, USER, "--pages", PAGES)
    lines = [line for line in shown.splitlines() if line.startswith(("to mend: ", "note: "))]
    assert any(re.search(re.escape(str(spec)) + told, line) for line in lines), lines


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((BOARD, "a:b:c"), "the user name: more than 2 fields; a name is what:[where]"),
        (("none.yaml", USER), "none.yaml: cannot be read: No such file or directory"),
        ((BOARD, USER, "--pages", "none"), "none/pages.yaml: cannot be read: No such file"),
        ((BOARD, USER, "--update"), "--update: only with --test"),
        ((BOARD, USER, "--serve", "8.8.8.8:80"), "--serve 8.8.8.8:80: only loopback"),
        (("--test", BOARD, "none"), "none/test.yaml: there is none; write `user: NAME`"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, arguments: tuple[object, ...], told: str) -> None:
    """Exit status 2, and no traceback."""
    status, _, complained = run("scrape", *arguments)
    assert status == 2
    assert complained.startswith(f"pop3-try: {told}")
    assert complained.count("\n") == 1


def test_saved_pages_give_the_same_without_the_site(run: Run, tmp_path: Path) -> None:
    """--save keeps what a form, a redirect and a Refresh gave; --pages needs no site."""
    with OldSite() as site:
        spec = write_spec(tmp_path / "old.yaml", site, OLD_SITE)
        status, live, _ = run("scrape", spec, "perl", "--save", tmp_path / "pages")
        assert status == 0
    status, saved, _ = run("scrape", spec, "perl", "--pages", tmp_path / "pages")
    assert status == 0
    messages = [[line for line in text.splitlines() if "  | " in line] for text in (live, saved)]
    assert len(messages[0]) > 20
    assert [line for line in messages[0] if "Date" not in line] == [
        line for line in messages[1] if "Date" not in line
    ]


def test_the_regression_test(run: Run, tmp_path: Path) -> None:
    """As expected: 0; a difference: 1 and a diff; --update takes it."""
    board = Path(shutil.copytree(BOARD.with_suffix(""), tmp_path / "board"))
    assert run("scrape", "--test", BOARD, board)[0] == 0
    spec = changed(tmp_path, "<h1>{{ title }}</h1>", "<h2>{{ title }}</h2>")
    status, shown, _ = run("scrape", "--test", spec, board)
    assert status == 1
    assert "\n-<h1>Python Developer</h1>\n+<h2>Python Developer</h2>\n" in shown
    assert run("scrape", "--test", "--update", spec, board)[:2] == (
        0,
        f"{board}/expected: 3 messages\n",
    )
    assert run("scrape", "--test", spec, board)[0] == 0


def test_a_pattern_that_hangs_is_stopped(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told by its place, and tried once only; the server could not do that."""
    monkeypatch.setattr(preview_timing, "HANGS", 0.2)
    spec = changed(tmp_path, "{css: h1,", '{regex: "(([^<]*)*)*~",')
    status, shown, _ = run("scrape", spec, USER, "--pages", PAGES)
    assert status == 1
    assert f"to mend: {spec}:25: item.fields.title: a regular expression took more than" in shown


def test_a_slow_pattern_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What took long is a note, in filters too."""
    monkeypatch.setattr(preview_timing, "SLOW", 0.0)
    status, shown, _ = run("scrape", BOARD, USER, "--pages", PAGES)
    assert status == 0
    assert f"note: {BOARD}:23: item.id.filters: a regular expression took 0.0 s" in shown


def test_what_looks_like_a_key_is_not_shown() -> None:
    """In URLs and forms the values of keys, tokens and passwords are hidden."""
    url = "https://x.example/?q=perl&api_key=geheim&Session=42#top"
    assert preview_hints.without_secrets(url) == (
        "https://x.example/?q=perl&api_key=***&Session=***#top"
    )
    assert preview_hints.without_secrets("user=a&password=b+c") == "user=a&password=***"
    assert preview_hints.without_secret_values('{Authorization: "Bearer x", Accept: y}') == (
        "{Authorization: ***, Accept: y}"
    )
    assert preview_hints.without_secret_values("title: {css: h1}") == "title: {css: h1}"


def test_a_site_is_asked_once_while_a_spec_is_worked_on(tmp_path: Path) -> None:
    """The second look gets the same pages, cookies and redirects included, from the memory."""
    memory = Memory()
    with OldSite() as site:
        spec = str(write_spec(tmp_path / "old.yaml", site, OLD_SITE))
        first = preview.look(spec, "perl", memory.session)
        asked = len(site.asked)
        second = preview.look(spec, "perl", memory.session)
        assert len(site.asked) == asked
    assert first.good
    assert [item.octets for item in second.items] == [item.octets for item in first.items]


def test_the_page_has_all_there_is_to_see() -> None:
    """Each frame that the page names is there."""
    look = preview.look(str(BOARD), USER, preview.from_pages(str(PAGES)))
    files = preview_html.files(look, 7)
    body = files["/"].body.decode()
    named = set(re.findall(r'src="(/[^"]+)"', body)) | {"/preview.css"}
    assert named == set(files) - {"/", "/version"}
    assert body.count('sandbox=""') == len(re.findall("<iframe", body)) == 8


def test_there_is_a_page_before_the_first_look() -> None:
    """It waits for the next version."""
    files = preview_html.files(preview.Look("jobs.yaml", USER), 0)
    assert "looking" in files["/"].body.decode()
    assert files["/version"].body == b"0"


def test_a_copy_of_a_page_is_inert() -> None:
    """Nothing of a page's own attributes but names is left, and the text after what was removed."""
    text = (
        "<p onclick=x style=y>a<script>1</script>b<img src=z alt=pic>c<!-- d --><a href=e>f</a></p>"
    )
    made = Page("http://x.example/", 200, {"content-type": "text/html"}, text.encode())
    look = preview.look(str(BOARD), USER, preview.from_pages(str(PAGES)))
    assert look.spec is not None
    copy = preview_marked.item_page(look.spec, made).partition("</style>")[2]
    assert copy == (
        '<body><p>ab<span alt="pic" class=" pop3-try-img">image pic</span>c<a>f</a></p></body>'
    )


@pytest.mark.parametrize("text", ["0.0.0.0:80", "example.org:80", "70000", "x", "[::]:1", ""])
def test_only_loopback_is_served(text: str) -> None:
    """Any other address is refused."""
    with pytest.raises(ConfigError, match=r"^--serve"):
        endpoint(text)
    assert endpoint("localhost:80") == ("127.0.0.1", 80)
    assert endpoint("[::1]:0") == ("::1", 0)


# -- source ------------------------------------------------------------------------------------

MAIL = b"From: Anna <anna@example.org>\nSubject: Tea\n\nat five\n.\n"


def test_a_maildir_is_shown(run: Run, tmp_path: Path) -> None:
    """List, ids, first headers, and that all promises are kept; one message whole."""
    for name in ("new", "cur", "tmp"):
        (tmp_path / "mail" / name).mkdir(parents=True)
    (tmp_path / "mail" / "new" / "1.a").write_bytes(MAIL)
    status, shown, _ = run("source", "--maildir", tmp_path / "mail", "anna")
    assert status == 0
    assert shown.startswith("anna: 1 messages, 59 octets; login ")
    assert re.search(r"\n +1 +59  1\.a +Anna <anna@example\.org>  +Tea\n", shown)
    assert "sizes are exact, ids are valid, unique and the same at a second login" in shown
    _, shown, _ = run("source", "--maildir", tmp_path / "mail", "--message", 1, "anna")
    assert shown.endswith("| Subject: Tea\n|\n| at five\n| .\n")
    status, _, complained = run("source", "--maildir", tmp_path / "mail", "--message", 2, "anna")
    assert (status, complained) == (1, "pop3-try: --message 2: there are 1\n")


def test_an_mbox_is_shown(run: Run, tmp_path: Path) -> None:
    """The mailbox is as it was afterwards."""
    path = tmp_path / "mbox"
    path.write_bytes(b"From a Mon Jan  1 00:00:00 2024\n" + MAIL)
    status, shown, _ = run("source", "--source", "mbox", "--mbox", path, "anna")
    assert status == 0
    assert "anna: 1 messages" in shown
    assert path.read_bytes().endswith(MAIL)
    assert [one.name for one in tmp_path.iterdir()] == ["mbox"]


def test_a_website_is_shown(run: Run, tmp_path: Path) -> None:
    """The search is the user name, as in a server."""
    with OldSite() as site:
        spec = write_spec(tmp_path / "old.yaml", site, OLD_SITE)
        status, shown, _ = run("source", "--source", "webscrape", "--scrape", spec, "perl:5")
    assert status == 0
    assert shown.count("Old Jobs <jobs@example.org>") == 3


def test_a_feed_is_shown(run: Run) -> None:
    """A feed on loopback, allowed by its option."""

    def feed(_: Asked) -> object:
        item = "<item><guid>1</guid><title>First</title><description>Text</description></item>"
        return page(f'<rss version="2.0"><channel><title>News</title>{item}</channel></rss>')

    with Website({"/rss": feed}) as site:  # type: ignore[dict-item]
        status, shown, complained = run(
            *("source", "--source", "feed", "--feed", f"news={site.url}/rss"),
            *("--feed-allow", "127.0.0.0/8", "news"),
        )
    assert status == 0, complained
    assert "First" in shown


LYING = """
from io import BytesIO
from pop3 import Message, POP3Server

class Lying(POP3Server):
    def open_box(self, session):
        return None

    def list_messages(self, session):
        return [Message("a b", 5), Message("x", 14), Message("x", 14)]

    def read_message(self, session, message):
        return BytesIO(b"Subject: x\\n\\n")
"""


def test_a_source_that_breaks_its_promises(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong sizes and ids that come twice are told; ids that cannot be announced are noted."""
    (tmp_path / "lying_source.py").write_text(LYING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    status, shown, _ = run("source", "--source", "lying_source:Lying", "anna")
    assert status == 1
    assert "! message 1: the size said is 5, sent are 14 octets" in shown
    assert "! 1 ids come more than once, such as 'x'" in shown
    assert "note: 1 ids are not 1 to 70 characters" in shown


def test_the_lock_is_taken_only_when_asked(run: Run, tmp_path: Path) -> None:
    """A maildrop in use can be looked at; with --as-login it is in use."""
    for name in ("new", "cur", "tmp"):
        (tmp_path / "mail" / name).mkdir(parents=True)
    options = ("--maildir", tmp_path / "mail", "--lock-wait", "0")
    state = ("--state", f"sqlite:///{tmp_path}/state/state.sqlite")
    assert run("source", *options, *state, "--as-login", "anna")[0] == 0
    (path,) = (one for one in (tmp_path / "state" / "locks").rglob("*") if one.is_file())
    lock = MaildropLock(path)
    assert lock.acquire()
    try:
        assert run("source", *options, *state, "anna")[0] == 0
        status, _, complained = run("source", *options, *state, "--as-login", "anna")
    finally:
        lock.release()
    assert status == 1
    assert "pop3-try: the login: -ERR [IN-USE]" in complained


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "source: USER is missing; it comes last"),
        (("--maildir", "/x", "--debug"), "source: USER is missing; it comes last"),
        (("--source", "nosuch", "anna"), 'source: "nosuch" is unknown (known are '),
        (("--nosuch", "1", "anna"), "unknown option --nosuch"),
    ],
)
def test_wrong_usage_of_source(run: Run, arguments: tuple[str, ...], told: str) -> None:
    """Exit status 2 and one line."""
    status, _, complained = run("source", *arguments)
    assert status == 2
    assert complained.startswith(f"pop3-try: {told}")
    assert not [one for one in threading.enumerate() if one.name == "source"]
