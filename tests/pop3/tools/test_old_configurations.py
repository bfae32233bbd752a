"""Each kind of configuration that Mail::POP3 had converts, and a server starts on the result."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.maildirs import PLAIN, make_maildir
from tests.support.processes import wait_until
from tests.support.servers import ROOT, environment, run_program, write_users
from tests.support.wire import Wire

FILES = ROOT / "tests/data/mail-pop3"
ENVELOPE = b"From a@example.org Thu Jan  1 00:00:00 1970\n"


def converted(name: str, home: Path) -> Path:
    """Convert a configuration whose files are below `home`; return the new one."""
    (home / "mail").mkdir()
    (home / "trusted").write_text("127.0.0.1\n")
    (home / "access").write_text("ALLOW 127.0.0.1\nDENY ALL\n")
    old = home / f"{name}.conf"
    old.write_text((FILES / old.name).read_text().replace("@/", f"{home}/"))
    new = home / "new.yaml"
    done = run_program("pop3-update-conf", str(old), "-o", str(new), home=home)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    return new


def server_on(new: Path, home: Path) -> list[str]:
    """Return the arguments of a server on it: what the report says must be added."""
    users = write_users(home / "users", {"anna": "secret"})
    arguments = ["--no-default-config", "-c", str(new), "--state", f"sqlite:///{home}/state/db"]
    if "source: webscrape" in new.read_text():
        return [*arguments, "--auth", "any"]
    return [*arguments, "--auth", f"passwd-file:{users}"]


@contextmanager
def serving(arguments: list[str], home: Path, *own: str) -> Iterator[tuple[str, int]]:
    """Run a server with these arguments on a free port; yields where it is."""
    addresses = home / "addresses"
    place = ("--listen", "127.0.0.1:0", "--address-file", str(addresses), *own)
    command = [sys.executable, str(ROOT / "bin/pop3-server"), *arguments, *place]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env=environment(home), cwd=home
    ) as server:
        try:
            wait_until(lambda: addresses.exists() or server.poll() is not None, 20, "start")
            host, _, port = addresses.read_text().strip().rpartition(":")
            yield host, int(port)
        finally:
            server.terminate()
    assert server.returncode == 0


@pytest.mark.parametrize("name", ["mpopd", "getpass", "second", "jobserve", "mpopd-v2"])
def test_it_starts(name: str, tmp_path: Path) -> None:
    """With `auth` added, nothing is left that a server would refuse, and it greets."""
    arguments = server_on(converted(name, tmp_path), tmp_path)
    with serving(arguments, tmp_path) as (host, port), Wire(host, port) as wire:
        wire.quit()
    done = run_program("pop3-server", *arguments, "--check-config", home=tmp_path)
    assert done.returncode == 0, done.stderr
    # 120 seconds are told, and kept; so is a place for all the world without a certificate
    told = ("RFC 1939", "no password is taken from other machines")
    assert [line for line in done.stderr.splitlines() if not any(t in line for t in told)] == []


@pytest.mark.parametrize(("name", "source"), [("mpopd", "mbox"), ("mpopd-v2", "maildir")])
def test_it_serves(name: str, source: str, tmp_path: Path) -> None:
    """The user's mail is where it was; access file and port are taken over."""
    new = converted(name, tmp_path)
    if source == "mbox":
        (tmp_path / "mail/anna").write_bytes(ENVELOPE + PLAIN + b"\n")
    else:
        make_maildir(tmp_path / "mail/anna", [PLAIN])
    own = ["--personality", "single"]
    own += ["--maildir", f"{tmp_path}/mail/{{user}}"] if source == "maildir" else []
    with (
        serving(server_on(new, tmp_path), tmp_path, *own) as (host, port),
        Wire(host, port) as wire,
    ):
        wire.login()
        assert wire.ok(b"STAT").startswith(b"+OK 1 ")
        wire.quit()
