"""Make readable plain text of HTML: lines for blocks, marks for lists, links at their place."""

import re
from typing import Any

import lxml.html
from lxml import etree

_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "caption",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
_PARAGRAPHS = frozenset(
    ["p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote", "pre", "dl"]
)
_SILENT = frozenset(
    ["script", "style", "template", "noscript", "head", "title", "iframe", "object", "svg"]
)
_BLANKS = re.compile(r"[ \t\r\n\f\xa0]+")


def parse(text: str, url: str | None = None) -> Any:
    """Parse a page as a browser would, within libxml2's own limits on depth and size."""
    parser = lxml.html.HTMLParser(
        recover=True, encoding="utf-8", huge_tree=False, no_network=True, remove_pis=True
    )
    octets = text.replace("\0", "").encode("utf-8", "replace").strip() or b"<html></html>"
    try:
        root = etree.fromstring(octets, parser=parser, base_url=url)
    except etree.LxmlError:
        root = None
    if root is None:
        root = etree.fromstring(b"<html></html>", parser=parser, base_url=url)
    return root


def markup(root: Any) -> str:
    """Write what was parsed as HTML again, without the frame of a page around it.

    Elements are nested no deeper than libxml2 lets them be. That is what a sanitiser must be given
    whose time grows with the square of the depth (nh3: half a minute for 100,000 elements).
    """
    body = root.find("body")
    return str(etree.tostring(root if body is None else body, encoding="unicode", method="html"))


def text_of(html: str, *, links: bool = False) -> str:
    """Return the text of a piece of HTML; with `links` their targets in angle brackets."""
    return text_of_element(parse(html), links=links)


def text_of_element(root: Any, *, links: bool = False) -> str:
    """Return the text of an element and all in it. Not recursive: a page may be deep."""
    parts: list[str] = []
    preformatted = 0
    walker = etree.iterwalk(root, events=("start", "end", "comment"))
    for event, element in walker:
        if not isinstance(element.tag, str):
            parts.append(_squeezed(element.tail, preformatted))
        elif event == "start":
            if element.tag in _SILENT and element is not root:
                walker.skip_subtree()
                continue
            preformatted += element.tag == "pre"
            before = "" if element is root else _before(element)
            parts += (before, _squeezed(element.text, preformatted))
        else:
            if element.tag not in _SILENT or element is root:
                preformatted -= element.tag == "pre"
                parts.append(_after(element, links=links))
            if element is not root:
                parts.append(_squeezed(element.tail, preformatted))
    return tidy("".join(parts))


def tidy(text: str) -> str:
    """Take blanks off the ends of lines and leave no more than one empty line in a row."""
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _squeezed(text: str | None, preformatted: int) -> str:
    if not text or preformatted:
        return text or ""
    return _BLANKS.sub(" ", text)


def _before(element: Any) -> str:
    if element.tag in _PARAGRAPHS:
        return "\n\n"
    if element.tag == "li":
        return "\n* "
    if element.tag in ("td", "th"):
        return " "
    return "\n" if element.tag in _BLOCKS or element.tag == "br" else ""


def _after(element: Any, *, links: bool) -> str:
    target = element.get("href") or ""
    if links and element.tag == "a" and target.startswith(("http://", "https://")):
        return "" if (element.text or "").strip() == target else f" <{target}>"
    if element.tag in _PARAGRAPHS:
        return "\n\n"
    return "\n" if element.tag in _BLOCKS and element.tag not in ("td", "th", "li") else ""
