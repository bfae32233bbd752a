"""What tests of several backends need: where work is done, and how much of it."""

from collections.abc import Callable
from typing import Any

import pytest

from pop3.auth import schemes

RIGHT = b"pass word"
SHA512 = (  # of RIGHT
    "$6$rounds=1000$saltsalt$"
    "nrkbTG/TULo0bJv7dJR0HxGm.iGVxIXV8bUeHRggjctOWeNYyrq6B6CWaV8zLK/K8.e4xVoDwEJXHPmiHieC8."
)
MD5 = "$1$saltsalt$1K7dkhtbTNVUwUicA5kOT1"
YESCRYPT = "$y$j75$saltsaltsalt$cyRSWlvfVOdE0vmeiOBzilqWNjtLPn/A/Lo191FuXP9"


class Pools:
    """A `run_blocking` that runs in place and keeps the names of the pools."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, pool: str, function: Callable[..., Any], *args: object) -> Any:
        """Run the function."""
        self.asked.append(pool)
        return function(*args)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Collect the shape of each hash that is computed."""
    seen: list[str | None] = []
    verify = schemes.verify

    def counted(hash_text: str, secret: bytes) -> bool:
        seen.append(schemes.check(hash_text))
        return verify(hash_text, secret)

    monkeypatch.setattr(schemes, "verify", counted)
    return seen
