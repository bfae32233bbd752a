"""Jinja2 templates of a spec, in a sandbox: of URLs, of text and of HTML."""

from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote

import jinja2
import jinja2.meta
import jinja2.sandbox

from pop3.scrape.errors import ScrapeError
from pop3.scrape.yaml_tree import Value

Template = Callable[[Mapping[str, Any]], str]
"""Takes the values by name, returns the text. Raises ScrapeError."""

LONGEST = 4 * 1024 * 1024  # letters that a template may make


def _quoted(value: object) -> object:
    if isinstance(value, jinja2.Undefined):
        return value
    return quote(str(value), safe="")


def _environment(**options: Any) -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=[],
        **options,
    )
    environment.globals.clear()
    return environment


_KINDS = {
    "text": _environment(autoescape=False),
    "html": _environment(autoescape=True),
    # each value is percent-encoded: no search term can become another host or parameter
    "url": _environment(autoescape=False, finalize=_quoted),
}


def read(value: Value, kind: str, names: Collection[str]) -> Template:
    """Compile a template; it may use these names only. Raises ConfigError with the line."""
    environment = _KINDS[kind]
    try:
        source = value.string()
        unknown = jinja2.meta.find_undeclared_variables(environment.parse(source)) - set(names)
        template = environment.from_string(source)
    except jinja2.TemplateError as error:
        value.fail(f"template: {error}")
    if unknown:
        value.fail(
            f"template: no such name: {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(names))}"
        )

    def render(values: Mapping[str, Any]) -> str:
        parts: list[str] = []
        length = 0
        try:
            for part in template.generate(values):
                parts.append(part)
                length += len(part)
                if length > LONGEST:
                    break
        except Exception as error:  # values are strangers', and a template may do anything with one
            raise ScrapeError(f"{value.name}: template: {type(error).__name__}") from error
        return "".join(parts)[:LONGEST]

    return render
