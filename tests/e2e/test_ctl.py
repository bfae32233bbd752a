"""pop3-ctl and the control socket of real servers, under each personality that has one."""

import json
import os
import re
import signal
import socket
import stat
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import pytest

from netserver.control import Caller, ControlError
from tests.conftest import Start
from tests.netserver.certs import make_certificate
from tests.support.maildirs import PLAIN, make_maildir
from tests.support.processes import children_of, is_alive, wait_until
from tests.support.servers import ROOT, RunningServer, environment, running

CONTROLLED = ("gevent", "prefork", "fork", "single")
SECONDS = 60
USERS = {"anna": "secret", "bert": "secret"}


def place(home: Path) -> str:
    """Return where the control socket of a test's server is."""
    return str(home / "control.sock")


def ctl(
    home: Path, *words: str, env: dict[str, str] | None = None, text: str = ""
) -> tuple[int, str, str]:
    """Run bin/pop3-ctl; return its exit code, output and errors."""
    done = run(
        [sys.executable, str(ROOT / "bin" / "pop3-ctl"), *words],
        capture_output=True,
        text=True,
        input=text,
        timeout=SECONDS,
        check=False,
        cwd=home,
        env=environment(home, env),
    )
    return done.returncode, done.stdout, done.stderr


def started(home: Path, personality: str, **arguments: object) -> RunningServer:
    """Start a server with a control socket; return when it answers there."""
    options = [*arguments.pop("options", ()), "--control-socket", place(home)]  # type: ignore[misc]
    server = arguments.pop("start")(  # type: ignore[operator]
        home, personality=personality, users=USERS, options=options, **arguments
    )
    ready(home)
    for user in USERS:
        make_maildir(server.maildir(user), [PLAIN])
    return server  # type: ignore[no-any-return]


def ready(home: Path) -> None:
    """Wait until the control socket answers."""
    wait_until(lambda: os.path.exists(place(home)), 10, "a control socket")


@pytest.fixture(scope="module", params=CONTROLLED)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """One server of each personality, for tests that leave it as it was."""
    home = tmp_path_factory.mktemp(request.param)
    options = ["--control-socket", place(home), "--admin-listen", "127.0.0.1:0"]
    with running(home, personality=request.param, users=USERS, options=options) as server:
        for user in USERS:
            make_maildir(server.maildir(user), [PLAIN, PLAIN])
        ready(home)
        yield server


def ask(server: RunningServer, command: str, **arguments: object) -> dict[str, object]:
    """Ask over the control socket."""
    return Caller(place(server.home)).ask(command, **arguments)


def names(server: RunningServer) -> list[object]:
    """Return the users who are here now."""
    return sorted(str(one["user"]) for one in ask(server, "who")["sessions"])  # type: ignore[attr-defined]


def test_status_tells_what_runs(shared: RunningServer) -> None:
    """Text for people, JSON for programs, the same facts in both."""
    code, out, errors = ctl(shared.home, "--control-socket", place(shared.home), "status", "--json")
    assert (code, errors) == (0, "")
    found = json.loads(out)
    assert found["personality"] == shared.personality
    assert found["pid"] == shared.pid
    assert found["listeners"] == shared.addresses
    assert [one["kind"] for one in found["side"]] == ["admin"]
    assert found["leaving"] == []
    code, text, _ = ctl(shared.home, "--control-socket", place(shared.home), "status")
    assert code == 0
    assert f"pid {shared.pid}" in text
    assert shared.addresses[0] in text


def test_who_lists_sessions_and_kick_ends_exactly_one(shared: RunningServer) -> None:
    """The kicked client hears why, its deletions are forgotten, the other one goes on."""
    socket_path = place(shared.home)
    anna = shared.session("anna")
    anna.ok(b"DELE 1")
    bert = shared.session("bert") if shared.personality != "single" else None
    others = ["bert"] if bert else []
    assert names(shared) == ["anna", *others]
    code, out, _ = ctl(shared.home, "--control-socket", socket_path, "who")
    assert code == 0
    assert re.search(
        r"^[0-9a-f]+-[0-9a-f]+ +127\.0\.0\.1:[0-9]+ +anna +logged in ", out, re.MULTILINE
    )
    code, out, errors = ctl(shared.home, "--control-socket", socket_path, "kick", "anna")
    assert (code, errors) == (0, "")
    assert re.fullmatch(r"kicked [0-9a-f]+-[0-9a-f]+ 127\.0\.0\.1:[0-9]+ anna\n", out)
    assert anna.read_to_end() == b"-ERR [SYS/TEMP] session ended by the operator\r\n"
    if bert is not None:
        bert.ok(b"NOOP")
        bert.quit()
    anna.close()
    assert len(list((shared.maildir("anna") / "new").iterdir())) == 2
    wait_until(lambda: names(shared) == [], 10, "nobody")
    code, _, errors = ctl(shared.home, "--control-socket", socket_path, "kick", "anna")
    assert (code, errors) == (1, "pop3-ctl: nobody here is 'anna'\n")


