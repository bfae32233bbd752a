"""A page as it came: its octets, and its text by the rules for charsets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from w3lib.encoding import html_body_declared_encoding, http_content_type_encoding, read_bom

from pop3.scrape.errors import SiteChanged

_FALLBACK = "windows-1252"


@dataclass(frozen=True)
class Page:
    """One answer: `url` is where it came from in the end, `headers` have names in lower case.

    `body` is inflated. `seconds` is how long it took, and `cached` tells that the site said 304.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0
    cached: bool = field(default=False, compare=False)

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_json(self) -> bool:
        """Whether it says that it is JSON."""
        return self.content_type == "application/json" or self.content_type.endswith("+json")

    @cached_property
    def text(self) -> str:
        """The text: byte order mark, then the header, then <meta>, then UTF-8, then windows-1252.

        A charset that most of the text does not fit is not believed.
        """
        charset, mark = read_bom(self.body)
        if charset and mark:
            return self.body[len(mark) :].decode(charset, "replace")
        declared = (
            http_content_type_encoding(self.headers.get("content-type"))
            or (None if self.is_json else html_body_declared_encoding(self.body))
            or "utf-8"
        )
        for charset in dict.fromkeys((declared, "utf-8")):
            text = self.body.decode(charset, "replace")
            if _fits(text):
                return text
        return self.body.decode(_FALLBACK, "replace")

    @cached_property
    def json(self) -> Any:
        """The value, for JSON. Raises SiteChanged."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            raise SiteChanged("the page is not JSON", self) from None


def _fits(text: str) -> bool:
    """Tell whether a decoded text is more than rubbish: few of its letters could not be read."""
    broken = text.count("\ufffd")
    if not broken:
        return True
    others = sum(1 for letter in text if letter > "\x7f") - broken
    return broken * 4 < others
