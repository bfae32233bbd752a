"""Directories for a target's files: in memory where there is such a place, gone at the end."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

MEMORY: Final = "/dev/shm"


def parent() -> str | None:
    """Return where to make directories; None: where the system does."""
    return MEMORY if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) else None


def scratch(name: str) -> Path:
    """Return a new directory."""
    directory = tempfile.mkdtemp(prefix=f"pop3-fuzz-{name}-", dir=parent())
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)
