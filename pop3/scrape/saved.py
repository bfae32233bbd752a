"""Pages on disk in place of a site: for tests of a spec, and for work on one without the site.

A directory holds `pages.yaml`, a list of answers, and the files it names:

    - url: https://example.org/search
      method: POST                  # GET if it is not said
      data: words=perl&page=1       # any if it is not said
      status: 302                   # 200 if it is not said
      headers: {Location: /list}
    - url: https://example.org/list
      file: list.html
      headers: {Content-Type: text/html; charset=windows-1252}
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import yaml

from netserver.errors import ConfigError
from pop3.scrape import yaml_tree
from pop3.scrape.fetch import Step

INDEX = "pages.yaml"
_KEYS = frozenset({"url", "method", "data", "status", "headers", "file"})
_KEPT_HEADERS = ("content-type", "location", "refresh", "etag", "last-modified")


class SavedPages(httpx.BaseTransport):
    """Answers from a directory; what is not there is a 404."""

    def __init__(self, directory: str | Path) -> None:
        """Read the index. Raises ConfigError."""
        self._directory = Path(directory)
        self._answers = [
            _Answer(value, self._directory)
            for value in yaml_tree.read(str(self._directory / INDEX)).sequence()
        ]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Find the answer."""
        for answer in self._answers:
            if answer.fits(request):
                return answer.response()
        return httpx.Response(404, stream=httpx.ByteStream(b""))


class _Answer:
    def __init__(self, value: yaml_tree.Value, directory: Path) -> None:
        keys = value.mapping(_KEYS)
        if "url" not in keys:
            value.fail("url is missing")
        self._url = keys["url"].string()
        self._method = keys["method"].string() if "method" in keys else "GET"
        self._data = keys["data"].string().encode() if "data" in keys else None
        self._status = keys["status"].number(200, 599) if "status" in keys else 200
        headers = keys["headers"].mapping() if "headers" in keys else {}
        self._headers = {name: one.string() for name, one in headers.items()}
        self._body = b""
        if "file" in keys:
            name = keys["file"].string()
            if name != os.path.basename(name):
                keys["file"].fail("a file of this directory is meant")
            try:
                self._body = (directory / name).read_bytes()
            except OSError as error:
                keys["file"].fail(f"{name}: {error.strerror}")

    def fits(self, request: httpx.Request) -> bool:
        same = (request.method, str(request.url)) == (self._method, str(httpx.URL(self._url)))
        return same and (self._data is None or request.read() == self._data)

    def response(self) -> httpx.Response:
        # a stream, so that httpx adds no fields of its own
        stream = httpx.ByteStream(self._body)
        return httpx.Response(self._status, headers=self._headers, stream=stream)


def save(directory: str | Path, steps: Iterable[Step]) -> None:
    """Write what a session on the web was answered, so that `SavedPages` can answer the same.

    Cookies are left out. Raises ConfigError when it cannot be written.
    """
    directory = Path(directory)
    index: list[dict[str, Any]] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for step in steps:
            page = step.page
            if page is None or step.request.url.endswith("/robots.txt"):
                continue
            entry: dict[str, Any] = {"url": step.request.url}
            if step.request.method != "GET":
                entry |= {"method": step.request.method, "data": step.request.data.decode()}
            if page.status != httpx.codes.OK:
                entry["status"] = page.status
            entry["headers"] = {
                name: page.headers[name] for name in _KEPT_HEADERS if name in page.headers
            }
            if page.body:
                entry["file"] = f"{len(index) + 1:03d}.{'json' if page.is_json else 'html'}"
                (directory / entry["file"]).write_bytes(page.body)
            index.append(entry)
        text = yaml.safe_dump(index, sort_keys=False, allow_unicode=True)
        (directory / INDEX).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written: {error.strerror}") from None
