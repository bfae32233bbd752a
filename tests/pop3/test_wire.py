"""The bytes: commands, numbers, replies, line ends, dots, TOP."""

import re
from collections.abc import Iterable
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pop3 import wire
from pop3.errors import CommandError

# what matters to line ends and dots, far more often than in random octets
pieces = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b".", b"\n.", b"a", b"\x00", b"\xff", b" ", b"xyz"]
)
messages = st.one_of(st.lists(pieces, max_size=40).map(b"".join), st.binary(max_size=60))


def slow_crlf(data: bytes) -> bytes:
    """Say the same as `crlf` one octet at a time."""
    out = bytearray()
    for position, octet in enumerate(data):
        if octet == 0x0A and data[position - 1 : position] != b"\r":
            out += b"\r"
        out.append(octet)
    if out and not out.endswith(b"\n"):
        out += b"\r\n"
    return bytes(out)


def undo_dots(sent: bytes) -> bytes:
    """Do what a client does to the lines of a reply."""
    lines = sent.split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut data at some places; pieces may be empty."""
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        (b"STAT", b"STAT", None),
        (b"stat", b"STAT", None),
        (b"RETR 1", b"RETR", b"1"),
        (b"PASS  two  words ", b"PASS", b" two  words "),
        (b"STAT ", b"STAT", b""),
        (b"", b"", None),
        (b" STAT", b"", b"STAT"),
        (b"USER j\xc3\xb6rg", b"USER", b"j\xc3\xb6rg"),
    ],
)
def test_parse_command(line: bytes, verb: bytes, argument: bytes | None) -> None:
    """The verb ends at the first blank, and all after that is the argument."""
    assert wire.parse_command(line) == (verb, argument)


@pytest.mark.parametrize("octet", [*range(32), 127])
def test_parse_command_refuses_controls(octet: int) -> None:
    """NUL cannot hide the rest of a line, nor CR a second command."""
    with pytest.raises(CommandError):
        wire.parse_command(b"LIST 1%c 2" % octet)


@pytest.mark.parametrize("text", ["\ufb06at", "L\u0131ST", "\u017ftat", "\uff33TAT"])
def test_parse_command_folds_ascii_only(text: str) -> None:
    """No letter outside ASCII becomes one of a verb."""
    assert wire.parse_command(text.encode())[0] not in (b"STAT", b"LIST")


@given(st.binary(max_size=300))
def test_parse_command_never_fails_otherwise(line: bytes) -> None:
    """Any line is a command or a CommandError, and nothing is lost of it."""
    try:
        verb, argument = wire.parse_command(line)
    except CommandError:
        assert re.search(rb"[\x00-\x1f\x7f]", line)
    else:
        assert (
            verb + (b"" if argument is None else b" " + argument).upper()
            == verb + line.upper()[len(verb) :]
        )


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"+1",
        b"-1",
        b"1 ",
        b" 1",
        b"1_0",
        "\u0661".encode(),
        "²".encode(),
        b"1.0",
        b"0x1",
        b"1\n",
        b"9" * 11,
        b"1" * 5000,
    ],
)
def test_parse_number_refuses(argument: bytes) -> None:
    """Only 1 to 10 ASCII digits are a number."""
    with pytest.raises(CommandError):
        wire.parse_number(argument)


@given(st.integers(0, 9_999_999_999))
def test_parse_number_reads(number: int) -> None:
    """Every number of up to ten digits is read, leading zeros or not."""
    assert wire.parse_number(b"%d" % number) == number
    assert wire.parse_number(b"%010d" % number) == number


def test_replies_are_one_line_of_ascii() -> None:
    """Whatever a text holds, a reply has one line of at most 512 octets."""
    assert wire.ok() == b"+OK\r\n"
    assert wire.err("no such message") == b"-ERR no such message\r\n"
    assert wire.err("wait", "SYS/TEMP") == b"-ERR [SYS/TEMP] wait\r\n"
    for text in ("a\r\n+OK\r\n", "é\x00\x85\u2028", "\udc80", "x" * 2000):
        for reply in (wire.ok(text), wire.err(text, "SYS/PERM")):
            assert re.fullmatch(rb"(\+OK|-ERR \[SYS/PERM\]) [\x20-\x7e]*\r\n", reply)
            assert len(reply) <= 512


@given(messages)
@example(b"\r\r\n\n")
def test_crlf_changes_line_ends_only(data: bytes) -> None:
    """LF without CR gets one, a lone CR stays, a last line without end gets one."""
    assert wire.crlf(data) == slow_crlf(data)
    assert wire.crlf(wire.crlf(data)) == wire.crlf(data)


@given(messages)
def test_round_trip_and_size(data: bytes) -> None:
    """What a client makes of the encoded message has exactly the announced size."""
    sent = wire.encode(data)
    received = undo_dots(sent)
    assert received == slow_crlf(data)
    assert len(received) == wire.sent_size(data)


@given(messages)
def test_the_end_line_is_in_no_message(data: bytes) -> None:
    """A line of only a dot appears at the end of the reply and nowhere before."""
    reply = b"+OK\r\n" + wire.encode(data) + wire.END
    assert reply.find(b"\r\n.\r\n") == len(reply) - 5


@given(messages, st.lists(st.integers(0, 1000), max_size=6))
def test_encoder_does_not_care_for_blocks(data: bytes, places: list[int]) -> None:
    """Cut anywhere, a message is sent as the same octets, and counted alike."""
    encoder = wire.Encoder()
    blocks = cut(data, places)
    sent = b"".join([encoder.feed(block) for block in blocks]) + encoder.finish()
    assert sent == wire.encode(data)
    assert encoder.octets == wire.sent_size(data) == wire.stream_size(blocks)


def slow_top(data: bytes, lines: int) -> bytes:
    """Say the same as `top` by lists of lines of the message as sent."""
    all_lines = slow_crlf(data).split(b"\r\n")
    rows = all_lines[:-1]
    if b"" not in rows:
        return slow_crlf(data)
    end = rows.index(b"") + 1 + lines
    return b"".join([row + b"\r\n" for row in rows[:end]])


@given(messages, st.integers(0, 5), st.lists(st.integers(0, 1000), max_size=6))
@example(b"\n", 0, [])
@example(b"\r\nbody\n", 1, [1])
@example(b"a\r\n\r\nb\r\n", 0, [2, 3, 4])
def test_top_cuts_header_and_lines(data: bytes, lines: int, places: list[int]) -> None:
    """TOP is the header, the blank line and so many lines, for line ends and blocks of any kind."""
    got = b"".join(wire.top(cut(data, places), lines))
    assert data.startswith(got)
    assert wire.crlf(got) == slow_top(data, lines)


def test_top_zero_is_header_and_blank_line() -> None:
    """TOP n 0 has no line of the body (seen: the whole message)."""
    assert b"".join(wire.top([b"A: b\nC: d\n\none\ntwo\n"], 0)) == b"A: b\nC: d\n\n"


def test_top_without_blank_line_is_all_header() -> None:
    """A message that is only a header is sent whole."""
    assert b"".join(wire.top([b"A: b\nC: d"], 0)) == b"A: b\nC: d"


def test_top_stops_reading() -> None:
    """What follows the last line is not asked for."""
    blocks = iter([b"A: b\n\n", b"one\n", b"two\n", b"three\n"])
    assert b"".join(wire.top(blocks, 1)) == b"A: b\n\none\n"
    assert next(blocks) == b"two\n"


def test_read_blocks_closes() -> None:
    """A message is closed at its end, and when the reader gives up."""
    whole = BytesIO(b"abcdef")
    assert list(wire.read_blocks(whole, 4)) == [b"abcd", b"ef"]
    assert whole.closed
    given_up = BytesIO(b"abcdef")
    blocks = wire.read_blocks(given_up, 4)
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert given_up.closed
