"""Starting: users' mistakes are one line and an exit code, what is right starts quietly."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.maildirs import PLAIN, make_maildir, with_crlf
from tests.support.processes import wait_until
from tests.support.servers import ROOT, environment, run_program, write_users


def refused(home: Path, *options: str, code: int = 2, env: dict[str, str] | None = None) -> str:
    """Run pop3-server, assert one line on stderr and the exit code, return the line."""
    done = run_program("pop3-server", "--no-default-config", *options, home=home, env=env)
    lines = done.stderr.splitlines()
    assert done.returncode == code, (done.returncode, done.stderr)
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def usual(home: Path) -> list[str]:
    """Return options with which the server would start."""
    users = write_users(home / "users", {"anna": "secret"})
    (home / "mail").mkdir(exist_ok=True)
    return [
        "--auth",
        f"passwd-file:{users}",
        "--maildir",
        f"{home}/mail/{{user}}",
        "--state",
        f"sqlite:///{home}/state.db",
        "--listen",
        "127.0.0.1:0",
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--personality", "threads"),
        ("--source", "no-such-source"),
        ("--source", "no_such_module:Class"),
        ("--listen", "127.0.0.1"),
        ("--listen", "127.0.0.1:70000"),
        ("--listen", "nonsense://x"),
        ("--workers", "many"),
        ("--workers", "-1"),
        ("--timeout", "soon"),
        ("--login-timeout", "-5"),
        ("--plaintext-auth", "sometimes"),
        ("--auth", "no-such-backend:x"),
        ("--auth", "passwd-file:/no/such/file"),
        ("--allow", "300.1.2.3/8"),
        ("--delete", "perhaps"),
        ("--log-level", "loud"),
        ("--tls-cert", "/no/such/cert.pem"),
        ("--config", "/no/such/config.yaml"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_option(
    tmp_path: Path, option: str, value: str
) -> None:
    """Exit 2, and the one line names the option."""
    line = refused(tmp_path, *usual(tmp_path), option, value)
    assert option.removeprefix("--") in line


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    """Exit 2 for a flag that does not exist; no abbreviations."""
    assert "--no-such-flag" in refused(tmp_path, *usual(tmp_path), "--no-such-flag")
    assert "--person" in refused(tmp_path, *usual(tmp_path), "--person", "single")


def test_without_auth_it_does_not_start(tmp_path: Path) -> None:
    """No way to log in is a mistake, not an open door."""
    assert "auth" in refused(tmp_path, "--maildir", f"{tmp_path}/{{user}}")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.yaml", "timeout: 700\nno-such-key: 1\n", 2),
        ("a.toml", "timeout = 700\nno-such-key = 1\n", 2),
        ("a.ini", "timeout = 700\nno-such-key = 1\n", 2),
        ("b.yaml", "timeout: 700\nworkers: [\n", 3),
        ("b.toml", "timeout = 700\nworkers = = 2\n", 2),
        ("c.yaml", "timeout: 700\n\nworkers: many\n", 3),
        ("c.toml", 'timeout = 700\n\nworkers = "many"\n', 3),
    ],
)
def test_a_mistake_in_a_config_file_is_found(
    tmp_path: Path, name: str, text: str, line: int
) -> None:
    """The line tells file and line number of what is wrong."""
    path = tmp_path / name
    path.write_text(text)
    told = refused(tmp_path, *usual(tmp_path), "--config", str(path))
    assert str(path) in told
    assert f":{line}" in told or f"line {line}" in told


@pytest.mark.parametrize(
    "text", ["anna:{PLAIN}x\nno colon here\n", "anna:{PLAIN}x\nbert:{NOSUCH}y\n"]
)
def test_a_mistake_in_the_users_file_is_found(tmp_path: Path, text: str) -> None:
    """File and line of a bad account are told, its password is not."""
    options = usual(tmp_path)
    (tmp_path / "users").write_text(text)
    told = refused(tmp_path, *options)
    assert f"{tmp_path}/users" in told
    assert ":2" in told or "line 2" in told
    assert "{PLAIN}x" not in told


def test_check_config(tmp_path: Path) -> None:
    """--check-config starts nothing, exits 0 or 2."""
    options = usual(tmp_path)
    done = run_program(
        "pop3-server", "--no-default-config", *options, "--check-config", home=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    refused(tmp_path, *options, "--check-config", "--workers", "many")
    assert not (tmp_path / "state.db").exists()


@pytest.mark.parametrize("suffix", ["yaml"])
def test_print_config_can_be_loaded_again(tmp_path: Path, suffix: str) -> None:
    """What --print-config prints is a config file with the same meaning."""
    options = [*usual(tmp_path), "--timeout", "777", "--workers", "3"]
    env = {"POP3_LOCK_WAIT": "7"}
    first = run_program(
        "pop3-server", "--no-default-config", *options, "--print-config", home=tmp_path, env=env
    )
    assert first.returncode == 0, first.stderr
    path = tmp_path / f"printed.{suffix}"
    path.write_text(first.stdout)
    again = run_program(
        "pop3-server", "--no-default-config", "--config", str(path), "--print-config", home=tmp_path
    )
    assert again.returncode == 0, again.stderr
    assert values(again.stdout) == values(first.stdout)
    assert "777" in first.stdout


def values(printed: str) -> list[str]:
    """Return the printed lines without the comments that tell the origin."""
    lines = (line.partition("#")[0].strip() for line in printed.splitlines())
    return sorted(line for line in lines if line)


def test_the_default_timer_is_ten_minutes(tmp_path: Path) -> None:
    """RFC 1939 section 3 (row 17 of the faults): at least ten minutes unless told otherwise."""
    done = run_program(
        "pop3-server", "--no-default-config", *usual(tmp_path), "--print-config", home=tmp_path
    )
    timers = [line for line in values(done.stdout) if line.startswith("timeout")]
    assert len(timers) == 1
    assert "600" in timers[0]


def test_options_come_from_the_environment_and_flags_win(tmp_path: Path) -> None:
    """Flags beat environment beats file beats default."""
    path = tmp_path / "c.yaml"
    path.write_text("timeout: 701\nlogin-timeout: 71\nlock-wait: 9\n")
    options = [*usual(tmp_path), "--config", str(path), "--timeout", "703"]
    env = {"POP3_TIMEOUT": "702", "POP3_LOGIN_TIMEOUT": "72"}
    done = run_program(
        "pop3-server", "--no-default-config", *options, "--print-config", home=tmp_path, env=env
    )
    printed = "\n".join(values(done.stdout))
    for text in ("703", "72", "9"):
        assert text in printed
    for text in ("701", "702", "71\n"):
        assert text not in printed


def test_a_port_in_use_is_exit_1(tmp_path: Path) -> None:
    """One line that names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tmp_path, *usual(tmp_path), "--listen", f"127.0.0.1:{port}", code=1)
    assert str(port) in line


