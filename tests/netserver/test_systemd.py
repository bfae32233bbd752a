"""What a service manager is told, and what it passes in."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netserver import systemd

ROOT = Path(__file__).parents[2]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the socket on which a service manager hears us."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield receiver


def test_notify_sends_one_datagram_of_lines(manager: socket.socket) -> None:
    """Each field is a line, and no value can add one."""
    systemd.notify(READY=1, STATUS="serving\nMAINPID=1", MAINPID=42)
    assert manager.recv(1000) == b"READY=1\nSTATUS=serving MAINPID=1\nMAINPID=42"


def test_reloading_carries_the_time(manager: socket.socket) -> None:
    """Type=notify-reload wants the monotonic clock's microseconds with it."""
    systemd.notify(RELOADING=1)
    first, second = manager.recv(1000).split(b"\n")
    assert first == b"RELOADING=1"
    key, _, value = second.partition(b"=")
    assert key == b"MONOTONIC_USEC"
    assert int(value) > 0


def test_notify_reaches_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that begins with @ is in the abstract namespace."""
    name = f"netserver-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.notify(STOPPING=1)
        assert receiver.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("place", [None, "", "relative", "/nowhere/socket", "@" + "x" * 200])
def test_notify_never_raises(place: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a manager, or with one that is gone, nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if place is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", place)
    systemd.notify(READY=1)


def test_notify_does_not_wait_for_a_manager_that_does_not_read(manager: socket.socket) -> None:
    """A full queue drops the message."""
    for _ in range(1000):
        systemd.notify(STATUS="x" * 1000)
    assert manager.recv(2000).startswith(b"STATUS=xxx")


LISTENER = """
import json, os
os.environ["LISTEN_PID"] = {pid}
from netserver.systemd import listen_fds
found = listen_fds()
left = [name for name in os.environ if name.startswith("LISTEN_")]
inheritable = [os.get_inheritable(n) for numbers in found.values() for n in numbers]
print(json.dumps([found, left, inheritable, listen_fds()]))
"""


def listen_fds_in_a_child(
    pid: str, count: str, names: str | None, passed: int
) -> subprocess.CompletedProcess[str]:
    """Run `listen_fds` in a process that has `passed` sockets from descriptor 3 on."""
    env = {**os.environ, "LISTEN_FDS": count}
    if names is not None:
        env["LISTEN_FDNAMES"] = names
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(passed)]
    # a shell puts them where systemd would, and closes what is above
    moves = " ".join(f"{index + 3}<&{s.fileno()}" for index, s in enumerate(sockets))
    command = f'exec "$0" -c "$1" {moves}'
    try:
        return subprocess.run(
            ["bash", "-c", command, sys.executable, LISTENER.format(pid=pid)],
            env=env,
            cwd=ROOT,
            pass_fds=[s.fileno() for s in sockets],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize(
    ("pid", "count", "names", "passed", "expected"),
    [
        ("str(os.getpid())", "2", "pop3:pop3s", 2, '{"pop3": [3], "pop3s": [4]}'),
        ("str(os.getpid())", "3", "a:b:a", 3, '{"a": [3, 5], "b": [4]}'),
        ("str(os.getpid())", "2", None, 2, '{"unknown": [3, 4]}'),
        ("str(os.getpid())", "2", "a", 2, '{"a": [3], "unknown": [4]}'),
        ("str(os.getppid())", "1", "a", 1, "{}"),
        ("''", "1", "a", 1, "{}"),
        ("str(os.getpid())", "one", "a", 1, "{}"),
        ("str(os.getpid())", "", None, 0, "{}"),
        ("str(os.getpid())", "-1", "a", 1, "{}"),
    ],
)
def test_passed_sockets_are_named_and_the_variables_gone(
    pid: str, count: str, names: str | None, passed: int, expected: str
) -> None:
    """Only the process they are meant for takes them, once, and its children do not inherit."""
    done = listen_fds_in_a_child(pid, count, names, passed)
    inheritable = "[]" if expected == "{}" else str(["false"] * passed).replace("'", "")
    assert done.stdout == f"[{expected}, [], {inheritable}, {{}}]\n", done.stderr


def test_promised_but_missing_sockets_are_left_out() -> None:
    """A count that is too high ends where the descriptors end."""
    done = listen_fds_in_a_child("str(os.getpid())", "99", "a", 1)
    assert done.stdout.startswith('[{"a": [3]'), done.stdout + done.stderr
