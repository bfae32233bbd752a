"""SignalQueue with real signals, each time in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from netserver.signals import NAMES, SignalQueue, numbers

ROOT = Path(__file__).resolve().parents[2]

START = """
import os, select, signal, sys, time
from netserver import native
from netserver.signals import SignalQueue, NAMES

def me(*wanted):
    for number in wanted:
        os.kill(os.getpid(), number)

def readable(queue):
    return bool(select.select([queue.fileno()], [], [], 0)[0])

queue = SignalQueue()
queue.install()
"""


def run(code: str, *, patched: bool = False) -> str:
    """Run it in a fresh interpreter after START, return what it printed."""
    patch = "import gevent.monkey; gevent.monkey.patch_all()\n" if patched else ""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", patch + START + code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_signals_are_taken_in_the_order_they_came() -> None:
    """Taken once, and the pipe is readable exactly while there are some."""
    code = """
assert not queue.pending and not readable(queue)
me(signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP)
assert queue.pending and readable(queue)
print(*map(int, queue.take()), queue.take(), queue.pending, readable(queue))
"""
    assert run(code) == "1 10 1 [] False False\n"


def test_all_names_are_handled_and_sigpipe_is_ignored() -> None:
    """Not one of them ends the process any more."""
    code = """
for name in NAMES:
    me(getattr(signal, name))
me(signal.SIGPIPE)
assert sorted(queue.take()) == sorted(int(getattr(signal, name)) for name in NAMES)
"""
    run(code)


def test_a_signal_ends_the_wait() -> None:
    """Also one that comes before the wait begins."""
    code = """
me(signal.SIGTERM)
queue.wait(60)
assert queue.take() == [signal.SIGTERM]
if (child := os.fork()) == 0:
    os.kill(os.getppid(), signal.SIGQUIT)
    os._exit(0)
queue.wait(60)
assert signal.SIGQUIT in queue.take()
os.waitpid(child, 0)
queue.take()
start = time.monotonic()
queue.wait(0.1)
assert time.monotonic() - start > 0.09
queue.wait(-1)
"""
    run(code)


def test_a_full_pipe_loses_no_signal_and_blocks_nobody() -> None:
    """A pipe that a busy master has not emptied for long: numbers are kept elsewhere."""
    code = """
try:
    while True:
        os.write(queue._writer, b"x" * 4096)
except BlockingIOError:
    pass
me(*[signal.SIGUSR1] * 50, signal.SIGTERM)
taken = queue.take()
print(taken.count(signal.SIGUSR1), taken[-1] == signal.SIGTERM, readable(queue))
"""
    assert run(code) == "50 True False\n"


def test_blocked_signals_come_when_they_are_let_through() -> None:
    """None is lost between block and unblock, as around a fork."""
    code = """
queue.block()
me(signal.SIGTERM, signal.SIGHUP)
assert queue.take() == []
queue.unblock()
assert sorted(queue.take()) == [signal.SIGHUP, signal.SIGTERM]
"""
    run(code)


def test_blocked_signals_meet_the_handlers_of_the_next_image() -> None:
    """A HUP that comes before an exec is found by the program after it."""
    code = f"""
queue.block()
me(signal.SIGHUP)
after = {START!r} + "print('after', *map(int, queue.take()))"
sys.stdout.flush()
os.execv(sys.executable, [sys.executable, "-c", after])
"""
    assert run(code) == "after 1\n"


def test_a_child_begins_anew() -> None:
    """Its own pipe, nothing pending, deaf to what is for the master alone; TERM stays handled."""
    code = """
me(signal.SIGUSR1)
queue.block()
child = os.fork()
if child == 0:
    status = 1
    try:
        me(signal.SIGTERM)
        queue.renew(ignored=("SIGHUP", "SIGINT"))
        me(signal.SIGHUP, signal.SIGINT)
        status = 0 if queue.take() == [signal.SIGTERM] else 2
    finally:
        os._exit(status)
queue.unblock()
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), [n for n in queue.take() if n != signal.SIGCHLD])
"""
    assert run(code) == "0 [10]\n"


def test_a_childs_signals_do_not_wake_the_master() -> None:
    """The two have no pipe in common, but for the copy that is handed out on purpose."""
    code = """
nudge = queue.writer_copy()
told, tell = os.pipe()
listen, say = os.pipe()
child = os.fork()
if child == 0:
    queue.renew()
    me(signal.SIGUSR1)
    os.write(tell, b"x" if readable(queue) else b"-")
    os.read(listen, 1)
    os.write(nudge, b"x")
    os._exit(0)
assert os.read(told, 1) == b"x"
assert not readable(queue)
os.write(say, b"x")
began = time.monotonic()
queue.wait(60)
assert time.monotonic() - began < 50
while signal.SIGCHLD not in queue.take():
    queue.wait(10)
assert os.waitpid(child, 0)[1] == 0
"""
    run(code)


def test_the_end_of_a_child_is_noticed_in_a_patched_process() -> None:
    """SIGCHLD, which gevent keeps for itself unless one asks the real signal.signal; no hub."""
    code = """
import gevent._hub_local
child = native.fork()
if child == 0:
    os._exit(0)
queue.wait(30)
assert queue.take() == [signal.SIGCHLD]
assert gevent._hub_local.get_hub_if_exists() is None
"""
    run(code, patched=True)


def test_names_that_a_system_lacks_are_left_out() -> None:
    """Windows has few of them."""
    assert numbers(["SIGTERM", "SIGNOTHING"]) == [15]
    assert len(numbers(NAMES)) == len(NAMES)


def test_a_queue_that_was_never_installed_is_quiet() -> None:
    """It waits and takes without error."""
    queue = SignalQueue()
    try:
        queue.wait(0)
        assert queue.take() == []
        assert not queue.pending
    finally:
        os.close(queue._reader)
        os.close(queue._writer)
