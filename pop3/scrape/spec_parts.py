"""The smaller parts of a spec, each read from its place in the file."""

import importlib
import ipaddress
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from netserver.declarations import quoted
from pop3.compose import is_settable
from pop3.scrape import templates
from pop3.scrape.addresses import AddressPolicy
from pop3.scrape.fetch import FetchLimits
from pop3.scrape.selection import KINDS, Field, need_selection, read_field, read_selection
from pop3.scrape.templates import Template
from pop3.scrape.user import UserField, UserRules
from pop3.scrape.yaml_tree import Value

__all__ = ["KINDS", "need_selection", "read_field", "read_selection"]

SMALLEST = 1000  # octets of a padded message: its header must have room

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_HOOK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_TAKEN = frozenset({"user", "url", "id", "site", "page", "fields"})
_OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "cookie"}
)


def name_of(value: Value, name: str) -> str:
    """Return the name of a field. Raises ConfigError for one that cannot be."""
    if not _NAME.fullmatch(name):
        value.fail(f"{quoted(name)} is no name of letters, digits and _")
    if name in _TAKEN:
        value.fail(f"{name} means something else; choose another name")
    return name


def user_rules(value: Value | None) -> UserRules:
    """Read `user`."""
    if value is None:
        return UserRules()
    keys = value.mapping({"separator", "fields"})
    separator = keys["separator"].string() if "separator" in keys else ":"
    if len(separator) != 1 or separator in "+%=;~" or separator.isalnum():
        keys["separator"].fail(f"{quoted(separator)} is not one mark other than + % = ; ~")
    fields = []
    for name, one in keys["fields"].mapping().items() if "fields" in keys else ():
        if not _NAME.fullmatch(name):
            one.fail(f"{quoted(name)} is no name of letters, digits and _")
        rules = {} if one.is_empty else one.mapping({"default", "allowed"})
        default = (rules["default"].text or "") if "default" in rules else None
        allowed = tuple(
            item.string() for item in (rules["allowed"].sequence() if "allowed" in rules else ())
        )
        if allowed and default and default not in allowed:
            rules["default"].fail(f"{quoted(default)} is not one of {', '.join(allowed)}")
        fields.append(UserField(name, default, allowed))
    return UserRules(separator, tuple(fields))


def fields(value: Value | None, sources: tuple[str, ...], names: list[str]) -> tuple[Field, ...]:
    """Read fields by name; templates of later ones may use earlier ones."""
    found: list[Field] = []
    for name, one in value.mapping().items() if value is not None else ():
        known = [*names, *(field.name for field in found)]
        found.append(read_field(name_of(one, name), one, sources, known))
    return tuple(found)


def template_map(
    value: Value | None, kind: str, names: list[str], *, header: bool = False
) -> dict[str, Template]:
    """Read templates by name."""
    made = {}
    for name, one in value.mapping().items() if value is not None else ():
        if header and (not _HEADER.fullmatch(name) or name.lower() in _OURS):
            one.fail("not a header field to set")
        made[name] = (lambda _: "") if one.is_empty else templates.read(one, kind, names)
    return made


def message_headers(value: Value | None, names: list[str]) -> dict[str, Template]:
    """Read header fields of the message, such as Reply-To or List-Id."""
    made = template_map(value, "text", names)
    for name in made:
        if value is not None and not is_settable(name):
            value.mapping()[name].fail("not a header field to set")
    return made


_SECONDS = {"seconds", "page-seconds", "delay"}
_OCTETS = {"octets", "page-octets"}
_COUNTS = {"requests": (1, 100_000), "redirects": (0, 20), "retries": (0, 10)}
_COUNTS |= {"concurrency": (1, 32)}


def limits(value: Value | None) -> dict[str, Any]:
    """Read `limits` as arguments of a Spec."""
    if value is None:
        return {}
    keys = value.mapping({*_SECONDS, *_OCTETS, *_COUNTS, "pages", "items"})
    chosen: dict[str, Any] = {}
    for key, one in keys.items():
        name = key.replace("-", "_")
        if key in _SECONDS:
            chosen[name] = one.seconds()
        elif key in _OCTETS:
            chosen[name] = one.octets()
        elif key in _COUNTS:
            chosen[name] = one.number(*_COUNTS[key])
    made: dict[str, Any] = {"limits": FetchLimits(**chosen)}
    if "pages" in keys:
        made["most_pages"] = keys["pages"].number(1, 10_000)
    if "items" in keys:
        made["most_items"] = keys["items"].number(1, 100_000)
    return made


def size(value: Value | None) -> int | None:
    """Read `size`: exact, or padded N."""
    if value is None or value.string() == "exact":
        return None
    found = re.fullmatch(r"padded ([0-9]{1,9})", value.string())
    if found is None or int(found[1]) < SMALLEST:
        value.fail(f"expected exact, or padded N with N at least {SMALLEST}")
    return int(found[1])


def policy(value: Value | None, port: int | None) -> AddressPolicy:
    """Read `addresses`: networks that may be reached although they are not public."""
    networks = []
    for one in value.sequence() if value is not None else ():
        try:
            networks.append(ipaddress.ip_network(one.string()))
        except ValueError:
            one.fail(f"{quoted(one.string())} is no network such as 192.0.2.0/24")
    return AddressPolicy(networks, () if port is None else (port,))


def port_of(value: Value) -> int | None:
    """Return the port that a URL names in so many digits; check that it is a URL at all."""
    text = value.string()
    if not re.match(r"https?://[^/]", text):
        value.fail("expected a URL of http or https")
    try:
        return urlsplit(text).port
    except ValueError:
        return None


def hook(value: Value) -> Callable[..., Any]:
    """Import `module:function`. Raises ConfigError."""
    text = value.string()
    if not _HOOK.fullmatch(text):
        value.fail("expected module:function")
    module, _, name = text.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - a user's module may do anything when imported
        value.fail(f"cannot import {text}: {type(error).__name__}: {error}")
    if not callable(function):
        value.fail(f"{text} is no function")
    return function  # type: ignore[no-any-return]
