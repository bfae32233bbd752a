"""Bans, acquaintances and login times: small tables that all processes share."""

import os
from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.auth import bans
from pop3.auth.acquainted import Acquainted, LoginTimes
from pop3.auth.ban_command import argv_of
from pop3.auth.bans import BanTable, network_name
from pop3.auth.penalty import network_key
from pop3.auth.table_file import shared_memory

A, B = network_key("192.0.2.1"), network_key("192.0.2.2")


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
def table(clock: Clock) -> BanTable:
    """Make a table of bans on that clock."""
    return BanTable(clock=clock)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("2001:db8::/32", None),
        ("192.0.2.0/24", None),
        ("unix", None),
        ("joe", None),
    ],
)
def test_whom_a_ban_bans(host: str, name: str | None) -> None:
    """An address of IPv4, a /64 of IPv6, and nothing larger."""
    assert network_name(host) == name


def test_a_ban_ends(table: BanTable, clock: Clock) -> None:
    """By itself, or when it is lifted; a longer one stays."""
    assert table.is_empty
    table.add("192.0.2.1", 100)
    table.add("192.0.2.1", 10)
    table.add("joe", 50, by_hand=True)
    clock.now += 49
    assert table.has("192.0.2.1")
    assert table.has("joe")
    assert not table.has("192.0.2.2")
    assert [(ban.name, ban.by_hand) for ban in table.listing()] == [
        ("joe", True),
        ("192.0.2.1", False),
    ]
    clock.now += 2
    assert not table.has("joe")
    assert table.lift("192.0.2.1")
    assert not table.has("192.0.2.1")
    assert not table.lift("192.0.2.1")


def test_many_bans_do_not_end_those_of_an_operator(table: BanTable) -> None:
    """A botnet that earns bans can fill the table; what was asked for by hand stays in it."""
    for number in range(100):
        assert table.add(f"2001:db8:0:{number:x}::/64", 1000, by_hand=True)
    for number in range(10_000):
        table.add(f"10.{number >> 8}.{number & 255}.1", 5000)
    assert all(table.has(f"2001:db8:0:{number:x}::/64") for number in range(100))
    assert len(table.listing()) > 1500


def test_the_program_is_told_once(table: BanTable, clock: Clock) -> None:
    """Of each new ban and of each that was lifted, not of one that came to its end."""
    table.add("192.0.2.1", 10)
    table.add("192.0.2.2", 100)
    for ban in table.untold():
        table.tell(ban)
    assert table.untold() == []
    table.lift("192.0.2.2")
    assert [(ban.name, ban.end) for ban in table.untold()] == [("192.0.2.2", 0.0)]
    table.tell(table.untold()[0])
    clock.now += 11
    assert table.untold() == []
    table.add("192.0.2.1", 10)
    assert [ban.name for ban in table.untold()] == ["192.0.2.1"]


def test_bans_are_found_by_another_process_and_after_a_restart(tmp_path: Path) -> None:
    """They are in a file that is its owner's only."""
    with shared_memory(tmp_path / "t", bans.SIZE, None) as memory:
        table = BanTable(memory)
    pid = os.fork()
    if pid == 0:
        table.add("192.0.2.1", 100)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert table.has("192.0.2.1")
    with shared_memory(tmp_path / "t", bans.SIZE, None) as memory:
        assert BanTable(memory).has("192.0.2.1")
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600


def test_a_link_or_a_device_is_no_table(tmp_path: Path) -> None:
    """What lies in the place of the file is not written to."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), shared_memory(tmp_path / "link", 64, None):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_acquaintances() -> None:
    """User and address together; a guess ends it, newcomers push out few of the others."""
    known = Acquainted()
    known.add(A, "joe")
    assert known.has(A, "joe")
    assert not known.has(B, "joe")
    assert not known.has(A, "ann")
    known.remove(A, "joe")
    assert not known.has(A, "joe")
    for number in range(4000):
        known.add(A, f"user{number}")
    assert sum(known.has(A, f"user{number}") for number in range(4000)) > 3900


def test_login_times(clock: Clock) -> None:
    """A user waits for the rest of the time; a clock that was set back keeps nobody out."""
    times = LoginTimes(60, clock=clock)
    assert times.wait("joe") == 0
    times.note("joe")
    clock.now += 20
    assert times.wait("joe") == 40
    assert times.wait("ann") == 0
    clock.now += 40
    assert times.wait("joe") == 0
    times.note("joe")
    clock.now -= 1000
    assert times.wait("joe") == 0


def test_words_of_the_command() -> None:
    """No shell: words, the first of which is a program that is there."""
    assert argv_of("sh -c 'a b'")[1:] == ["-c", "a b"]
    assert argv_of("sh")[0].startswith("/")
    for bad in ("", "'", "/nowhere/x y"):
        with pytest.raises(ConfigError, match="--ban-command"):
            argv_of(bad)
