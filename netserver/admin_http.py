"""What --admin-listen shows: OpenMetrics at /metrics, /health, and a small page with the status."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netserver.admin_commands import Commands

LONGEST_REQUEST = 8192
_TEXT = "text/plain; charset=utf-8"
_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def respond(request: bytes, commands: Commands) -> bytes:
    """Return the whole response to one HTTP request."""
    words = request.partition(b"\r\n")[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):  # noqa: PLR2004 - RFC 9112 §3
        return _response("400 Bad Request", _TEXT, "bad request\n", head=False)
    method, target, _ = words
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", _TEXT, "only GET and HEAD\n", head=False)
    status = next(iter(commands.answers({"command": "status"})))
    return _response(*_find(target.partition(b"?")[0], status), head=method == b"HEAD")


def _find(path: bytes, status: dict[str, Any]) -> tuple[str, str, str]:
    """Return the status line, the type and the text."""
    match path:
        case b"/metrics":
            return "200 OK", _METRICS, metrics(status)
        case b"/health":
            if status["workers"] or _needs_none(status):
                return "200 OK", _TEXT, "ok\n"
            return "503 Service Unavailable", _TEXT, "nobody serves\n"
        case b"/status":
            return "200 OK", "application/json", json.dumps(status)
        case b"/":
            return "200 OK", "text/html; charset=utf-8", page(status)
    return "404 Not Found", _TEXT, "not found\n"


def _needs_none(status: dict[str, Any]) -> bool:
    return bool(status["personality"] == "fork")  # children come with clients


def _response(line: str, kind: str, text: str, *, head: bool) -> bytes:
    body = text.encode()
    fields = (
        f"HTTP/1.1 {line}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        "Content-Security-Policy: default-src 'none'\r\nConnection: close\r\n\r\n"
    )
    return fields.encode("ascii") + (b"" if head else body)


def metrics(status: dict[str, Any]) -> str:
    """Return the status in the text format of OpenMetrics 1.0."""
    states: dict[str, int] = {}
    for worker in status["workers"]:
        states[worker["state"]] = states.get(worker["state"], 0) + 1
    lines = [
        "# TYPE netserver info",
        f'netserver_info{{version="{status["version"]}",personality="{status["personality"]}"}} 1',
        "# TYPE netserver_start_time_seconds gauge",
        "# UNIT netserver_start_time_seconds seconds",
        f"netserver_start_time_seconds {status['born']:.3f}",
        "# TYPE netserver_connections counter",
        "# HELP netserver_connections Connections served.",
        f"netserver_connections_total {status['served']}",
        "# TYPE netserver_sent_bytes counter",
        "# UNIT netserver_sent_bytes bytes",
        "# HELP netserver_sent_bytes Octets sent on connections that have ended.",
        f"netserver_sent_bytes_total {status['octets']}",
        "# TYPE netserver_open_connections gauge",
        f"netserver_open_connections {status['open']}",
        "# TYPE netserver_workers gauge",
        *[f'netserver_workers{{state="{state}"}} {n}' for state, n in sorted(states.items())],
        "# TYPE netserver_leaving_workers gauge",
        f"netserver_leaving_workers {len(status['leaving'])}",
    ]
    return "\n".join([*lines, "# EOF", ""])


def page(status: dict[str, Any]) -> str:
    """Return the status for people, as one page without scripts."""
    facts = ("program", "version", "personality", "pid", "seconds", "open", "served", "octets")
    rows = [(name, str(status[name])) for name in facts]
    rows += [("listens at", ", ".join(status["listeners"]))]
    rows += [
        (
            f"{one['kind']} {one['pid']}",
            f"{one['state']}, {one['open']} open, {one['served']} served",
        )
        for one in (*status["workers"], *status["leaving"], *status["side"])
    ]
    body = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    title = html.escape(status["program"])
    return f"<!doctype html><title>{title}</title><h1>{title}</h1><table>{body}</table>\n"
