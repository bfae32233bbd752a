"""Odd input on raw octets: numbers, verbs, control characters, line ends, line lengths, packets."""

import secrets
from collections.abc import Callable

import pytest

from tests.conftest import Mailbox
from tests.support.maildirs import PLAIN
from tests.support.servers import RunningServer
from tests.support.wire import Wire, converse

Make = Callable[..., Mailbox]

BAD_NUMBERS = [
    "\u0661".encode(),
    "\u00b9".encode(),
    b"1_0",
    b"+1",
    b"-1",
    b"1 ",
    b" 1",
    b"4294967297",
    b"18446744073709551617",
    b"9" * 200,
    b"0",
    b"0x1",
    b"1.0",
    b"1e0",
    b"1,2",
    b"1\x00 2",
    b"1\x00",
    b"\xa01",
    b"1\t",
    b"\t1",
    b"1\x0b",
    b"one",
    b"",
]


BATCH = 4  # bad commands in one session: below any limit


@pytest.mark.parametrize("verb", [b"LIST", b"RETR", b"DELE", b"UIDL"])
def test_numbers_are_strict(mailbox: Make, verb: bytes) -> None:
    """Only a message number in plain ASCII digits names a message."""
    box = mailbox([PLAIN, PLAIN])
    for start in range(0, len(BAD_NUMBERS), BATCH):
        with box.session() as wire:
            for number in BAD_NUMBERS[start : start + BATCH]:
                wire.err(verb + b" " + number)
            assert wire.ok(b"STAT").split()[1] == b"2"


@pytest.mark.parametrize("verb", [b"LIST", b"RETR", b"DELE", b"UIDL"])
def test_a_second_blank_is_no_number(mailbox: Make, verb: bytes) -> None:
    """One blank stands between verb and number; leading zeros may."""
    with mailbox([PLAIN, PLAIN]).session() as wire:
        wire.err(verb + b"  1")
        wire.err(verb + b" 1 2")
        wire.ok(b"NOOP")


@pytest.mark.parametrize(
    "rest",
    [
        b"1 99999999999999999999",
        b"1 -1",
        b"1 +1",
        b"1  1",
        b" 1 1",
        b"1 1 1",
        b"1",
        b"1 x",
        b"1 ",
        b"x 1",
        b"0 1",
        b"3 1",
    ],
)
def test_top_takes_two_strict_numbers(mailbox: Make, rest: bytes) -> None:
    """TOP n k: both must be numbers, one blank between."""
    with mailbox([PLAIN, PLAIN]).session() as wire:
        wire.err(b"TOP " + rest)
        wire.ok(b"NOOP")


@pytest.mark.parametrize("verb", [b"stat", b"Stat", b"sTaT"])
def test_verbs_are_case_insensitive(mailbox: Make, verb: bytes) -> None:
    """ASCII letters of a verb may have any case."""
    with mailbox([PLAIN]).session() as wire:
        assert wire.ok(verb).split()[1] == b"1"
        assert wire.ok(verb) == wire.ok(b"STAT")


@pytest.mark.parametrize("verb", ["\u017ftat", "L\u0131st", "\ufb06at", "\uff33TAT", "STAT\u00a0"])
def test_other_letters_never_become_ascii(mailbox: Make, verb: str) -> None:
    """No letter outside ASCII turns into one by case folding."""
    with mailbox([PLAIN]).session() as wire:
        wire.err(verb.encode())
        wire.ok(b"NOOP")


@pytest.mark.parametrize(
    "line", [b"NOOP\rDELE 1", b"DELE 1\rQUIT", b"\rDELE 1", b"DELE 1\r", b"NO\x00OP", b"DELE 1\x00"]
)
def test_control_characters_spoil_the_line(mailbox: Make, line: bytes) -> None:
    """A line with CR or NUL inside is one error and nothing of it is done."""
    box = mailbox([PLAIN])
    with box.session() as wire:
        wire.err(line)
        assert wire.ok(b"STAT").split()[1] == b"1"
        wire.quit()
    assert len(box.stored()) == 1


@pytest.mark.parametrize("name", [b"user000\x00x", b"user\r000", b"user000\x00", b"us\x1ber000"])
def test_control_characters_spoil_names(server: RunningServer, name: bytes) -> None:
    """USER takes any name, but no line with a control character: no NUL ever ends a name early."""
    with server.connect() as wire:
        wire.err(b"USER " + name)
        wire.err(b"PASS secret")


def test_lines_may_end_in_lf_alone(mailbox: Make) -> None:
    """Old clients send LF; answers still have CRLF."""
    box = mailbox([PLAIN])
    with box.server.connect() as wire:
        wire.send(box.login_lines().replace(b"\r\n", b"\n") + b"STAT\n")
        assert [wire.reply()[:3] for _ in range(3)] == [b"+OK"] * 3


@pytest.mark.parametrize("size", [256, 257, 300, 512, 4096, 8192, 20_000])
def test_an_overlong_line_is_one_error(mailbox: Make, size: int) -> None:
    """More than 255 octets with the line end: one -ERR, nothing executed, the session goes on."""
    box = mailbox([PLAIN])
    line = b"NOOP " + b"x" * (size - 2 - 5 - 7) + b" DELE 1"
    with box.session() as wire:
        wire.send(line + b"\r\n" + b"STAT\r\n")
        assert wire.reply().startswith(b"-ERR")
        assert wire.reply().split()[:2] == [b"+OK", b"1"]


