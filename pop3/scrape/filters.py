"""What a spec may do to a value it has found, one filter after the other."""

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

from pop3.scrape import html_text
from pop3.scrape.yaml_tree import Value

Filter = Callable[[str, str], str]
"""Takes a value and the URL of its page."""

LONGEST = 1024 * 1024  # letters of a value

_SIMPLE: dict[str, Filter] = {
    "strip": lambda text, _: text.strip(),
    "squeeze": lambda text, _: " ".join(text.split()),
    "strip-tags": lambda text, _: html_text.text_of(text),
    "first-line": lambda text, _: next((line for line in text.strip().splitlines()), "").strip(),
    "unescape": lambda text, _: html.unescape(text),
    "lower": lambda text, _: text.lower(),
    "upper": lambda text, _: text.upper(),
    "absolute": lambda text, url: join_url(url, text),
}
NAMES = frozenset(
    [*_SIMPLE, "regex", "replace", "date", "cut", "prefix", "suffix", "before", "after"]
)


def join_url(base: str, url: str) -> str:
    """Make a link of a page absolute; what is none becomes empty."""
    try:
        return urljoin(base, url.strip())
    except ValueError:
        return ""


def compiled(value: Value, pattern: str) -> "re.Pattern[str]":
    """Compile a pattern; "." matches line ends too. Raises ConfigError."""
    try:
        return re.compile(pattern, re.DOTALL)
    except (re.error, RecursionError, OverflowError) as error:
        value.fail(f"no regular expression: {error}")


def read(value: Value) -> Filter:
    """Read one filter of a spec: its name, or `name: argument`. Raises ConfigError."""
    if value.text is not None:
        if value.text not in _SIMPLE:
            value.fail(f"no such filter, or one that needs an argument; there are {_names()}")
        return _SIMPLE[value.text]
    keys = value.mapping(NAMES)
    if len(keys) != 1:
        value.fail("one filter a line")
    ((name, argument),) = keys.items()
    if name in _SIMPLE:
        value.fail(f"{name} takes no argument")
    return _MAKERS[name](argument)


def _names() -> str:
    return ", ".join(sorted(NAMES))


def _regex(value: Value) -> Filter:
    pattern = compiled(value, value.string())

    def find(text: str, _: str) -> str:
        found = pattern.search(text)
        return "" if found is None else (found[1] if pattern.groups else found[0]) or ""

    return find


def _replace(value: Value) -> Filter:
    parts = value.sequence()
    if len(parts) != 2:  # noqa: PLR2004 - a pair
        value.fail("expected [PATTERN, REPLACEMENT]")
    pattern = compiled(value, parts[0].string())
    new = parts[1].text or ""
    try:
        pattern.sub(new, "")
        re._parser.parse_template(new, pattern)  # type: ignore[attr-defined] # noqa: SLF001
    except (re.error, IndexError) as error:
        value.fail(f"the replacement: {error}")
    return lambda text, _: pattern.sub(new, text)


def _date(value: Value) -> Filter:
    formats = [item.string() for item in value.sequence()]

    def iso(text: str, _: str) -> str:
        moment = read_date(text, formats)
        return "" if moment is None else moment.isoformat()

    return iso


def _cut(value: Value) -> Filter:
    length = value.number(1, LONGEST)
    return lambda text, _: text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _prefix(value: Value) -> Filter:
    piece = value.string()
    return lambda text, _: piece + text if text else ""


def _suffix(value: Value) -> Filter:
    piece = value.string()
    return lambda text, _: text + piece if text else ""


def _before(value: Value) -> Filter:
    piece = value.string()
    return lambda text, _: text.partition(piece)[0]


def _after(value: Value) -> Filter:
    piece = value.string()
    return lambda text, _: text.partition(piece)[2]


_MAKERS: dict[str, Callable[[Value], Filter]] = {
    "regex": _regex,
    "replace": _replace,
    "date": _date,
    "cut": _cut,
    "prefix": _prefix,
    "suffix": _suffix,
    "before": _before,
    "after": _after,
}


def read_date(text: str, formats: list[str] | None = None) -> datetime | None:
    """Read a date in one of some formats of strptime, or RFC 5322, ISO 8601, seconds since 1970.

    Without a zone it is UTC. None if it is none of these.
    """
    text = " ".join(text.split())[:100]
    if not text:
        return None
    readers: list[Callable[[str], datetime]] = [
        *[_strptime(form) for form in formats or ()],
        datetime.fromisoformat,
        parsedate_to_datetime,
        lambda seconds: datetime.fromtimestamp(float(seconds), UTC),
    ]
    for reader in readers:
        try:
            moment = reader(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            moment.utctimetuple()
        except (ValueError, TypeError, OverflowError, OSError, IndexError):
            continue
        return moment
    return None


def _strptime(form: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, form)  # noqa: DTZ007 - see read_date
