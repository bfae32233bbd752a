"""What a second reader found: each was a way to lose clients, a signal or the service."""

import contextlib
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.netserver.certs import make_certificate
from tests.support.maildirs import PLAIN, make_maildir, stored_messages
from tests.support.processes import children_of, marked, wait_until
from tests.support.servers import ROOT, environment, write_users
from tests.support.wire import Wire

POOLS = ("prefork", "gevent")


def run_by_config(tmp_path: Path, text: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a server all of whose options are in a file."""
    config = tmp_path / "c.yaml"
    config.write_text(text)
    command = [sys.executable, str(ROOT / "bin/pop3-server"), "--no-default-config"]
    process = subprocess.Popen(
        [*command, "--config", str(config)],
        env=environment(tmp_path, {}),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return process, config


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("mistake", ["listen", "address-file", "pid-file"])
def test_a_place_that_is_taken_keeps_the_old_server(
    tmp_path: Path, kind: str, mistake: str
) -> None:
    """A port of somebody else's, a directory that is not there: refused before the exec."""
    users = write_users(tmp_path / "users", {"anna": "secret"})
    addresses, log = tmp_path / "addresses", tmp_path / "log"
    common = (
        f"personality: {kind}\nauth: [passwd-file:{users}]\nmaildir: {tmp_path}/{{user}}\n"
        f"state: sqlite:///{tmp_path}/state/db\nlog-file: {log}\n"
    )
    good = f"{common}listen: ['127.0.0.1:0']\naddress-file: {addresses}\n"
    process, config = run_by_config(tmp_path, good)
    try:
        wait_until(addresses.exists, 20, "start")
        host, _, port = addresses.read_text().strip().rpartition(":")
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            bad = {
                "listen": good.replace("0']", f"0', '{taken}']"),
                "address-file": f"{common}listen: ['127.0.0.1:0']\naddress-file: /no/such/dir/a\n",
                "pid-file": f"{good}pid-file: /no/such/dir/pid\n",
            }[mistake]
            config.write_text(bad)
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: "reload refused" in log.read_text(), 20, "refusal")
        with socket.create_connection((host, int(port)), timeout=5) as client:
            assert client.recv(64).startswith(b"+OK")
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(15) == 0


@pytest.mark.parametrize("kind", POOLS)
def test_a_term_during_the_reload_is_not_lost(start: Start, tmp_path: Path, kind: str) -> None:
    """A signal that comes just before the exec is obeyed by the new image."""
    (tmp_path / "late.py").write_text(
        "import os, signal\n"
        "from netserver.echo import EchoServer\n"
        "class Late(EchoServer):\n"
        "    def restart_close_hook(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    server = start(
        personality=kind,
        program="net-server",
        target="late:Late",
        env={"PYTHONPATH": str(tmp_path)},
    )
    server.signal(signal.SIGHUP)
    assert server.wait_for_exit() == 0


@pytest.mark.parametrize("kind", POOLS)
def test_term_beats_a_quit_that_came_with_it(start: Start, kind: str) -> None:
    """Both at once stop at once, though a client is there."""
    server = start(personality=kind)
    with server.session() as wire:
        os.kill(server.pid, signal.SIGSTOP)
        server.signal(signal.SIGQUIT)
        server.signal(signal.SIGTERM)
        os.kill(server.pid, signal.SIGCONT)
        assert wire.line().startswith(b"-ERR [SYS/TEMP]")
    assert server.wait_for_exit() == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights up")
