"""What people read in positive replies, as a theme; what programs read is never in a theme.

A theme is a flat YAML file: a key for each text, those left out are the plain ones. Codes, sizes
and what stands in brackets are not part of it, and -ERR texts stay as they are. Texts are printable
ASCII, since other letters may only follow UTF8 or LANG (RFC 6856 §2, §3).
"""

import os
import re
from dataclasses import dataclass, fields, replace

from netserver import config_files
from netserver.errors import ConfigError
from pop3 import wire
from pop3.shipped import shipped

LONGEST = 200
"""Octets of one text."""

THEMES = shipped("themes")

_USER = "{user}"
_NAMES = frozenset({"login", "quit"})  # texts after login: they may say who it is
_PLACEHOLDER = re.compile(r"\{.*?\}|[{}]")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True)
class Texts:
    """The texts of a theme; the defaults are the theme "plain"."""

    greeting: str = "POP3 ready"
    user: str = ""
    login: str = "logged in"
    deleted: str = "message deleted"
    reset: str = ""
    noop: str = ""
    quit: str = "bye"
    leave: str = "bye"
    """The answer to QUIT of a client that has not logged in."""


class Replies:
    """The replies with these texts, made once where no name stands in them."""

    __slots__ = ("_greeting", "_login", "_quit", "deleted", "leave", "noop", "reset", "user")

    def __init__(self, texts: Texts) -> None:
        self.user = wire.ok(texts.user)
        self.deleted = wire.ok(texts.deleted)
        self.reset = wire.ok(texts.reset)
        self.noop = wire.ok(texts.noop)
        self.leave = wire.ok(texts.leave)
        self._greeting = texts.greeting
        self._login = _with_name(texts.login)
        self._quit = _with_name(texts.quit)

    def greeting(self, challenge: str = "") -> bytes:
        """Return the first reply, with the timestamp of APOP at its end if there is one."""
        return wire.ok(f"{self._greeting} {challenge}".strip())

    def login(self, user: str) -> bytes:
        """Return the reply to a good login; `user` is the name in its normal form."""
        return self._login if isinstance(self._login, bytes) else _filled(self._login, user)

    def quit(self, user: str) -> bytes:
        """Return the reply to QUIT when all went well."""
        return self._quit if isinstance(self._quit, bytes) else _filled(self._quit, user)


def _with_name(text: str) -> bytes | str:
    return text if _USER in text else wire.ok(text)


def _filled(text: str, user: str) -> bytes:
    return wire.ok(text.replace(_USER, user))


def greeting(text: str) -> str:
    """Read --greeting. Raises ValueError."""
    if problem := _problem("greeting", text):
        raise ValueError(problem)
    return text


def load(theme: str, greeting: str | None) -> Texts:
    """Return the texts of a theme, given by name or as a file, perhaps with another greeting.

    Raises ConfigError.
    """
    texts = Texts() if theme == "plain" else Texts(**_read(_file_of(theme)))
    return texts if greeting is None else replace(texts, greeting=greeting)


def _file_of(theme: str) -> str:
    if "/" in theme or os.path.splitext(theme)[1]:
        return theme
    names = sorted(path.stem for path in THEMES.glob("*.yaml"))
    if theme not in names:
        known = ", ".join({*names, "plain"})
        raise ConfigError(f"--texts {theme}: a file with a suffix, or one of: {known}")
    return str(THEMES / f"{theme}.yaml")


def _read(file: str) -> dict[str, str]:
    known = [field.name for field in fields(Texts)]
    found: dict[str, str] = {}
    try:
        with config_files.open_config(file) as stream:
            entries = config_files.read(stream, file)
    except ConfigError as error:
        raise ConfigError(f"--texts: {error}") from None
    for entry in entries:
        where = f"--texts: {entry.file}:{entry.line}: {entry.key}"
        if entry.key not in known:
            raise ConfigError(f"{where}: no such text; there are {', '.join(known)}")
        if isinstance(entry.value, list):
            raise ConfigError(f"{where}: one text was expected")
        text = entry.value or ""
        if problem := _problem(entry.key, text):
            raise ConfigError(f"{where}: {problem}")
        found[entry.key] = text
    return found


def _problem(key: str, text: str) -> str | None:
    """Tell what is wrong with a text, if anything."""
    if _UNPRINTABLE.search(text):
        return "only printable ASCII can be sent"
    if len(text) > LONGEST:
        return f"longer than {LONGEST} characters"
    if text.startswith(("[", _USER)):
        return "a reply that begins with [ or a name could be taken for a response code"
    if key == "greeting" and re.search("[<>]", text):
        return "< and > are kept for the timestamp of APOP"
    allowed = {_USER} if key in _NAMES else set[str]()
    if unknown := set(_PLACEHOLDER.findall(text)) - allowed:
        return f"{min(unknown)} cannot be filled in here"
    return None
