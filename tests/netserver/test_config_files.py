"""Config files: what is read from each format, and the line that every mistake names."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netserver import config_files
from netserver.config_files import MAX_OCTETS, Entry
from netserver.errors import ConfigError


def read(path: Path, text: str | bytes) -> list[Entry]:
    """Write a file and read it as a server does."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with config_files.open_config(str(path)) as stream:
        return config_files.read(stream, str(path))


def shape(entries: list[Entry]) -> list[tuple[str, object, int]]:
    """Leave the file name out, which is the same for all."""
    return [(entry.key, entry.value, entry.line) for entry in entries]


YAML = """\
# a comment
timeout: 700
listen:
  - 127.0.0.1:110   # where
  - "*:110"

reverse-lookup: off
port: 0110
time: 1:30
empty:
quoted: ""
user: ~
text: |
  two
  lines
last: [a, 'b']
"""


def test_yaml_is_read_as_the_text_that_was_written(tmp_path: Path) -> None:
    """No scalar becomes a boolean, a number or a time on the way."""
    assert shape(read(tmp_path / "a.yaml", YAML)) == [
        ("timeout", "700", 2),
        ("listen", ["127.0.0.1:110", "*:110"], 3),
        ("reverse-lookup", "off", 7),
        ("port", "0110", 8),
        ("time", "1:30", 9),
        ("empty", None, 10),
        ("quoted", "", 11),
        ("user", None, 12),
        ("text", "two\nlines\n", 13),
        ("last", ["a", "b"], 16),
    ]


TOML = '''\
# a = 1
timeout = 700
"lock_wait" = 0.5

listen = [  # [ "'
  "127.0.0.1:110", # ]
  'tls://x"',
]
background = true
text = """
a = 1 \\""" ]
"""
raw = \'\'\'
[b]
c = 'd'\'\'\'
hex = 0x10
when = 2026-01-02
'''


def test_toml_keys_have_their_lines(tmp_path: Path) -> None:
    """Lists, comments and strings over many lines do not shift the count."""
    assert shape(read(tmp_path / "a.toml", TOML)) == [
        ("timeout", "700", 2),
        ("lock_wait", "0.5", 3),
        ("listen", ["127.0.0.1:110", 'tls://x"'], 5),
        ("background", "true", 9),
        ("text", 'a = 1 """ ]\n', 10),
        ("raw", "[b]\nc = 'd'", 13),
        ("hex", "16", 16),
        ("when", "2026-01-02", 17),
    ]


INI = """\
; a comment
[pop3-server]
timeout = 700   ; ten minutes and more
listen = 127.0.0.1:110
listen: tls://*:995
color=a#b
quoted = " # kept "  # not kept
empty =

[more]
listen = [::1]:110
"""


def test_ini_repeats_make_lists_and_sections_do_not_matter(tmp_path: Path) -> None:
    """The line of a list is that of its last value."""
    assert shape(read(tmp_path / "a.ini", INI)) == [
        ("timeout", "700", 3),
        ("listen", ["127.0.0.1:110", "tls://*:995", "[::1]:110"], 11),
        ("color", "a#b", 6),
        ("quoted", " # kept ", 7),
        ("empty", None, 8),
    ]


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.toml", "a.ini"])
def test_an_empty_file_says_nothing(tmp_path: Path, name: str) -> None:
    """Nothing but a byte order mark and comments is a valid file."""
    assert read(tmp_path / name, b"\xef\xbb\xbf# nothing\n\n") == []


