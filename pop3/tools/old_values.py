"""Values of a Mail::POP3 configuration, read strictly: what rules for its keys are made of."""

import re
from collections.abc import Callable

from pop3.tools.perl_data import PerlData, Value

NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


class NotConverted(Exception):
    """The value has no counterpart; the text says what to do by hand."""


Made = tuple[dict[str, str | list[str]], str]
"""Options with their values, and a remark."""
Rule = Callable[[Value, PerlData], Made]


def scalar(value: Value) -> str:
    """Return a text that is not empty. Raises NotConverted."""
    if not isinstance(value, str) or not value:
        raise NotConverted("a single value was expected")
    return value


def number(value: Value) -> str:
    """Return a whole number as it is written in the new file. Raises NotConverted."""
    text = scalar(value)
    if not NUMBER.fullmatch(text):
        raise NotConverted("a number was expected")
    return str(int(text))


def true(value: Value) -> bool:
    """Tell what Perl takes it for."""
    return value not in (None, "", "0", [], {})


def by_user(value: Value) -> dict[str, str]:
    """Return what single users have. Raises NotConverted if it is no hash of plain values."""
    if value in (None, "", "0", []):
        return {}
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise NotConverted("a hash with users as keys was expected")
    return {user: one for user, one in value.items() if isinstance(one, str)}


def text(option: str, note: str = "") -> Rule:
    """Return the rule of a key whose text becomes that of an option."""
    return lambda value, _: ({option: scalar(value)}, note)


def number_of(option: str) -> Rule:
    """Return the rule of a key whose number becomes that of an option."""
    return lambda value, _: ({option: number(value)}, "")


def replaced(note: str) -> Rule:
    """Return the rule of a key that has no option because there is nothing left to choose."""
    return lambda _value, _data: ({}, note)


def left(note: str) -> Rule:
    """Return the rule of a key that is for a hand, unless it was off."""

    def rule(value: Value, _: PerlData) -> Made:
        if not true(value):
            return {}, "was off: nothing to do"
        raise NotConverted(note)

    return rule
