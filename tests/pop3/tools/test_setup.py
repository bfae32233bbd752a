"""pop3-setup writes what a server starts on, and never over anything unasked."""

import os
import pty
import re
import select
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pop3.tools import setup
from tests.netserver.certs import make_certificate
from tests.support.maildirs import PLAIN, make_maildir
from tests.support.servers import ROOT, environment, run_program

FILES = ["access", "server.yaml", "trusted", "users"]


def arguments(home: Path, *more: str) -> list[str]:
    """Return flags that keep all of it below a directory."""
    (home / "password").write_text("a long word\n")
    return [
        *("--yes", "--dir", f"{home}/etc", "--unit", f"{home}/pop3-server.service"),
        *("--state", f"{home}/state", "--mail", f"{home}/mail/{{user}}"),
        *("--password-file", f"{home}/password", *more),
    ]


def test_a_server_starts_on_it(tmp_path: Path) -> None:
    """It passes --check-config as it is, and the first user can log in."""
    done = run_program("pop3-setup", *arguments(tmp_path), home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(tmp_path / "etc")) == FILES
    assert "a long word" not in done.stdout
    [command] = re.findall(r"^  pop3-server (.*) --check-config$", done.stdout, re.MULTILINE)
    checked = run_program("pop3-server", *command.split(), "--check-config", home=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    config = f"{tmp_path}/etc/server.yaml"
    program = [sys.executable, str(ROOT / "bin/pop3-server"), "--no-default-config", "-c", config]
    addresses = tmp_path / "addresses"
    own = ["--listen", "127.0.0.1:0", "--address-file", str(addresses), "--personality", "single"]
    make_maildir(tmp_path / "mail/anna", [PLAIN])
    with subprocess.Popen(
        [*program, *own, "--log-file", str(tmp_path / "log")],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
    ) as server:
        try:
            end = time.monotonic() + 20
            while not addresses.exists():
                assert time.monotonic() < end
                assert server.poll() is None
                time.sleep(0.02)
            host, _, port = addresses.read_text().strip().rpartition(":")
            talk = ("--user", "anna", "--password-file", str(tmp_path / "password"))
            heard = run_program("pop3-try", "talk", host, port, *talk, home=tmp_path)
        finally:
            server.terminate()
    assert heard.returncode == 0, heard.stdout
    assert "+OK 1 " in heard.stdout


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --force nothing changes; with it each old file is kept, one name for each time."""
    assert setup.main(arguments(tmp_path)) == 0
    config = tmp_path / "etc/server.yaml"
    config.write_text("timeout: 1\n")
    (tmp_path / "etc/access").unlink()
    before = sorted(os.listdir(tmp_path / "etc"))
    capsys.readouterr()
    assert setup.main(arguments(tmp_path)) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "server.yaml" in told
    assert "--force" in told
    assert sorted(os.listdir(tmp_path / "etc")) == before
    assert setup.main(arguments(tmp_path, "--force")) == 0
    assert (tmp_path / "etc/server.yaml.old-1").read_text() == "timeout: 1\n"
    assert setup.main(arguments(tmp_path, "--force")) == 0
    assert (tmp_path / "etc/server.yaml.old-2").read_text() == config.read_text()
    assert (tmp_path / "etc/server.yaml.old-1").read_text() == "timeout: 1\n"
    assert not list(tmp_path.rglob("*.new"))


def test_paths_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate named from here is found from anywhere; a unit takes a path with blanks."""
    monkeypatch.chdir(tmp_path)
    certificate, key = make_certificate(tmp_path)
    flags = arguments(tmp_path, "--tls-cert", certificate.name, "--tls-key", key.name)
    assert setup.main([*flags, "--dir", "odd 100% dir", "--state", "odd state"]) == 0
    config = (tmp_path / "odd 100% dir/server.yaml").read_text()
    assert f'tls-cert: ["{certificate}"]' in config
    assert f'tls-key: ["{key}"]' in config
    unit = (tmp_path / "pop3-server.service").read_text()
    assert f'--config "{tmp_path}/odd 100%% dir/server.yaml" --log-file' in unit
    assert f'ReadWritePaths="-{tmp_path}/odd state"\n' in unit


def test_the_users_file_is_private(tmp_path: Path) -> None:
    """The password is there as a hash, and only its owner can read the file."""
    assert setup.main(arguments(tmp_path, "--login", "anna@example.org")) == 0
    users = tmp_path / "etc/users"
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    assert "a long word" not in users.read_text()
    assert "\nanna@example.org:{ARGON2ID}$argon2id$" in users.read_text()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_who_serves_can_read_it(tmp_path: Path) -> None:
    """The users file and the mail are theirs who serve."""
    assert setup.main(arguments(tmp_path, "--user", "nobody")) == 0
    found = (tmp_path / "etc/users").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o640, 0)
    assert found.st_gid == (tmp_path / "mail").stat().st_gid != 0
    assert 'user: "nobody"\n' in (tmp_path / "etc/server.yaml").read_text()


