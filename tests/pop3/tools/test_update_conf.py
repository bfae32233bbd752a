"""pop3-update-conf writes what the server takes, and names all else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3.tools import update_conf
from pop3.tools.old_keys import RULES, convert
from pop3.tools.perl_data import PerlDataError, read

ROOT = Path(__file__).parents[3]
FILES = ROOT / "tests/data/mail-pop3"


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of bin/ to its end."""
    return subprocess.run(
        [sys.executable, ROOT / "bin" / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(("name", "status"), [("v3", 1), ("v2", 1), ("scrape", 1), ("plain", 0)])
def test_the_server_takes_the_new_file(name: str, status: int, tmp_path: Path) -> None:
    """With a users file added it passes --check-config."""
    new = tmp_path / "new.yaml"
    done = run("pop3-update-conf", FILES / f"{name}.conf", "-o", new)
    assert done.returncode == status, done.stderr
    for named in ("/etc/mpopd_trusted", "/etc/mpopd_allow_deny"):
        (tmp_path / Path(named).name).write_text("127.0.0.1\n" if "tru" in named else "ALLOW ALL\n")
        new.write_text(new.read_text().replace(named, f"{tmp_path}/{Path(named).name}"))
    users = tmp_path / "users"
    users.write_text("anna:{PLAIN}x\n")
    users.chmod(0o600)
    state = f"sqlite:///{tmp_path}/state"
    check = ("--no-default-config", "--auth", f"passwd-file:{users}", "--state", state)
    checked = run("pop3-server", "-c", new, *check, "--check-config")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_values_and_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each key becomes its option; the report and the file name the rest with their lines."""
    new = tmp_path / "new.yaml"
    old = str(FILES / "v3.conf")
    assert update_conf.main([old, "-o", str(new)]) == 1
    text = new.read_text()
    assert yaml.safe_load(text) == {
        "listen": ["*:1110"],
        "max-servers": 10,
        "timeout": 700,
        "pid-file": "/run/mpopd.pid",
        "source": "mbox",
        "mbox": "/var/spool/mail/{user}",
        "lock-wait": 5,
        "trusted-file": "/etc/mpopd_trusted",
        "access-file": "/etc/mpopd_allow_deny",
        "reverse-lookup": "off",
        "log-level": "debug",
        "log-file": "/var/log/mpopd.log",
    }
    report = capsys.readouterr().err
    left = re.findall(rf"^{re.escape(old)}:(\d+): not converted: (\w+): .", report, re.MULTILINE)
    assert left == [
        ("8", "greeting"),
        ("18", "user_log"),
        ("20", "user_check"),
        ("25", "mailbox_args"),
    ]
    assert text.count("\n# not converted: ") == len(left)


def test_an_existing_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only --force writes over a file, and leaves nothing beside it."""
    new = tmp_path / "new.yaml"
    new.write_text("timeout: 1\n")
    old = str(FILES / "plain.conf")
    assert update_conf.main([old, "-o", str(new)]) == 1
    assert capsys.readouterr().err == f"{new}: is there already; --force writes over it\n"
    assert new.read_text() == "timeout: 1\n"
    assert update_conf.main([old, "-o", str(new), "--force"]) == 0
    assert "lock-wait: 2\n" in new.read_text()
    assert os.listdir(tmp_path) == ["new.yaml"]


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Without -o the new file is printed, and the report does not mix with it."""
    assert update_conf.main([str(FILES / "plain.conf")]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["source"] == "maildir"


def test_unreadable_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no old configuration ends with 2 and says where."""
    bad = tmp_path / "bad.conf"
    bad.write_text("{\n a => 'x\n}")
    assert update_conf.main([str(bad)]) == 2
    assert capsys.readouterr().err.startswith(f"{bad}:2: ")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path / "none", tmp_path, pipe, "a\0b"):
        assert update_conf.main([str(path)]) == 2
        assert re.fullmatch(r"[^\n]*: cannot be read: [^\n]+\n", capsys.readouterr().err)


def test_nothing_is_evaluated(tmp_path: Path) -> None:
    """Code in the old file has no effect."""
    trap = tmp_path / "trap"
    old = tmp_path / "old.conf"
    old.write_text(f"BEGIN {{ system('touch {trap}') }}\n$port = `touch {trap}`;\n$debug = 1;\n")
    done = run("pop3-update-conf", old)
    assert done.returncode == 1
    assert f"{old}:2: not converted: port: code in line 2" in done.stderr
    assert not trap.exists()


@pytest.mark.parametrize(
    "pair",
    [
        "port => 70000",
        "port => [1]",
        "timeout => 'soon'",
        "mail_spool_dir => 'mail'",
        "mail_spool_dir => '/a/{b'",
        'debug_log => "/a\\nauth: any"',
        "mailbox_class => 'My::Folder'",
        "message_start => '^Subject'",
        "auth_type => 3",
        '"a\\nb" => 1',
    ],
)
def test_a_value_that_does_not_suit_is_named(pair: str) -> None:
    """It is left to a hand and never written as an option."""
    data = read(f"{{ {pair} }}".encode())
    [(key, item)] = data.items.items()
    one = convert(key, item, data)
    assert one.by_hand
    assert one.options == ()
    assert yaml.safe_load(update_conf.document("old", [one], data)) is None


def test_two_keys_for_one_option() -> None:
    """The first one is written; the file never has a key twice."""
    data = read(
        b'{ message_start => "\\\\001\\\\001\\\\001\\\\001", message_end => "^\\\\x01{4}" }'
    )
    made = [convert(key, item, data) for key, item in data.items.items()]
    text = update_conf.document("old", made, data)
    assert text.count("\nmbox-format: mmdf\n") == 1


@settings(deadline=None)
@given(st.sampled_from(sorted(RULES)), st.text(max_size=30) | st.integers().map(str))
def test_no_value_breaks_the_file(key: str, value: str) -> None:
    """Whatever a key holds, the new file is YAML with known options or the old one is refused."""
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    try:
        data = read(f"{{ '{key}' => '{quoted}' }}".encode())
    except PerlDataError:
        return
    made = [convert(name, item, data) for name, item in data.items.items()]
    loaded = yaml.safe_load(update_conf.document("old", made, data)) or {}
    assert set(loaded) == {option for one in made for option, _ in one.options}


def test_every_key_is_documented() -> None:
    """from-mail-pop3.md has a row for each key that is known."""
    text = (ROOT / "share/doc/from-mail-pop3.md").read_text()
    named = set(re.findall(r"`([a-z0-9_]+)`", "".join(re.findall(r"(?m)^\| ([^|]*) \|", text))))
    assert set(RULES) <= named
