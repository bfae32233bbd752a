"""Find in a page what a spec points at.

    source = Source.of(page)
    for node in find(selection, source): …       # Sources in their turn
    reading = read_field(field, {"page": source, "url": page.url}, values)

A `Source` is a page, an element, a piece of JSON or a text. `find` keeps the elements themselves
(`Source.node`, a parsel Selector), so that a preview can mark them in the page.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jmespath.exceptions
import nh3
import parsel
from markupsafe import Markup

from pop3.scrape import filters, html_text
from pop3.scrape.errors import SiteChanged
from pop3.scrape.page import Page
from pop3.scrape.selection import Field, Selection

MOST = 10_000  # matches of one selector


@dataclass(frozen=True)
class Source:
    """Something to look in: exactly one of `page`, `node`, `value` is what it is."""

    url: str
    page: Page | None = None
    node: parsel.Selector | None = None
    value: Any = None

    @classmethod
    def of(cls, page: Page) -> "Source":
        """Look in a whole page."""
        return cls(page.url, page=page)

    @cached_property
    def selector(self) -> parsel.Selector | None:
        """The element, or the parsed page; None for JSON and texts."""
        if self.node is not None:
            return self.node
        if self.page is None or self.page.is_json:
            return None
        return parsel.Selector(root=html_text.parse(self.page.text, self.page.url), type="html")

    @property
    def is_element(self) -> bool:
        """Whether it is an element of a page, not a text."""
        return (
            self.node is not None and self.node.type == "html" and hasattr(self.node.root, "iter")
        )

    @cached_property
    def markup(self) -> str:
        """All of it as it is written."""
        if self.page is not None:
            return self.page.text
        if self.node is not None:
            return str(self.node.get() or "")
        return _plain(self.value)

    @cached_property
    def text(self) -> str:
        """Its text: of an element with lines for blocks."""
        if self.is_element and self.node is not None:
            return html_text.text_of_element(self.node.root)
        if self.page is not None:
            return self.page.text
        return " ".join(self.markup.split()) if self.node is not None else self.markup


@dataclass(frozen=True)
class Reading:
    """What a field came to: its value (text, Markup or a list), and how many matches there were."""

    field: Field
    value: Any
    matches: int

    @property
    def missing(self) -> bool:
        """Whether nothing was there: no match, or an empty one."""
        return not self.matches


def find(selection: Selection, source: Source) -> list[Source]:
    """Return all that a selector matches, in the order of the page. Raises SiteChanged."""
    if selection.kind == "regex":
        return [
            Source(source.url, value=_of_match(found))
            for found, _ in zip(
                selection.compiled.finditer(source.markup), range(MOST), strict=False
            )
        ]
    if selection.kind == "jmespath":
        return _search(selection, source)
    selector = source.selector
    if selector is None or not hasattr(selector.root, "iter"):
        return []
    return [Source(source.url, node=node) for node in selector.xpath(selection.compiled)[:MOST]]


def _of_match(found: Any) -> Any:
    if found.re.groupindex:
        return {name: text or "" for name, text in found.groupdict().items()}
    return (found[1] if found.re.groups else found[0]) or ""


def _search(selection: Selection, source: Source) -> list[Source]:
    value = source.page.json if source.page is not None else source.value
    try:
        result = selection.compiled.search(value)
    except (jmespath.exceptions.JMESPathError, TypeError, ValueError, RecursionError):
        raise SiteChanged(f"{selection} does not fit the page", source.page) from None
    if result is None:
        return []
    results = result if isinstance(result, list) else [result]
    return [Source(source.url, value=item) for item in results[:MOST]]


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False)


def read_field(
    field: Field, sources: Mapping[str, Source | str], values: Mapping[str, Any]
) -> Reading:
    """Return what a field is in the sources it may be taken from. Raises ScrapeError."""
    source = sources.get(field.source, "")
    url = source.url if isinstance(source, Source) else source
    if field.template is not None:
        found = [field.template(values)]
    else:
        found = [_as_text(field, one) for one in _candidates(field, source)]
    if not field.many:
        found = found[:1]
    cleaned = [one for text in found if (one := _filtered(field, text, url))]
    matches = len(cleaned)
    if not cleaned and field.default:
        cleaned = [field.default]
    if field.markup:
        cleaned = [_sanitised(text) for text in cleaned]
    if not field.many:
        return Reading(field, cleaned[0] if cleaned else "", matches)
    if field.join is not None:
        joint = Markup(field.join) if field.markup else field.join  # noqa: S704 - the spec's own
        return Reading(field, joint.join(cleaned), matches)
    return Reading(field, cleaned, matches)


def _candidates(field: Field, source: Source | str) -> list[Source]:
    if isinstance(source, str):
        source = Source(source, value=source)
    return [source] if field.selection is None else find(field.selection, source)


def _as_text(field: Field, source: Source) -> str:
    if isinstance(source.value, dict) and field.selection and field.selection.kind == "regex":
        return str(source.value.get(field.name, ""))
    return source.markup if field.markup else source.text


def _filtered(field: Field, text: str, url: str) -> str:
    text = text[: filters.LONGEST]
    for one in field.filters:
        text = one(text, url)
    return text


def _sanitised(html: str) -> Markup:
    """Take scripts, styles and odd links out of a stranger's HTML."""
    bounded = html_text.markup(html_text.parse(html)) if html.strip() else ""
    return Markup(nh3.clean(bounded, url_schemes={"http", "https", "mailto"}))  # noqa: S704 - cleaned
