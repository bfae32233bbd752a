"""How a spec points at things in a page, and the fields it makes of them."""

import re
from dataclasses import dataclass
from typing import Any

import jmespath
import parsel
from parsel.csstranslator import HTMLTranslator

from pop3.scrape import filters, templates
from pop3.scrape.filters import Filter
from pop3.scrape.templates import Template
from pop3.scrape.yaml_tree import Value

KINDS = ("css", "xpath", "jmespath", "regex")


@dataclass(frozen=True)
class Selection:
    """One selector: `kind` is css, xpath, jmespath or regex; `text` as written, `line` where.

    `compiled` is XPath as text, or the compiled expression.
    """

    kind: str
    text: str
    line: int
    compiled: Any

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Field:
    """A named value: where it is taken from (`page`, `list`, `url`), by what, and filtered how.

    Either `selection` or `template` is set, or neither for all of `source`. `markup` keeps HTML
    (sanitised), `many` makes a list of all matches, `join` one text of that list.
    """

    name: str
    line: int
    selection: Selection | None = None
    template: Template | None = None
    source: str = "page"
    filters: tuple[Filter, ...] = ()
    required: bool = False
    default: str = ""
    many: bool = False
    join: str | None = None
    markup: bool = False


_FIELD_KEYS = frozenset(
    [*KINDS, "value", "from", "filters", "required", "default", "all", "join", "html"]
)


def read_selection(value: Value, keys: dict[str, Value] | None = None) -> Selection | None:
    """Read a selector: a text is CSS, a mapping names the kind. None if there is none."""
    if value.text is not None:
        return _selection("css", value)
    found = [name for name in KINDS if name in (value.mapping() if keys is None else keys)]
    if len(found) > 1:
        value.fail(f"only one of {', '.join(found)}")
    if not found:
        return None
    return _selection(found[0], value.mapping()[found[0]])


def need_selection(value: Value) -> Selection:
    """Read a selector that must be there and stands alone. Raises ConfigError."""
    if value.keys is not None:
        value.mapping(KINDS)
    selection = read_selection(value)
    if selection is None:
        value.fail(f"expected a selector: {', '.join(KINDS)}")
    return selection


def read_field(name: str, value: Value, sources: tuple[str, ...], names: list[str]) -> Field:
    """Read a field; `sources` are those it may be taken from, the first is the default."""
    if value.keys is None:
        return Field(name, value.line, selection=_selection("css", value), source=sources[0])
    keys = value.mapping(_FIELD_KEYS)
    selection = read_selection(value, keys)
    template = None
    if "value" in keys:
        if selection is not None:
            value.fail(f"only one of {selection.kind}, value")
        template = templates.read(keys["value"], "text", names)
    source = keys["from"].choice(*sources) if "from" in keys else sources[0]
    if selection is None and template is None and source != "url":
        value.fail(f"expected a selector: {', '.join(KINDS)}, value, or from: url")
    join = keys.get("join")
    return Field(
        name=name,
        line=value.line,
        selection=selection,
        template=template,
        source=source,
        filters=tuple(map(filters.read, keys["filters"].sequence())) if "filters" in keys else (),
        required="required" in keys and keys["required"].boolean(),
        default=keys["default"].text or "" if "default" in keys else "",
        many="all" in keys and keys["all"].boolean(),
        join=None if join is None else join.text or "",
        markup="html" in keys and keys["html"].boolean(),
    )


def _selection(kind: str, value: Value) -> Selection:
    text = value.string()
    compiled: Any
    try:
        if kind == "regex":
            compiled = filters.compiled(value, text)
        elif kind == "jmespath":
            compiled = jmespath.compile(text)
        else:
            compiled = HTMLTranslator().css_to_xpath(text) if kind == "css" else text
            parsel.Selector("<html/>").xpath(compiled)
    except (ValueError, SyntaxError, TypeError, re.error) as error:
        value.fail(f"no {kind}: {str(error).splitlines()[0] if str(error) else text}")
    except Exception as error:  # noqa: BLE001 - lxml and cssselect have many
        value.fail(f"no {kind}: {type(error).__name__}: {error}")
    return Selection(kind, text, value.line, compiled)
