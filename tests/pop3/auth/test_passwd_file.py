"""Users files: every mistake has its line, and a change is noticed without a restart."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netserver.errors import ConfigError
from pop3.auth import passwd_file
from pop3.auth.passwd_file import Entry, UsersFile, parse

SHA = "{SHA}B/PcQHeAKywePq/ztWiCWf9lImE="


def at_once(pool: str, function: Callable[..., Any], *args: object) -> object:
    """Run blocking work in place, as the serial personalities do."""
    assert pool in ("hash", "disk")
    return function(*args)


def test_parse_fields() -> None:
    """Fields after the hash are optional, comments and blank lines are not users."""
    users = parse(
        f"""# users
joe:{SHA}
ann@Example.com:{SHA}:1000:100:Ann Other:/home/ann:/bin/false:userdb_mail=maildir:/x

  \t
mid:{SHA}::
locked:!:5
none::
star:*
José:{SHA}:::::
""".encode(),
        "users",
    )
    assert users.table == {
        "joe": Entry(SHA, None, None, None),
        "ann@example.com": Entry(SHA, 1000, 100, "/home/ann"),
        "mid": Entry(SHA, None, None, None),
        "locked": Entry(None, 5, None, None),
        "none": Entry(None, None, None, None),
        "star": Entry(None, None, None, None),
        "José": Entry(SHA, None, None, None),
    }
    assert users.dummy.startswith("{SHA}")
    assert not users.has_plain


def test_parse_files_of_other_systems() -> None:
    """A byte order mark and CRLF line ends do no harm."""
    users = parse(f"\ufeffjoe:{SHA}\r\n\r\nann:{SHA}:1:2::/home/ann\r\n".encode(), "users")
    assert users.table["joe"].hash_text == SHA
    assert users.table["ann"].home == "/home/ann"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("joe", "not user:hash"),
        (f":{SHA}", "bad user name"),
        (f"a/b:{SHA}", "bad user name"),
        (f".a:{SHA}", "bad user name"),
        (f"joe~view:{SHA}", "bad user name"),
        (f" joe:{SHA}", "bad user name"),
        (f"{'x' * 256}:{SHA}", "bad user name"),
        (f"joe@b..c:{SHA}", "bad user name"),
        (f"first:{SHA}", "duplicate user 'first'"),
        (f"joe@first:{SHA}\njoe@FIRST:{SHA}", "duplicate user 'joe@first'"),
        ("joe:{NOSUCH}correct-horse", "unknown scheme {NOSUCH}"),
        ("joe:{SHA}correct-horse", "broken {SHA} hash"),
        ("joe:correct-horse", "broken {CRYPT} hash; `openssl passwd -6` makes one"),
        ("joe:x:1000:1000::/home/joe:/bin/sh", "broken {CRYPT} hash"),
        (f"joe:{SHA}:x", "bad uid"),
        (f"joe:{SHA}:-1", "bad uid"),
        (f"joe:{SHA}:4294967295", "bad uid"),
        (f"joe:{SHA}:\u0661", "bad uid"),
        (f"joe:{SHA}:1:1_0", "bad gid"),
        (f"joe:{SHA}:1:1::home", "home is not"),
    ],
)
def test_parse_mistake_names_its_line(line: str, what: str) -> None:
    """A mistake is one line with file and number, and never shows a hash."""
    text = f"first:{SHA}\n\n{line}\nlast:{SHA}\n"
    number = 3 + line.count("\n")
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), "/etc/users")
    assert str(caught.value).startswith(f"/etc/users:{number}: ")
    assert what in str(caught.value)
    assert "correct" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parse_not_utf8_names_its_line() -> None:
    """Octets that are no UTF-8 are found with their line."""
    with pytest.raises(ConfigError, match=r"^users:2: not UTF-8$"):
        parse(f"a:{SHA}\nb\xff:x\n".encode("latin-1"), "users")


@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.lists(
                st.one_of(st.sampled_from(["joe", SHA, "!", "1", "/x", ""]), st.text(max_size=9)),
                max_size=9,
            ).map(":".join)
        ).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")),
    )
)
def test_parse_raises_only_config_errors(data: bytes) -> None:
    """Whatever the file holds, it is a table or a ConfigError of one line."""
    users, message = None, "users:"
    try:
        users = parse(data, "users")
    except ConfigError as error:
        message = str(error)
    assert users is None or all(isinstance(entry, Entry) for entry in users.table.values())
    assert message.startswith("users:")
    assert "\n" not in message


class Clock:
    """A time that moves when told."""

    now = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Make a clock."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a users file that has not changed for long."""
    path = tmp_path / "users"
    write(path, f"joe:{SHA}\n")
    return path


