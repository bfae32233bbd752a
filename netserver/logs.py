"""Structured logging: one event is one line, written by one system call.

No lock and no ``logging`` module, so that it works in a process that must not make threads, across
forks, and for many processes that append to one file.  Secrets are hidden here, whatever is passed.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import structlog
from structlog.typing import FilteringBoundLogger

from netserver.errors import ConfigError
from netserver.log_targets import FileTarget, JournalTarget, SyslogTarget, Target

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    Event = MutableMapping[str, Any]
    Render = Callable[[dict[str, Any]], bytes]

__all__ = ["Log", "configure", "lines_dropped", "reopen"]

Log: TypeAlias = FilteringBoundLogger

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("console", "json", "logfmt")
SECRET = "<secret>"  # noqa: S105 - what is shown instead of one
# characters kept of one value: a stranger's input must not fill the disk with few events
LONGEST_VALUE = 8192
DEEPEST_VALUE = 6

_SECRET_KEYS = frozenset(
    [
        "api_key",
        "apikey",
        "authorization",
        "pass",
        "passphrase",
        "passwd",
        "password",
        "secret",
        "token",
    ]
)
_OWN_KEYS = frozenset(["timestamp", "level", "pid", "event", "exception", "lines_lost"])
_PLAIN = frozenset([int, bool, type(None)])

# C0, DEL, C1 with NEL, LS and PS: what a terminal obeys, or a reader takes for the end of a line
_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029"
_is_bare = re.compile(f'[^{_CONTROL} "=\\\\]+').fullmatch
_TO_ESCAPE = re.compile(f'[{_CONTROL}"\\\\]')
_CONTROLS = re.compile(f"[{_CONTROL}]")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}

_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

_encode = json.JSONEncoder(separators=(",", ":")).encode
_encode_readable = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
# the targets that reopen() is for: the last one configured
_targets: list[Target] = []


def configure(
    *,
    level: str = "info",
    format: str | None = None,  # noqa: A002 - the option's name
    file: str | None = None,
    name: str = "net-server",
    hook: Callable[[str, Event], None] | None = None,
) -> Log:
    """Return a logger for ``file``: a path, "syslog", "journald", or None for standard error.

    ``format`` is "console", "json" or "logfmt"; None is console on a terminal, else logfmt.  May be
    called again; loggers made before keep their target.  Raises ``ConfigError``.
    """
    if level not in LEVELS:
        raise ConfigError(f"--log-level {level}: known are {', '.join(LEVELS)}")
    if format not in (None, *FORMATS):
        raise ConfigError(f"--log-format {format}: known are {', '.join(FORMATS)}")
    target: Target
    render: Render
    if file == "journald":
        target, render = JournalTarget(name), _journal
    elif file == "syslog":
        target = SyslogTarget(name)
        render = _json if format == "json" else _syslog
    else:
        target = FileTarget(file)
        terminal = file is None and os.isatty(2)
        render = _renderer(format or ("console" if terminal else "logfmt"), terminal=terminal)
    _targets[:] = [target]
    logger = structlog.wrap_logger(
        target,
        processors=[_processor(render)] if hook is None else [_hooked(hook), _processor(render)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    # the lazy proxy would assemble a new logger for each event
    return cast("Log", logger.bind())


def _hooked(hook: Callable[[str, Event], None]) -> Callable[[Target, str, Event], Event]:
    def process(_: Target, level: str, event: Event) -> Event:
        with suppress(Exception):  # a broken hook must not cost the line
            hook(level, event)
        return event

    return process


def reopen() -> bool:
    """Open the log file anew, after it was renamed; False if that failed and the old one stays."""
    return all(target.reopen() for target in _targets)


def lines_dropped() -> int:
    """Return how many events this process could not write."""
    return sum(target.dropped for target in _targets)


# -- from an event to its fields ------------------------------------------------------------------


def _processor(render: Render) -> Callable[[Target, str, Event], bytes]:
    def process(target: Target, level: str, event: Event) -> bytes:
        try:
            fields = _fields(level, event)
            if target.lost:
                fields["lines_lost"] = target.lost
            return render(fields)
        except Exception as error:  # noqa: BLE001 - a log line must never end a session
            fault = {
                "timestamp": _timestamp(),
                "level": "error",
                "event": "log event not printable",
            }
            return render({**fault, "fault": type(error).__name__})

    return process


def _fields(level: str, event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "timestamp": _timestamp(),
        "level": level,
        "pid": os.getpid(),
        "event": _clean(event.pop("event", "")),
    }
    error = event.pop("exc_info", None)
    for key, value in event.items():
        kind = type(value)
        own = f"{key}_" if key in _OWN_KEYS else key
        if key.lower() in _SECRET_KEYS:
            fields[own] = SECRET
        elif kind is int or (kind is str and len(value) <= LONGEST_VALUE):
            fields[own] = value  # most of them: spares a call each
        else:
            fields[own] = _clean(value)
    if error and (text := _exception(error)):
        fields["exception"] = text
    return fields


def _timestamp() -> str:
    second, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(second)}.{milliseconds:03d}Z"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _clean(value: Any, depth: int = 0) -> Any:
    """Return ``value`` as JSON could hold it, with every secret in it replaced."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "…"
    if kind in _PLAIN:
        return value
    if getattr(kind, "__netserver_secret__", False):
        return SECRET
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return _clean_all(value, depth + 1) if depth < DEEPEST_VALUE else "…"
    if kind is float and math.isfinite(value):
        return value
    return _clean(_text(value))


