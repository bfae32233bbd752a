"""The forms of mailboxes: quotation marks, Content-Length, and separators of one's own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.sources import mbox_forms
from pop3.sources.mbox import form_of
from pop3.sources.mbox_forms import FORMS, Form, NotAMailbox, custom, unquoted
from pop3.sources.mbox_index import MboxIndex
from pop3.sources.mbox_scan import scan
from pop3.wire import stream_size

F = b"From x\n"
M = b"\x01\x01\x01\x01\n"
Cut = Callable[[bytes, Form], list[bytes]]


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[Cut]:
    """Return what cuts a mailbox into its messages, as they are stored."""
    descriptor = os.open(tmp_path / "box", os.O_RDWR | os.O_CREAT)

    def messages(stored: bytes, form: Form) -> list[bytes]:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, stored, 0)
        index = scan(descriptor, form, MboxIndex(), lambda: None)
        shares = [index.share(i) for i in range(len(index))]
        assert sum(end - begin for begin, end in shares) == len(stored) - (
            index.places[0] if shares else len(stored)
        )
        spans = zip(index.begins, index.ends, strict=True)
        return [os.pread(descriptor, end - begin, begin) for begin, end in spans]

    yield messages
    os.close(descriptor)


@pytest.mark.parametrize(
    ("stored", "rd", "o"),
    [
        (b"A: b\n\n>From x\n", b"A: b\n\nFrom x\n", b"A: b\n\nFrom x\n"),
        (b"A: b\n\n>>From x\n", b"A: b\n\n>From x\n", b"A: b\n\n>>From x\n"),
        (b"A: b\n\n>From x\n>From y", b"A: b\n\nFrom x\nFrom y", b"A: b\n\nFrom x\nFrom y"),
        (b"A: b\r\n\r\n>From x\r\n", b"A: b\r\n\r\nFrom x\r\n", b"A: b\r\n\r\nFrom x\r\n"),
        (b">From x\nA: b\n\ny\n", b">From x\nA: b\n\ny\n", b">From x\nA: b\n\ny\n"),
        (b"A: b\n\n >From x\nx>From\n>Fro\n", b"A: b\n\n >From x\nx>From\n>Fro\n", None),
        (b"\n>From x\n", b"\nFrom x\n", b"\nFrom x\n"),
        (b"", b"", b""),
        (b"A: b", b"A: b", b"A: b"),
        (b"A: b\n\n>", b"A: b\n\n>", b"A: b\n\n>"),
    ],
)
def test_quoted_lines_by_variant(stored: bytes, rd: bytes, o: bytes | None) -> None:
    """FEATURES row 38: mboxrd takes one ">" off each quoted line, mboxo off those with one only.

    However the message is cut into blocks.
    """
    for name, expected in (("mboxrd", rd), ("mboxo", rd if o is None else o)):
        quoted = FORMS[name].quoted
        assert quoted is not None
        for size in range(1, len(stored) + 2):
            blocks = (stored[at : at + size] for at in range(0, len(stored), size))
            assert b"".join(unquoted(blocks, quoted)) == expected, (name, size)


def test_size_is_that_of_what_is_sent(tmp_path: Path) -> None:
    """Exact sizes, and one id whatever is taken off."""
    stored = F + b"A: b\n\n>From x\n>>From y\n\n"
    (tmp_path / "box").write_bytes(stored)
    descriptor = os.open(tmp_path / "box", os.O_RDONLY)
    try:
        found = {
            name: scan(descriptor, FORMS[name], MboxIndex(), lambda: None)
            for name in ("mbox", "mboxo", "mboxrd")
        }
    finally:
        os.close(descriptor)
    plain = stream_size([b"A: b\n\n>From x\n>>From y\n"])
    assert [found[name].sizes[0] for name in found] == [plain, plain - 1, plain - 2]
    assert len({found[name].uids[0] for name in found}) == 1


def counted(body: bytes, length: int | None = None) -> bytes:
    """Return a message of mboxcl2."""
    said = len(body) if length is None else length
    return b"A: b\nContent-Length: %d\n\n%b" % (said, body)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (b"", []),
        (F + counted(b"a\n") + b"\n", [counted(b"a\n")]),
        (
            F + counted(b"a\n\nFrom y\n\nb\n") + b"\n" + F + counted(b"c\n") + b"\n",
            [counted(b"a\n\nFrom y\n\nb\n"), counted(b"c\n")],
        ),
        (F + counted(b"a\n") + F + counted(b""), [counted(b"a\n"), counted(b"")]),
        # a length that is wrong, too long, or missing: the next "From " line counts
        (F + counted(b"ab\n", 1) + b"\n" + F + b"x\n", [counted(b"ab\n", 1), b"x\n"]),
        (F + counted(b"a\n", 99) + b"\n" + F + b"x\n", [counted(b"a\n", 99), b"x\n"]),
        (F + b"A: b\n\nx\n\n" + F + counted(b"y\n"), [b"A: b\n\nx\n", counted(b"y\n")]),
        (F + b"\n" + F + counted(b"y\n"), [b"", counted(b"y\n")]),
        (F + b"no end of the header", [b"no end of the header"]),
        (
            F + b"x\n\n" + F + counted(b"a\n\nFrom b\n") + b"\n" + F + b"y\n\n" + F + b"z\n",
            [b"x\n", counted(b"a\n\nFrom b\n"), b"y\n", b"z\n"],
        ),
    ],
)
def test_messages_by_content_length(cut: Cut, stored: bytes, expected: list[bytes]) -> None:
    """mboxcl2: lines "From " in a body need no quoting."""
    assert cut(stored, FORMS["mboxcl2"]) == expected


START = rb"^\*\*\* Message "  # with a blank at its end: FEATURES C2 row 13


@pytest.mark.parametrize("window", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("stored", "start", "end", "expected"),
    [
        (b"*** Message 1\na\n\n*** Message 2\nb\n", START, rb"^\s*$", [b"a\n", b"b\n"]),
        (b"*** Message 1\na\n*** Message 2\nb\n", START, rb"^\s*$", [b"a\n*** Message 2\nb\n"]),
        (b"*** Message 1\na\n*** Messages\n\nb\n", START, rb"^\s*$", [b"a\n*** Messages\n\nb\n"]),
        (b"*** Message 1\n*** Message 2\nb\n\n", START, rb"^\s*$", [b"*** Message 2\nb\n"]),
        (b"*** Message 1\n\n*** Message 2\nb\n \n", START, rb"^\s*$", [b"", b"b\n"]),
        (b"#\na\n.\n#\nb\n.\n", rb"^#$", rb"^\.$", [b"a\n", b"b\n"]),
        (b"#\na\n.\n\n#\nb\n.", rb"^#$", rb"^\.$", [b"a\n.\n\n#\nb\n"]),
        (b"a\nb\n", rb"^#$", rb"^\.$", None),
        (M + b"a\n" + M + M + M + M + b"b\n" + M, rb"^\001{4}$", rb"^\001{4}$", None),
        (b"", START, rb"", []),
    ],
)
def test_custom_separators(  # noqa: PLR0917 - two patterns, what they are tried on, and how it is read
    cut: Cut,
    monkeypatch: pytest.MonkeyPatch,
    stored: bytes,
    start: bytes,
    end: bytes,
    expected: list[bytes] | None,
    window: int,
) -> None:
    """FEATURES row 35: message_start and message_end, for boxes like those of MMDF."""
    monkeypatch.setattr(mbox_forms, "_WINDOW", window)
    form = custom(start, end)
    if expected is None and stored.startswith(b"a"):
        with pytest.raises(NotAMailbox):
            cut(stored, form)
        return
    assert cut(stored, form) == (cut(stored, FORMS["mmdf"]) if expected is None else expected)


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("custom", None, "needs --message-start"),
        ("custom", "(", "no regular expression"),
        ("custom", "x*", "every line"),
        ("mbox", "^From ", "needs --mbox-format custom"),
    ],
)
def test_wrong_separators_are_refused_at_start(name: str, start: str | None, message: str) -> None:
    """One line that names the option."""
    with pytest.raises(ConfigError, match=message):
        form_of(name, start, r"^\s*$")


def test_a_blank_in_a_separator_counts() -> None:
    """Two patterns that differ in a blank are two forms, with an index each."""
    assert custom(b"^From ", b"^$").name != custom(b"^From", b"^$").name
    assert form_of("custom", "^From ", r"^\s*$") == form_of("custom", "^From ", r"^\s*$")
