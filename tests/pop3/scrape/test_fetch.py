"""Fetching: cookies, redirects, limits and everything a hostile site may try."""

import gzip
import ipaddress
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from pop3.scrape import pace
from pop3.scrape.addresses import AddressPolicy
from pop3.scrape.errors import AddressRefused, FetchError, OutOfBudget
from pop3.scrape.fetch import Fetcher, FetchLimits, Request, Step
from tests.support.website import Answer, Asked, Website, drip, page, redirect, zeros

Fetch = Callable[..., Fetcher]
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


@pytest.fixture
def site() -> Iterator[Website]:
    """Return a site without pages, running."""
    with Website() as one:
        yield one


@pytest.fixture
def fetcher(site: Website) -> Iterator[Fetch]:
    """Return a maker of sessions that may go to the site; they are closed afterwards."""
    made: list[Fetcher] = []

    def make(policy: AddressPolicy | None = None, **options: object) -> Fetcher:
        limits = {"seconds": 20, "retries": 0} | {
            name: options.pop(name) for name in list(options) if name in FetchLimits.__annotations__
        }
        policy = policy or AddressPolicy([LOOPBACK], [site.port])
        made.append(Fetcher(FetchLimits(**limits), policy, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def answer_with(site: Website, path: str, *answers: Answer) -> None:
    """Give answers one after the other, the last one for ever."""
    left = list(answers)
    site.routes[path] = lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_cookies_go_over_redirects(site: Website, fetcher: Fetch) -> None:
    """A cookie of a redirect is sent to where it leads, and later."""
    answer_with(site, "/a", redirect("b", 303, **{"Set-Cookie": "k=v; Path=/"}))
    site.routes["/b"] = lambda asked: page(asked.headers.get("cookie", "none"))
    with fetcher() as session:
        assert session.get(f"{site.url}/a").text == "k=v"
        assert session.get(f"{site.url}/b#part").url == f"{site.url}/b"
        assert session.cookies["k"] == "v"


@pytest.mark.parametrize(
    ("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")]
)
def test_a_form_becomes_a_get_or_stays(
    site: Website, fetcher: Fetch, status: int, method: str
) -> None:
    """RFC 9110: 301 to 303 lead to a GET without the data, 307 and 308 send it again."""
    answer_with(site, "/form", redirect("/done", status))
    site.routes["/done"] = lambda asked: page(f"{asked.method} {asked.body.decode()}")
    text = fetcher().post(f"{site.url}/form", b"a=b").text
    assert text == f"{method} {'a=b' if method == 'POST' else ''}"


def test_a_refresh_is_followed(site: Website, fetcher: Fetch) -> None:
    """The Refresh header leads on, unless it is slow or leads to the page itself."""
    answer_with(site, "/wait", page("wait", Refresh='2; URL="/done"'))
    answer_with(site, "/slow", page("slow", Refresh="300;url=/done"))
    answer_with(site, "/self", page("self", Refresh="1; url=/self"))
    answer_with(site, "/done", page("done"))
    session = fetcher()
    texts = [session.get(site.url + path).text for path in ("/wait", "/slow", "/self")]
    assert texts == ["done", "slow", "self"]


def test_a_form_stays_on_its_site(site: Website, fetcher: Fetch) -> None:
    """Data of a form and header fields of ours are not sent to another site."""
    with Website({"/": lambda asked: page(str(sorted(asked.headers)))}) as other:
        policy = AddressPolicy([LOOPBACK], [site.port, other.port])
        answer_with(site, "/form", redirect(f"{other.url}/", 307))
        session = fetcher(policy)
        with pytest.raises(FetchError, match="a form was redirected to another site"):
            session.post(f"{site.url}/form", b"password=1")
        assert not other.paths()
        text = session.get(f"{site.url}/form", {"Authorization": "secret"}).text
        assert "authorization" not in text
        assert "user-agent" in text


@pytest.mark.parametrize("location", ["", "ftp://example.org/", "file:///etc/passwd", "http://["])
def test_redirects_to_nowhere(site: Website, fetcher: Fetch, location: str) -> None:
    """What is no URL of the web is not followed."""
    answer_with(site, "/", redirect(location))
    with pytest.raises(FetchError):
        fetcher().get(f"{site.url}/")


def test_redirect_loops_end(site: Website, fetcher: Fetch) -> None:
    """A redirect to itself is asked for six times, no more."""
    answer_with(site, "/", redirect("/"))
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetcher(robots=False).get(f"{site.url}/")
    assert len(site.asked) == 6


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"),
        *("[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "0.0.0.0", "10.1.2.3"),
        *("169.254.169.254", "192.168.0.1", "172.16.0.1", "100.64.0.1", "224.0.0.1", "[ff02::1]"),
        *("[fe80::1]", "[fc00::1]", "240.0.0.1", "255.255.255.255", "192.0.0.1", "198.18.0.1"),
    ],
)
def test_addresses_that_are_not_public_are_refused(
    site: Website, fetcher: Fetch, host: str
) -> None:
    """No name, form of an address or redirect leads into the local network."""
    answer_with(site, "/", redirect(f"http://{host}:{site.port}/inside"))
    alone = AddressPolicy(ports=[site.port])
    with pytest.raises(AddressRefused):
        fetcher(alone).get(f"http://{host}:{site.port}/")
    assert not site.asked
    if "127" not in host and host not in ("localhost", "0x7f.1", "2130706433", "[64:ff9b::7f00:1]"):
        with pytest.raises(AddressRefused):
            fetcher().get(f"{site.url}/")
        assert site.paths() == ["/"]


