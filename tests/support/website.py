"""Websites on loopback for the tests of what reads them: real HTTP, odd in the ways sites are."""

import gzip
import html
import itertools
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form."""
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass
class Answer:
    """What to answer; a body in pieces is sent without a length, as long as the client takes it."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "text/html"


Route = Callable[[Asked], Answer]


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that have had enough; anything else is a fault of a test."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*_)


class Website:
    """A server for the length of a `with`; `routes` by path, "" takes all others."""

    def __init__(self, routes: Mapping[str, Route] | None = None) -> None:
        """Take the routes; more may be put into `routes` later."""
        self.routes: dict[str, Route] = dict(routes or {})
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._running = 0
        self._guard = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def port(self) -> int:
        """Its port."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        """Return the paths that were asked for, in order, robots.txt left out."""
        return [one.path for one in self.asked if one.path != "/robots.txt"]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, asked: Asked) -> Answer:
        """Find the answer to one request."""
        with self._guard:
            self.asked.append(asked)
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        try:
            route = self.routes.get(asked.path) or self.routes.get("")
            if route is None or (asked.path == "/robots.txt" and asked.path not in self.routes):
                return Answer(b"not here", 404)
            return route(asked)
        finally:
            with self._guard:
                self._running -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        website = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # head and body in one packet
            timeout = 20

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                asked = Asked(self.command, parts.path, query, headers, body)
                answer = website.answer(asked)
                try:
                    self._send(answer)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if isinstance(answer.body, bytes):
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)
                    return
                self.close_connection = True
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in answer.body:
                    self.wfile.write(piece)
                    self.wfile.flush()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def page(text: str, *, charset: str = "utf-8", **headers: str) -> Answer:
    """Return an HTML page."""
    octets = text.encode(charset)
    return Answer(octets, headers=headers, kind=f"text/html; charset={charset}")


def redirect(to: str, status: int = 302, **headers: str) -> Answer:
    """Return a redirect."""
    return Answer(b"", status, {"Location": to, **headers})


def zeros(octets: int, block: int = 1 << 20) -> Answer:
    """Return a gzip of zeros: 1 GiB of them is a megabyte on the wire."""
    return Answer(_zeros(octets, block), headers={"Content-Encoding": "gzip"})


def _zeros(octets: int, block: int) -> Iterable[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    for _ in range(octets // block):
        yield packer.compress(bytes(block))
    yield packer.flush()


def drip(first: bytes, piece: bytes, seconds: float) -> Answer:
    """Return a page without an end that comes slowly."""
    return Answer(itertools.chain([first], _slowly(piece, seconds)))


def _slowly(piece: bytes, seconds: float) -> Iterable[bytes]:
    while True:
        time.sleep(seconds)
        yield piece


VIEWSTATE: Final = "dDwtMTg5+/=ü"


class OldSite(Website):
    """A job site of 2005: a session cookie, hidden form state, a waiting page, windows-1252.

    Three jobs on two list pages; `jobs` maps their ids to title and text.
    """

    def __init__(self) -> None:
        """Make the pages."""
        super().__init__()
        self.jobs = {
            "W1001": ("Perl Programmer & Friend", "Write Perl \u2013 daily.\nFor \u20ac 500."),
            "W1002": ("Caf\xe9 <Database> Expert", "Serve data.\n.A line with a dot"),
            "W1003": ("Sysadmin", "Keep it up."),
        }
        self.per_page = 2
        self.down = False
        self.broken = False
        self.routes = {"": self._route}

    def _route(self, asked: Asked) -> Answer:
        if self.down:
            return Answer(b"down", 503)
        if asked.path == "/":
            return self._start()
        if "session=s3cret" not in asked.headers.get("cookie", ""):
            return Answer(b"no cookie", 403)
        steps = {
            "/jobs/search.aspx": self._search,
            "/jobs/wait.aspx": lambda _: page("wait", Refresh="0; url=list.aspx?p=1"),
            "/jobs/list.aspx": self._list,
            "/jobs/job.aspx": self._job,
        }
        return steps.get(asked.path, lambda _: Answer(b"no such page", 404))(asked)

    def _start(self) -> Answer:
        return page(
            f"""<html><body><form action="nowhere"><input name=q></form>
            <form id="search" method="post" action="jobs/search.aspx">
            <input type="hidden" name="__VIEWSTATE" value="{VIEWSTATE}">
            <input name="txtSkill"><select name="selMiles"><option value="5">5 miles
            <option value="25" selected>25 miles</select><input name="txtPlace" value="">
            <input type="checkbox" name="chkOld" value="1">
            <input type="submit" name="btnClear" value="Clear">
            <input type="submit" name="btnGo" value="Search"></form></body></html>""",
            **{"Set-Cookie": "session=s3cret; Path=/; HttpOnly"},
        )

    def _search(self, asked: Asked) -> Answer:
        form = asked.form
        expected = {"__VIEWSTATE", "txtSkill", "selMiles", "btnGo"}
        if asked.method != "POST" or form.get("__VIEWSTATE") != VIEWSTATE:
            return Answer(b"no state", 500)
        if not expected <= set(form) or {"btnClear", "chkOld"} & set(form):
            return Answer(b"wrong form", 500)
        return redirect("wait.aspx")

    def _list(self, asked: Asked) -> Answer:
        number = int(asked.query.get("p", "1"))
        ids = list(self.jobs)
        pages = max(1, -(-len(ids) // self.per_page))
        shown = ids[(number - 1) * self.per_page : number * self.per_page]
        rows = "".join(
            f'<tr class="job"><td><a href="job.aspx?id={one}&amp;from=list">'
            f"{html.escape(self.jobs[one][0])}</a></td></tr>"
            for one in shown
        )
        if self.broken:
            rows = rows.replace("job", "vacancy")
        following = f'<a class="next" href="list.aspx?p={number + 1}">Next &raquo;</a>'
        return page(
            f"<html><body><p>Page {number} of {pages}</p><table>{rows}</table>"
            f"{following if number < pages else ''}</body></html>",
            charset="windows-1252",
        )

    def _job(self, asked: Asked) -> Answer:
        title, text = self.jobs[asked.query["id"]]
        heading = "h2" if self.broken else "h1"
        lines = html.escape(text).replace("\n", "<br>")
        body = (
            f"<html><head><title>Job</title></head><body><{heading}>{html.escape(title)}"
            f"</{heading}><b>Location:</b> Berlin, Gro\xdfraum&nbsp;Mitte<br>"
            f'<b>Posted:</b> 14 Nov 2026<div id="text">{lines}</div>'
            "<script>alert(1)</script></body></html>"
        )
        octets = gzip.compress(body.encode("windows-1252"))
        return Answer(
            octets, 200, {"Content-Encoding": "gzip"}, kind="text/html; charset=windows-1252"
        )


def big_site(items: int = 300, pages: int = 12, seconds: float = 0.0) -> Website:
    """Return a site of many items, each page of which takes some seconds."""
    per_page = -(-items // pages)

    def listed(asked: Asked) -> Answer:
        time.sleep(seconds)
        number = int(asked.query.get("page", "1"))
        numbers = range((number - 1) * per_page, min(number * per_page, items))
        links = "".join(f'<li class="item"><a href="/item/{n}">Item {n}</a></li>' for n in numbers)
        following = f'<a rel="next" href="?page={number + 1}">next</a>' if number < pages else ""
        return page(f"<html><body><ol>{links}</ol>{following}</body></html>")

    def item(asked: Asked) -> Answer:
        time.sleep(seconds)
        number = asked.path.rpartition("/")[2]
        words = " ".join(f"word{n}" for n in range(200))
        return page(f"<html><body><h1>Item {number}</h1><p>{words}</p></body></html>")

    return Website({"/": listed, "": item})
