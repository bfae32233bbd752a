"""Patterns such as /srv/mail/{domain}/{localpart}: where mail lies, safe against traversal.

The fields are {user} (the whole login name), {localpart}, {domain}, {initial} (the first character
of the local part) and {home}; a leading ~ is {home}. What a client typed is put in once and never
expanded again, and must be one plain path component.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

from netserver.errors import ConfigError
from pop3.errors import PermanentFailure

FIELDS = frozenset({"user", "localpart", "domain", "initial", "home"})
LONGEST_NAME = 255  # octets of one path component on every common file system

_FIELD = re.compile(r"\{([a-z]+)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that cannot work; called once, at start. Raises ConfigError."""
    problem = _problem(pattern)
    if problem:
        raise ConfigError(f"path pattern {pattern!r}: {problem}")


def path_pattern(text: str) -> str:
    """Read a pattern as the value of an option, `kind=path_pattern`.

    A relative one counts from the directory the server is started in. Raises ValueError.
    """
    problem = _problem(text)
    if problem:
        raise ValueError(problem)
    return text if _home_first(text).startswith(("/", "{home}")) else f"{os.getcwd()}/{text}"


def _problem(pattern: str) -> str | None:
    """Tell what is wrong with a pattern, if anything."""
    text = _home_first(pattern)
    if not text or "\0" in text:
        return "it is empty or has a NUL"
    for name in _FIELD.findall(text):
        if name not in FIELDS:
            return f"there is no field {{{name}}}, only {', '.join(sorted(FIELDS))}"
    if re.search(r"[{}]", _FIELD.sub("", text)):
        return "a brace has no partner"
    if "{home}" in text[1:] or re.match(r"\{home\}[^/]", text):
        return "the home directory must be its whole first part"
    if text.startswith("~"):
        return "~ must be followed by /"
    return None


@lru_cache(maxsize=4096)  # the same users come again and again
def fill(pattern: str, *, user: str, domain: str | None, home: str | None) -> Path:
    """Return the pattern with its fields filled in.

    Raises PermanentFailure when a value is not one safe path component, or is needed and not known.
    """
    local_part = user.rpartition("@")[0] or user
    values = {
        "user": user,
        "localpart": local_part,
        "domain": domain or "",
        "initial": local_part[:1],
    }

    def value(field: re.Match[str]) -> str:
        name = field[1]
        return _home(home) if name == "home" else _component(values[name])

    return Path(_FIELD.sub(value, _home_first(pattern)))


def fixed_part(pattern: str, home: str | None = None) -> Path:
    """Return the mail root: the directory that stands before the first field, or the home itself.

    It must be there even for a user without mail. Raises PermanentFailure as fill() does.
    """
    text = _home_first(pattern)
    if text.startswith("{home}"):
        return Path(_home(home))
    before, field, _ = text.partition("{")
    return Path(os.path.dirname(before) if field else before).absolute()


def _home_first(pattern: str) -> str:
    """Write a leading ~ as {home}."""
    return re.sub(r"^~(?=/|$)", "{home}", pattern)


def _home(home: str | None) -> str:
    if not home or not home.startswith("/") or "\0" in home:
        raise PermanentFailure("no home directory is known for this user")
    return home


def _component(value: str) -> str:
    try:
        length = len(os.fsencode(value))
    except UnicodeEncodeError:
        length = 0
    if (
        not 0 < length <= LONGEST_NAME
        or value.startswith(".")
        or "/" in value
        or _CONTROL.search(value)
    ):
        raise PermanentFailure("this login name has no mailbox")
    return value
