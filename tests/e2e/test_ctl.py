"""pop3-ctl and the control socket of real servers, under each personality that has one."""

import json
import os
import re
import socket
import stat
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from subprocess import run

import pytest

from netserver.admin import MOST_CLIENTS, PATIENCE
from netserver.control import Caller
from tests.support.ctl import (
    CONTROLLED,
    SECONDS,
    USERS,
    ask,
    ctl,
    names,
    place,
    ready,
)
from tests.support.maildirs import PLAIN, make_maildir
from tests.support.processes import wait_until
from tests.support.servers import RunningServer, running


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


def test_who_may_look_keeps_nobody_out_who_may_give_orders(shared: RunningServer) -> None:
    """As many slow clients over HTTP as there is room for: the control socket answers at once."""
    host, _, port = str(ask(shared, "status")["admin_listen"]).rpartition(":")
    slow = [socket.create_connection((host, int(port)), 10) for _ in range(MOST_CLIENTS + 1)]
    try:
        for one in slow:
            one.sendall(b"G")
        assert Caller(place(shared.home), PATIENCE / 2).ask("status")["pid"] == shared.pid
    finally:
        for one in slow:
            one.close()


def test_top_shows_both(shared: RunningServer) -> None:
    """As often as it was asked to."""
    code, out, _ = ctl(
        shared.home, "--control-socket", place(shared.home), "top", "--count", "2", "--delay", "0.1"
    )
    assert code == 0
    assert out.count("nobody is here") == 2
