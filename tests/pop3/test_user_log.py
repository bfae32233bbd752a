"""Logs of single users: nothing a client typed can get into them but verbs and numbers."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netserver.errors import ConfigError
from pop3.commands import VERBS
from pop3.extras import _seen_from, user_level, user_name
from pop3.user_log import file_name, line_of, safe_command
from tests.pop3.fakes import make_server, replies


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"retr 1", "RETR 1"),
        (b"TOP 1 20", "TOP 1 20"),
        (b"NOOP", "NOOP"),
        (b"PASS secret", "PASS ?"),
        (b"PASS 1234 5678x", "PASS ?"),
        (b"AUTH PLAIN AGFubmEAc2VjcmV0", "AUTH ?"),
        (b"APOP anna 0123456789abcdef0123456789abcdef", "APOP ?"),
        (b"secret", "?"),
        (b"RETR secret", "RETR ?"),
        (b"RETR 12345678901", "RETR ?"),
        (b"", "?"),
    ],
)
def test_what_is_shown_of_a_command(line: bytes, shown: str) -> None:
    """A known verb and numbers."""
    assert safe_command(line, VERBS) == shown


def test_a_password_of_digits_is_not_shown() -> None:
    """Not even numbers follow a verb that takes a secret."""
    assert safe_command(b"PASS 1234", VERBS) == "PASS ?"
    assert safe_command(b"USER 1234", VERBS) == "USER ?"


@given(st.binary(max_size=60))
def test_nothing_else_is_ever_shown(line: bytes) -> None:
    """For any line: "?", or a verb of ours with "?" or numbers."""
    verb, _, argument = safe_command(line, VERBS).partition(" ")
    assert verb == "?" or verb.encode() in VERBS
    assert argument in ("", "?") or argument.replace(" ", "").isdigit()


@given(st.text(max_size=80))
def test_file_names_are_plain(user: str) -> None:
    """No slash, no NUL, no leading dot, within 255 octets, whatever the name."""
    name = file_name(user)
    assert "/" not in name
    assert "\0" not in name
    assert name[0] != "." or not user
    assert len(os.fsencode(name)) <= 255


def test_two_users_never_share_a_file() -> None:
    """Names that look alike in a file system stay apart."""
    names = ["a/b", "a%2Fb", "../a", "..%2Fa", "A", "a", "é", "e\u0301", "x" * 250, "x" * 251]
    assert len({file_name(name) for name in names}) == len(names)


def test_both_forms_of_a_line_are_one_line() -> None:
    """A line end in a value is written as an escape."""
    fields = {"timestamp": "t", "session": "s", "event": "e", "x": "a\r\nb", "y": 'q"', "z": 1}
    text = line_of(fields, "text")
    assert text == b't s e x="a\\r\\nb" y="q\\"" z=1\n'
    assert json.loads(line_of(fields, "json")) == fields
    assert line_of(fields, "json").count(b"\n") == 1


@pytest.mark.parametrize("text", ["anna", "=full", "anna=", "anna=loud", "", "=", "a\x00=full"])
def test_levels_that_are_refused(text: str) -> None:
    """--user-log takes USER=brief or USER=full."""
    with pytest.raises(ValueError):
        user_level(text)


def test_users_are_named_as_they_log_in() -> None:
    """The normal form of a name: its domain in lower case."""
    assert user_level("anna@Example.ORG=full") == "anna@example.org=full"
    assert user_level("a=b=brief") == "a=b=brief"
    assert user_name("*") == "*"


def test_a_log_of_ones_own_wins_over_that_of_all(tmp_path: Path) -> None:
    """The star is for those who are not named."""
    server = make_server(tmp_path, user_log=("*=full", "joe=brief"), user_log_dir=f"{tmp_path}/l")
    replies(server, b"NOOP\r\nQUIT\r\n")
    text = (tmp_path / "l" / "joe.log").read_text()
    assert "connect" in text
    assert "command" not in text


def test_a_log_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    """The session goes on; the server's log has one warning."""
    server = make_server(tmp_path, user_log=("joe=full",), user_log_dir=f"{tmp_path}/l")
    os.mkfifo(tmp_path / "l" / "joe.log")
    assert replies(server, b"NOOP\r\nNOOP\r\nQUIT\r\n") == b"+OK\r\n+OK\r\n+OK bye\r\n"


def test_the_directory_lies_inside_a_chroot() -> None:
    """Its name changes there; one outside of it is refused."""
    assert _seen_from("/jail", Path("/jail/var/logs")) == Path("/var/logs")
    assert _seen_from(None, Path("/var/logs")) == Path("/var/logs")
    with pytest.raises(ConfigError, match=r"--user-log-dir: /var/logs does not lie inside"):
        _seen_from("/jail", Path("/var/logs"))
