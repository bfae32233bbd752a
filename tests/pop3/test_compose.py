"""Fields of strangers become a message and nothing else."""

import re
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pop3
from pop3.compose import compose

CRLF = "a\r\nBcc: x@y"
ENCODED = "=?utf-8?q?=0D=0ABcc:_x?="
nasty = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from([
            CRLF, ENCODED, "=?", "?=", "\n", "\r", "\x85", "\u2028", "\x00", "ü", " ", "<", ">",
            "@", ",", '"', "\\", "w" * 90, "(", "\udc80",
        ]),
        max_size=12,
    ).map("".join),
)  # fmt: skip


def made(**fields: object) -> bytes:
    """Return a message with these fields and defaults for the others."""
    everything = {"subject": "s", "sender": "a@b.c", "date": 0.0, "text": "t"} | fields
    return compose(**everything).read()  # type: ignore[arg-type]


def parsed(message: bytes) -> EmailMessage:
    """Return it as a mail program sees it."""
    return message_from_bytes(message, policy=policy.default)


@given(nasty, nasty, nasty, nasty)
def test_no_value_adds_a_header(subject: str, sender: str, to: str, extra: str) -> None:
    """The header has the fields that were set and no other, in lines a client can take."""
    message = made(subject=subject, sender=sender, to=to, headers={"X-Extra": extra}, text=extra)
    assert message.count(b"\n") == message.count(b"\r\n")
    assert max(map(len, message.split(b"\r\n"))) <= 78
    header = message.partition(b"\r\n\r\n")[0]
    names = re.findall(rb"(?m)^([^\s:]+):", header)
    assert [name.decode() for name in names] == [
        "Date", "From", "To", "Subject", "X-Extra", "Message-ID",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    ]  # fmt: skip
    assert all(re.match(rb"[^\s:]+:|[ ]", line) for line in header.split(b"\r\n"))
    assert "bcc" not in parsed(message)


@pytest.mark.parametrize(
    "subject",
    [
        "plain",
        "Grüße aus Köln " * 20,
        "x" * 300,
        "a =?utf-8?q?b?= c",
        "日本語" * 60,
        "tail ",
        "many words " * 30,
    ],
)
def test_subject_arrives(subject: str) -> None:
    """A client sees the words that went in."""
    assert str(parsed(made(subject=subject))["subject"]).strip() == subject.strip()


@pytest.mark.parametrize(
    ("sender", "name", "address"),
    [
        ("a@b.c", "", "a@b.c"),
        ("Joe Doe <a@b.c>", "Joe Doe", "a@b.c"),
        ('"Doe, Joe" <a@b.c>', "Doe, Joe", "a@b.c"),
        ("Jörg <a@b.c>", "Jörg", "a@b.c"),
        ("Only A Name", "Only A Name", "unknown@localhost"),
        ("", "", "unknown@localhost"),
    ],
)
def test_sender_arrives(sender: str, name: str, address: str) -> None:
    """A name, an address, or both; what is no address becomes a name."""
    found = parsed(made(sender=sender))["from"].addresses[0]
    assert (found.display_name, found.addr_spec) == (name, address)


def test_text_and_html_are_alternatives() -> None:
    """Both arrive, text first."""
    message = parsed(made(text="plain ü\n.dot", html="<p>ü</p>"))
    parts = [part.get_content_type() for part in message.walk()]
    assert parts == ["multipart/alternative", "text/plain", "text/html"]
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content() == "plain ü\r\n.dot\r\n"
    assert html.get_content() == "<p>ü</p>\r\n"


def test_html_alone() -> None:
    """A page without text is a message of HTML."""
    assert parsed(made(text=None, html="<p>")).get_content_type() == "text/html"


@given(st.text(max_size=100), st.text(max_size=100))
def test_the_same_fields_make_the_same_octets(text: str, html: str) -> None:
    """A uid's octets never change, so nothing in them is random."""
    assert made(text=text, html=html) == made(text=text, html=html)
    assert made(text=text, html=html) != made(text=text, html=html, subject="other")


def test_dates() -> None:
    """Seconds, a zone, or no zone, which means UTC."""
    assert b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n" in made(date=0)
    odd = datetime.fromisoformat("2024-01-01T01:02:03+01:02:03")  # a zone in mail has no seconds
    assert b"Date: Mon, 01 Jan 2024 00:00:00 +0000\r\n" in made(date=odd)
    zone = timezone(timedelta(hours=2))
    assert b"02 Jan 2026 10:00:00 +0200\r\n" in made(date=datetime(2026, 1, 2, 10, tzinfo=zone))
    assert b"02 Jan 2026 10:00:00 +0000\r\n" in made(date=datetime(2026, 1, 2, 10))  # noqa: DTZ001
    assert made(date=datetime(1970, 1, 1, tzinfo=UTC)) == made(date=0)


def test_message_id() -> None:
    """A good one is taken, another replaced."""
    assert b"Message-ID: <1@example.org>\r\n" in made(message_id="<1@example.org>")
    for bad in ("1@example.org", "<a b@c>", "<a@b>\r\nX: y", "<" + "x" * 100 + "@y>"):
        assert re.search(rb"Message-ID: <[0-9a-f]{32}@localhost>\r\n", made(message_id=bad))


@pytest.mark.parametrize(
    "name", ["", "A B", "A:", "Ä", "Subject", "from", "Content-Type", "X\r\nY"]
)
def test_bad_field_names(name: str) -> None:
    """A programmer's mistake is told at once."""
    with pytest.raises(ValueError, match="header field"):
        made(headers={name: "x"})


def test_the_name_in_the_package_can_be_called() -> None:
    """`from pop3 import compose` works whether or not the module was imported before."""
    assert pop3.compose(subject="s", sender="a@b.c", date=0, text="t").read() == made()
