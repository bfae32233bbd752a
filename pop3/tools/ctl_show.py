"""What a server said, for people."""

from collections.abc import Iterable, Sequence
from typing import Any

from netserver.declarations import one_line

_LIMITS = {
    "max_connections": "clients of one process",
    "max_per_source": "of one address",
    "max_per_user": "of one user",
    "timeout": "seconds idle",
}


def table(rows: Iterable[Sequence[object]]) -> str:
    """Return rows in columns; control characters made visible."""
    cells = [[one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def span(seconds: float) -> str:
    """Return a time as people read it."""
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole} s"
    days, rest = divmod(whole, 86400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    return f"{days} d {hours:02d}:{minutes:02d}" if days else f"{hours}:{minutes:02d} h"


def status(found: dict[str, Any]) -> str:
    """Return the answer to `status`."""
    limits = [
        f"{text} {found['limits'][name]:g}"
        for name, text in _LIMITS.items()
        if found["limits"].get(name)
    ]
    kind = f"{found['class']}, {found['personality']}"
    lines = [
        f"{found['program']} {found['version']} ({kind}), pid {found['pid']}",
        f"up {span(found['seconds'])}",
        f"listens at {', '.join(found['listeners'])}",
    ]
    if found["admin_listen"]:
        lines.append(f"admin pages at {found['admin_listen']}")
    lines += [
        f"{found['open']} clients, {found['served']} served, {found['octets']} octets sent",
        f"limits: {', '.join(limits) or 'none'}",
    ]
    groups = (("", found["workers"]), ("leaving ", found["leaving"]), ("", found["side"]))
    rows = [
        (
            one["pid"],
            f"{prefix}{one['kind']}",
            "-" if one in found["side"] else one["state"],
            one["open"],
            one["served"],
            span(one["seconds"]),
        )
        for prefix, some in groups
        for one in some
    ]
    return "\n".join([*lines, "", table([("pid", "kind", "state", "open", "served", "up"), *rows])])


def who(sessions: list[dict[str, Any]]) -> str:
    """Return the answer to `who`, those who are here longest first."""
    rows = [
        (
            one["id"],
            one["address"],
            one["user"] or "-",
            one["state"],
            one["octets"],
            span(one["seconds"]),
        )
        for one in sorted(sessions, key=lambda one: -float(one["seconds"]))
    ]
    if not rows:
        return "nobody is here"
    return table([("id", "address", "user", "state", "octets", "for"), *rows])
