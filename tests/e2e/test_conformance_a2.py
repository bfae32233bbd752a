"""Faults seen in other servers, each a test, on raw octets.

The number in a test's name is the row of the table of faults; rows 17 and 20 are shown in
test_startup (the default timer) and test_tls (state kept across STLS).
"""

import re
from collections.abc import Callable

import pytest

from tests.conftest import Mailbox
from tests.support.maildirs import (
    HEADER,
    NASTY,
    PLAIN,
    add_message,
    stuff_dots,
    top,
    undo_dots,
    with_crlf,
)
from tests.support.servers import RunningServer

Make = Callable[..., Mailbox]


def test_a2_01_top_zero_lines_sends_only_the_header(mailbox: Make) -> None:
    """TOP 1 0 is header and empty line; TOP 1 k counts lines of the body."""
    with mailbox([PLAIN]).session() as wire:
        for count in range(5):
            assert wire.message(b"TOP 1 %d" % count) == top(PLAIN, count)
        assert wire.message(b"TOP 1 0") == with_crlf(HEADER) + b"\r\n"


def test_a2_02_deleted_messages_are_not_shown(mailbox: Make) -> None:
    """STAT, LIST and UIDL leave out what DELE marked, and there is no message 0."""
    with mailbox([PLAIN, PLAIN + b"x\n", PLAIN]).session() as wire:
        size = len(with_crlf(PLAIN))
        wire.ok(b"DELE 2")
        assert wire.ok(b"STAT").split()[1:3] == [b"2", b"%d" % (2 * size)]
        assert wire.lines(b"LIST") == [b"1 %d" % size, b"3 %d" % size]
        assert [line.split()[0] for line in wire.lines(b"UIDL")] == [b"1", b"3"]
        for line in (b"RETR 0", b"DELE 0", b"LIST 0", b"UIDL 0", b"TOP 0 0", b"RETR 2", b"LIST 2"):
            wire.err(line)


def test_a2_03_what_capa_says_is_sent(mailbox: Make) -> None:
    """RESP-CODES and AUTH-RESP-CODE are announced, and a wrong password shows one."""
    box = mailbox()
    with box.server.connect() as wire:
        said = wire.lines(b"CAPA")
        assert b"RESP-CODES" in said
        assert b"AUTH-RESP-CODE" in said
        wire.ok(b"USER " + box.user.encode())
        assert wire.err(b"PASS wrong").startswith(b"-ERR [AUTH] ")


def test_a2_04_retr_says_the_size_it_sends(mailbox: Make) -> None:
    """The size counts the CR that bare LF gets."""
    with mailbox([PLAIN]).session() as wire:
        said = re.search(rb"[0-9]+", wire.ok(b"RETR 1"))
        received = undo_dots(wire.rest_of_reply())
        assert received == with_crlf(PLAIN)
        if said is not None:
            assert int(said[0]) == len(received)


def test_a2_05_quit_is_answered(mailbox: Make) -> None:
    """QUIT has a reply, before login and after it, and then the connection ends."""
    box = mailbox()
    with box.server.connect() as wire:
        assert wire.quit().startswith(b"+OK")
    with box.session() as wire:
        assert wire.quit().startswith(b"+OK")


def test_a2_06_top_is_cut_and_dot_stuffed(mailbox: Make) -> None:
    """TOP 1 1 sends one line of the body, its leading dot doubled."""
    with mailbox([HEADER + b"\n.one\n.two\nthree\n"]).session() as wire:
        wire.ok(b"TOP 1 1")
        assert wire.rest_of_reply() == with_crlf(HEADER) + b"\r\n..one\r\n"


def test_a2_07_every_message_exists_oldest_first(mailbox: Make) -> None:
    """150 messages are 150 messages, in order of delivery, without an added line."""
    messages = [HEADER + b"\nmessage %d\n" % number for number in range(150)]
    with mailbox(messages).session() as wire:
        assert wire.ok(b"STAT").split()[1] == b"150"
        for number in (1, 2, 100, 101, 150):
            assert wire.message(b"RETR %d" % number) == with_crlf(messages[number - 1])
        wire.ok(b"DELE 150")
        assert wire.ok(b"STAT").split()[1] == b"149"


@pytest.mark.parametrize("name", NASTY)
def test_a2_08_messages_arrive_octet_for_octet(mailbox: Make, name: str) -> None:
    """Dots are doubled on the wire exactly where they must be, whatever the message holds."""
    with mailbox([NASTY[name]]).session() as wire:
        expected = with_crlf(NASTY[name])
        assert wire.ok(b"LIST 1").split()[:3] == [b"+OK", b"1", b"%d" % len(expected)]
        wire.ok(b"RETR 1")
        assert wire.rest_of_reply() == stuff_dots(expected)
        wire.ok(b"NOOP")


