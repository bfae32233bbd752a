"""The Received header: its form, what it may hold, and that every size counts it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netserver.endpoints import UNIX, Address
from pop3.extras import host_name
from pop3.received import own_name, received_header
from tests.pop3.fakes import make_server, replies

TLS = SimpleNamespace(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")


def header(user: str, *, peer: Address, tls: Any = None, **more: Any) -> list[str]:
    """Return the lines of a header."""
    connection = SimpleNamespace(peer=peer, tls=tls, number=7)
    session: Any = SimpleNamespace(user=user, connection=connection)
    made = received_header(session, "mail.example.org", now=0.0, **more)
    assert made.endswith(b"\r\n")
    return made.decode("ascii").removesuffix("\r\n").split("\r\n")


def test_it_tells_client_protection_user_and_time() -> None:
    """From whom, by whom, with TLS, for whom, and when."""
    lines = header("anna@example.org", peer=Address("2001:db8::1", 5), tls=TLS)
    assert lines[0] == "Received: from mail.example.org"
    assert lines[1] == " by [IPv6:2001:db8::1] with POP3S (TLSv1.3 TLS_AES_256_GCM_SHA384)"
    assert lines[2] == " (authenticated as anna@example.org)"
    assert lines[3].startswith(" id ")
    assert "-7; Thu, 01 Jan 1970 " in lines[3] or "-7; Wed, 31 Dec 1969 " in lines[3]


def test_without_tls_or_address_or_password() -> None:
    """What is not so is not said."""
    lines = header("anna", peer=UNIX, authenticated=False)
    assert lines[1:3] == [" by localhost with POP3", " (for anybody as anna)"]


@pytest.mark.parametrize(
    "user", ["a) (x\r\nBcc: b", "\u202eanna", "(" * 255, "é" * 120, '"x"@[y]', "\\)", "a b"]
)
def test_no_name_can_break_out(user: str) -> None:
    """Whatever a name holds, there are four short lines and one comment on its own."""
    lines = header(user, peer=Address("192.0.2.1", 5), tls=TLS)
    assert len(lines) == 4
    assert max(map(len, lines)) <= 78
    assert lines[2].startswith(" (authenticated as ")
    assert lines[2].count("(") == lines[2].count(")") == 1
    assert "\\" not in lines[2]


@pytest.mark.parametrize("text", ["", "a b", "-a", "a\r\nb", "x" * 64, "a..b]", "[a b]", "é"])
def test_names_that_are_refused(text: str) -> None:
    """--received-from takes a domain or an address in brackets."""
    with pytest.raises(ValueError, match="host name"):
        host_name(text)


def test_names_that_are_taken() -> None:
    """A domain, an address, and whatever this machine is called."""
    for text in ("mail.example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]", own_name()):
        assert host_name(text) == text


MAIL = (b"Subject: a\r\n\r\nx", b".", b"", b"y" * 200_000 + b"\nend")


@pytest.mark.parametrize("known", [True, False])
def test_every_size_counts_it(tmp_path: Path, *, known: bool) -> None:
    """STAT, LIST and RETR agree, for messages of known and unknown sizes, short, long and empty."""
    server = make_server(tmp_path, MAIL, known=known, add_received=("joe",))
    for first in (b"STAT\r\nLIST\r\nRETR 4\r\n", b"RETR 4\r\nLIST 4\r\nSTAT\r\n"):
        out = replies(server, first + b"RETR 2\r\nTOP 3 0\r\n")
        begin = out.index(b"Received: ")
        added = len(out[begin : out.index(b"y" * 9)])
        long = added + 200_000 + 7
        total = (15 + 2) + 3 + (0 if known is False else 2) + 200_007 + 4 * added
        assert b"+OK %d octets\r\nReceived: from " % long in out
        assert b"+OK 4 %d\r\n" % total in out
        assert (b"\r\n4 %d\r\n" % long in out) or (b"+OK 4 %d\r\n" % long in out)
        assert b"+OK %d octets\r\nReceived: from " % (added + 3) in out
        assert b"\r\n..\r\n.\r\n" in out


def test_sizes_are_remembered_without_it(tmp_path: Path) -> None:
    """A size found in a session with the header is right in one without it."""
    with_it = make_server(tmp_path, MAIL, known=False, add_received=("joe",))
    assert b"+OK 1 17\r\n" not in replies(with_it, b"STAT\r\nRETR 4\r\nRETR 1\r\nLIST 1\r\n")
    without = make_server(tmp_path, MAIL, known=False)
    assert replies(without, b"LIST 1\r\n") == b"+OK 1 17\r\n"
    assert "read_message" not in without.store.calls


def test_others_get_their_mail_as_it_is(tmp_path: Path) -> None:
    """Nothing is added for whom it was not asked."""
    server = make_server(tmp_path, MAIL[:1], add_received=("jane",))
    assert replies(server, b"RETR 1\r\n") == b"+OK 17 octets\r\nSubject: a\r\n\r\nx\r\n.\r\n"
