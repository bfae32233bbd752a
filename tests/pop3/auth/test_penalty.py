"""Delays grow with failures, shrink with success, and are shared by processes."""

import mmap
import os

import pytest

from pop3.auth import penalty
from pop3.auth.penalty import PenaltyTable, network_key
from pop3.auth.secret import Secret


class Clock:
    """A time that moves when told."""

    now = 5000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Make a clock."""
    return Clock()


@pytest.fixture
def table(clock: Clock) -> PenaltyTable:
    """Make a table on that clock."""
    return PenaltyTable(clock=clock)


A, B = network_key("192.0.2.1"), network_key("192.0.2.2")


def guesses(table: PenaltyTable, address: bytes, user: str, count: int) -> list[float]:
    """Fail with different passwords; return the delays."""
    return [table.failed(address, user, Secret(b"guess%d" % n)) for n in range(count)]


def test_delay_grows_to_its_limit(table: PenaltyTable) -> None:
    """Each further guess doubles the delay up to 15 seconds."""
    assert table.delay_for(A, "joe") == 0
    assert guesses(table, A, "joe", 6) == [2, 4, 8, 15, 15, 15]
    assert table.delay_for(A, "joe") == 15


def test_delay_counts_address_and_user_apart(table: PenaltyTable) -> None:
    """The address is delayed for every user, the user from every address, others not."""
    guesses(table, A, "joe", 2)
    assert table.delay_for(A, "ann") == 4
    assert table.delay_for(B, "joe") == 4
    assert table.delay_for(B, "ann") == 0


def test_delay_decays(table: PenaltyTable, clock: Clock) -> None:
    """A quarter of an hour after the last failure all is forgotten."""
    guesses(table, A, "joe", 3)
    clock.now += 899
    assert table.delay_for(A, "joe") == 8
    clock.now += 2
    assert table.delay_for(A, "joe") == 0
    assert guesses(table, A, "joe", 1) == [2]


def test_same_wrong_password_does_not_grow(table: PenaltyTable, clock: Clock) -> None:
    """A mail client with an old password stays at the first delay, which does not end either."""
    for _ in range(5):
        assert table.failed(A, "joe", Secret(b"old")) == 2
        clock.now += 600
    assert table.failed(A, "joe", Secret(b"new guess")) == 4


def test_one_password_for_many_users_grows(table: PenaltyTable) -> None:
    """Spraying one password over users counts against the address."""
    delays = [table.failed(A, f"user{n}", Secret(b"123456")) for n in range(4)]
    assert delays == [2, 4, 8, 15]


def test_success_resets_the_user_and_halves_the_address(table: PenaltyTable) -> None:
    """Who has an account cannot wipe the address's failures with it."""
    guesses(table, A, "joe", 4)
    table.succeeded(A, "joe")
    assert table.delay_for(B, "joe") == 0
    assert table.delay_for(A, "joe") == 4
    table.succeeded(A, "joe")
    table.succeeded(A, "joe")
    assert table.delay_for(A, "joe") == 0


def test_zero_turns_it_off(clock: Clock) -> None:
    """With no first delay nothing is delayed or kept."""
    table = PenaltyTable(first_delay=0, clock=clock)
    assert guesses(table, A, "joe", 3) == [0, 0, 0]
    assert table.delay_for(A, "joe") == 0
    table.succeeded(A, "joe")


def test_first_delay_is_the_unit(clock: Clock) -> None:
    """The other delays follow the first; one over the limit stays as it is."""
    assert guesses(PenaltyTable(first_delay=0.5, clock=clock), A, "x", 3) == [0.5, 1, 2]
    assert guesses(PenaltyTable(first_delay=20, clock=clock), A, "x", 2) == [20, 20]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("unix", "192.0.2.2", False),
    ],
)
def test_network_key(one: str, other: str, same: bool) -> None:
    """IPv4 counts by address, mapped or not, IPv6 by /64."""
    assert (network_key(one) == network_key(other)) is same


def test_trusted_networks_are_exempt(clock: Clock) -> None:
    """Only listed networks are exempt, loopback is not one by itself."""
    table = PenaltyTable(trusted=["198.51.100.0/24", "2001:db8::5/128"], clock=clock)
    for host in ("198.51.100.7", "::ffff:198.51.100.7", "2001:db8::5"):
        key = table.address_key(host)
        assert guesses(table, key, "joe", 3) == [0, 0, 0]
    assert table.delay_for(A, "joe") == 0
    for host in ("127.0.0.1", "::1", "2001:db8::6", "unix"):
        assert table.address_key(host) == network_key(host) != b""


def test_full_table_keeps_what_has_grown(table: PenaltyTable) -> None:
    """A spray over far more users than there is room for does not free the attacker's address."""
    guesses(table, A, "joe", 5)
    for number in range(3000):
        table.failed(
            network_key(f"10.0.{number // 250}.{number % 250}"), f"u{number}", Secret(b"x")
        )
    assert table.delay_for(A, "nobody") == 15
    assert table.delay_for(B, "joe") == 15


def test_memory_is_checked_and_joined(clock: Clock) -> None:
    """A buffer too small is refused; one with a table in it goes on with it."""
    with pytest.raises(ValueError):
        PenaltyTable(memoryview(bytearray(penalty.SIZE - 1)))
    memory = memoryview(bytearray(b"\xaa" * (penalty.SIZE + 100)))
    guesses(PenaltyTable(memory, clock=clock), A, "joe", 2)
    assert PenaltyTable(memory, clock=clock).delay_for(B, "joe") == 4
    assert bytes(memory[penalty.SIZE :]) == b"\xaa" * 100
    assert PenaltyTable(clock=clock).delay_for(B, "joe") == 0


def test_memory_holds_neither_names_nor_passwords(clock: Clock) -> None:
    """What could be read out of the shared memory are keyed hashes."""
    memory = bytearray(penalty.SIZE)
    PenaltyTable(memoryview(memory), clock=clock).failed(A, "someuser", Secret(b"correct-horse"))
    assert b"someuser" not in memory
    assert b"correct" not in memory


def test_forked_children_share_the_table() -> None:
    """A failure seen by one process delays the login in another."""
    with mmap.mmap(-1, penalty.SIZE) as shared, memoryview(shared) as memory:
        table = PenaltyTable(memory)
        assert table.delay_for(B, "joe") == 0
        for number in range(2):
            pid = os.fork()
            if pid == 0:
                table.failed(A, "joe", Secret(b"guess%d" % number))
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        assert table.delay_for(B, "joe") == 4
        table.succeeded(B, "joe")
        assert table.delay_for(B, "joe") == 0
        del table