def test_a2_09_list_holds_plain_numbers(mailbox: Make) -> None:
    """A scan listing is two decimal numbers, nothing else."""
    with mailbox([PLAIN, NASTY["1 MiB"]]).session() as wire:
        for line in wire.lines(b"LIST"):
            assert re.fullmatch(rb"[1-9][0-9]* [1-9][0-9]*", line)


def test_a2_10_uidl_of_one_is_one_line(mailbox: Make) -> None:
    """UIDL n answers in one line what UIDL lists for n."""
    with mailbox([PLAIN, PLAIN]).session() as wire:
        listed = wire.lines(b"UIDL")
        assert wire.ok(b"UIDL 2") == b"+OK " + listed[1]
        wire.ok(b"NOOP")


def test_a2_11_dele_waits_for_quit(mailbox: Make) -> None:
    """Nothing is deleted before QUIT, and RSET takes the marks away."""
    box = mailbox([PLAIN, PLAIN])
    with box.session() as wire:
        wire.ok(b"DELE 1")
        wire.ok(b"DELE 2")
        assert len(box.stored()) == 2
        wire.ok(b"RSET")
        assert wire.ok(b"STAT").split()[1] == b"2"
        wire.quit()
    assert len(box.stored()) == 2


def test_a2_12_a_dropped_session_leaves_no_mark(mailbox: Make) -> None:
    """DELE and a lost connection, then another session's QUIT: all messages stay."""
    box = mailbox([PLAIN, PLAIN])
    with box.session() as wire:
        wire.ok(b"DELE 1")
    with box.session() as wire:
        assert wire.ok(b"STAT").split()[1] == b"2"
        wire.ok(b"DELE 2")
        wire.ok(b"RSET")
        wire.quit()
    assert len(box.stored()) == 2


def test_a2_13_a_last_line_of_dot_and_cr_ends(mailbox: Make) -> None:
    r"""A message that ends in ".\r" is followed by the end of the reply (TLS: test_tls)."""
    with mailbox([NASTY["dot CR without LF"], PLAIN]).session() as wire:
        wire.ok(b"RETR 1")
        assert wire.rest_of_reply().endswith(b"\r\n")
        assert wire.message(b"RETR 2") == with_crlf(PLAIN)


def test_a2_14_uids_are_not_used_again(mailbox: Make) -> None:
    """TOP without arguments is an error; a later message never gets an old unique-id."""
    box = mailbox([PLAIN, PLAIN])
    with box.session() as wire:
        wire.err(b"TOP")
        wire.err(b"TOP 1")
        before = [line.split()[1] for line in wire.lines(b"UIDL")]
        wire.ok(b"DELE 2")
        wire.quit()
    add_message(box.path, PLAIN, 2)
    with box.session() as wire:
        after = [line.split()[1] for line in wire.lines(b"UIDL")]
    assert after[0] == before[0]
    assert after[1] not in before


@pytest.mark.parametrize("line", [b"", b":", b"a:b", b" ", b"::::", b"\x00", b"-", b"%s%n"])
def test_a2_15_odd_punctuation_is_one_error(server: RunningServer, line: bytes) -> None:
    """A line without a command is one -ERR; the session goes on."""
    with server.connect() as wire:
        wire.err(line)
        wire.lines(b"CAPA")


def test_a2_16_two_commands_in_one_packet(mailbox: Make) -> None:
    """USER and PASS together are both understood."""
    box = mailbox([PLAIN])
    with box.server.connect() as wire:
        wire.send(box.login_lines() + b"STAT\r\n")
        assert [wire.reply()[:3] for _ in range(3)] == [b"+OK"] * 3


def test_a2_18_one_blank_and_crlf(mailbox: Make) -> None:
    """Lines of LIST and UIDL have exactly one blank; `Wire.line` asserts CRLF."""
    with mailbox([PLAIN] * 3).session() as wire:
        for command in (b"LIST", b"UIDL"):
            wire.ok(command)
            while (line := wire.line()) != b".":
                assert line.count(b" ") == 1


def test_a2_19_sizes_are_as_sent(mailbox: Make) -> None:
    """A client that reads as many octets as LIST says finds the end, and the next command works."""
    messages = list(NASTY.values())
    with mailbox(messages).session() as wire:
        sizes = [int(line.split()[1]) for line in wire.lines(b"LIST")]
        assert sizes == [len(with_crlf(message)) for message in messages]
        assert int(wire.ok(b"STAT").split()[2]) == sum(sizes)
        for number, size in enumerate(sizes, 1):
            assert len(wire.message(b"RETR %d" % number)) == size
        wire.ok(b"NOOP")


def test_a2_21_capa_before_login_names_uidl_and_top(server: RunningServer) -> None:
    """Clients that look before login find what they need."""
    with server.connect() as wire:
        assert {b"UIDL", b"TOP", b"USER", b"PIPELINING"} <= set(wire.lines(b"CAPA"))
