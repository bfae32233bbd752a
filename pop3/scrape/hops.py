"""Where an answer leads: redirects (RFC 9110 §15.4) and the Refresh header."""

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from pop3.scrape.errors import FetchError
from pop3.scrape.page import Page

if TYPE_CHECKING:
    from pop3.scrape.fetch import Request

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD = frozenset({307, 308})
_REFRESH = re.compile(
    r"\s*([0-9]{1,4})(?:\.[0-9]*)?\s*[;,]\s*(?:url\s*=\s*)?[\"']?([^\"'\s]+)", re.IGNORECASE
)
_LONGEST_REFRESH = 10  # seconds; a longer one is a page that renews itself


def next_hop(request: "Request", page: Page) -> "Request | None":
    """Return the request that an answer asks for, None if it is the page itself.

    A form's data goes to no other site, and nothing goes from https to http. Raises FetchError.
    """
    target = _target(page)
    if target is None:
        return None
    try:
        url = urljoin(page.url, target)
        here, there = urlsplit(page.url), urlsplit(url)
    except ValueError:
        raise FetchError("redirected to what is no URL", page.url) from None
    if here.scheme == "https" and there.scheme == "http":
        raise FetchError("redirected from https to http", page.url)
    same_site = (here.scheme, here.netloc) == (there.scheme, there.netloc)
    keeps = page.status in _KEEP_METHOD
    if keeps and request.method != "GET" and not same_site:
        raise FetchError("a form was redirected to another site", page.url)
    headers = dict(request.headers or {}) if same_site else {}
    if not keeps or request.method == "GET":
        headers.pop("Content-Type", None)
        return type(request)(url, headers=headers)
    return type(request)(url, request.method, request.data, headers)


def _target(page: Page) -> str | None:
    if page.status in _REDIRECTS:
        location = page.headers.get("location")
        if not location:
            raise FetchError("redirected to nowhere", page.url)
        return location
    found = _REFRESH.match(page.headers.get("refresh", ""))
    if found is None or int(found[1]) > _LONGEST_REFRESH:
        return None
    target = found[2]
    try:
        return None if urljoin(page.url, target) == page.url else target
    except ValueError:
        return None
