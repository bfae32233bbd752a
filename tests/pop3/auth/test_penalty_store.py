"""Two machines with one state: what one of them sees, the other one knows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3.auth import bans, penalty
from pop3.auth.acquainted import Acquainted
from pop3.auth.guard import Guard
from pop3.auth.penalty import network_key
from pop3.auth.penalty_store import Exchange
from pop3.auth.secret import Secret
from pop3.settings import POP3Settings
from pop3.state import State

A = network_key("192.0.2.1")
SIZE = penalty.SIZE + bans.SIZE + Acquainted.SIZE


class Machine:
    """Its tables, and its way to the state."""

    def __init__(self, url: str) -> None:
        memory = memoryview(bytearray(SIZE))
        self.guard = Guard(POP3Settings(), memory, None, lambda _: False)
        self.state = State(url)
        self.exchange = Exchange(self.guard, self.state)

    def fail(self, *words: bytes) -> None:
        """Guess at joe."""
        for word in words:
            self.guard.penalties.failed(A, "joe", Secret(word))

    def failures(self) -> tuple[int, int]:
        """Return what is held against the address and joe."""
        return self.guard.penalties.failures(A, "joe")


@pytest.fixture(params=["sqlite", "postgresql"])
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Make two machines that know each other's key."""
    url = f"sqlite:///{tmp_path}/state.db"
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        postgres.run("DROP TABLE IF EXISTS penalties, bans, penalty_key")
        url = postgres.url()
    pair = Machine(url), Machine(url)
    exchange(*pair)
    yield pair
    for machine in pair:
        machine.state.close()


def exchange(*machines: Machine) -> None:
    """Let each tell and take."""
    for machine in (*machines, *machines):
        machine.exchange.round()


def test_failures_count_everywhere(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are forgotten everywhere when the right password came."""
    one, other = machines
    one.fail(b"a", b"b", b"c")
    exchange(one, other)
    assert other.failures() == (3, 3)
    monkeypatch.setattr("pop3.auth.penalty_store._LATER", -1.0)  # no time passes here
    other.guard.penalties.succeeded(A, "joe")
    exchange(other, one)
    assert one.failures() == other.failures() == (1, 0)
    one.fail(b"d")
    exchange(one, other)
    assert other.failures() == (2, 1)


def test_bans_hold_everywhere(machines: tuple[Machine, Machine]) -> None:
    """Until they are lifted on one of the machines."""
    one, other = machines
    one.guard.ban("192.0.2.7", 600)
    other.guard.ban("joe", 600)
    exchange(one, other)
    for machine in machines:
        assert {ban["name"] for ban in machine.guard.listing()} == {"192.0.2.7", "joe"}
    other.guard.unban("192.0.2.7")
    exchange(other, one)
    for machine in machines:
        assert [ban["name"] for ban in machine.guard.listing()] == ["joe"]
