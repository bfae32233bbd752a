"""Read lists of feeds (OPML 1 and 2): folders become groups."""

import os
from collections.abc import Iterator
from typing import Any

from lxml import etree

from netserver.errors import ConfigError
from pop3.feed.subscriptions import Feed, check_url, slug

_LARGEST = 8 * 1024 * 1024
_DEEPEST = 20


def read(path: str) -> list[Feed]:
    """Read a file; a feed in nested folders belongs to each of them.

    Raises ConfigError with file and line.
    """
    try:
        with open(path, "rb") as stream:
            octets = stream.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"--opml {path}: {os.strerror(error.errno or 0)}") from None
    if len(octets) > _LARGEST:
        raise ConfigError(f"--opml {path}: larger than {_LARGEST} octets")
    parser = etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False
    )
    try:
        root = etree.fromstring(octets, parser)
    except etree.XMLSyntaxError as error:
        raise ConfigError(f"--opml {path}:{error.lineno or 1}: this is no XML") from None
    body = root.find("body")
    if root.tag != "opml" or body is None:
        raise ConfigError(f"--opml {path}:1: this is no OPML")
    return list(_feeds(path, body, ()))


def _feeds(path: str, parent: Any, groups: tuple[str, ...]) -> Iterator[Feed]:
    if len(groups) > _DEEPEST:
        raise ConfigError(f"--opml {path}:{parent.sourceline}: folders are nested too deep")
    for outline in parent.iterchildren("outline"):
        title = (outline.get("title") or outline.get("text") or "").strip()
        url = (outline.get("xmlUrl") or "").strip()
        if url:
            try:
                check_url(url)
            except ValueError as error:
                raise ConfigError(f"--opml {path}:{outline.sourceline}: {error}") from None
            more = [slug(name) for name in (outline.get("category") or "").split(",")]
            members = tuple(dict.fromkeys(name for name in (*groups, *more) if name))
            yield Feed(slug(title) or "feed", url, members, title)
        folder = slug(title)
        inner = (*groups, folder) if folder and not url else groups
        yield from _feeds(path, outline, inner)