def test_ports_and_user_names_are_refused(site: Website, fetcher: Fetch) -> None:
    """Ports that are not the web's, and URLs with a password."""
    for url in ("http://93.184.216.34:25/", "http://user:word@127.0.0.1/", "gopher://127.0.0.1/"):
        with pytest.raises(FetchError) as caught:
            fetcher(robots=False).get(url)
        assert "word" not in str(caught.value)


def test_what_was_checked_is_connected_to(site: Website, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is resolved once for a connection: a second answer cannot lead elsewhere."""
    answers = [["127.0.0.1"], ["10.0.0.1"]]
    asked = []

    def resolve(host: object, port: int, *_: object, **__: object) -> list[object]:
        if host == "127.0.0.1":  # the backend, with the address that was checked
            return [(2, 1, 6, "", ("127.0.0.1", port))]
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in answers.pop(0)]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    site.routes["/"] = lambda one: page(one.headers["host"])
    policy = AddressPolicy([LOOPBACK], [site.port])
    with Fetcher(FetchLimits(retries=0), policy, robots=False) as session:
        text = session.get(f"http://rebind.example:{site.port}/").text
    assert text == f"rebind.example:{site.port}"
    assert asked == ["rebind.example"]


def test_one_bad_address_makes_a_name_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a public and a private address is not tried at all."""
    entries = [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: entries)
    with pytest.raises(AddressRefused, match=r"leads to 10\.0\.0\.1"):
        AddressPolicy().addresses("both.example", 80)
    assert AddressPolicy([ipaddress.ip_network("10.0.0.0/8")]).addresses("both.example", 80)


def test_a_bomb_costs_no_more_than_its_limit(site: Website, fetcher: Fetch) -> None:
    """A gigabyte of zeros in a megabyte of gzip ends at the limit, long before its end."""
    produced = []

    def counted(_: Asked) -> Answer:
        bomb = zeros(1 << 30)
        return Answer((produced.append(1) or piece for piece in bomb.body), headers=bomb.headers)

    site.routes["/"] = counted
    with pytest.raises(FetchError, match="larger than 2097152 octets"):
        fetcher(robots=False).get(f"{site.url}/")
    assert len(produced) < 1024


def test_many_members_of_gzip_are_one_page(site: Website, fetcher: Fetch) -> None:
    """RFC 1952 §2.2: members follow one another; what follows them is dropped."""
    body = gzip.compress(b"one ") + gzip.compress(b"two") + b"rubbish"
    answer_with(site, "/", Answer(body, headers={"Content-Encoding": "gzip"}))
    assert fetcher().get(f"{site.url}/").text == "one two"


@pytest.mark.parametrize(
    ("encoding", "body", "told"),
    [
        ("br", b"\x8b", "was not asked for"),
        ("gzip, gzip", b"", "was not asked for"),
        ("gzip", b"no gzip", "is no gzip"),
        ("gzip", gzip.compress(b"text" * 99, mtime=0)[:-12], "cut short"),
    ],
)
def test_other_encodings_are_refused(
    site: Website, fetcher: Fetch, encoding: str, body: bytes, told: str
) -> None:
    """Only gzip is asked for, and only whole gzip is taken."""
    answer_with(site, "/", Answer(body, headers={"Content-Encoding": encoding}))
    with pytest.raises(FetchError, match=told):
        fetcher().get(f"{site.url}/")
    assert site.asked[0].headers["accept-encoding"] == "gzip"


def test_an_endless_page_ends(site: Website, fetcher: Fetch) -> None:
    """A page that never ends: too large if it is quick, too slow if it drips."""
    site.routes["/quick"] = lambda _: Answer(iter(lambda: bytes(65536), None))
    site.routes["/slow"] = lambda _: drip(b"<html>", b".", 0.01)
    session = fetcher(page_seconds=0.3, robots=False)
    with pytest.raises(FetchError, match="larger than"):
        session.get(f"{site.url}/quick")
    with pytest.raises(FetchError, match="took too long"):
        session.get(f"{site.url}/slow")


def test_the_seconds_of_a_session_are_all(site: Website, fetcher: Fetch) -> None:
    """However a site dawdles, a session ends when its time is over."""
    site.routes["/slow"] = lambda _: drip(b"<html>", b".", 0.01)
    began = time.monotonic()
    session = fetcher(seconds=0.3, robots=False)
    with pytest.raises(OutOfBudget, match="time is over"):
        session.get(f"{site.url}/slow")
    assert time.monotonic() - began < 5
    with pytest.raises(OutOfBudget):
        session.get(f"{site.url}/slow")


def test_a_session_can_be_cancelled(site: Website, fetcher: Fetch) -> None:
    """What is under way ends at once when another thread says so."""
    session = fetcher(robots=False)

    def quiet(_: Asked) -> Answer:
        session.cancel()
        return Answer(iter(lambda: time.sleep(0.05) or b"", None))

    site.routes["/"] = quiet
    with pytest.raises(OutOfBudget):
        session.get(f"{site.url}/")


def test_requests_and_octets_are_counted(site: Website, fetcher: Fetch) -> None:
    """A session has so many requests and octets, and no more."""
    answer_with(site, "/", page("x" * 1000))
    session = fetcher(requests=3, robots=False)
    for _ in range(3):
        session.get(f"{site.url}/")
    with pytest.raises(OutOfBudget, match="more than 3 requests"):
        session.get(f"{site.url}/")
    with pytest.raises(OutOfBudget, match="more than 500 octets"):
        fetcher(octets=500, robots=False).get(f"{site.url}/")


def test_a_busy_site_is_asked_again(site: Website, fetcher: Fetch) -> None:
    """503 and 429 are tried again after a while, 404 is not; a POST never is."""
    answer_with(site, "/busy", Answer(b"", 503), page("well"))
    answer_with(site, "/gone", Answer(b"", 404))
    session = fetcher(retries=1, robots=False)
    assert session.get(f"{site.url}/busy").text == "well"
    answer_with(site, "/busy", Answer(b"", 503), page("well"))
    for call in (
        lambda: session.get(f"{site.url}/gone"),
        lambda: session.post(f"{site.url}/busy", b""),
    ):
        with pytest.raises(FetchError) as caught:
            call()
        assert caught.value.status in (404, 503)
    assert site.paths() == ["/busy", "/busy", "/gone", "/busy"]


def test_pages_are_asked_for_conditionally(site: Website, fetcher: Fetch) -> None:
    """With what was kept, the site may say 304, and the page is the one that was kept."""

    def tagged(asked: Asked) -> Answer:
        if asked.headers.get("if-none-match") == '"1"':
            return Answer(b"", 304)
        return page("whole", ETag='"1"')

    site.routes["/"] = tagged
    first = fetcher()
    assert not first.get(f"{site.url}/").cached
    again = fetcher(known=first.known).get(f"{site.url}/")
    assert again.cached
    assert again.text == "whole"


@pytest.mark.parametrize(
    ("robots", "allowed"),
    [
        (Answer(b"User-agent: *\nDisallow: /private"), ["/public", "/private.not/../x"]),
        (Answer(b"", 404), ["/private"]),
        (Answer(b"", 503), []),
        (redirect("/robots2.txt"), ["/private"]),
    ],
)
def test_robots_are_respected(
    site: Website, fetcher: Fetch, robots: Answer, allowed: list[str]
) -> None:
    """What robots.txt forbids is not asked for; a site that cannot say is left alone."""
    answer_with(site, "/robots.txt", robots)
    site.routes[""] = lambda _: page("")
    session = fetcher()
    for path in allowed[:1]:
        session.get(site.url + path)
    if "/private" not in allowed:
        with pytest.raises(FetchError, match=r"robots\.txt"):
            session.get(f"{site.url}/private/1?x=y")
        assert "/private/1" not in site.paths()
    fetcher(robots=False).get(f"{site.url}/private/1")


def test_side_by_side_within_the_limit(site: Website, fetcher: Fetch) -> None:
    """Results come in order, so many requests run at once, one failure is only its own."""

    def slow(asked: Asked) -> Answer:
        time.sleep(0.02)
        return page(asked.path) if asked.path != "/5" else Answer(b"", 404)

    site.routes[""] = slow
    session = fetcher(concurrency=4, robots=False)
    urls = [f"{site.url}/{number}" for number in range(20)]
    results = session.side_by_side(session.get, urls)
    assert isinstance(results[5], FetchError)
    texts = [one.text for one in results if not isinstance(one, Exception)]
    assert texts == [f"/{number}" for number in range(20) if number != 5]
    assert 1 < site.most_at_once <= 4


def test_a_delay_is_between_two_requests(site: Website, fetcher: Fetch) -> None:
    """The delay holds for a host, over all sessions of the process."""
    moments = []
    site.routes[""] = lambda _: moments.append(time.monotonic()) or page("")
    for _ in range(3):
        fetcher(delay=0.1, robots=False).get(f"{site.url}/")
    assert moments[2] - moments[0] > 0.15
    host = f"127.0.0.1:{site.port}"
    with pace.turn(host, 1, 60, 10, time.sleep):
        pass
    with pytest.raises(OutOfBudget, match="no turn"), pace.turn(host, 1, 0, 10, time.sleep):
        pass


def test_steps_are_told(site: Website, fetcher: Fetch) -> None:
    """Every request is told with its answer, redirects and failures too."""
    answer_with(site, "/", redirect("/there"))
    answer_with(site, "/there", page("x"))
    steps: list[Step] = []
    fetcher(observe=steps.append, robots=False).get(f"{site.url}/")
    assert [(step.status, step.request.url) for step in steps] == [
        (302, f"{site.url}/"),
        (200, f"{site.url}/there"),
    ]
    with pytest.raises(AddressRefused):
        fetcher(observe=steps.append, robots=False).get("http://10.0.0.1/")
    assert steps[-1].status == 0
    assert "not public" in steps[-1].note


def test_another_transport_can_stand_for_the_network() -> None:
    """What asks for pages can be tried without a network."""

    def answer(asked: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(str(asked.url).encode()))

    transport = httpx.MockTransport(answer)
    with Fetcher(transport=transport, robots=False) as session:
        assert session.send(Request("http://x.example/a")).text == "http://x.example/a"


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/html; charset=windows-1252", b"\x80 \x96", "\u20ac \u2013"),
        ("text/html; charset=ISO-8859-1", b"\x80", "\u20ac"),
        ("text/html", b'<meta charset="koi8-r">\xc1', '<meta charset="koi8-r">\u0430'),
        ("text/html", "\u00fc".encode(), "\u00fc"),
        ("text/html", b"f\xfcr", "f\u00fcr"),
        ("text/html; charset=utf-8", b"f\xfcr \xe4", "f\u00fcr \u00e4"),
        ("text/html; charset=us-ascii", "\u00fc\u00e4".encode(), "\u00c3\u00bc\u00c3\u00a4"),
        ("text/html; charset=nonsense", "\u00fc".encode(), "\u00fc"),
        ("text/html; charset=utf-7", b"+ADw-script", "+ADw-script"),
        ("text/html; charset=windows-1252", b"\xef\xbb\xbf\xc3\xbc", "\u00fc"),
        ("application/json", '{"a":"\u00fc"}'.encode(), '{"a":"\u00fc"}'),
    ],
)
def test_charsets(site: Website, fetcher: Fetch, kind: str, body: bytes, text: str) -> None:
    """Mark, header, <meta>, UTF-8, windows-1252; a charset that does not fit is not believed."""
    answer_with(site, "/", Answer(body, kind=kind))
    assert fetcher(robots=False).get(f"{site.url}/").text == text