@pytest.mark.parametrize(
    ("name", "text", "line", "problem"),
    [
        ("a.yaml", "a: 1\n\tb: 2\n", 2, "tab"),
        ("a.yaml", "a:\n\tb: 2\n", 2, "tab"),
        ("a.yaml", "a: 1\nlisten: *:110\n", 2, '"*" needs quotes'),
        ("a.yaml", "a: 1\nlisten: [::1]:110\n", 2, "needs quotes"),
        ("a.yaml", "a: 1\n\nb: {c: 2}\n", 3, "b: nested"),
        ("a.yaml", "a: 1\nb:\n  c: 2\n", 3, "b: nested"),
        ("a.yaml", "a: 1\nb: [[c]]\n", 2, "b: a list inside a list"),
        ("a.yaml", "a: 1\nlock_wait: 1\nlock-wait: 2\n", 3, "given twice (first in line 2)"),
        ("a.yaml", "a: 'x\n\n\nb: 1\n", 1, "quotes"),
        ("a.yaml", "a: 1\nb: !!binary aGk=\n", 2, "b: YAML tags"),
        ("a.yaml", "a: &x 1\nb: *x\n", 1, "aliases"),
        ("a.yaml", "just words\n", 1, "key: value"),
        ("a.yaml", "- a\n- b\n", 1, "key: value"),
        ("a.yaml", "a: 1\n---\nb: 2\n", 2, "one YAML document"),
        ("a.yaml", "a: 1\n[b, c]: 2\n", 2, "a key"),
        ("a.yaml", "a: 1\nb: \x07\n", 2, "control character"),
        ("a.yaml", 'a: 1\nb: "\\0"\n', 2, "b: contains a NUL"),
        ("a.toml", "a = 1\nb = \n", 2, "nvalid"),
        ("a.toml", "a = 1\nb = [\n", 3, ""),
        ("a.toml", "a = 1\na = 2\n", 2, "given twice"),
        ("a.toml", "lock-wait = 1\n\nlock_wait = 2\n", 3, "given twice (first in line 1)"),
        ("a.toml", "a = 1\n\n[b]\nc = 1\n", 3, "[b]: tables"),
        ("a.toml", "a = 1\nb.c = 1\n", 2, "b: nested"),
        ("a.toml", "a = 1\nb = {c = 1}\n", 2, "b: nested"),
        ("a.toml", "a = [\n1]\nb = [{c = 1}]\n", 3, "b: a list"),
        ("a.toml", 'a = 1\nb = "\\u0000"\n', 2, "b: contains a NUL"),
        ("a.ini", "a = 1\nb\n", 2, "key = value"),
        ("a.ini", "a = 1\n= 2\n", 2, "key = value"),
        ("a.ini", "a = 1\n[b\n", 2, "section"),
        ("a.ini", "a = 1\nb = \0\n", 2, "b: contains a NUL"),
    ],
)
def test_a_mistake_names_file_and_line(
    tmp_path: Path, name: str, text: str, line: int, problem: str
) -> None:
    """The one line begins with file and line and says what is wrong."""
    path = tmp_path / name
    with pytest.raises(ConfigError) as caught:
        read(path, text)
    told = str(caught.value)
    assert told.startswith(f"{path}:{line}: ")
    assert problem in told.removeprefix(str(path))
    assert "\n" not in told


@pytest.mark.parametrize("name", ["a.yaml", "a.toml", "a.ini"])
def test_what_is_not_utf_8_names_its_line(tmp_path: Path, name: str) -> None:
    """Latin-1 left over in a file is found."""
    with pytest.raises(ConfigError, match=r":2: not UTF-8 text"):
        read(tmp_path / name, b"\nuser = J\xfcrgen\n")


@pytest.mark.parametrize("name", ["a.yaml", "a.toml"])
def test_deep_nesting_is_refused(tmp_path: Path, name: str) -> None:
    """Brackets without end are one line and no traceback."""
    opener = b"a = " if name == "a.toml" else b"a: "
    with pytest.raises(ConfigError, match="nested too deeply"):
        read(tmp_path / name, opener + b"[" * 20000 + b"]" * 20000)


def test_a_file_has_a_largest_size(tmp_path: Path) -> None:
    """One octet over the limit is refused, the limit itself is not."""
    fill = b"#" * (MAX_OCTETS - 1) + b"\n"
    assert read(tmp_path / "a.ini", fill) == []
    with pytest.raises(ConfigError, match="larger than"):
        read(tmp_path / "a.ini", fill + b"\n")


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """Missing files, directories and FIFOs, the last without waiting for a writer."""
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "dir.yaml").mkdir()
    for name in ("missing.yaml", "dir.yaml", "fifo.yaml"):
        with pytest.raises(ConfigError, match=f"{name}: cannot be read: "):
            config_files.open_config(str(tmp_path / name))


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    """The format is never guessed from the contents."""
    with pytest.raises(ConfigError, match=r"must end in \.yaml"):
        read(tmp_path / "a.conf", "a: 1\n")


SYNTAX = st.text(alphabet="ab1:=[]{}\"'#;\\\n\t -*&!|>,.", max_size=60)


@given(text=SYNTAX | st.text(max_size=60), name=st.sampled_from(["a.yaml", "a.toml", "a.ini"]))
def test_any_text_is_entries_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    """Whatever stands in a file, no other exception and no second line comes out."""
    directory = tmp_path_factory.getbasetemp()
    told = None
    entries: list[Entry] = []
    try:
        entries = read(directory / name, text.encode("utf-8", "replace"))
    except ConfigError as error:
        told = str(error)
    assert told is None or "\n" not in told
    assert all(entry.key and 1 <= entry.line <= text.count("\n") + 1 for entry in entries)