@pytest.mark.parametrize("kind", POOLS)
def test_the_log_is_reopened_though_rights_are_gone(
    start: Start, tmp_path: Path, kind: str
) -> None:
    """After USR1 sessions are logged to the new file, by workers that could not open it."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/") and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    options = ("--user", "nobody", "--group", "nogroup", "--state", f"sqlite:///{tmp_path}/st/db")
    server = start(personality=kind, options=options)
    server.log_path.rename(tmp_path / "old.log")
    server.signal(signal.SIGUSR1)

    def logged() -> bool:
        with server.session() as wire:
            wire.quit()
        return server.log_path.exists() and '"session"' in server.log_path.read_text()

    wait_until(logged, 15, "a session in the new log")


@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_timeout_0_is_no_limit(start: Start, kind: str) -> None:
    """0 means what the help says, before login too."""
    server = start(personality=kind, options=("--timeout", "0", "--login-timeout", "0"))
    with server.session() as wire:
        wire.ok(b"NOOP")
        wire.quit()


@pytest.mark.parametrize("kind", ["prefork", "gevent"])
def test_who_never_reads_is_cut_off_before_login(start: Start, kind: str) -> None:
    """--login-timeout holds for a client that asks and does not take the answers."""
    server = start(personality=kind, options=("--login-timeout", "1"))
    with server.connect() as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.socket.settimeout(15)
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 12:
                wire.socket.sendall(b"CAPA\r\n" * 1000)
        assert time.monotonic() - began < 12, "the server took commands for ever"


def test_tls_ends_with_close_notify(start: Start, tmp_path: Path) -> None:
    """A client that is strict about truncation sees an orderly end after +OK to QUIT."""
    cert, key = make_certificate(tmp_path)
    server = start(
        personality="gevent",
        listen=("tls://127.0.0.1:0",),
        options=("--tls-cert", str(cert), "--tls-key", str(key)),
    )
    context = ssl.create_default_context(cafile=str(cert))
    host, port = server.endpoint(0)
    raw = socket.create_connection((host, port), timeout=10)
    with context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as tls:
        assert tls.recv(512).startswith(b"+OK")
        tls.sendall(b"QUIT\r\n")
        assert tls.recv(512).startswith(b"+OK")
        assert tls.recv(512) == b""


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_two_names_of_one_maildir_exclude_each_other(start: Start, kind: str) -> None:
    """The lock is the maildrop's, not the name's."""
    users = {"al@a.example": "secret", "al@b.example": "secret"}
    pattern = "mail/{localpart}"
    server = start(
        personality=kind, users=users, options=("--maildir", pattern, "--lock-wait", "0")
    )
    make_maildir(server.home / "mail/al", [PLAIN])
    with server.session("al@a.example"), server.connect() as other:
        other.send(b"USER al@b.example\r\n")
        assert other.line().startswith(b"+OK")
        other.send(b"PASS secret\r\n")
        assert other.line().startswith(b"-ERR [IN-USE]")


def test_a_login_that_failed_counts_no_longer(start: Start) -> None:
    """--max-per-user counts sessions, not refusals on connections that stay."""
    server = start(personality="gevent", options=("--max-per-user", "2", "--lock-wait", "0"))
    with server.session() as _, server.connect() as refused:
        refused.send(b"USER anna\r\nPASS secret\r\n")
        refused.line()
        assert refused.line().startswith(b"-ERR [IN-USE]")
        with server.connect() as third:
            third.send(b"USER anna\r\nPASS secret\r\n")
            third.line()
            # the maildrop is in use, which is another refusal than too many sessions
            assert b"too many" not in third.line()


def test_clients_are_limited_by_the_descriptors_there_are(start: Start, tmp_path: Path) -> None:
    """--max-connections above the limit of open files is lowered with one warning."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (tmp_path / "sitecustomize.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))\n"
    )
    server = start(
        personality="gevent",
        options=("--workers", "1", "--max-connections", "5000"),
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    assert server.log_text().count("--max-connections is lowered") == 1
    make_maildir(server.maildir(), [PLAIN])
    idle: list[Wire] = []
    try:
        idle.extend(server.connect() for _ in range(50))
        with server.session() as wire:
            assert wire.ok(b"STAT").startswith(b"+OK 1 ")
            wire.quit()
    finally:
        for wire in idle:
            wire.close()


@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_closed_standard_streams_do_no_harm(tmp_path: Path, kind: str) -> None:
    """Started with descriptors 0 to 2 closed, nothing else becomes standard error."""
    make_maildir(tmp_path / "mail/anna", [PLAIN])
    users = write_users(tmp_path / "users", {"anna": "secret"})
    command = [sys.executable, str(ROOT / "bin/pop3-server"), "--no-default-config"]
    command += ["--personality", kind, "--listen", "127.0.0.1:0", "--maildir"]
    command += [f"{tmp_path}/mail/{{user}}", "--auth", f"passwd-file:{users}"]
    command += ["--state", f"sqlite:///{tmp_path}/state/db", "--pid-file", str(tmp_path / "pid")]
    command += ["--address-file", str(tmp_path / "addresses")]
    script = 'exec "$@" 0<&- 1>&- 2>&-'
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *command], env=environment(tmp_path, {})
    )
    try:
        wait_until((tmp_path / "addresses").exists, 20, "start")
        streams = {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)}
        assert streams == {"/dev/null"}
        host, _, port = (tmp_path / "addresses").read_text().strip().rpartition(":")
        with Wire(host, int(port)) as wire:
            wire.login("anna", "secret")
            wire.ok(b"DELE 1")
            wire.quit()
    finally:
        process.terminate()
        assert process.wait(15) == 0
    assert stored_messages(tmp_path / "mail/anna") == []


@pytest.mark.parametrize("kind", POOLS)
def test_a_start_that_fails_late_leaves_no_worker(tmp_path: Path, kind: str) -> None:
    """When the address file cannot be written the workers end with the master."""
    users = write_users(tmp_path / "users", {"anna": "secret"})
    command = [sys.executable, str(ROOT / "bin/pop3-server"), "--no-default-config"]
    command += ["--personality", kind, "--listen", "127.0.0.1:0", "--maildir"]
    command += [f"{tmp_path}/mail/{{user}}", "--auth", f"passwd-file:{users}"]
    command += ["--state", f"sqlite:///{tmp_path}/state/db", "--log-file", str(tmp_path / "log")]
    command += ["--address-file", "/no/such/directory/addresses"]
    done = subprocess.run(
        command,
        capture_output=True,
        timeout=30,
        env=environment(tmp_path, {"WHOSE": str(tmp_path)}),
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert marked(f"WHOSE={tmp_path}") == []


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_a_user_who_was_removed_stays_removed(start: Start, kind: str) -> None:
    """Not even a worker made after the file was spoiled begins with the users of the start."""
    server = start(personality=kind, users={"anna": "secret", "bert": "secret"})
    users = server.home / "users"
    with server.session("bert") as wire:
        wire.quit()
    write_users(users, {"anna": "secret"})

    def refused() -> bool:
        with server.connect() as wire:
            wire.send(b"USER bert\r\nPASS secret\r\n")
            wire.line()
            return wire.line().startswith(b"-ERR [AUTH]")

    wait_until(refused, 10, "the change")
    time.sleep(1.2)  # a look a second: the master has had its own by now
    users.write_text("this is no line of users\n")
    for pid in children_of(server.pid):
        os.kill(pid, signal.SIGKILL)
    for _ in range(5):
        assert refused()
