"""Numbers, marks and totals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3.errors import CommandError
from pop3.maildrop import Maildrop
from pop3.message import Listing, Message


def make(*sizes: int | None) -> Maildrop:
    """Return a maildrop of messages u1, u2 … with these sizes."""
    return Maildrop(Listing.of([Message(f"u{n}", size) for n, size in enumerate(sizes, 1)]))


def test_lists_show_all() -> None:
    """Each message is one line with one blank."""
    drop = make(10, 20, 30)
    assert drop.stat() == (3, 60)
    assert drop.scan_listing() == b"1 10\r\n2 20\r\n3 30\r\n"
    assert drop.unique_ids() == b"1 u1\r\n2 u2\r\n3 u3\r\n"


def test_deleted_messages_are_in_no_list() -> None:
    """Marks change totals and lists, never numbers; RSET takes them away."""
    drop = make(10, 20, 30)
    drop.delete(1)
    assert drop.stat() == (2, 40)
    assert drop.scan_listing() == b"1 10\r\n3 30\r\n"
    assert drop.unique_ids() == b"1 u1\r\n3 u3\r\n"
    assert drop.deleted_messages() == [Message("u2", 20)]
    drop.undelete_all()
    assert drop.stat() == (3, 60)
    assert drop.deleted_messages() == []


@pytest.mark.parametrize("argument", [b"0", b"4", b"4294967297", b"-1", b"", b"1 2", b"a"])
def test_numbers_that_are_no_message(argument: bytes) -> None:
    """There is no message 0, and none after the last."""
    with pytest.raises(CommandError):
        make(1, 2, 3).number(argument)


def test_a_deleted_message_has_no_number() -> None:
    """It cannot be named until RSET."""
    drop = make(1, 2)
    drop.delete(drop.number(b"2"))
    with pytest.raises(CommandError, match="deleted"):
        drop.number(b"2")
    drop.undelete_all()
    assert drop.number(b"2") == 1


def test_sizes_found_later_count() -> None:
    """A size found after DELE and RSET is in the totals exactly once."""
    drop = make(10, None, None)
    assert drop.unknown() == [1, 2]
    drop.delete(1)
    assert drop.unknown() == [2]
    drop.set_size(2, 5)
    drop.set_size(1, 100)
    assert drop.stat() == (2, 15)
    drop.undelete_all()
    assert drop.stat() == (3, 115)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20))
def test_stat_is_what_list_lists(steps: list[tuple[int, bool]]) -> None:
    """After any DELE and RSET the totals are those of the listed messages."""
    drop = make(1, 20, 300, 4000, 50000, 600000)
    for index, reset in steps:
        if reset:
            drop.undelete_all()
        elif index not in drop.deleted:
            drop.delete(index)
    lines = drop.scan_listing().split(b"\r\n")[:-1]
    sizes = [int(line.split(b" ")[1]) for line in lines]
    assert drop.stat() == (len(sizes), sum(sizes))
    assert len(drop.unique_ids().split(b"\r\n")) == len(lines) + 1
