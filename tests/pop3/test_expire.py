"""What --expire takes, and what it asks of a session; see tests/e2e/test_expire.py for the rest."""

from pathlib import Path

import pytest

from pop3.errors import TemporaryFailure
from pop3.expire import days
from tests.pop3.fakes import make_server, replies

MAIL = [b"Subject: 1\r\n\r\none\r\n", b"Subject: 2\r\n\r\ntwo\r\n"]


def test_days() -> None:
    """A number or never."""
    assert days("never") is None
    assert [days(text) for text in ("0", "30")] == [0, 30]
    for bad in ("", "-1", "1.5", "soon", "99999", "²"):
        with pytest.raises(ValueError):
            days(bad)


def test_what_dele_marked_goes_with_what_is_due(tmp_path: Path) -> None:
    """At one QUIT, each once; RSET takes only the marks of DELE back."""
    server = make_server(tmp_path, MAIL, expire=0)
    replies(server, b"RETR 1\r\nDELE 1\r\nRSET\r\nRETR 2\r\nDELE 2\r\nQUIT\r\n")
    assert server.store.mail["joe"] == []
    assert server.store.calls.count("delete_messages") == 1


def test_a_state_that_is_broken_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QUIT is answered all the same, and what DELE marked goes."""
    server = make_server(tmp_path, MAIL, expire=7)
    assert server.expiry is not None

    def broken(_: object) -> None:
        raise TemporaryFailure("no state")

    monkeypatch.setattr(server.expiry._fetched, "since", broken)
    assert replies(server, b"RETR 1\r\nDELE 2\r\nQUIT\r\n").endswith(b"+OK bye\r\n")
    assert [mail.uid for mail in server.store.mail["joe"]] == ["u1"]


def test_a_client_that_is_gone_loses_nothing(tmp_path: Path) -> None:
    """RETR without QUIT is not noted."""
    server = make_server(tmp_path, MAIL, expire=0)
    replies(server, b"RETR 1\r\n")
    assert len(server.store.mail["joe"]) == 2
