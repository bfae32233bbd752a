"""CAPA says what is true (RFC 2449)."""

import re
from pathlib import Path

import pytest

from pop3.capabilities import capa_reply
from tests.pop3.fakes import LOGIN, REMOTE, make_server, talk


def lines_of(
    *,
    logged_in: bool = False,
    plaintext: bool = True,
    stls: bool = False,
    mechanisms: tuple[bytes, ...] = (b"PLAIN", b"LOGIN"),
) -> list[bytes]:
    """Return the capabilities for one situation."""
    reply = capa_reply(
        logged_in=logged_in,
        plaintext=plaintext,
        stls=stls,
        mechanisms=mechanisms,
        release="1.2",
    )
    first, *lines, dot, end = reply.split(b"\r\n")
    assert first.startswith(b"+OK")
    assert (dot, end) == (b".", b"")
    return lines


def test_before_login() -> None:
    """A2.3, A2.21: clients that look first find TOP, UIDL and the codes we really send."""
    lines = lines_of()
    for capability in (
        b"TOP", b"UIDL", b"USER", b"SASL PLAIN LOGIN", b"RESP-CODES", b"AUTH-RESP-CODE",
        b"PIPELINING", b"UTF8 USER", b"LANG", b"EXPIRE NEVER",
    ):  # fmt: skip
        assert capability in lines
    assert not any(line.startswith((b"IMPLEMENTATION", b"STLS")) for line in lines)


def test_what_depends_on_the_situation() -> None:
    """Logins only where a password may be sent, STLS only where it can start, names after login."""
    refused = lines_of(plaintext=False, stls=True, mechanisms=())
    assert b"STLS" in refused
    assert not any(line.startswith((b"USER", b"SASL")) for line in refused)
    assert b"SASL SCRAM-SHA-1" in lines_of(plaintext=False, mechanisms=(b"SCRAM-SHA-1",))
    assert b"IMPLEMENTATION pop3-server-1.2" in lines_of(logged_in=True)


def test_no_mechanism_no_sasl(tmp_path: Path) -> None:
    """With --sasl none the list is not there, USER is."""
    out = talk(make_server(tmp_path, sasl="none"), b"CAPA\r\nAUTH PLAIN\r\n").out
    assert b"\r\nUSER\r\n" in out
    assert b"SASL" not in out
    assert out.endswith(b"-ERR no such mechanism\r\n")


def test_stls_is_offered_only_before_it_and_before_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with it, a client from elsewhere is offered no password."""
    server = make_server(tmp_path)
    monkeypatch.setattr(type(server), "tls_context", lambda *_: object(), raising=False)
    offered = talk(server, b"CAPA\r\n", peer=REMOTE).out
    assert b"\r\nSTLS\r\n" in offered
    assert b"\r\nUSER\r\n" not in offered
    after_login = talk(server, LOGIN + b"CAPA\r\n").out
    assert b"\r\nSTLS\r\n" not in after_login
    assert re.search(rb"\r\nIMPLEMENTATION pop3-server-[ -~]+\r\n", after_login)