def test_kick_by_id_and_by_address(shared: RunningServer) -> None:
    """An id is one session; who has not logged in is found by the address."""
    with shared.session("anna") as wire:
        sessions = ask(shared, "who")["sessions"]
        assert isinstance(sessions, list)
        assert ask(shared, "kick", who=sessions[0]["id"])["ok"]
        assert b"ended by the operator" in wire.read_to_end()
    with shared.connect() as wire:
        wire.ok(b"CAPA")
        host, port = wire.socket.getsockname()
        assert ask(shared, "kick", who=f"{host}:{port}")["ok"]
        assert b"ended by the operator" in wire.read_to_end()


def test_a_thousand_lines_of_garbage_do_not_hurt(shared: RunningServer) -> None:
    """Each gets a typed error; a line without end ends its connection."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(10)
        wire.connect(place(shared.home))
        wire.sendall(b"\xff{[garbage\n" * 999 + b'{"command": ["status"]}\n')
        got = b""
        while got.count(b"\n") < 1000:
            got += wire.recv(65536)
        answers = [json.loads(line) for line in got.split(b"\n") if line]
        assert {one["error"]["type"] for one in answers[:-1]} == {"protocol"}
        assert answers[-1]["error"]["type"] == "unknown-command"
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(10)
        wire.connect(place(shared.home))
        wire.sendall(b"x" * 65536)
        assert json.loads(wire.recv(65536))["error"]["type"] == "too-long"
    assert ask(shared, "status")["pid"] == shared.pid


def test_more_clients_than_there_is_room_for_wait(shared: RunningServer) -> None:
    """Eight idle ones hold nobody up for longer than they may be idle; a ninth is answered."""
    idle = [socket.socket(socket.AF_UNIX) for _ in range(7)]
    try:
        for one in idle:
            one.connect(place(shared.home))
        assert ask(shared, "status")["pid"] == shared.pid
    finally:
        for one in idle:
            one.close()


def test_the_socket_is_for_its_owner_alone(shared: RunningServer) -> None:
    """Nobody else may open it."""
    mode = os.stat(place(shared.home)).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root to be somebody else")
def test_another_users_process_is_refused(shared: RunningServer) -> None:
    """Even one that came past the file's mode, here by a second name of it."""
    code = (
        "import os, socket, sys\n"
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "wire = socket.socket(socket.AF_UNIX)\n"
        "wire.connect(sys.argv[1])\n"
        'wire.sendall(b\'{"command": "stop"}\\n\')\n'
        "print(wire.recv(65536).decode())\n"
    )
    with tempfile.TemporaryDirectory(dir=shared.home.parents[2]) as open_to_all:
        os.chmod(open_to_all, 0o755)
        link = f"{open_to_all}/sock"
        os.link(place(shared.home), link)
        os.chmod(link, 0o666)
        try:
            done = run(
                [sys.executable, "-c", code, link],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        finally:
            os.chmod(link, 0o600)
    assert json.loads(done.stdout)["error"]["type"] == "refused", done.stderr
    assert ask(shared, "status")["pid"] == shared.pid


def test_metrics_health_and_page(shared: RunningServer) -> None:
    """What --admin-listen shows; nothing can be changed by it."""
    base = f"http://{ask(shared, 'status')['admin_listen']}"

    def get(path: str) -> str:
        with urllib.request.urlopen(base + path, timeout=10) as response:
            return str(response.read().decode())

    text = get("/metrics")
    assert text.endswith("# EOF\n")
    assert re.search(r"^netserver_open_connections [0-9]+$", text, re.MULTILINE)
    assert get("/health") == "ok\n"
    assert json.loads(get("/status"))["pid"] == shared.pid
    assert "<h1>pop3-server</h1>" in get("/")
    for path, method, status in (("/nothing", "GET", 404), ("/", "POST", 405)):
        request = urllib.request.Request(base + path, method=method)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        assert caught.value.code == status
        caught.value.close()


def test_top_shows_both(shared: RunningServer) -> None:
    """As often as it was asked to."""
    code, out, _ = ctl(
        shared.home, "--control-socket", place(shared.home), "top", "--count", "2", "--delay", "0.1"
    )
    assert code == 0
    assert out.count("nobody is here") == 2


# -- what changes a server ------------------------------------------------------------------------


@pytest.mark.parametrize("personality", ["gevent", "prefork"])
def test_workers_and_drain_of_one(tmp_path: Path, start: Start, personality: str) -> None:
    """Exactly as many more or less as asked; a drained worker is replaced."""
    server = started(tmp_path, personality, start=start, options=["--workers", "1"])

    def pids() -> list[int]:
        return [one["pid"] for one in ask(server, "status")["workers"]]  # type: ignore[attr-defined]

    assert ctl(tmp_path, "--control-socket", place(tmp_path), "workers", "+3")[0] == 0
    wait_until(lambda: len(pids()) == 4, 10, "three workers more")
    assert ctl(tmp_path, "--control-socket", place(tmp_path), "workers", "-3")[0] == 0
    wait_until(lambda: len(pids()) == 1, 10, "three workers less")
    before = pids()[0]
    code, _, _ = ctl(tmp_path, "--control-socket", place(tmp_path), "drain", str(before))
    assert code == 0
    wait_until(lambda: before not in pids() and len(pids()) == 1, 10, "another worker")
    code, _, errors = ctl(tmp_path, "--control-socket", place(tmp_path), "drain", "1")
    assert (code, errors) == (1, "pop3-ctl: drain: 1 is the pid of no worker\n")


def test_single_says_that_it_has_no_workers(tmp_path: Path, start: Start) -> None:
    """In one line."""
    started(tmp_path, "single", start=start)
    code, _, errors = ctl(tmp_path, "--control-socket", place(tmp_path), "workers", "+1")
    assert (code, errors) == (
        1,
        "pop3-ctl: workers: the personality single has one process\n",
    )


@pytest.mark.parametrize("personality", CONTROLLED)
def test_reload_hands_the_socket_over(tmp_path: Path, start: Start, personality: str) -> None:
    """Who asks all the time is answered all the time; the socket becomes the new child's."""
    server = started(tmp_path, personality, start=start)
    old = ask(server, "status")
    assert ctl(tmp_path, "--control-socket", place(tmp_path), "reload") == (0, "reloaded\n", "")
    new = ask(server, "status")
    assert new["pid"] == old["pid"]
    assert new["admin"] != old["admin"]
    wait_until(lambda: not is_alive(old["admin"]), 10, "the old child's end")  # type: ignore[arg-type]
    server.signal(signal.SIGHUP)
    asked = 0
    while (found := ask(server, "status"))["born"] == new["born"]:
        asked += 1
    assert asked
    assert found["pid"] == server.pid


def test_a_killed_admin_child_comes_back(tmp_path: Path, start: Start) -> None:
    """With the same socket; clients do not notice."""
    server = started(tmp_path, "gevent", start=start)
    with server.session("anna") as wire:
        admin = ask(server, "status")["admin"]
        assert isinstance(admin, int)
        os.unlink(place(tmp_path))
        wait_until(lambda: os.path.exists(place(tmp_path)), 10, "the path is made again")
        assert ask(server, "status")["admin"] == admin
        wire.ok(b"NOOP")


def test_drain_lets_the_session_end_first(tmp_path: Path, start: Start) -> None:
    """Nobody new gets in, who is here goes on, and the server ends after the last."""
    server = started(tmp_path, "gevent", start=start)
    wire = server.session("anna")
    wire.ok(b"DELE 1")
    assert ask(server, "drain")["pid"] == server.pid
    server.wait_for_log('"how":"quit"')
    wire.ok(b"NOOP")
    assert names(server) == ["anna"]  # it can still be asked
    assert wire.quit().startswith(b"+OK")
    assert server.wait_for_exit() == 0
    assert not (tmp_path / "control.sock").exists()
    assert list((server.maildir("anna") / "new").iterdir()) == []


def test_an_explicit_place_that_is_taken_is_an_error(tmp_path: Path, start: Start) -> None:
    """The second server does not start; a dead server's socket is replaced."""
    server = started(tmp_path, "fork", start=start)
    options = ["--control-socket", place(tmp_path), "--source", "maildir", "--auth"]
    second = run(
        [
            *(sys.executable, str(ROOT / "bin" / "pop3-server"), "--no-default-config"),
            *(*options, f"passwd-file:{tmp_path}/users", "--listen", "127.0.0.1:0"),
            *("--maildir", f"{tmp_path}/mail/{{user}}", "--state", f"sqlite:///{tmp_path}/s2/s.db"),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment(tmp_path, {}),
    )
    assert second.returncode == 1
    assert "a server has it already" in second.stderr
    assert second.stderr.count("\n") == 1
    admin = ask(server, "status")["admin"]
    assert isinstance(admin, int)
    server.stop()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(place(tmp_path))
    server = started(tmp_path, "fork", start=start)
    wait_until(lambda: ask(server, "status")["pid"] == server.pid, 10, "the new one")


def test_inetd_has_none_and_says_so(tmp_path: Path, start: Start) -> None:
    """Nobody would be there to answer between two clients."""
    server = start(tmp_path, personality="inetd", options=["--control-socket", place(tmp_path)])
    with server.connect(greeted=False) as wire:
        assert wire.read_to_end() == b""
    text = "pop3-server: --control-socket: the personality inetd has none\n"
    wait_until(lambda: text in server.stderr_path.read_text(), 10, "one line")
    server.stderr_path.write_text("")
    server.stopped = True
    assert server.super_server is not None
    server.super_server.stop(10)


def test_the_default_place_is_beside_the_state(tmp_path: Path, start: Start) -> None:
    """pop3-ctl finds it by the same configuration; a second server there does without."""
    config = tmp_path / "server.yaml"
    write_config(config, tmp_path)
    assert ctl(tmp_path, "-f", str(config), "start") == (0, "started\n", "")
    try:
        wait_until((tmp_path / "state" / "pop3-server.sock").exists, 10, "a socket")
        code, out, errors = ctl(tmp_path, "-f", str(config), "status", "--json")
        assert (code, errors) == (0, "")
        pid = json.loads(out)["pid"]
        code, _, errors = ctl(tmp_path, "-f", str(config), "start")
        assert (code, errors) == (1, f"pop3-ctl: a server is running already, its pid is {pid}\n")
        assert ctl(tmp_path, "-f", str(config), "reload") == (0, "reloaded\n", "")
        assert ctl(tmp_path, "-f", str(config), "restart")[:2] == (0, "restarted\n")
        assert not is_alive(pid)
    finally:
        assert ctl(tmp_path, "-f", str(config), "stop") == (0, "stopped\n", "")
    code, _, errors = ctl(tmp_path, "-f", str(config), "status")
    assert code == 1
    assert errors.endswith(": no server is running\n")
    assert children_of(pid) == []


def write_config(config: Path, home: Path, **more: object) -> None:
    """Write a small configuration."""
    (home / "mail").mkdir(exist_ok=True)
    (home / "users").write_text("anna:{PLAIN}secret\n")
    (home / "users").chmod(0o600)
    values = {
        "personality": "prefork",
        "workers": 1,
        "listen": ["127.0.0.1:0"],
        "maildir": f"{home}/mail/{{user}}",
        "auth": [f"passwd-file:{home}/users"],
        "state": f"sqlite:///{home}/state/state.db",
        "log_file": f"{home}/server.log",
        **more,
    }
    config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))


