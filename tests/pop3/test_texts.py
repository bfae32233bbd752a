"""Themes: what they may say, and how mistakes in them are told."""

from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.texts import THEMES, Replies, Texts, greeting, load
from tests.pop3.fakes import LOGIN, make_server, talk


def test_the_theme_plain_is_what_is_said_without_one() -> None:
    """The file to copy says what the code says."""
    assert load(str(THEMES / "plain.yaml"), None) == load("plain", None) == Texts()


def test_every_theme_we_ship_can_be_loaded() -> None:
    """By its name, and it differs from the plain one."""
    names = {path.stem for path in THEMES.glob("*.yaml")}
    assert names == {"plain", "mpopd"}
    assert load("mpopd", None) != Texts()


def test_names_are_filled_in_after_login_only(tmp_path: Path) -> None:
    """The user's name in login and quit; QUIT before login has its own text."""
    server = make_server(tmp_path, texts="mpopd")
    assert bytes(talk(server, LOGIN + b"QUIT\r\n").out).endswith(
        b"+OK thanks joe...\r\n+OK TTFN joe...\r\n"
    )
    assert bytes(talk(server, b"QUIT\r\n").out).endswith(b"here\r\n+OK TTFN\r\n")


def test_a_greeting_beside_a_theme(tmp_path: Path) -> None:
    """--greeting wins, may be empty, and APOP's timestamp follows it."""
    assert load("mpopd", "hello").greeting == "hello"
    assert Replies(load("plain", "")).greeting() == b"+OK\r\n"
    assert Replies(load("plain", "")).greeting("<1@x>") == b"+OK <1@x>\r\n"
    server = make_server(tmp_path, greeting="hello")
    assert bytes(talk(server, b"").out) == b"+OK hello\r\n"


def test_a_name_cannot_make_a_reply_of_its_own() -> None:
    """What cannot be sent becomes "?"; a reply stays one line, within the limit of RFC 2449."""
    made = Replies(Texts(login="hi {user}")).login("x\r\n-ERR é" + "y" * 600)
    assert made.startswith(b"+OK hi x??-ERR ?y")
    assert made.count(b"\r\n") == 1
    assert len(made) <= 512


@pytest.mark.parametrize("text", ["a\x00", "a\tb", "é", "x" * 201, "[AUTH] no", "<a@b>", "{user}"])
def test_greetings_that_are_refused(text: str) -> None:
    """Controls, other letters, too long, response codes, timestamps, and whom nobody knows yet."""
    with pytest.raises(ValueError):
        greeting(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("login: ok\nbad: x\n", "texts.yaml:2: bad: no such text"),
        ("quit: [a, b]\n", "texts.yaml:1: quit: one text"),
        ("user: hi {user}\n", "texts.yaml:1: user: {user} cannot"),
        ("login: '{user} is in'\n", "texts.yaml:1: login: a reply that begins"),
        ("login: 'a } b'\n", "texts.yaml:1: login: } cannot"),
        ("login: grüezi\n", "texts.yaml:1: login: only printable ASCII"),
        ("login: {a: b}\n", "texts.yaml:1: login: nested"),
        ("login: 'a\n", "texts.yaml:1: found unexpected end"),
    ],
)
def test_mistakes_in_a_file_have_their_line(tmp_path: Path, text: str, says: str) -> None:
    """One line with the option, the file, the line and the key."""
    file = tmp_path / "texts.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(file), None)
    assert says in str(caught.value)
    assert str(caught.value).startswith("--texts: ")
    assert "\n" not in str(caught.value)


def test_a_theme_that_is_not_there(tmp_path: Path) -> None:
    """The name or the file is told."""
    with pytest.raises(ConfigError, match=r"--texts nosuch: .*mpopd"):
        load("nosuch", None)
    with pytest.raises(ConfigError, match=r"--texts: .*none\.yaml: cannot be read"):
        load(str(tmp_path / "none.yaml"), None)
