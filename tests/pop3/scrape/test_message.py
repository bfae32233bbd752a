"""Messages of a given size, and of senders with odd names."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default

import pytest

from pop3.compose import Attachment
from pop3.scrape import message

DATE = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS = (
    *("", "x", "\u00fc" * 3000, "a" * 5000, ".\n.\n..x\n", "=\n==\n", "word " * 300),
    *("\u2028\x85\r\n\r", "\u65e5\u672c" * 400, "line   \n" * 80, "\n" * 3000, "\ud800"),
)
SUBJECTS = ("s", "\u00fc" * 300, "x" * 400, "\u65e5" * 300)


@pytest.mark.parametrize("size", [1000, 1001, 1002, 1003, *range(1075, 1081), 1500, 8000])
def test_a_padded_message_has_its_size(size: int) -> None:
    """To the octet, with short lines, whole lines and no defect; what has room is all there."""
    for text in TEXTS:
        for subject in SUBJECTS:
            to = "\u00fc" * 300 + " <c@d.example>"
            draft = message.Draft("J\u00f6 <a@b.example>", subject, DATE, "<a@b>", to=to, text=text)
            octets = message.padded(draft, size)
            assert len(octets) == size
            assert octets.endswith(b"\r\n")
            assert octets.count(b"\n") == octets.count(b"\r") == octets.count(b"\r\n")
            assert max(map(len, octets.split(b"\r\n"))) <= 78
            made = message_from_bytes(octets, policy=default)
            assert not made.defects
            if text in ("x", "word " * 300) and size == 8000:
                assert made.get_content().split() == text.split()


def test_a_header_that_just_fits_leaves_the_size_alone() -> None:
    """At each size around that of the longest header, where the text has no room."""
    sender, to = "\u00fc" * 300 + " <a@b.example>", "\u00fc" * 300 + " <c@d.example>"
    for subject in SUBJECTS:
        draft = message.Draft(sender, subject, DATE, "<a@b>", to=to, text="x")
        longest = message.padded(draft, 5000).index(b"\r\n\r\n") + 4
        for size in range(max(1000, longest - 20), longest + 20):
            assert len(message.padded(draft, size)) == size


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("A B <a@b.example>", "A B", "a@b.example"),
        ('"A, B" <a@b.example>', "A, B", "a@b.example"),
        ('O\'B, "P" <a@b.example>', 'O\'B, "P"', "a@b.example"),
        ("a@b.example", "", "a@b.example"),
        ("Eve <eve@x> \\ <a@b.example>", "Eve <eve@x> \\", "a@b.example"),
        ("Nobody", "Nobody", "unknown@localhost"),
    ],
)
def test_senders(text: str, name: str, address: str) -> None:
    """A name is a name, whatever marks are in it; the address is the last one."""
    draft = message.Draft(message._mailbox(text), "s", DATE, "<a@b>", text="x")
    made = message_from_bytes(message.octets(draft), policy=default)
    (sender,) = made["From"].addresses
    assert (sender.display_name, sender.addr_spec) == (name, address)


def test_attachments_with_odd_names() -> None:
    """Names and types of strangers become plain ones; contents stay, boundaries are no prefixes."""
    files = (
        Attachment('a"\r\nX: 1;=?utf-8?q?=0D=0A?=/../b.pdf', "application/pdf", b"\0\xff" * 100),
        Attachment("", "text/html\r\nX: 2", b"<p>"),
        Attachment("m.eml", "message/rfc822", b"Subject: x\n\ny"),
    )
    draft = message.Draft("a@b", "s", DATE, "<a@b>", text="t\n", html="<p>t", attachments=files)
    octets = message.octets(draft)
    assert octets == message.octets(draft)
    made = message_from_bytes(octets, policy=default)
    assert made.get_content_type() == "multipart/mixed"
    assert not [defect for part in made.walk() for defect in part.defects]
    assert "X" not in {name for part in made.walk() for name in part.keys()}  # noqa: SIM118
    parts = list(made.iter_attachments())
    assert [part.get_payload(decode=True) for part in parts] == [one.content for one in files]
    assert [part.get_content_type() for part in parts][1:] == ["application/octet-stream"] * 2
    outer, inner = made.get_boundary(), next(made.iter_parts()).get_boundary()
    assert outer is not None
    assert not str(inner).startswith(outer)