def test_old_words_work_by_the_pid_file_alone(tmp_path: Path) -> None:
    """start, refresh, stop, without a control socket; a stale pid file is no server."""
    config, pid_file = tmp_path / "server.yaml", tmp_path / "pid"
    write_config(config, tmp_path, control_socket="none", pid_file=str(pid_file))
    assert ctl(tmp_path, "-f", str(config), "start")[0] == 0
    try:
        pid = int(pid_file.read_text())
        told = "told to reload; its log tells whether it did\n"
        assert ctl(tmp_path, "-p", str(pid_file), "refresh", "--help")[0] == 0
        code, out, _ = ctl(tmp_path, "-f", str(config), "refresh")
        assert (code, out) == (0, told)
        assert ctl(tmp_path, "-f", str(config), "restart")[0] == 0
        assert int(pid_file.read_text()) != pid
    finally:
        assert ctl(tmp_path, "-p", str(pid_file), "stop") == (0, "stopped\n", "")
    code, _, errors = ctl(tmp_path, "-p", str(pid_file), "stop")
    assert (code, errors) == (1, f"pop3-ctl: {pid_file}: no server is running\n")


def test_a_bad_edit_changes_nothing(tmp_path: Path) -> None:
    """The file is replaced by a good one only, and the server takes it."""
    config, pid_file = tmp_path / "server.yaml", tmp_path / "pid"
    write_config(config, tmp_path, pid_file=str(pid_file))
    before = config.read_text()
    assert ctl(tmp_path, "-f", str(config), "start")[0] == 0
    try:
        spoil = {"EDITOR": "sed -i s/workers/wrokers/"}
        code, _, errors = ctl(tmp_path, "-f", str(config), "-e", "config", env=spoil)
        assert code == 2
        assert "wrokers" in errors
        assert errors.count("\n") == 1
        assert config.read_text() == before
        mend = {"EDITOR": "sed -i s/workers..1/workers:.2/;s/:[.]2/:_2/;s/_2/%2/;s/%2/\\ 2/"}
        assert ctl(tmp_path, "-f", str(config), "-e", "config", env=mend)[:2] == (0, "reloaded\n")
        _, out, _ = ctl(tmp_path, "-f", str(config), "status", "--json")
        assert len(json.loads(out)["workers"]) == 2
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    finally:
        assert ctl(tmp_path, "-p", str(pid_file), "stop")[0] == 0


