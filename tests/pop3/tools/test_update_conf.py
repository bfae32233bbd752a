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
from tests.support.logins import SHA512

ROOT = Path(__file__).parents[3]
FILES = ROOT / "tests/data/mail-pop3"
OLD = """\
$port = 1110;
$timeout = 600;
$mail_spool_dir = '@/spool';
$auth_type = 6;
$userlist = '@/userlist';
$user_auth{'ben'} = 6;
$use_pam = 0;
$reject_bogus_user = 1;
$greeting = 'Mail of example.org';
$addreceived{'anna'} = 1;
$receivedfrom = 'mail.example.org';
%user_log = ('anna', 2, 'ben', 1);
$user_log_dir = '@/logs';
%user_debug = ('carl', 1);
$message_start = '^BEGIN';
$message_end = '^END';
$allow_non_fqdn = 0;
1;
"""


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of bin/ to its end."""
    return subprocess.run(
        [sys.executable, ROOT / "bin" / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def complaints(text: str) -> list[str]:
    """Return what a server says, but for its warning about a place without a certificate."""
    known = "no password is taken from other machines"
    return [line for line in text.splitlines() if known not in line]


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
    assert (checked.returncode, complaints(checked.stderr)) == (0, [])


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
        "greeting": "Mail for Anna's friends",
        "source": "mbox",
        "mbox": "/var/spool/mail/{user}",
        "lock-wait": 5,
        "trusted-file": "/etc/mpopd_trusted",
        "access-file": "/etc/mpopd_allow_deny",
        "user-log": ["anna=full", "ben=brief"],
        "reverse-lookup": "off",
        "log-level": "debug",
        "log-file": "/var/log/mpopd.log",
    }
    report = capsys.readouterr().err
    left = re.findall(rf"^{re.escape(old)}:(\d+): not converted: (\w+): .", report, re.MULTILINE)
    assert left == [("20", "user_check"), ("25", "mailbox_args")]
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
        "message_start => '^Sub(ject'",
        "message_start => '.*'",
        "message_end => '^Subject'",
        "message_start => '^From ', message_end => '^end'",
        "greeting => '<a@b>'",
        "greeting => ['a']",
        "addreceived => { '' => 1 }",
        "addreceived => 1",
        "user_log => { anna => 3 }",
        "user_log => [1]",
        "receivedfrom => 'my host'",
        "auth_type => 3",
        "auth_type => 6",
        "auth_type => 7",
        "auth_type => 8",
        "auth_type => 1, use_pam => 1, mpopd_pam_service => '../x'",
        "auth_type => 4, host_mail_path => 'vmail'",
        "auth_type => 4, host_mail_path => '/v{x}'",
        "user_auth => { '*' => 1 }",
        "user_auth => { 'a=b' => 1 }",
        "user_auth => { anna => 4 }",
        "use_pam => 1",
        "host_mail_path => '/vmail'",
        '"a\\nb" => 1',
    ],
)
def test_a_value_that_does_not_suit_is_named(pair: str) -> None:
    """It is left to a hand and never written as an option."""
    data = read(f"{{ {pair} }}".encode())
    key = "message_end" if "message_end" in data.items else next(iter(data.items))
    one = convert(key, data.items[key], data)
    assert one.by_hand
    assert one.options == ()
    assert yaml.safe_load(update_conf.document("old", [one], data)) is None


@pytest.mark.parametrize(
    ("pairs", "made"),
    [
        ("greeting => 'hello'", {"greeting": "hello"}),
        ("reject_bogus_user => 1", {"reject-bogus-user": True}),
        ("reject_bogus_user => 0, user_debug => {}, addreceived => { a => 0 }, user_log => {}", {}),
        ("addreceived => { anna => 1, ben => 0, carl => 1 }", {"add-received": ["anna", "carl"]}),
        ("receivedfrom => 'mail.example.org'", {"received-from": "mail.example.org"}),
        (
            "user_log => { 'Anna@Example.org' => 2, ben => 1, c => 0 }, user_log_dir => '/l'",
            {"user-log": ["Anna@Example.org=full", "ben=brief"], "user-log-dir": "/l"},
        ),
        ("user_debug => { anna => 1 }", {"user-debug": ["anna"]}),
        ("mailgroup => 'mail'", {"mailgroup": "mail"}),
        ("mailgroup => 'mail', use_maildir => 1", {"source": "maildir"}),
        (
            "message_start => '^BEGIN [0-9]', message_end => '^END$'",
            {"mbox-format": "custom", "message-start": "^BEGIN [0-9]", "message-end": "^END$"},
        ),
        ("retry_on_lock => 4, allow_non_fqdn => 0", {"lock-wait": 4, "reverse-lookup": "double"}),
        ("auth_type => 1, use_pam => 0, mpopd_pam_service => 'x'", {"auth": ["kind-1"]}),
        (
            "auth_type => 1, use_pam => 1, mpopd_pam_service => 'pop'",
            {"auth": ["kind-1:?pam=pop"]},
        ),
        ("auth_type => 6, userlist => '/etc/users'", {"auth": ["kind-6:/etc/users"]}),
        (
            "auth_type => 1, user_auth => { anna => 6, ben => 1 }, userlist => '/etc/users'",
            {"auth": ["kind-1"], "auth-for": ["anna=kind-6:/etc/users", "ben=kind-1"]},
        ),
        ("fork_alert => '/x', passsecret => 1, md5_no_pam => 1, shadow => 1", {}),
    ],
)
def test_keys_become_options(pairs: str, made: dict[str, object]) -> None:
    """By the exact names, and nothing is left to a hand."""
    data = read(f"{{ {pairs} }}".encode())
    results = [convert(key, item, data) for key, item in data.items.items()]
    assert [one.key for one in results if one.by_hand] == []
    assert (yaml.safe_load(update_conf.document("old", results, data)) or {}) == made


@pytest.mark.parametrize("kind", "2345")
def test_lists_of_virtual_domains(kind: str) -> None:
    """They become a pattern; only where the mail is must be said by hand."""
    pam = "use_pam => 1," if kind in "23" else ""
    data = read(
        f"{{ auth_type => {kind}, host_mail_path => '/v/', userlist => 'ul', {pam} }}".encode()
    )
    results = [convert(key, item, data) for key, item in data.items.items()]
    assert [one.key for one in results if one.by_hand] == ["host_mail_path"]
    query = "?pam=mpopd" if pam else ""
    made = yaml.safe_load(update_conf.document("old", results, data))
    assert made == {"auth": [f"kind-{kind}:/v/{{initial}}/{{domain}}/ul{query}"]}


def test_what_single_users_had_is_taken_over(tmp_path: Path) -> None:
    """With nothing added, a server takes the file and serves by it."""
    (tmp_path / "userlist").write_text(f"anna:{SHA512}:\n")
    (tmp_path / "spool").mkdir()
    old, new = tmp_path / "old.conf", tmp_path / "new.yaml"
    old.write_text(OLD.replace("@", str(tmp_path)))
    done = run("pop3-update-conf", old, "-o", new)
    assert (done.returncode, done.stderr) == (0, "")
    state = ("--state", f"sqlite:///{tmp_path}/state")
    checked = run("pop3-server", "-c", new, "--no-default-config", *state, "--check-config")
    assert (checked.returncode, complaints(checked.stderr)) == (0, [])
    shown = run("pop3-server", "-c", new, "--no-default-config", *state, "--print-config")
    for line in (
        "add-received: [anna]",
        "user-log: [anna=full, ben=brief]",
        "user-debug: [carl]",
        f"auth: ['kind-6:{tmp_path}/userlist']",
        "reject-bogus-user: true",
    ):
        assert line.replace("'", "") in shown.stdout.replace("'", "").replace('"', ""), line


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
