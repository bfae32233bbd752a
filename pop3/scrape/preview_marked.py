"""An inert copy of a page in which the parts that a spec found are marked."""

import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import lxml.html

from pop3.scrape.extract import Source, find
from pop3.scrape.page import Page
from pop3.scrape.selection import Field, Selection
from pop3.scrape.spec import Spec

_GONE = frozenset(
    [
        *("script", "style", "link", "meta", "base", "iframe", "frame", "frameset", "object"),
        *("embed", "applet", "noscript", "template", "svg", "math", "audio", "video", "source"),
        *("track", "canvas", "portal", "dialog"),
    ]
)
_KEPT = frozenset(
    ["class", "id", "title", "alt", "lang", "dir", "colspan", "rowspan", "name", "type", "datetime"]
)
_RESULT = re.compile(r"/(?:@[\w:.*-]+|text\(\))$")  # of an XPath that gives no element
_MOST_TEXT = 200_000

STYLE = """
body { font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; margin: 12px; color: #222; }
.pop3-try-item { outline: 2px solid #1a7f37 !important; outline-offset: 1px;
  background: #e9f7ec !important; }
.pop3-try-part { outline: 2px dashed #0969da !important; background: #ddf0ff !important; }
.pop3-try-mark { font: bold 11px/1.5 "DejaVu Sans Mono", monospace; color: #fff;
  background: #1a7f37; padding: 0 4px; margin-right: 4px; border-radius: 2px; }
.pop3-try-part > .pop3-try-mark { background: #0969da; }
.pop3-try-img { color: #888; border: 1px solid #ccc; padding: 0 3px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
"""

Marks = list[tuple[Any, str, str]]  # element, class, label


def list_page(spec: Spec, page: Page) -> str:
    """Return a list page with its items, their links and fields and the next link marked."""
    source = Source.of(page)
    marks: Marks = []
    listing = spec.listing
    for number, node in enumerate(find(listing.items, source), 1):
        marks += [(element, "item", f"item {number}") for element in _element(node)]
        for one in (listing.link, *listing.fields, *_of_list(spec)):
            marks += _of_field(one, node)
    for key in ("next", "empty", "page", "pages"):
        marks += _of_selection(getattr(listing, key), source, f"list.{key}")
    return _document(source, page, marks)


def item_page(spec: Spec, page: Page) -> str:
    """Return an item's page with its fields marked."""
    source = Source.of(page)
    marks = [
        mark for one in spec.item.fields if one.source == "page" for mark in _of_field(one, source)
    ]
    return _document(source, page, marks)


def start_page(spec: Spec, page: Page) -> str:
    """Return a page with the spec's form marked."""
    source = Source.of(page)
    marks = [] if spec.form is None else _of_selection(spec.form.selection, source, "form")
    return _document(source, page, marks)


def _of_list(spec: Spec) -> Iterable[Field]:
    return [one for one in spec.item.fields if one.source == "list"]


def _of_field(one: Field | None, source: Source) -> Marks:
    return [] if one is None else _of_selection(one.selection, source, one.name, many=one.many)


def _of_selection(
    selection: Selection | None, source: Source, label: str, *, many: bool = True
) -> Marks:
    """Find the elements that a selector matches, or whose text or attribute it takes."""
    if selection is None or selection.kind not in ("css", "xpath"):
        return []
    selector = source.selector
    if selector is None or not hasattr(selector.root, "iter"):
        return []
    found = selector.xpath(_RESULT.sub("", selection.compiled))
    elements = [one.root for one in found if hasattr(one.root, "iter")]
    return [(element, "part", label) for element in (elements if many else elements[:1])]


def _element(node: Source) -> list[Any]:
    return [node.node.root] if node.is_element and node.node is not None else []


def _document(source: Source, page: Page, marks: Marks) -> str:
    selector = source.selector
    if selector is None:
        return document(f"<pre>{html.escape(_readable(page)[:_MOST_TEXT])}</pre>")
    root = selector.root.getroottree().getroot()
    labels: dict[Any, list[tuple[str, str]]] = {}
    for element, kind, label in marks:
        labels.setdefault(element, []).append((kind, label))
    _make_inert(root, labels)
    body = root if root.tag == "body" else root.find(".//body")
    inner = "" if body is None else lxml.html.tostring(body, encoding="unicode")
    return document(inner)


def document(inner: str) -> str:
    """Return a whole page around some HTML."""
    return f'<!DOCTYPE html><meta charset="utf-8"><style>{STYLE}</style>{inner}'


def _make_inert(root: Any, labels: dict[Any, list[tuple[str, str]]]) -> None:
    """Take out all that acts or loads, and all attributes but the names that selectors use."""
    for element in list(_all(root)):
        if not isinstance(element.tag, str) or element.tag.lower() in _GONE:
            if element.getparent() is not None:
                _drop(element)
            continue
        alt = element.get("alt") or ""
        for name in list(element.attrib):
            if name.lower() not in _KEPT:
                del element.attrib[name]
        if element.tag == "img":
            element.tag = "span"
            element.text = f"image {alt}".strip()
            element.set("class", f"{element.get('class') or ''} pop3-try-img")
        if marked := labels.get(element):
            _mark(element, marked)


def _all(root: Any) -> Iterator[Any]:
    yield from root.iter()


def _mark(element: Any, marked: list[tuple[str, str]]) -> None:
    kinds = " ".join(f"pop3-try-{kind}" for kind in dict.fromkeys(kind for kind, _ in marked))
    element.set("class", f"{element.get('class') or ''} {kinds}".strip())
    badge = element.makeelement("span", {"class": "pop3-try-mark"})
    badge.text = ", ".join(dict.fromkeys(label for _, label in marked))
    element.set("title", badge.text)
    if element.tag in ("tr", "table", "tbody", "ul", "ol", "input", "select", "dl"):
        return  # a badge would not be allowed in there
    badge.tail, element.text = element.text, None
    element.insert(0, badge)


def _drop(element: Any) -> None:
    """Remove an element with all in it; the text after it stays."""
    parent, tail = element.getparent(), element.tail
    before = element.getprevious()
    if tail and before is not None:
        before.tail = (before.tail or "") + tail
    elif tail:
        parent.text = (parent.text or "") + tail
    parent.remove(element)


def _readable(page: Page) -> str:
    """Return JSON with indents, anything else as it is."""
    if page.is_json:
        try:
            return json.dumps(json.loads(page.text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    return page.text
