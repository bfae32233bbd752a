"""What a user name carries: the search terms of a site, in order or by name.

`perl:5:Berlin` gives the fields in their order, `terms=perl;place=Berlin` by name. "+" stands for a
blank and %XX for any octet, so that a separator or "+" can be part of a value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_plus

_NAMED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
LONGEST = 200  # letters of one value


class WrongName(ValueError):
    """A user name that the spec does not allow; its text never repeats the name."""


@dataclass(frozen=True)
class UserField:
    """One field; without a default it must be given. `allowed` is empty where all is allowed."""

    name: str
    default: str | None = None
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class UserRules:
    """How a site's user names are read."""

    separator: str = ":"
    fields: tuple[UserField, ...] = ()

    def read(self, text: str) -> dict[str, str]:
        """Return the value of each field. Raises WrongName."""
        given = self._named(text) if self._is_named(text) else self._ordered(text)
        values = {}
        for field in self.fields:
            value = given.get(field.name, "") or field.default
            if value is None:
                raise WrongName(f"{field.name} is missing; {self.usage()}")
            if field.allowed and value not in field.allowed:
                raise WrongName(f"{field.name} is one of {', '.join(field.allowed)}")
            values[field.name] = value
        return values

    def name(self, values: Mapping[str, str]) -> str:
        """Return the one name for these values, however they were written."""
        return self.separator.join(quote(values[field.name], safe="") for field in self.fields)

    def usage(self) -> str:
        """Return the form of a name, for people."""
        names = [
            field.name if field.default is None else f"[{field.name}]" for field in self.fields
        ]
        return f"a name is {self.separator.join(names)}" if names else "any name will do"

    def _is_named(self, text: str) -> bool:
        found = _NAMED.match(text)
        return bool(found) and found[0][:-1] in {field.name for field in self.fields}  # type: ignore[index]

    def _ordered(self, text: str) -> dict[str, str]:
        if not self.fields:
            return {}
        parts = text.split(self.separator)
        if len(parts) > len(self.fields):
            raise WrongName(f"more than {len(self.fields)} fields; {self.usage()}")
        return {field.name: _decoded(part) for field, part in zip(self.fields, parts, strict=False)}

    def _named(self, text: str) -> dict[str, str]:
        known = {field.name for field in self.fields}
        given: dict[str, str] = {}
        for part in text.split(";"):
            key, equals, value = part.partition("=")
            if not equals or key not in known:
                raise WrongName(f"a field is none of {', '.join(sorted(known))}")
            if key in given:
                raise WrongName(f"{key} is given twice")
            given[key] = _decoded(value)
        return given


def _decoded(text: str) -> str:
    try:
        value = unquote_plus(text, errors="strict").strip()
    except UnicodeDecodeError:
        raise WrongName("%XX must give UTF-8") from None
    if _CONTROLS.search(value):
        raise WrongName("a field holds a control character")
    if len(value) > LONGEST:
        raise WrongName(f"a field is longer than {LONGEST} letters")
    return value
