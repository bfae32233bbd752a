"""What pop3-ctl changes: workers, configurations, servers that start and stop."""

import json
import os
import signal
import socket
import sys
from pathlib import Path
from subprocess import run

import pytest

from netserver.control import ControlError
from tests.conftest import Start
from tests.support.ctl import (
    CONTROLLED,
    SECONDS,
    ask,
    ctl,
    names,
    place,
    started,
    write_config,
)
from tests.support.processes import children_of, is_alive, wait_until
from tests.support.servers import ROOT, RunningServer, environment


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


@pytest.mark.parametrize("personality", CONTROLLED)
def test_a_killed_admin_child_comes_back(tmp_path: Path, start: Start, personality: str) -> None:
    """At the same place; clients do not notice. `single` makes it when it has no client."""
    server = started(tmp_path, personality, start=start)
    with server.session("anna") as wire:
        admin = ask(server, "status")["admin"]
        assert isinstance(admin, int)
        os.kill(admin, signal.SIGKILL)
        if personality != "single":
            wait_until(lambda: answering(server) not in (None, admin), 20, "another admin child")
            assert names(server) == ["anna"]
        wire.ok(b"NOOP")
        wire.quit()
    wait_until(lambda: answering(server) not in (None, admin), 20, "another admin child")


def answering(server: RunningServer) -> object:
    """Return the process that answers on the control socket, None if none does."""
    try:
        return ask(server, "status")["admin"]
    except ControlError:
        return None


def test_a_socket_that_was_removed_comes_back(tmp_path: Path, start: Start) -> None:
    """The admin child notices and makes the path again."""
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
