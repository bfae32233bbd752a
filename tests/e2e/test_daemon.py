"""A server as administrators run it: rights given up, a jail, the background, systemd, jobs."""

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.maildirs import PLAIN, make_maildir, with_crlf
from tests.support.processes import children_of, is_alive, reachable, wait_until
from tests.support.servers import OWN_OPTIONS, ROOT, RunningServer, environment, write_users

KINDS = ("single", "fork", "prefork", "gevent")
root_only = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights up"),
]


def status(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def give_to_nobody(*paths: Path) -> None:
    """Hand directories over to those who serve."""
    entry = pwd.getpwnam("nobody")
    for top in paths:
        for path in (top, *top.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid)


def who_serves(server: RunningServer) -> int:
    """Return a process that talks to clients: a child, or the one process of `single`."""
    return server.pid if server.personality == "single" else children_of(server.pid)[0]


@pytest.mark.parametrize("jail", [False, True], ids=["user", "chroot"])
@pytest.mark.parametrize("kind", KINDS)
class TestRights:
    """--user, --group, --chroot: for good, where clients are served."""

    pytestmark = root_only

    def test_who_serves_has_no_rights_left(
        self, start: Start, tmp_path: Path, kind: str, jail: bool
    ) -> None:
        """Other uid and gid, no groups, no capabilities, no way back; and mail is served."""
        make_maildir(tmp_path / "mail/anna", [PLAIN])
        give_to_nobody(tmp_path / "mail")
        reachable(tmp_path)
        (tmp_path / "jail").mkdir()
        options = ["--user", "nobody", "--group", "nogroup"]
        if jail:
            (tmp_path / "mail").rename(tmp_path / "jail/mail")
            options += ["--chroot", str(tmp_path / "jail"), "--maildir", "/mail/{user}"]
            options += ["--state", f"sqlite:///{tmp_path}/jail/state/db"]
        else:
            options += ["--state", f"sqlite:///{tmp_path}/state/db"]
        server = start(personality=kind, options=options)
        with server.session() as wire:
            assert wire.message(b"RETR 1") == with_crlf(PLAIN)
            wire.ok(b"DELE 1")
            facts = status(who_serves(server))
            wire.quit()
        entry = pwd.getpwnam("nobody")
        assert set(facts["Uid"].split("\t")) == {str(entry.pw_uid)}
        assert set(facts["Gid"].split("\t")) == {str(entry.pw_gid)}
        assert set(facts["Groups"].split()) <= {str(entry.pw_gid)}
        assert int(facts["CapEff"], 16) == 0
        assert facts["NoNewPrivs"] == "1"
        assert facts["Umask"] == "0077"
        if kind != "single":
            assert status(server.pid)["Uid"].startswith("0")
        with server.session() as wire:
            assert wire.ok(b"STAT") == b"+OK 0 0"
            wire.quit()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights up")
def test_a_state_that_cannot_be_written_is_said_at_start(tmp_path: Path) -> None:
    """Exit 1, one line on standard error, the reason in the log: no server that refuses all."""
    (tmp_path / "mail").mkdir()
    (tmp_path / "state").mkdir(mode=0o700)
    reachable(tmp_path)
    users = write_users(tmp_path / "users", {"anna": "secret"})
    command = [sys.executable, str(ROOT / "bin/pop3-server"), "--no-default-config"]
    command += ["--auth", f"passwd-file:{users}", "--maildir", f"{tmp_path}/mail/{{user}}"]
    command += ["--state", f"sqlite:///{tmp_path}/state/db", "--listen", "127.0.0.1:0"]
    command += ["--log-file", str(tmp_path / "log"), "--user", "nobody", "--group", "nogroup"]
    done = subprocess.run(
        command, capture_output=True, timeout=30, env=environment(tmp_path, {}), check=False
    )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert "is not writable" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_background_and_pid_file(tmp_path: Path, kind: str) -> None:
    """The command returns when clients are served; the pid file names the master until it stops."""
    make_maildir(tmp_path / "mail/anna", [PLAIN])
    users = write_users(tmp_path / "users", {"anna": "secret"})
    command = [sys.executable, str(ROOT / "bin/pop3-server"), "--no-default-config"]
    command += ["--personality", kind, *OWN_OPTIONS.get(kind, ())]
    command += ["--auth", f"passwd-file:{users}", "--maildir", f"{tmp_path}/mail/{{user}}"]
    command += ["--state", f"sqlite:///{tmp_path}/state/db", "--listen", "127.0.0.1:0"]
    command += ["--log-file", str(tmp_path / "log"), "--address-file", str(tmp_path / "addresses")]
    command += ["--background", "--pid-file", str(tmp_path / "pid")]
    done = subprocess.run(
        command, capture_output=True, timeout=30, env=environment(tmp_path, {}), check=False
    )
    pid = int((tmp_path / "pid").read_text())
    try:
        assert (done.returncode, done.stderr) == (0, b"")
        assert status(pid)["PPid"] != str(os.getpid())
        host, _, port = (tmp_path / "addresses").read_text().strip().rpartition(":")
        children = children_of(pid)
        with socket.create_connection((host, int(port)), timeout=5) as client:
            assert client.recv(512).startswith(b"+OK")
        time.sleep(2.5)  # workers look once a second whether their master lives
        assert children_of(pid) == children
        # a reload neither forks away again nor loses the pid file
        lines = (tmp_path / "log").read_text().count("event=ready")
        os.kill(pid, signal.SIGHUP)
        wait_until(
            lambda: (tmp_path / "log").read_text().count("event=ready") > lines, 20, "reloaded"
        )
        assert int((tmp_path / "pid").read_text()) == pid
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid), 10, "stopped")
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_systemd_hands_a_socket_over_and_is_told(tmp_path: Path, kind: str) -> None:
    """LISTEN_FDS by name, READY=1 when clients are served, STOPPING=1 at the end."""
    make_maildir(tmp_path / "mail/anna", [PLAIN])
    users = write_users(tmp_path / "users", {"anna": "secret"})
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    notified.settimeout(20)
    listening = socket.create_server(("127.0.0.1", 0))
    command = [str(ROOT / "bin/pop3-server"), "--no-default-config", "--personality", kind]
    command += ["--auth", f"passwd-file:{users}", "--maildir", f"{tmp_path}/mail/{{user}}"]
    command += ["--state", f"sqlite:///{tmp_path}/state/db", "--listen", "systemd:pop3"]
    command += ["--log-file", str(tmp_path / "log"), *OWN_OPTIONS.get(kind, ())]
    # as systemd does it: descriptor 3, and the variables name the very process
    activate = (
        "import os, sys\n"
        f"os.dup2({listening.fileno()}, 3)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='pop3')\n"
        f"os.execv(sys.executable, [sys.executable, *{command!r}])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", activate],
        pass_fds=(listening.fileno(),),
        env=environment(tmp_path, {"NOTIFY_SOCKET": str(tmp_path / "notify")}),
        stdin=subprocess.DEVNULL,
    )
    try:
        assert b"READY=1" in notified.recv(4096)
        with socket.create_connection(listening.getsockname(), timeout=5) as client:
            assert client.recv(512).startswith(b"+OK")
        process.terminate()
        while b"STOPPING=1" not in notified.recv(4096):
            pass
        assert process.wait(15) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        listening.close()
        notified.close()


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_run_in_a_child_of_their_own(start: Start, tmp_path: Path, kind: str) -> None:
    """run_dequeue is called again and again, beside the clients, after kill -9 as well."""
    (tmp_path / "jobserver.py").write_text(
        "import os\n"
        "from netserver.echo import EchoServer\n"
        "class Jobs(EchoServer):\n"
        "    def run_dequeue(self):\n"
        "        with open('jobs', 'a') as file:\n"
        "            file.write(f'{os.getpid()}\\n')\n"
    )
    server = start(
        personality=kind,
        program="net-server",
        target="jobserver:Jobs",
        options=("--check-for-dequeue", "0.05"),
        env={"PYTHONPATH": str(tmp_path)},
    )

    def pids() -> list[int]:
        path = tmp_path / "jobs"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    wait_until(lambda: len(pids()) > 2, 10, "some calls")
    assert len(set(pids())) == 1
    assert server.pid not in pids()
    if kind != "single":
        os.kill(pids()[0], signal.SIGKILL)
        wait_until(lambda: len(set(pids())) > 1, 45, "calls of a new jobs child")
    with socket.create_connection((server.host, server.port), timeout=5) as client:
        client.sendall(b"hello\r\nquit\r\n")
        assert client.recv(64) == b"hello\r\n"


