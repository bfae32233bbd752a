"""What a server uses: memory and processor time of its whole process tree."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path


def process_tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    tree, todo = [], [pid]
    while todo:
        one = todo.pop()
        tree.append(one)
        todo += parents.get(one, [])
    return tree


def proportional_kib(pid: int) -> int:
    """Return the proportional set size of a process tree, in KiB."""
    total = 0
    for one in process_tree(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            found = re.search(r"^Pss: +([0-9]+) kB", text, re.MULTILINE)
            total += int(found[1]) if found else 0
    return total


def processor_seconds(pid: int) -> float:
    """Return the processor time a process tree has used, its ended children included."""
    ticks = 0
    for one in process_tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
