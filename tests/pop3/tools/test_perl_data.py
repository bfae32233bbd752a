"""Perl text is read as data, and what is no data is only named."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3.tools.perl_data import MAX_DEPTH, MAX_OCTETS, Code, PerlData, PerlDataError, Value, read

FILES = Path(__file__).parents[2] / "data/mail-pop3"


def value(text: str) -> Value:
    """Return what the text is as the value of a hash."""
    return read(f"{{ k => {text}, after => 1 }}".encode()).items["k"].value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("110", "110"),
        ("1_000", "1000"),
        ("0600", "384"),
        ("0x1F", "31"),
        ("-1.5", "-1.5"),
        ("undef", None),
        (r"'it\'s \n'", r"it's \n"),
        (r'"a\tb\x41\x{263a}\$x\@y\""', 'a\tbA☺$x@y"'),
        (r'"^\\s*\$"', r"^\s*$"),
        ('"end$"', "end$"),
        ("q{a{b}c}", "a{b}c"),
        ("qq(a\\n)", "a\n"),
        ("[1, 'b', [undef], ]", ["1", "b", [None]]),
        ("+{ a => 1, 'b', 2 }", {"a": "1", "b": "2"}),
        ("[ qw( a b\n c ), (1, 2) ]", ["a", "b", "c", "1", "2"]),
        ("{ q => 1, s => 2, y => 3, -m => 4 }", {"q": "1", "s": "2", "y": "3", "-m": "4"}),
        ("1 # comment }\n", "1"),
        ("'é'", "é"),
    ],
)
def test_data_is_read(text: str, expected: Value) -> None:
    """Every form of plain data has the value Perl gives it."""
    assert value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '"a $x"',
        '"a @{[ 1 ]}"',
        '"a\\Ub"',
        "`date`",
        "$x->{'}'}",
        "f('a', \"}\")",
        "'a' . 'b'",
        "sub { '}' }",
        'sub { my $q = "}"; m/[}"\']/ ? qr{a{2}} : $#x }',
        "sub { s{a}{b'}; tr/'/\"/; y'a'b'; $h{s} }",
        "sub { split /,'/, $_[0] }",
        'sub { return <<"END" }',
        "qr/[\"']/i",
        "1 + 2",
        "099",
    ],
)
def test_code_is_passed_over(text: str) -> None:
    """Code becomes its line, and what follows is read as if it were not there."""
    tail = "\n it's } a text\nEND\n" if "END" in text else ""
    data = read(f"\n{{ k => {text},{tail} after => 1 }}".encode())
    assert data.items["k"].value == Code(2)
    assert data.items["after"].value == "1"


def test_v3_file() -> None:
    """A hash literal: keys with their lines."""
    items = read((FILES / "v3.conf").read_bytes()).items
    assert (items["port"].value, items["port"].line) == ("1110", 4)
    assert items["user_log"].value == {"anna": "2", "ben": "1"}
    assert items["message_end"].value == r"^\s*$"
    assert items["greeting"].value == "Mail for Anna's friends"
    assert isinstance(items["user_check"].value, Code)
    assert isinstance(items["mailbox_args"].value, Code)
    assert items["passsecret"].value == "1"


def test_v2_file() -> None:
    """Assignments of scalars, arrays, hashes and single elements."""
    items = read((FILES / "v2.conf").read_bytes()).items
    assert items["port"].value == "1110"
    assert items["hosts"].value == ["a", "b"]
    assert items["user_log"].value == {"anna": "2", "ben": "1"}
    assert items["user_auth"].value == {"anna": "3", "ben": "1"}
    assert items["forwardto"].value == {}
    assert items["receivedfrom"].value == Code(10)


def test_code_beside_the_data_is_named() -> None:
    """Statements that are neither data nor without meaning keep their lines."""
    text = b"use strict;\n$port = 1;\nif ($x) { print '}' }\nsystem('reboot');\n1;\n__END__\n'"
    data = read(text)
    assert data.items["port"].value == "1"
    assert data.code == [Code(3), Code(4)]
    assert read(b"{ a => 1,\n %more, b => 2 }").code == [Code(2)]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"", 1, "no hash literal"),
        (b"{\n a => 'x\n}\n", 2, "not closed"),
        (b"{\n a => 1,\n", 1, "is missing"),
        (b"{ a => [ 1 } ]", 1, "is missing"),
        (b"{ a => sub {\n ) } }", 2, "closes nothing"),
        (b"{\n 'a' }", 2, "without a value"),
        (b"$x = '", 1, "not closed"),
        (b"{ a => " + b"[" * (MAX_DEPTH + 1), 1, "nested more than"),
        (b"{ a => f" + b"(" * (MAX_DEPTH + 1), 1, "nested more than"),
        (b"{" + b" " * MAX_OCTETS, 1, "larger than"),
        (b"$x = s{a}", 1, "missing"),
    ],
)
def test_what_cannot_be_read_is_one_error(text: bytes, line: int, message: str) -> None:
    """The error has the line where the mistake is, or begins."""
    with pytest.raises(PerlDataError, match=message) as caught:
        read(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    "piece", [b"'a',", b"[", b"{a=>", b"a ", b"$x=f(1);", b"\\", b"m", b"/", b"<<A\n"]
)
def test_large_files_end_soon(piece: bytes) -> None:
    """A file of the largest size is read or refused; the suite's time limit is the bound."""
    for head in (b"{ k => 1, ", b"$x = "):
        try:
            read((head + piece * MAX_OCTETS)[:MAX_OCTETS])
        except PerlDataError as error:
            assert error.line > 0  # noqa: PT017 - whether there is one is not the point


PIECES = st.sampled_from(
    [
        *"{}[]()<>;,#'\"`/\\$@%&=.+-~! \n",
        *("=>", "qw", "qq{", "q", "s", "tr/", "m", "sub {", "undef", "a", "09", "<<A", "\nA\n"),
        *("$x = ", "%h = (", "$h{'a'} = ", "\n=pod", "\n=cut", "__END__", "\\x{", "use a;"),
    ]
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join).map(str.encode) | st.binary(max_size=200))
def test_nothing_but_the_typed_error(text: bytes) -> None:
    """Whatever the file holds, it is read or refused with a line."""
    try:
        assert isinstance(read(text), PerlData)
    except PerlDataError as error:
        assert 1 <= error.line <= text.count(b"\n") + 1  # noqa: PT017 - same