def test_a_password_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without one it is printed, once, and another each time."""
    made = set()
    for number in range(2):
        home = tmp_path / str(number)
        home.mkdir()
        flags = [*arguments(home)[:-2], "--source", "mbox", "--unit", "none"]
        assert setup.main(flags) == 0
        found = re.search(
            r"^The password of anna is (\S{16})$", capsys.readouterr().out, re.MULTILINE
        )
        assert found
        made.add(found[1])
    assert len(made) == 2
    assert 'mbox: "' in (home / "etc/server.yaml").read_text()


@pytest.mark.parametrize(
    ("flags", "status", "told"),
    [
        (["--mail", "relative/{user}"], 2, "--mail relative"),
        (["--mail", "/srv/{nobody}"], 2, "--mail: "),
        (["--mail", "~/Maildir"], 2, "--mail: "),
        (["--listen", "here"], 2, "here"),
        (["--tls-cert", "/nowhere.pem"], 2, "--tls-cert /nowhere.pem: no such file"),
        (["--tls-key", "/nowhere.pem"], 2, "--tls-key: needs --tls-cert"),
        (["--user", "no such"], 2, "useradd --system 'no such'"),
        (["--login", "a:b"], 2, "--login a:b"),
        (["--login", "../x"], 2, "--login ../x"),
        (["--password-file", "/nowhere"], 2, "--password-file /nowhere: No such file"),
        (["--dir", "/dev/null/x"], 1, "/dev/null"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    flags: list[str],
    status: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each names its flag, and nothing is written."""
    assert setup.main(arguments(tmp_path, *flags)) == status
    error = capsys.readouterr().err
    assert error.startswith("pop3-setup: ")
    assert error.count("\n") == 1
    assert told in error
    assert not (tmp_path / "etc").exists()


def test_without_a_terminal_it_does_not_wait(tmp_path: Path) -> None:
    """It asks for --yes instead."""
    done = run_program("pop3-setup", "--dir", str(tmp_path / "etc"), home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--yes" in done.stderr


def read_within(terminal: int, seconds: float) -> bytes:
    """Return what comes, b"" at the end (which Linux tells by an error)."""
    assert select.select([terminal], [], [], seconds)[0], "no question"
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def test_it_asks(tmp_path: Path) -> None:
    """At a terminal: defaults in brackets, wrong words asked again, a password without echo."""
    typed = ["maildrop", "maildir", "*:110", "", "", "ben", "short"]
    typed += ["long enough", "another one", "long enough", "long enough"]
    near, far = pty.openpty()
    command = [sys.executable, str(ROOT / "bin/pop3-setup"), "--dir", f"{tmp_path}/etc"]
    command += ["--unit", "none", "--mail", f"{tmp_path}/mail/{{user}}"]
    asking = subprocess.Popen(
        command,
        stdin=far,
        stdout=far,
        stderr=far,
        env=environment(tmp_path),
        start_new_session=True,
    )
    os.close(far)
    shown = b""
    try:
        for line in typed:
            # what is typed ahead is dropped when the echo goes: wait for each question
            while not re.search(rb"\? (\[.*\] )?$", shown):
                shown += read_within(near, 20)
            os.write(near, line.encode() + b"\n")
            shown += b"|"
        while octets := read_within(near, 20):
            shown += octets
        asking.wait(20)
    finally:
        asking.kill()
        asking.wait()
        os.close(near)
    shown = shown.replace(b"\r\n", b"\n")
    assert asking.returncode == 0, shown
    assert b"Listen on (HOST:PORT, * for all addresses)? [127.0.0.1:1110] " in shown
    assert b"One of: maildir, mbox\n" in shown
    assert b"At least 8 characters.\n" in shown
    assert b"They are not the same.\n" in shown
    assert b"long enough" not in shown
    assert 'listen: ["*:110"]' in (tmp_path / "etc/server.yaml").read_text()
    assert "\nben:{ARGON2ID}" in (tmp_path / "etc/users").read_text()


def test_the_unit(tmp_path: Path) -> None:
    """It has our command, and systemd finds no fault in it."""
    done = run_program("pop3-setup", *arguments(tmp_path), home=tmp_path)
    assert done.returncode == 0
    unit = tmp_path / "pop3-server.service"
    text = unit.read_text()
    command = f"{ROOT}/bin/pop3-server --no-default-config --config {tmp_path}/etc/server.yaml"
    assert f"\nExecStart={command} --log-file journald\n" in text
    assert f"\nReadWritePaths=-{tmp_path}/state\n" in text
    for line in ("Type=notify", "NoNewPrivileges=yes", "ProtectSystem=full", "UMask=0077"):
        assert f"\n{line}\n" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit.write_text(text.replace("Documentation=man:pop3-server(1)\n", ""))  # no man page here
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_tls(tmp_path: Path) -> None:
    """A certificate of one's own is in the configuration, and the server takes it."""
    certificate, key = make_certificate(tmp_path)
    flags = arguments(tmp_path, "--tls-cert", str(certificate), "--tls-key", str(key))
    assert setup.main(flags) == 0
    done = run_program(
        "pop3-server",
        *("--no-default-config", "-c", f"{tmp_path}/etc/server.yaml", "--check-config"),
        home=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