def test_a_server_is_found_by_its_port(tmp_path: Path, start: Start) -> None:
    """The master, not one of the workers that listen there too."""
    server = started(tmp_path, "prefork", start=start)
    assert ctl(tmp_path, "-p", str(server.port), "stop") == (0, "stopped\n", "")
    assert server.wait_for_exit() == 0


# -- what needs no server -------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration of no running server."""
    path = tmp_path / "server.yaml"
    write_config(path, tmp_path, deny=["192.0.2.0/24"])
    return path


def test_access_without_a_server(tmp_path: Path, config: Path) -> None:
    """The rule that decides is named; the exit code tells as well."""
    code, out, _ = ctl(tmp_path, "-f", str(config), "test-access", "192.0.2.7")
    assert code == 1
    assert "192.0.2.7 may not connect" in out
    assert "192.0.2.0/24" in out
    assert ctl(tmp_path, "-f", str(config), "test-access", "198.51.100.1")[0] == 0


def test_auth_without_a_server(tmp_path: Path, config: Path) -> None:
    """Right, wrong and unknown; the password is never shown."""
    password = tmp_path / "password"
    for text, user, code, said in (
        ("secret\n", "anna", 0, "passwd-file: right, user anna"),
        ("wrong\n", "anna", 1, "passwd-file: wrong password"),
        ("secret\n", "nobody", 1, "passwd-file: does not know nobody"),
    ):
        password.write_text(text)
        got = ctl(tmp_path, "-f", str(config), "test-auth", user, "--password-file", str(password))
        assert got == (code, f"{said}\n", "")