def _clean_all(values: Any, depth: int) -> Any:
    if not isinstance(values, Mapping):
        return [_clean(value, depth) for value in values]
    cleaned = {}
    for key, value in values.items():
        name = str(_clean(key, depth))
        cleaned[name] = SECRET if name.lower() in _SECRET_KEYS else _clean(value, depth)
    return cleaned


def _text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value[: LONGEST_VALUE + 1]).decode("ascii", "backslashreplace")
    try:
        text = "".join(str(value))  # never an instance of a subclass
    except Exception:  # noqa: BLE001 - whatever a foreign __str__ may do
        return f"<unprintable {type(value).__name__}>"
    return f"{type(value).__name__}: {text}" if isinstance(value, BaseException) else text


def _exception(error: Any) -> str:
    """Return a traceback without the values of local variables; the end of it if it is long."""
    if isinstance(error, tuple):
        error = error[1]
    elif not isinstance(error, BaseException):
        error = sys.exception()
    if error is None:
        return ""
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    return text if len(text) <= 2 * LONGEST_VALUE else "…" + text[-2 * LONGEST_VALUE :]


# -- from fields to a line ------------------------------------------------------------------------


def _escaped(found: re.Match[str]) -> str:
    character = found.group()
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"  # noqa: PLR2004


def _word(value: Any) -> str:
    """Return ``value`` for logfmt: bare if it can be, else in quotes."""
    kind = type(value)
    if kind is int or kind is float:
        return str(value)
    if kind is not str:
        value = _encode_readable(value)
    if _is_bare(value):
        return cast("str", value)
    return f'"{_TO_ESCAPE.sub(_escaped, value)}"'


@lru_cache(maxsize=1024)
def _name(key: str) -> str:
    return key if _is_bare(key) else _TO_ESCAPE.sub(_escaped, key).translate(_NO_NAME)


_NO_NAME = str.maketrans(" =", "__")


def _pairs(fields: dict[str, Any]) -> str:
    return " ".join([f"{_name(key)}={_word(value)}" for key, value in fields.items()])


def _logfmt(fields: dict[str, Any]) -> bytes:
    return f"{_pairs(fields)}\n".encode("utf-8", "backslashreplace")


def _json(fields: dict[str, Any]) -> bytes:
    # ASCII only, so that no reader's idea of a line end is met; DEL is the one that JSON lets pass
    return f"{_encode(fields)}\n".encode("ascii").replace(b"\x7f", b"\\u007f")


def _renderer(name: str, *, terminal: bool) -> Render:
    if name == "json":
        return _json
    if name == "logfmt":
        return _logfmt
    return _coloured if terminal and not os.environ.get("NO_COLOR") else _console


def _console(fields: dict[str, Any]) -> bytes:
    stamp, level, event = _head(fields)
    return f"{stamp} {level:<8} {event:<24} {_pairs(fields)}\n".encode("utf-8", "backslashreplace")


def _coloured(fields: dict[str, Any]) -> bytes:
    error = fields.pop("exception", None)
    stamp, level, event = _head(fields)
    colour = _COLOURS.get(level, "0")
    pairs = " ".join(
        [f"\x1b[36m{_name(key)}\x1b[0m={_word(value)}" for key, value in fields.items()]
    )
    line = (
        f"\x1b[2m{stamp}\x1b[0m \x1b[{colour}m{level:<8}\x1b[0m \x1b[1m{event:<24}\x1b[0m {pairs}"
    )
    for row in error.split("\n") if error else ():
        line += f"\n    {_CONTROLS.sub(_escaped, row)}"
    return f"{line}\n".encode("utf-8", "backslashreplace")


def _head(fields: dict[str, Any]) -> tuple[str, str, str]:
    event = _CONTROLS.sub(_escaped, str(fields.pop("event")))
    return fields.pop("timestamp"), fields.pop("level"), event


def _syslog(fields: dict[str, Any]) -> bytes:
    """Return the text alone; who, when and how bad is the target's part."""
    _, level, event = _head(fields)
    fields.pop("pid", None)
    return f"{level} {event} {_pairs(fields)}".encode("utf-8", "backslashreplace")


def _journal(fields: dict[str, Any]) -> bytes:
    """Return ``KEY=value`` lines of the journal's native protocol; each value is one line."""
    level = fields["level"]
    rows = [f"LEVEL={level}"]
    _, _, event = _head(fields)
    fields.pop("pid", None)
    rows.append(f"MESSAGE={event} {_pairs(fields)}")
    for key, value in fields.items():
        name = re.sub("[^A-Z0-9_]", "_", key.upper()).lstrip("_0123456789")[:64]
        text = value if type(value) is str else _word(value)
        rows.append(f"{name or 'FIELD'}={_CONTROLS.sub(_escaped, text)}")
    return "\n".join(rows).encode("utf-8", "backslashreplace") + b"\n"