def test_a_second_master_on_the_pid_file_is_exit_1(start: Start, tmp_path: Path) -> None:
    """The pid file holds the first master's pid and keeps a second one out."""
    pid_file = tmp_path / "server.pid"
    server = start(personality="prefork", options=("--pid-file", str(pid_file)))
    assert int(pid_file.read_text().split()[0]) == server.pid
    other = tmp_path / "other"
    other.mkdir()
    line = refused(other, *usual(other), "--pid-file", str(pid_file), code=1)
    assert str(pid_file) in line
    assert int(pid_file.read_text().split()[0]) == server.pid
    with server.connect() as wire:
        wire.quit()


def test_a_stale_pid_file_is_taken_over(start: Start, tmp_path: Path) -> None:
    """The pid file of a dead master keeps nobody out."""
    pid_file = tmp_path / "a.pid"
    pid_file.write_text("999999999\n")
    server = start(personality="single", options=("--pid-file", str(pid_file)))
    assert int(pid_file.read_text().split()[0]) == server.pid


def test_a_pid_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A symbolic link in place of the pid file is refused or replaced, its target untouched."""
    target, link = tmp_path / "target", tmp_path / "b.pid"
    target.write_text("keep me")
    link.symlink_to(target)
    addresses = tmp_path / "addresses"
    options = [*usual(tmp_path), "--no-default-config", "--personality", "single"]
    options += ["--pid-file", str(link), "--address-file", str(addresses)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "bin/pop3-server"), *options],
        env=environment(tmp_path),
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: addresses.exists() or process.poll() is not None, 20, "start or refusal")
    finally:
        process.terminate()
        process.wait(15)
    assert target.read_text() == "keep me"


def test_the_address_file_names_each_listener_in_order(start: Start, tmp_path: Path) -> None:
    """TCP and UNIX sockets, one a line, in the order of --listen."""
    path = tmp_path / "pop3.sock"
    server = start(personality="gevent", listen=("127.0.0.1:0", f"unix:{path}", "127.0.0.1:0"))
    assert len(server.addresses) == 3
    assert server.addresses[1] == f"unix:{path}"
    assert server.addresses[0] != server.addresses[2]
    for number in (0, 2):
        with server.connect(number=number) as wire:
            wire.quit()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        assert client.recv(3) == b"+OK"


BLOCKER = '''
import os, sys

class Hidden:
    """Finder that hides what only Unix has."""
    names = {"fcntl", "pwd", "grp", "resource"}

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

for name in Hidden.names:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
for name in ("fork", "getuid", "geteuid", "setuid", "setgid", "setgroups", "getgid", "chroot"):
    if hasattr(os, name):
        delattr(os, name)
'''


def test_single_serves_where_unix_modules_are_missing(start: Start, tmp_path: Path) -> None:
    """Without fcntl, pwd, grp, resource and os.fork the single personality still works."""
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(BLOCKER)
    env = {"PYTHONPATH": f"{hide}{os.pathsep}{ROOT}"}
    probe = subprocess.run(
        [sys.executable, "-c", "import os, pwd"],
        env=environment(tmp_path, env),
        check=False,
        capture_output=True,
    )
    assert b"ModuleNotFoundError" in probe.stderr
    server = start(personality="single", env=env)
    make_maildir(server.maildir(), [PLAIN])
    with server.session() as wire:
        assert wire.message(b"RETR 1") == with_crlf(PLAIN)
        wire.ok(b"DELE 1")
        wire.quit()
    assert not list((server.maildir() / "new").iterdir())


def test_fork_is_refused_where_it_cannot_work(tmp_path: Path) -> None:
    """A personality that needs os.fork says so; a list falls back."""
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(BLOCKER)
    env = {"PYTHONPATH": f"{hide}{os.pathsep}{ROOT}"}
    assert "personality" in refused(tmp_path, *usual(tmp_path), "--personality", "fork", env=env)
    done = run_program(
        "pop3-server",
        "--no-default-config",
        *usual(tmp_path),
        "--personality",
        "prefork,fork,single",
        "--check-config",
        home=tmp_path,
        env=env,
    )
    assert done.returncode == 0, done.stderr