def test_why_tells_who_holds_the_lock(tmp_path: Path, start: Start) -> None:
    """Of a running server, started by options alone: backend, mailbox, lock."""
    server = started(tmp_path, "fork", start=start)
    with server.session("anna"):
        code, out, errors = ctl(tmp_path, "--control-socket", place(tmp_path), "why", "anna")
        assert (code, errors) == (1, "")
        assert "passwd-file: user anna" in out
        assert f"mailbox: {server.maildir('anna')}, mode" in out
        worker = ask(server, "who")["sessions"][0]["worker"]  # type: ignore[index]
        assert f"lock: held by process {worker}" in out
    code, out, _ = ctl(tmp_path, "--control-socket", place(tmp_path), "why", "bert")
    assert code == 0
    assert "lock: free" in out
    code, out, _ = ctl(tmp_path, "--control-socket", place(tmp_path), "why", "nobody")
    assert code == 1
    assert "nobody knows this user: [AUTH]" in out


def test_penalties_can_be_seen_set_and_forgotten(tmp_path: Path, start: Start) -> None:
    """Failed logins are told by why; ban refuses, unban ends that."""
    server = started(tmp_path, "gevent", start=start, options=["--auth-failure-delay", "0.01"])
    socket_path = place(tmp_path)
    with server.connect() as wire:
        wire.ok(b"USER anna")
        wire.err(b"PASS wrong")
    assert (
        "penalty: 1 failed logins"
        in ctl(tmp_path, "--control-socket", socket_path, "why", "anna")[1]
    )
    code, out, errors = ctl(tmp_path, "--control-socket", socket_path, "ban", "anna")
    assert (code, errors) == (0, "")
    assert out.startswith("anna is banned until 2")
    _, out, _ = ctl(tmp_path, "--control-socket", socket_path, "bans", "--json")
    assert [(one["name"], one["by_hand"]) for one in json.loads(out)] == [("anna", True)]
    with server.connect() as wire:
        wire.ok(b"USER anna")
        wire.err(b"PASS secret")
    assert ctl(tmp_path, "--control-socket", socket_path, "unban", "anna")[0] == 0
    assert ctl(tmp_path, "--control-socket", socket_path, "bans")[1] == "nobody is banned\n"
    server.session("anna").quit()


