"""Tell whoever writes a spec what to do next: why a selector finds nothing, what is near it."""

import difflib
import re
from collections.abc import Iterator

from netserver.errors import ConfigError
from pop3.scrape import yaml_tree
from pop3.scrape.errors import AddressRefused, FetchError
from pop3.scrape.extract import Source, find
from pop3.scrape.selection import Field, Selection
from pop3.scrape.spec import Spec

_NAME = re.compile(r"([.#])(-?[A-Za-z_][\w-]*)")
_MOST_NAMES = 20_000
_SECRET = re.compile(
    r"([?&;\s]|^)([^=&?;\s]*(?:key|token|secret|passw|auth|session|sign)[^=&?;\s]*=)[^&;#\s]+",
    re.IGNORECASE,
)

_SECRET_VALUE = re.compile(
    r"""(['"]?[\w-]*(?:authori[sz]ation|cookie|api-?key|[-_]key|token|secret|passw)[\w-]*['"]?"""
    r"""\s*:\s*)[^,}\n]+""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a URL, or a text with some, with the values of what looks like a key hidden."""
    return _SECRET.sub(r"\1\2***", text)


def without_secret_values(text: str) -> str:
    """Return YAML or JSON with the values of what looks like a key or a cookie hidden."""
    return _SECRET_VALUE.sub(r"\1***", text)


def why_nothing(selection: Selection, source: Source) -> str:
    """Say why a selector matches nothing in a page or element, as far as that can be seen."""
    is_json = source.page is not None and source.page.is_json
    if is_json != (selection.kind == "jmespath") and selection.kind != "regex":
        return (
            "this page is JSON: use jmespath"
            if is_json
            else "this page is not JSON: use css, xpath or regex"
        )
    if selection.kind == "jmespath" and is_json and source.page is not None:
        value = source.page.json
        return f"the top keys are {', '.join(list(value)[:12])}" if isinstance(value, dict) else ""
    if selection.kind != "css":
        return ""
    hints = [
        one for one in (_near_names(selection, source), _part_that_fits(selection, source)) if one
    ]
    return "; ".join(hints)


def _near_names(selection: Selection, source: Source) -> str:
    names = set(_names(source))
    hints = []
    for mark, name in _NAME.findall(selection.text):
        if f"{mark}{name}" in names:
            continue
        near = difflib.get_close_matches(f"{mark}{name}", names, 3, 0.6)
        what = "class" if mark == "." else "id"
        hints.append(f"there is no {what} {name}" + (f"; near: {', '.join(near)}" if near else ""))
    return "; ".join(hints)


def _names(source: Source) -> Iterator[str]:
    """Yield all classes and ids, as they stand in CSS."""
    selector = source.selector
    if selector is None or not hasattr(selector.root, "iter"):
        return
    for count, element in enumerate(selector.root.iter("*")):
        if count > _MOST_NAMES:
            return
        yield from (f".{name}" for name in (element.get("class") or "").split())
        if identity := element.get("id"):
            yield f"#{identity}"


def _part_that_fits(selection: Selection, source: Source) -> str:
    """Say how much of a selector of several parts matches."""
    parts = selection.text.split()
    if "," in selection.text or any(mark in selection.text for mark in "[(\"'"):
        return ""
    for length in range(len(parts) - 1, 0, -1):
        if parts[length - 1] in (">", "+", "~"):
            continue
        text = " ".join(parts[:length])
        matches = find(_css(text), source)
        if matches:
            return f"`{text}` alone matches {len(matches)}"
    return ""


def _css(text: str) -> Selection:
    value = yaml_tree.Value("", 0, "")
    value.text = text
    from pop3.scrape.selection import need_selection  # noqa: PLC0415 - only when all else is said

    return need_selection(value)


def why_missing(field: Field, source: Source | str) -> str:
    """Say why a field has no value."""
    if field.template is not None:
        return "the template gives nothing"
    if isinstance(source, str) or field.selection is None:
        return "the filters leave nothing of it" if field.filters else "there is nothing"
    where = "the item's page" if field.source == "page" else "the match in the list"
    found = find(field.selection, source)
    if not found:
        reason = why_nothing(field.selection, source)
        return f"matches nothing in {where}" + (f": {reason}" if reason else "")
    if any(one.text.strip() for one in found) and field.filters:
        text = " ".join(found[0].text.split())[:60]
        return f"matches {len(found)} in {where}, but the filters leave nothing of: {text}"
    return f"matches {len(found)} in {where}, without any text"


def what_to_do(spec: Spec, error: Exception, *, offline: bool) -> str:
    """Say what helps against an error of the walk, with file, line and key if one is meant."""
    text = without_secrets(str(error))
    if isinstance(error, AddressRefused) and "not public" in text:
        return f"{text}; `addresses: [NETWORK]` in {spec.file} allows it"
    if isinstance(error, FetchError) and "robots.txt does not allow" in text:
        return f"{text}; ask the site before you write `robots: ignore` into {spec.file}"
    if isinstance(error, FetchError) and error.status == 404 and offline:  # noqa: PLR2004 - HTTP
        return f"{text}; it is not among the saved pages: save them anew with --save"
    for key, selection in _selections(spec):
        if str(selection) in text:
            return f"{spec.file}:{selection.line}: {key}: {text}"
    found = re.match(r"([a-z][\w.-]*): ", text)
    line = None if found is None else line_of(spec.file, found[1])
    return text if line is None else f"{spec.file}:{line}: {text}"


def _selections(spec: Spec) -> Iterator[tuple[str, Selection]]:
    if spec.form is not None:
        yield "form", spec.form.selection
        if isinstance(spec.form.submit, Selection):
            yield "form.submit", spec.form.submit
    for key in ("items", "page", "pages", "next", "empty"):
        if (selection := getattr(spec.listing, key)) is not None:
            yield f"list.{key}", selection


def line_of(file: str, key: str) -> int | None:
    """Return the line of a key such as message.subject, None if it is not there."""
    try:
        value = yaml_tree.read(file)
        for name in key.split("."):
            value = (value.keys or {})[name]
    except (ConfigError, KeyError):
        return None
    return value.line