def test_an_overlong_user_is_no_user(server: RunningServer) -> None:
    """USER takes any name that fits: 255 octets with CRLF are taken, 256 are not."""
    with server.connect() as wire:
        wire.ok(b"USER " + b"x" * (255 - 7))
        wire.err(b"USER " + b"x" * (256 - 7))


def test_a_line_of_255_octets_is_taken(server: RunningServer) -> None:
    """The limit of RFC 2449 itself is allowed: the line is parsed and its content judged."""
    with server.connect() as wire:
        wire.ok(b"USER anna")
        answer = wire.err(b"PASS " + b"x" * (255 - 7))
        assert answer.startswith(b"-ERR [AUTH]")


def test_an_endless_line_is_bounded(server: RunningServer) -> None:
    """8 MiB without a line end are refused by one error or a close, and others are served."""
    with server.connect() as wire:
        try:
            for _ in range(128):
                wire.send(b"x" * 65536)
            wire.send(b"\r\n")
        except OSError:
            pass
        rest = wire.read_to_end_or(b"QUIT\r\n")
        assert rest.count(b"\r\n") <= 2
        assert b"+OK" not in rest[:3]
    with server.connect() as wire:
        wire.quit()


def session_octets(box: Mailbox) -> bytes:
    """Return a short session with good and bad commands."""
    return b"CAPA\r\n" + box.login_lines() + b"STAT\r\nLIST 1\nFOO\r\nTOP 1 1\r\nRSET\r\nQUIT\r\n"


def test_a_whole_session_in_one_packet(mailbox: Make) -> None:
    """Pipelining: everything at once is answered in order, one reply per command."""
    box = mailbox([PLAIN, PLAIN])
    with box.server.connect() as wire:
        wire.send(session_octets(box))
        wire.reply()
        wire.rest_of_reply()
        statuses = [wire.reply()[:3] for _ in range(6)]
        assert statuses == [b"+OK", b"+OK", b"+OK", b"+OK", b"-ER", b"+OK"]
        wire.rest_of_reply()
        assert [wire.reply()[:3] for _ in range(2)] == [b"+OK", b"+OK"]
        assert wire.ended()


def test_octet_by_octet_is_the_same(mailbox: Make) -> None:
    """The cutting into packets changes no octet of the answers."""
    box = mailbox([PLAIN, PLAIN])
    octets = session_octets(box)
    host, port = box.server.host, box.server.port
    whole = converse(host, port, [octets])
    single = converse(host, port, [octets[at : at + 1] for at in range(len(octets))])
    assert without_stamp(single) == without_stamp(whole)


def test_every_cut_in_two_is_the_same(mailbox: Make) -> None:
    """All 2-splits of a session (a sample under inetd, where each costs a process)."""
    box = mailbox([PLAIN])
    octets = session_octets(box)
    host, port = box.server.host, box.server.port
    whole = without_stamp(converse(host, port, [octets]))
    step = 17 if box.server.personality == "inetd" else 1
    for cut in range(1, len(octets), step):
        answer = converse(host, port, [octets[:cut], octets[cut:]], pause=0.001)
        assert without_stamp(answer) == whole, cut


def without_stamp(received: bytes) -> bytes:
    """Leave out the greeting, which may hold a time stamp."""
    return received.partition(b"\r\n")[2]


def test_nothing_of_the_input_is_echoed(mailbox: Make) -> None:
    """Random words sent in every position never come back."""
    box = mailbox([PLAIN])
    word = secrets.token_hex(8).encode()
    before = [word, b"USER " + word, b"PASS " + word]
    before += [b"AUTH " + word, b"CAPA " + word, b"LANG " + word]
    after = [word, b"LIST " + word, b"RETR " + word, b"TOP " + word + b" 1", b"UIDL " + word]
    after += [b"STAT " + word, b"NOOP\r" + word, b"DELE 1 " + word, b"x" * 300 + word]
    for line in before:
        with box.server.connect() as wire:
            wire.command(line)
            assert word not in wire.received
    for line in after:
        with box.session() as wire:
            wire.err(line)
            assert word not in wire.received
    assert word.decode() not in secret_lines(box.server)


def secret_lines(server: RunningServer) -> str:
    """Return the log without the user names that failed logins may name."""
    return "".join(line for line in server.log_text().splitlines(True) if '"user"' not in line)


def test_a_packet_per_command_without_waiting(mailbox: Make) -> None:
    """PIPELINING as RFC 2449 describes it: commands ahead of the answers, cut anywhere."""
    messages = [PLAIN + b"%d\n" % number for number in range(30)]
    box = mailbox(messages)
    with box.session() as wire:
        wire.send(b"".join(b"RETR %d\r\n" % number for number in range(1, 31)))
        for number in range(30):
            assert wire.reply().startswith(b"+OK")
            assert wire.rest_of_reply().endswith(b"%d\r\n" % number)
        assert isinstance(wire, Wire)
