"""Workers that die or hang: only their own sessions end, and they are replaced."""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import Start
from tests.support.maildirs import PLAIN, make_maildir, stored_messages, with_crlf
from tests.support.processes import holder_of, is_alive, wait_until
from tests.support.servers import RunningServer
from tests.support.wire import Wire

POOLS = ("prefork", "gevent")
USERS = {f"user{number}": "secret" for number in range(60)}


@contextlib.contextmanager
def open_sessions(server: RunningServer) -> Iterator[list[tuple[Wire, int]]]:
    """Give logged-in sessions, each with the worker that serves it; more than one worker."""
    found: list[tuple[Wire, int]] = []
    with contextlib.ExitStack() as stack:
        for user in USERS:
            wire = stack.enter_context(server.session(user))
            found.append((wire, holder_of(wire.socket, server.workers())))
            # which worker takes a client is the kernel's choice
            if len(found) >= 8 and len({pid for _, pid in found}) > 1:
                break
        else:
            pytest.fail("all sessions in one worker")
        yield found


@pytest.mark.parametrize("kind", POOLS)
def test_a_killed_worker_ends_only_its_own_sessions(start: Start, kind: str) -> None:
    """Kill -9: its clients are cut off, the others notice nothing, capacity comes back."""
    server = start(personality=kind, users=USERS)
    for user in USERS:
        make_maildir(server.maildir(user), [PLAIN])
    workers = server.workers()
    with open_sessions(server) as sessions:
        victim = sessions[0][1]
        for wire, _ in sessions:
            wire.ok(b"DELE 1")
        os.kill(victim, signal.SIGKILL)
        for wire, pid in sessions:
            if pid == victim:
                assert wire.ended()
            else:
                wire.ok(b"NOOP")
        wait_until(lambda: len(server.workers()) == len(workers), 10, "a new worker")
        assert victim not in server.workers()
        assert set(workers) - {victim} <= set(server.workers())
    for user in USERS:
        assert stored_messages(server.maildir(user)) == [PLAIN]
        with server.session(user) as wire:  # no lock is left behind
            assert wire.message(b"RETR 1") == with_crlf(PLAIN)
            wire.quit()
    assert server.process is not None
    assert server.process.poll() is None


def test_a_killed_child_of_fork_is_only_its_session(start: Start) -> None:
    """Under fork the master reaps it and serves on."""
    server = start(personality="fork", users=USERS)
    with server.session("user0") as one, server.session("user1") as two:
        os.kill(holder_of(one.socket, server.workers()), signal.SIGKILL)
        assert one.ended()
        two.ok(b"NOOP")
        with server.session("user0") as three:
            three.quit()


@pytest.mark.parametrize("kind", POOLS)
def test_all_workers_killed_at_once(start: Start, kind: str) -> None:
    """The master makes all of them again and keeps its pid."""
    server = start(personality=kind)
    before = server.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    with server.session() as wire:
        wire.quit()
    wait_until(
        lambda: len(server.workers()) == len(before) and not set(server.workers()) & set(before),
        15,
        "all workers replaced",
    )


def test_workers_killed_one_by_one_are_one_failure(start: Start) -> None:
    """Each is seen to end in a turn of its own; the patience grows once and not twelve times."""
    server = start(personality="prefork")
    before = server.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: pid not in server.workers(), 10, "its end")  # type: ignore[misc]
    with server.session() as wire:
        wire.quit()
    assert not set(server.workers()) & set(before)


@pytest.mark.parametrize("kind", POOLS)
def test_a_stopped_worker_is_replaced(start: Start, kind: str) -> None:
    """A worker that shows no sign of life for --worker-timeout is killed and replaced."""
    server = start(personality=kind, options=("--worker-timeout", "2"))
    with server.session() as wire:
        workers = server.workers()
        victim = holder_of(wire.socket, workers)
        os.kill(victim, signal.SIGSTOP)
        try:
            wait_until(lambda: not is_alive(victim), 20, "the stopped worker ended")
        finally:
            if is_alive(victim):
                os.kill(victim, signal.SIGCONT)
        wait_until(lambda: len(server.workers()) == len(workers), 10, "a new worker")
    with server.session() as wire:
        wire.quit()


@pytest.mark.parametrize("kind", POOLS)
def test_waiting_is_no_hanging(start: Start, kind: str) -> None:
    """A client that says nothing for longer than --worker-timeout keeps its session."""
    server = start(personality=kind, options=("--worker-timeout", "2"))
    workers = server.workers()
    with server.session() as wire:
        wire.socket.settimeout(4.5)
        with pytest.raises(TimeoutError):
            wire.socket.recv(1)
        wire.ok(b"NOOP")
        wire.quit()
    assert server.workers() == workers


@pytest.mark.parametrize("kind", POOLS)
def test_workers_end_when_the_master_is_killed(start: Start, kind: str) -> None:
    """Kill -9 of the master leaves no worker that serves for nobody."""
    server = start(personality=kind)
    workers = server.workers()
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait_for_exit() == -signal.SIGKILL
    server.stopped = True  # its exit code is ours
    try:
        wait_until(lambda: not any(map(is_alive, workers)), 15, "workers ended")
    finally:
        for pid in filter(is_alive, workers):
            os.kill(pid, signal.SIGKILL)
