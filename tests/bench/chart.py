"""The ratios of a benchmark as one SVG picture: how many times as fast, or as small."""

from __future__ import annotations

import statistics
from html import escape

RIVALS = {"ours-default": "dovecot-default"}
RIVAL = "dovecot-tuned"
_COLOURS = {"ours-gevent": "#2a6f97", "ours-prefork": "#a9c4d4", "ours-default": "#2a6f97"}
_LEFT, _SCALE, _BAR, _GAP = 300, 90, 14, 8
_LONGEST = 5.0  # times; longer bars are cut, and say so


def advantages(results: dict[str, dict[str, list[float]]]) -> list[tuple[str, str, float]]:
    """Return row, server, and how many times better than the rival it is; 1 is as good."""
    found = []
    for row, values in results.items():
        if row.endswith("CPU ms"):
            continue
        medians = {name: statistics.median(runs) for name, runs in values.items()}
        for name in values:
            rival = medians.get(RIVALS.get(name, RIVAL))
            if name in _COLOURS and rival and medians[name]:
                ratio = medians[name] / rival
                found.append((row, name, ratio if "/s" in row else 1 / ratio))
    return found


def draw(results: dict[str, dict[str, list[float]]]) -> str:
    """Return the picture: a bar for each row and server, a line where both are equal."""
    bars, at = [], 40
    last = ""
    for row, name, times in advantages(results):
        if row != last:
            at += _GAP
            bars.append(_text(_LEFT - 8, at + _BAR - 3, row, "end"))
            last = row
        length = round(min(times, _LONGEST) * _SCALE)
        colour = _COLOURS[name]
        bars.append(
            f'<rect x="{_LEFT}" y="{at}" width="{length}" height="{_BAR}" fill="{colour}"/>'
        )
        bars.append(_text(_LEFT + length + 6, at + _BAR - 3, f"{times:.2f}", "start"))
        at += _BAR + 2
    line = _LEFT + _SCALE
    width = _LEFT + round(_LONGEST * _SCALE) + 220
    head = "Times as good as Dovecot on the same machine in the same run (the line: equal)"
    legend = "dark: gevent, light: prefork with 64 workers"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{at + 16}">',
            "<style>text {font: 12px sans-serif}</style>",
            f'<rect width="{width}" height="{at + 16}" fill="white"/>',
            _text(12, 18, head, "start"),
            _text(12, 34, legend, "start"),
            *bars,
            f'<path d="M{line} 42V{at + 4}" stroke="#c1121f" stroke-dasharray="4 3"/>',
            "</svg>\n",
        ]
    )


def _text(x: int, y: int, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