def test_recover_and_run_jobs_without_a_server(tmp_path: Path, config: Path) -> None:
    """Where there is nothing to do they say so."""
    code, out, errors = ctl(tmp_path, "-f", str(config), "unlock", "anna")
    assert (code, errors) == (0, "")
    assert "nothing to recover" in out
    code, out, _ = ctl(tmp_path, "-f", str(config), "run-jobs")
    assert (code, out) == (0, "POP3Maildir has no periodic work\n")
    code, _, errors = ctl(tmp_path, "-f", str(config), "recover", "nobody")
    assert (code, errors) == (1, "pop3-ctl: nobody: passwd-file: does not know nobody\n")


def test_recover_of_an_mbox(tmp_path: Path) -> None:
    """The hook of the source is called."""
    config = tmp_path / "server.yaml"
    write_config(config, tmp_path, source="mbox", mbox=f"{tmp_path}/mail/{{user}}")
    text = config.read_text()
    config.write_text("".join(x for x in text.splitlines(True) if not x.startswith("maildir:")))
    (tmp_path / "mail" / "anna").write_bytes(b"From a@b Thu Jan  1 00:00:00 1970\n\nx\n")
    code, out, errors = ctl(tmp_path, "-f", str(config), "recover", "anna")
    assert (code, out, errors) == (0, f"{tmp_path}/mail/anna: nothing was interrupted\n", "")


def test_certificates_are_examined(tmp_path: Path) -> None:
    """Names and days of a good one; what is wrong with others."""
    cert, key = make_certificate(tmp_path)
    config = tmp_path / "server.yaml"
    write_config(config, tmp_path, tls_cert=[str(cert)], tls_key=[str(key)])
    code, out, _ = ctl(tmp_path, "-f", str(config), "certs", "--json")
    found = json.loads(out)[0]
    assert found["file"] == str(cert)
    assert found["days"] is not None
    assert code == bool(found["problems"])


def test_uidl_listings_are_compared(tmp_path: Path) -> None:
    """What a client would fetch again is named, and is the exit code."""
    (tmp_path / "old").write_text("+OK\r\n1 a\r\n2 b\r\n.\r\n")
    (tmp_path / "new").write_text("1 a\n2 c\n")
    code, out, _ = ctl(tmp_path, "uidl-diff", "old", "new")
    assert code == 1
    assert "again: 2 c" in out
    assert ctl(tmp_path, "uidl-diff", "old", "old")[0] == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [(("status",), 1), (("stop",), 1), (("-f", "none.yaml", "status"), 2), (("dance",), 2)],
)
def test_each_failure_is_told(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    """Not running is 1, wrong usage 2; never a traceback."""
    got, _, errors = ctl(tmp_path, *words, env={"STATE_DIRECTORY": str(tmp_path)})
    assert got == code
    assert "Traceback" not in errors
    assert "pop3-ctl: " in errors


def test_nobody_is_asked_who_belongs_to_somebody_else(tmp_path: Path) -> None:
    """A caller with rights must not believe a socket that another user made."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root to be somebody else")
    path = str(tmp_path / "fake.sock")
    fake = socket.socket(socket.AF_UNIX)
    try:
        fake.bind(path)
        os.setegid(65534)
        os.seteuid(65534)
        try:
            fake.listen(1)
        finally:
            os.seteuid(0)
            os.setegid(0)
        with pytest.raises(ControlError, match="belongs to user 65534"):
            Caller(path).ask("status")
    finally:
        fake.close()