def test_rules_of_one_listener(start: Start) -> None:
    """`?deny=` closes one listener and leaves the other open."""
    server = start(
        personality="gevent", listen=("127.0.0.1:0", "127.0.0.1:0?deny=127.0.0.0/8"), users=None
    )
    open_one, closed_one = (address.rpartition(":") for address in server.addresses)
    with socket.create_connection((open_one[0], int(open_one[2])), timeout=5) as client:
        assert client.recv(64).startswith(b"+OK")
    with socket.create_connection((closed_one[0], int(closed_one[2])), timeout=5) as client:
        assert client.recv(64) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_unix_sockets_live_through_a_reload(start: Start, tmp_path: Path, kind: str) -> None:
    """A UNIX listener serves, is handed over at HUP, and its path is gone after the stop."""
    path = tmp_path / "pop3.sock"
    server = start(personality=kind, listen=(f"unix:{path}", "127.0.0.1:0"))
    make_maildir(server.maildir(), [PLAIN])
    for _ in range(2):
        assert server.addresses[0] == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b"USER anna\r\nPASS secret\r\nSTAT\r\nQUIT\r\n")
            reply = b"".join(iter(lambda: client.recv(4096), b""))
        assert b"+OK 1 " in reply
        server.reload()
    server.stop()
    assert not path.exists()
    assert '"peer":"unix"' in server.log_text()