def write(path: Path, text: str, age: float = 60.0) -> None:
    """Replace the file by one last changed some seconds ago."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    now = new.stat().st_mtime
    os.utime(new, (now - age, now - age))
    new.rename(path)


@pytest.fixture
def warnings() -> list[str]:
    """Collect warnings."""
    return []


@pytest.fixture
def users_file(path: Path, warnings: list[str], clock: Clock) -> UsersFile:
    """Load that file."""
    users_file = UsersFile(str(path), warnings.append, clock)
    users_file.load()
    return users_file


def test_change_is_seen_after_a_second(
    users_file: UsersFile, path: Path, clock: Clock, warnings: list[str]
) -> None:
    """A new file is in force at the first look after a second; nothing is read in between."""
    assert list(users_file.users(at_once).table) == ["joe"]
    write(path, f"ann:{SHA}\n")
    clock.now += 0.9
    assert list(users_file.users(at_once).table) == ["joe"]
    clock.now += 0.2
    assert list(users_file.users(at_once).table) == ["ann"]
    assert warnings == []


def test_unchanged_file_is_not_read_again(
    users_file: UsersFile, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a file that is the same parses nothing, nor does a second load."""
    monkeypatch.setattr(passwd_file, "parse", None)
    clock.now += 5
    assert list(users_file.users(at_once).table) == ["joe"]
    users_file.load()


def test_file_changed_within_its_clocks_tick_is_read_again(
    path: Path, clock: Clock, warnings: list[str]
) -> None:
    """A file written just before it was read may change unseen; it is read once more."""
    write(path, f"joe:{SHA}\n", age=0)
    users_file = UsersFile(str(path), warnings.append, clock)
    users_file.load()
    assert users_file._seen is None
    clock.now += 5
    assert list(users_file.users(at_once).table) == ["joe"]


@pytest.mark.parametrize("broken", ["joe:nonsense\n", "delete", "fifo"])
def test_broken_file_keeps_the_old_users(
    users_file: UsersFile, path: Path, clock: Clock, warnings: list[str], broken: str
) -> None:
    """A file that broke leaves the old users in force and is complained of once."""
    if broken == "delete":
        path.unlink()
    elif broken == "fifo":
        path.unlink()
        os.mkfifo(path)
    else:
        write(path, broken)
    for _ in range(3):
        clock.now += 2
        assert list(users_file.users(at_once).table) == ["joe"]
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert "going on with the users read before" in warnings[0]
    path.unlink(missing_ok=True)
    write(path, f"ann:{SHA}\n")
    clock.now += 2
    assert list(users_file.users(at_once).table) == ["ann"]
    assert len(warnings) == 1


def test_only_one_looks_at_a_time(users_file: UsersFile, path: Path, clock: Clock) -> None:
    """While one login waits for the disk, others go on with the old users."""
    write(path, f"ann:{SHA}\n")
    clock.now += 2
    seen: list[str] = []

    def slow(pool: str, function: Callable[..., Any], *args: object) -> object:
        clock.now += 2
        seen.extend(users_file.users(fail).table)
        return function(*args)

    def fail(*_args: object) -> NoReturn:
        raise AssertionError("a second look")

    assert list(users_file.users(slow).table) == ["ann"]
    assert seen == ["joe"]


def test_a_look_that_was_cut_short_is_made_again(
    users_file: UsersFile, path: Path, clock: Clock
) -> None:
    """If waiting ends by an error, the next login looks again."""
    write(path, f"ann:{SHA}\n")
    clock.now += 2

    def cut(*_args: object) -> NoReturn:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        users_file.users(cut)
    clock.now += 2
    assert list(users_file.users(at_once).table) == ["ann"]


def test_load_errors(tmp_path: Path, warnings: list[str]) -> None:
    """A missing file, a directory and a pipe are ConfigErrors that name the path."""
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", "fifo", "."):
        path = str(tmp_path / name)
        with pytest.raises(ConfigError) as caught:
            UsersFile(path, warnings.append).load()
        assert str(caught.value).startswith(path + ": ")


@pytest.mark.parametrize(
    ("mode", "text", "expected"),
    [
        (0o600, "joe:{PLAIN}x\n", []),
        (0o640, "joe:{PLAIN}x\n", []),
        (0o644, f"joe:{SHA}\n", []),
        (0o644, "joe:{PLAIN}x\n", ["unhashed"]),
        (0o660, f"joe:{SHA}\n", ["can write"]),
        (0o666, "joe:{PLAIN}x\n", ["can write", "unhashed"]),
    ],
)
def test_load_warns_of_loose_rights(
    path: Path, warnings: list[str], mode: int, text: str, expected: list[str]
) -> None:
    """Files others can write, or read unhashed passwords from, are loaded with a warning."""
    write(path, text)
    path.chmod(mode)
    UsersFile(str(path), warnings.append).load()
    assert len(warnings) == len(expected)
    assert all(part in warning for part, warning in zip(expected, warnings, strict=True))


def test_many_users_are_one_table() -> None:
    """A hundred thousand users are read and found by name."""
    lines = (f"user{n}@example.com:{SHA}:1000:1000::/home/{n}\n" for n in range(100_000))
    users = parse("".join(lines).encode(), "users")
    assert len(users.table) == 100_000
    assert users.table["user99999@example.com"].home == "/home/99999"
