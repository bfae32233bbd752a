"""Get pages from a site: politely, within limits, from public addresses only.

A `Fetcher` is one session on the web: one httpx client with its cookies. It is made, used and
closed within one login or one refresh:

    with Fetcher(FetchLimits(seconds=30), AddressPolicy()) as fetcher:
        page = fetcher.get("https://example.org/list")
        pages = fetcher.side_by_side(fetcher.get, urls)

It may be used from several threads (under gevent these are greenlets), never logs, and tells
`observe` about each request. Whoever waits for it in another thread ends it by `cancel`.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx

from netserver import __version__
from pop3.scrape import pace
from pop3.scrape.addresses import AddressPolicy
from pop3.scrape.errors import FetchError, OutOfBudget, ScrapeError
from pop3.scrape.hops import next_hop
from pop3.scrape.inflate import Body
from pop3.scrape.page import Page
from pop3.scrape.robots import MAX_OCTETS, Robots
from pop3.scrape.transport import CheckedTransport, lower_headers

AGENT = f"netserver-pop3/{__version__}"

T = TypeVar("T")
R = TypeVar("R")

_RETRY_STATUS = frozenset({429, 502, 503, 504})
_FIRST_BACK_OFF = 0.5
_LONGEST_BACK_OFF = 10.0
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class FetchLimits:
    """What one session may use: `seconds`, `octets` and `requests` in all.

    `page_octets` (inflated) and `page_seconds` are of one page, `delay` is the seconds between two
    requests to a host, `concurrency` how many of them run at once, `retries` how often a GET is
    tried again.
    """

    seconds: float = 60.0
    page_seconds: float = 20.0
    octets: int = 64 * 1024 * 1024
    page_octets: int = 2 * 1024 * 1024
    requests: int = 1000
    redirects: int = 5
    retries: int = 2
    delay: float = 0.0
    concurrency: int = 4


@dataclass(frozen=True)
class Step:
    """One request and its answer, for `observe`; status 0 with a `note` is a failure.

    `page` is the answer itself, redirects included: what a preview saves.
    """

    request: "Request"
    status: int
    seconds: float
    octets: int
    note: str = ""
    page: Page | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Request:
    """What to ask for; `data` makes it a POST unless `method` says else."""

    url: str
    method: str = "GET"
    data: bytes = b""
    headers: Mapping[str, str] | None = None


class Fetcher:
    """One session on the web; see the module.

    `known` maps URLs to pages of earlier sessions: they are asked for conditionally (ETag,
    Last-Modified), and pages that can be asked for so are put there. `cookies` of an earlier
    session are taken over. `transport` takes the place of the network. All methods that fetch raise
    FetchError (with OutOfBudget and AddressRefused).
    """

    def __init__(
        self,
        limits: FetchLimits | None = None,
        policy: AddressPolicy | None = None,
        *,
        agent: str = AGENT,
        robots: bool = True,
        known: MutableMapping[str, Page] | None = None,
        cookies: httpx.Cookies | None = None,
        observe: Callable[[Step], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Begin; the seconds count from here. Nothing is opened yet."""
        self.limits = limits or FetchLimits()
        self.known = {} if known is None else known
        self._end = time.monotonic() + self.limits.seconds
        self._agent = agent
        self._obeys_robots = robots
        self._robots: dict[str, Robots] = {}
        self._robots_guard = threading.Lock()
        self._observe = observe or (lambda _: None)
        self._cancelled = threading.Event()
        self._guard = threading.Lock()
        self._requests = 0
        self._octets = 0
        self._transport = transport or CheckedTransport(policy or AddressPolicy(), self.left)
        self._client = httpx.Client(
            transport=self._transport,
            trust_env=False,
            cookies=cookies,
            headers={"User-Agent": agent, "Accept-Encoding": "gzip", "Accept": "*/*"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def cancel(self) -> None:
        """Let all that is under way end with OutOfBudget, soon; from any thread."""
        self._cancelled.set()
        if isinstance(self._transport, CheckedTransport):
            self._transport.shut()

    @property
    def cookies(self) -> httpx.Cookies:
        """The cookies by now."""
        return self._client.cookies

    def left(self) -> float:
        """Return the seconds left."""
        return 0.0 if self._cancelled.is_set() else self._end - time.monotonic()

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Page:
        """Get a page, over redirects and Refresh, once more if the site is busy."""
        return self.send(Request(url, headers=headers))

    def post(self, url: str, data: bytes, content_type: str = _FORM) -> Page:
        """Send a form; never sent again if it fails."""
        return self.send(Request(url, "POST", data, {"Content-Type": content_type}))

    def send(self, request: Request) -> Page:
        """Send any request; a page whose status is not 2xx is a FetchError with its status."""
        began = time.monotonic()
        hops = 0
        while True:
            request = replace(request, url=_checked_url(request.url))
            self._ask_robots(request.url)
            page = self._try(request)
            following = next_hop(request, page)
            if following is None:
                break
            hops += 1
            if hops > self.limits.redirects:
                raise FetchError(f"more than {self.limits.redirects} redirects", page.url)
            request = following
        if not 200 <= page.status < 300:  # noqa: PLR2004 - success
            raise FetchError(f"the site answered {page.status}", page.url, page.status)
        if request.method == "GET" and {"etag", "last-modified"} & set(page.headers):
            self.known[request.url] = page
        return replace(page, seconds=time.monotonic() - began)

    def side_by_side(self, function: Callable[[T], R], items: Iterable[T]) -> list[R | ScrapeError]:
        """Call a function for each item, some at a time; a ScrapeError stands for its result."""

        def call(item: T) -> R | ScrapeError:
            try:
                return function(item)
            except ScrapeError as error:
                return error

        items = list(items)
        workers = min(self.limits.concurrency, len(items))
        if workers <= 1:
            return [call(item) for item in items]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(call, items))

    # -- one request --------------------------------------------------------------------------

    def _try(self, request: Request) -> Page:
        tries = 1 + (self.limits.retries if request.method == "GET" else 0)
        pause = _FIRST_BACK_OFF
        while True:
            tries -= 1
            try:
                page = self._take_turn(request)
            except OutOfBudget:
                raise
            except FetchError as error:
                if not tries or not isinstance(error.__cause__, httpx.TransportError):
                    raise
            else:
                if not tries or page.status not in _RETRY_STATUS:
                    return page
                pause = max(pause, _retry_after(page))
            if pause > self.left():
                raise OutOfBudget("no time to try again", request.url)
            self._cancelled.wait(pause)
            pause = min(pause * 2, _LONGEST_BACK_OFF)

    def _take_turn(self, request: Request) -> Page:
        host = urlsplit(request.url).netloc
        robots = self._robots.get(_origin(request.url))
        delay = max(self.limits.delay, robots.delay if robots else 0.0)
        with pace.turn(host, self.limits.concurrency, delay, self.left(), self._cancelled.wait):
            began = time.monotonic()
            try:
                page = self._exchange(request)
            except FetchError as error:
                took = time.monotonic() - began
                self._observe(Step(request, 0, took, 0, str(error)))
                raise
        took = time.monotonic() - began
        note = "not modified" if page.cached else ""
        self._observe(Step(request, page.status, took, len(page.body), note, page))
        return page

    def _exchange(self, request: Request) -> Page:
        with self._guard:
            self._requests += 1
            if self._requests > self.limits.requests:
                raise OutOfBudget(f"more than {self.limits.requests} requests", request.url)
        left = self.left()
        if left <= 0:
            raise OutOfBudget("the time is over", request.url)
        known = self.known.get(request.url) if request.method == "GET" else None
        headers = {**(request.headers or {}), **_conditions(known)}
        try:
            sent = self._client.build_request(
                request.method,
                request.url,
                content=request.data or None,
                headers=headers,
                timeout=min(self.limits.page_seconds, left),
            )
            response = self._client.send(sent, stream=True, follow_redirects=False)
            try:
                return self._read(request.url, response, known)
            finally:
                response.close()
        except FetchError as error:
            raise type(error)(error.text, error.url or request.url) from error.__cause__
        except httpx.TimeoutException as error:
            if self.left() <= 0:
                raise OutOfBudget("the time is over", request.url) from None
            raise FetchError("no answer in time", request.url) from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            if self.left() <= 0:
                raise OutOfBudget("the time is over", request.url) from None
            raise FetchError(type(error).__name__, request.url) from error

    def _read(self, url: str, response: httpx.Response, known: Page | None) -> Page:
        headers = lower_headers(response.headers.items())
        status = response.status_code
        self._count(sum(len(name) + len(value) for name, value in response.headers.raw), url)
        if status == httpx.codes.NOT_MODIFIED and known is not None:
            return replace(known, cached=True)
        if response.is_redirect:
            return Page(url, status, headers, b"")  # its body could be a bomb as well
        body = Body(headers.get("content-encoding", ""), self.limits.page_octets)
        end = time.monotonic() + self.limits.page_seconds
        for chunk in response.iter_raw():  # as it came: httpx would inflate without a limit
            before = body.octets
            body.feed(chunk)
            self._count(max(len(chunk), body.octets - before), url)
            if self.left() <= 0:
                raise OutOfBudget("the time is over", url)
            if time.monotonic() > end:
                raise FetchError("the page took too long", url)
        return Page(url, status, headers, body.finish())

    def _count(self, octets: int, url: str) -> None:
        with self._guard:
            self._octets += octets
            if self._octets > self.limits.octets:
                raise OutOfBudget(f"more than {self.limits.octets} octets", url)

    # -- robots.txt ---------------------------------------------------------------------------

    def _ask_robots(self, url: str) -> None:
        if not self._obeys_robots:
            return
        origin = _origin(url)
        with self._robots_guard:
            robots = self._robots.get(origin)
            if robots is None:
                robots = self._robots[origin] = self._fetch_robots(origin)
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not robots.allows(path):
            raise FetchError("robots.txt does not allow it", url)

    def _fetch_robots(self, origin: str) -> Robots:
        """RFC 9309 §2.3.1: no file allows all, a broken site nothing."""
        request = Request(f"{origin}/robots.txt")
        for _ in range(self.limits.redirects + 1):
            page = self._try(request)
            following = next_hop(request, page)
            if following is None:
                break
            request = replace(following, url=_checked_url(following.url))
        if page.status >= 500:  # noqa: PLR2004 - the site's fault
            raise FetchError("robots.txt cannot be read", page.url, page.status)
        text = page.text[:MAX_OCTETS] if page.status == httpx.codes.OK else ""
        return Robots(text, self._agent)


def _checked_url(url: str) -> str:
    """Return a URL without its fragment. Raises FetchError unless it is plain http or https."""
    try:
        url = urldefrag(url.strip()).url
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise FetchError("not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise FetchError("not a URL of http or https", url[:200])
    if "@" in parts.netloc:
        raise FetchError("a URL with a user name", urljoin(url, "/")[:200].rpartition("@")[2])
    return url


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _conditions(known: Page | None) -> dict[str, str]:
    if known is None:
        return {}
    fields = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
    return {new: known.headers[old] for old, new in fields.items() if old in known.headers}


def _retry_after(page: Page) -> float:
    value = page.headers.get("retry-after", "")
    return min(float(value), _LONGEST_BACK_OFF) if value.isascii() and value.isdigit() else 0.0
