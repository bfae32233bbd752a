"""The verbs before login, and where a password may be sent."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from tests.pop3.fakes import (
    LOGIN,
    REMOTE,
    FakeConnection,
    POP3Memory,
    make_server,
    talk,
)

PLAIN = b"Subject: s\n\nbody\n"


@pytest.fixture
def server(tmp_path: Path) -> POP3Memory:
    """Return a server with one message for joe."""
    return make_server(tmp_path, [PLAIN])


# -- before login --------------------------------------------------------------------------------


def test_quit_before_login(server: POP3Memory) -> None:
    """It is answered, and nothing was opened."""
    assert talk(server, b"QUIT\r\n").out == b"+OK POP3 ready\r\n+OK bye\r\n"
    assert server.store.calls == []


@pytest.mark.parametrize(
    "verb", [b"STAT", b"LIST", b"RETR 1", b"DELE 1", b"NOOP", b"RSET", b"TOP 1 1", b"UIDL"]
)
def test_commands_of_the_other_state(server: POP3Memory, verb: bytes) -> None:
    """Nothing of a maildrop before login."""
    assert talk(server, verb + b"\r\n").out == b"+OK POP3 ready\r\n-ERR not in this state\r\n"


def test_three_bad_commands_end_it(server: POP3Memory) -> None:
    """A stranger gets three; a login behind them is not looked at."""
    connection = talk(server, b"BAD\r\n\r\nSTAT\r\n" + LOGIN)
    assert connection.out.endswith(
        b"-ERR unknown command\r\n-ERR unknown command\r\n-ERR too many errors\r\n"
    )
    assert server.store.calls == []


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/1.1", b"POST /x HTTP/1.1", b"OPTIONS * HTTP/1.0", b"connect a:1"]
)
def test_http_is_turned_away_at_once(server: POP3Memory, line: bytes) -> None:
    """No browser can be made to log in here."""
    connection = talk(server, line + b"\r\n" + LOGIN)
    assert connection.out == b"+OK POP3 ready\r\n-ERR this is a POP3 server\r\n"


def test_user_says_nothing_about_users(server: POP3Memory) -> None:
    """The reply is the same for any name, even one that can be none."""
    for name in (b"joe", b"nobody", b"../x", b"\xff\xfe", b"a" * 240):
        assert talk(server, b"USER " + name + b"\r\n").out == b"+OK POP3 ready\r\n+OK\r\n"


def test_pass_needs_user(server: POP3Memory) -> None:
    """PASS alone, or a second PASS, is a mistake."""
    out = talk(server, b"PASS secret\r\nUSER joe\r\nPASS no\r\nPASS secret\r\n").out
    assert [line[:10] for line in out.split(b"\r\n")[1:5]] == [
        b"-ERR USER ", b"+OK", b"-ERR [AUTH", b"-ERR USER ",
    ]  # fmt: skip


def test_passwords_keep_their_blanks(tmp_path: Path) -> None:
    """All after the first blank is the password."""
    users = tmp_path / "blanks"
    users.write_text("joe:{PLAIN} two  words \n")
    users.chmod(0o600)
    server = make_server(tmp_path, auth=(f"passwd-file:{users}",))
    assert talk(server, b"USER joe\r\nPASS  two  words \r\n").out.endswith(b"+OK logged in\r\n")
    for wrong in (b"two  words ", b" two  words", b" two"):
        out = talk(server, b"USER joe\r\nPASS " + wrong + b"\r\n").out
        assert out.endswith(b"-ERR [AUTH] authentication failed\r\n")


def test_one_text_for_every_failed_login(server: POP3Memory) -> None:
    """Wrong password, unknown user, impossible name: nothing to learn from, nothing echoed."""
    for name in (b"joe", b"nobody", b"../joe", b"\xff"):
        out = talk(server, b"USER " + name + b"\r\nPASS hunter2\r\n").out
        assert out == b"+OK POP3 ready\r\n+OK\r\n-ERR [AUTH] authentication failed\r\n"


def test_three_failed_logins_end_it(server: POP3Memory) -> None:
    """The third is answered and the connection closed."""
    connection = talk(server, b"USER joe\r\nPASS no\r\n" * 5)
    assert connection.out.count(b"-ERR [AUTH] authentication failed\r\n") == 3
    assert connection.log.fields("session")["reason"] == "too many failed logins"


def plain(text: bytes) -> bytes:
    """Return a response of SASL PLAIN."""
    return base64.b64encode(text)


def test_auth_plain(server: POP3Memory) -> None:
    """With and without an initial response (RFC 5034)."""
    right = plain(b"\0joe\0secret")
    assert talk(server, b"AUTH PLAIN " + right + b"\r\n").out.endswith(b"+OK logged in\r\n")
    out = talk(server, b"auth plain\r\n" + right + b"\r\n").out
    assert out == b"+OK POP3 ready\r\n+ \r\n+OK logged in\r\n"


def test_auth_login(server: POP3Memory) -> None:
    """Two questions."""
    said = b"AUTH LOGIN\r\n%b\r\n%b\r\n" % (plain(b"joe"), plain(b"secret"))
    lines = talk(server, said).out.split(b"\r\n")
    assert [base64.b64decode(line[2:]) for line in lines[1:3]] == [b"Username:", b"Password:"]
    assert lines[3] == b"+OK logged in"


@pytest.mark.parametrize(
    "said",
    [
        b"AUTH PLAIN\r\n*\r\n",
        b"AUTH PLAIN =\r\n",
        b"AUTH PLAIN !!!\r\n",
        b"AUTH PLAIN " + plain(b"\0joe\0wrong") + b"\r\n",
        b"AUTH PLAIN " + plain(b"\0joe\0secret") + b"!\r\n",
        b"AUTH PLAIN " + plain(b"jane\0joe\0secret") + b"\r\n",
        b"AUTH PLAIN \r\n",
        b"AUTH PLAIN\r\n" + b"A" * 9000 + b"\r\n",
        b"AUTH CRAM-MD5\r\n",
        b"AUTH \r\n",
        b"AUTH LOGIN\r\n%b\r\n*\r\n" % plain(b"joe"),
    ],
)
def test_auth_that_fails_is_one_error(server: POP3Memory, said: bytes) -> None:
    """One -ERR, then the session goes on as if nothing was said."""
    out = talk(server, said + LOGIN).out
    assert len(re.findall(rb"(?m)^-ERR ", out)) == 1
    assert out.endswith(b"+OK\r\n+OK logged in\r\n")


def test_auth_alone_lists_mechanisms(server: POP3Memory) -> None:
    """Old clients probe so."""
    assert talk(server, b"AUTH\r\n").out == (
        b"+OK POP3 ready\r\n+OK\r\nSCRAM-SHA-256\r\nSCRAM-SHA-1\r\nPLAIN\r\nLOGIN\r\n.\r\n"
    )


def test_a_long_initial_response_is_read(server: POP3Memory) -> None:
    """Clients put tokens longer than 255 octets into the AUTH line; other lines stay short."""
    said = b"AUTH PLAIN " + plain(b"\0joe\0" + b"x" * 500) + b"\r\n"
    assert talk(server, said).out.endswith(b"-ERR [AUTH] authentication failed\r\n")
    assert talk(server, b"USER " + b"x" * 400 + b"\r\n").out.endswith(b"-ERR line too long\r\n")


def test_utf8_before_login(server: POP3Memory) -> None:
    """RFC 6856 §2: taken before login, not after; STLS must come before it."""
    out = talk(server, b"UTF8\r\nSTLS\r\n" + LOGIN + b"UTF8\r\n").out
    assert [line[:4] for line in out.split(b"\r\n")] == [
        b"+OK ", b"+OK ", b"-ERR", b"+OK", b"+OK ", b"-ERR", b"",
    ]  # fmt: skip


# -- passwords in clear, TLS ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "peer", "allowed"),
    [
        ("loopback", None, True),
        ("loopback", REMOTE, False),
        ("tls", None, False),
        ("never", None, False),
        ("always", REMOTE, True),
    ],
)
def test_where_a_password_may_be_sent(
    tmp_path: Path, policy: str, peer: Any, allowed: bool
) -> None:
    """USER and PASS are refused before the password is looked at, and CAPA does not offer them."""
    server = make_server(tmp_path, [PLAIN], plaintext_auth=policy)
    arguments = {"peer": peer} if peer else {}
    out = talk(server, b"CAPA\r\nAUTH\r\n" + LOGIN + b"AUTH PLAIN\r\n", **arguments).out
    assert (b"\r\nUSER\r\n" in out) == allowed
    assert (b" PLAIN LOGIN\r\n" in out) == allowed
    assert b"\r\nSASL SCRAM-SHA-256 SCRAM-SHA-1" in out
    assert (b"\r\nPLAIN\r\n" in out) == allowed
    assert (b"+OK logged in" in out) == allowed
    if not allowed:
        assert out.endswith(b"-ERR TLS required first\r\n" * 3)


def test_a_listener_can_have_its_own_policy(tmp_path: Path) -> None:
    """The option of the listener wins."""
    server = make_server(tmp_path, plaintext_auth="tls")
    options = {"plaintext-auth": "always"}
    assert talk(server, LOGIN, peer=REMOTE, options=options).out.endswith(b"+OK logged in\r\n")


def test_stls_without_certificate(server: POP3Memory) -> None:
    """There is nothing to start."""
    assert talk(server, b"STLS\r\n").out.endswith(b"-ERR TLS is not available\r\n")


def test_stls_forgets_what_was_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A2.20: neither the name nor pipelined commands cross the handshake."""
    server = make_server(tmp_path, [PLAIN], plaintext_auth="loopback")
    monkeypatch.setattr(type(server), "tls_context", lambda *_: object(), raising=False)
    connection = FakeConnection(b"CAPA\r\nUSER joe\r\nSTLS\r\nPASS secret\r\nSTAT\r\n")
    connection.tls_said = b"PASS secret\r\nCAPA\r\nSTLS\r\n" + LOGIN
    server.process_request(connection)  # type: ignore[arg-type]
    clear, _, inside = bytes(connection.out).partition(b"+OK begin TLS now\r\n")
    assert b"\r\nSTLS\r\n" in clear
    assert inside.startswith(b"-ERR USER first\r\n")
    assert b"\r\nSTLS\r\n" not in inside
    assert b"-ERR TLS is active already\r\n" in inside
    assert inside.endswith(b"+OK logged in\r\n")
    assert connection.log.fields("session")["tls"] == "TLSv1.3"
