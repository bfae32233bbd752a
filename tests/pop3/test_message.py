"""Messages, and the ids under which clients see them."""

import re
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3.message import UNKNOWN, Listing, Message, announce, hashed

names = st.one_of(
    st.sampled_from(
        ["a", "a.2", "a.3", "b", "", "x" * 70, "x" * 71, "x y", "é", "\udc80", "\ud800"]
    ),
    st.text(max_size=75),
)


def uids_of(*uids: str) -> list[bytes]:
    """Return what is announced for these."""
    return Listing.of([Message(uid) for uid in uids]).uids


def test_valid_uids_are_announced_as_they_are() -> None:
    """1 to 70 octets of 0x21-0x7E stay."""
    assert uids_of("a", "!~", "x" * 70) == [b"a", b"!~", b"x" * 70]


@pytest.mark.parametrize("uid", ["", "x" * 71, "a b", "é", "a\n", "a\x7f", "\udc80"])
def test_other_uids_are_hashed(uid: str) -> None:
    """What RFC 1939 does not allow is announced as 32 hex digits of its SHA-256."""
    octets = uid.encode("utf-8", "surrogateescape")
    assert uids_of(uid) == [hashed(octets)]
    assert re.fullmatch(rb"[0-9a-f]{32}", hashed(octets))


def test_the_first_of_equal_uids_keeps_it() -> None:
    """The others get a suffix that no other message has, even one that came with that id."""
    assert uids_of("a", "a", "a") == [b"a", b"a.2", b"a.3"]
    assert uids_of("a", "a", "a.2", "a") == [b"a", b"a.3", b"a.2", b"a.4"]


@given(st.lists(names, max_size=30))
def test_announced_ids_are_valid_unique_and_stable(given_names: list[str]) -> None:
    """Whatever a source says, the ids are allowed, all different, and the same the next time."""
    listing = Listing.of([Message(name) for name in given_names])
    assert all(re.fullmatch(rb"[\x21-\x7e]{1,70}", uid) for uid in listing.uids)
    assert len(set(listing.uids)) == len(given_names)
    assert Listing.of([Message(name) for name in given_names]).uids == listing.uids
    assert [listing.message(index).uid for index in range(len(listing))] == given_names


@given(st.lists(names, min_size=1, max_size=20))
def test_the_first_of_a_valid_uid_is_never_renamed(given_names: list[str]) -> None:
    """No suffix or hash takes an id away from the message that came with it."""
    uids = announce([name.encode("utf-8", "replace") for name in given_names])
    for index, name in enumerate(given_names):
        if re.fullmatch(r"[!-~]{1,70}", name) and name not in given_names[:index]:
            assert uids[index] == name.encode()


def test_many_equal_long_uids_take_no_time() -> None:
    """An adversary's list is linear work (a quadratic one would pass the time limit)."""
    uids = announce([b"x" * 68 + b"%02d" % (n % 100) for n in range(60_000)])
    assert len(set(uids)) == 60_000


def test_columns_are_checked_unless_trusted() -> None:
    """Columns of a source that promises nothing are announced like messages."""
    listing = Listing([b"a", b"a", b"\xff"], array("q", [1, 2, 3]))
    assert listing.uids == [b"a", b"a.2", hashed(b"\xff")]
    assert [listing.name(index) for index in range(3)] == ["a", "a", "\udcff"]
    trusted = Listing(uids=[b"a"], sizes=array("q", [1]), trusted=True)
    assert trusted.message(0) == Message("a", 1)


def test_columns_of_different_lengths_are_refused() -> None:
    """A source's mistake is found where it is made."""
    with pytest.raises(ValueError, match="as many sizes"):
        Listing([b"a"], array("q"))


def test_sizes_that_are_not_known() -> None:
    """They are in no total until they are found."""
    listing = Listing.of([Message("a", 5), Message("b"), Message("c", 7)])
    assert listing.sizes[1] == UNKNOWN
    assert listing.message(1) == Message("b", None)
    assert (listing.total, listing.unknown()) == (12, [1])
    listing.set_size(1, 100)
    assert (listing.total, listing.unknown()) == (112, [])


def test_of_takes_a_listing_as_it_is() -> None:
    """A source may return columns."""
    listing = Listing([b"a"], array("q", [1]), trusted=True)
    assert Listing.of(listing) is listing


def test_without_keeps_ids() -> None:
    """Hiding a message changes no other one's id, and the source still knows its own."""
    listing = Listing.of([Message("a", 1), Message("a", 2), Message("ü", 3)])
    rest = listing.without({b"a"})
    assert rest.uids == listing.uids[1:]
    assert rest.total == 5
    assert [rest.name(index) for index in range(2)] == ["a", "ü"]
    assert listing.without({b"zzz"}) is listing
