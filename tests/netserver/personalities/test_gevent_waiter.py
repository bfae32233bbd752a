"""The gevent worker and its waiter, always in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import wait_until
from tests.support.servers import ROOT, RunningServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start

PATCHED = """
from gevent import monkey
monkey.patch_all()
import gevent, socket, sys, threading, time
from types import SimpleNamespace
from netserver import native
from netserver.connection import Connection
from netserver.errors import ConnectionLost, IdleTimeout, ServerStopping
from netserver.personalities.gevent_workers import HubWaiter

orders = SimpleNamespace(stop=False)
waiter = HubWaiter(gevent.get_hub(), orders)

pairs = []

def pair():
    near, far = native.socketpair()
    near.setblocking(False)
    pairs.append((Connection(near, "", None, waiter, None, 20.0), far))
    return pairs[-1]
"""

END = """
for connection, far in pairs:
    connection.close()
    far.close()
"""


def run(code: str) -> str:
    """Run it after PATCHED in a fresh interpreter; nothing may be on standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PATCHED + code + END],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_each_waits_for_its_own_client() -> None:
    """Two clients that speak in turn, in the other order than they were waited for."""
    code = """
one, far_one = pair()
two, far_two = pair()
heard = []
def serve(connection):
    heard.append(connection.read_line())
    connection.write(b"+OK\\r\\n")
    connection.close()
greenlets = [gevent.spawn(serve, one), gevent.spawn(serve, two)]
gevent.sleep(0)
assert one.waiting is not None and two.waiting is not None
far_two.sendall(b"second\\r\\n")
greenlets[1].join(10)
far_one.sendall(b"fir")
gevent.sleep(0)
far_one.sendall(b"st\\r\\n")
greenlets[0].join(10)
print(heard, far_one.recv(9), far_two.recv(9), one.waiting, one.reader)
"""
    assert run(code) == "[b'second', b'first'] b'+OK\\r\\n' b'+OK\\r\\n' None None\n"


def test_a_stalled_writer_lets_others_run() -> None:
    """A client that takes its answer slowly gets all of it."""
    code = """
one, far = pair()
data = bytes(range(256)) * 16384
def serve():
    one.write(data)
    one.close()
greenlet = gevent.spawn(serve)
gevent.sleep(0)
assert not greenlet.dead
far.setblocking(False)
got = bytearray()
while True:
    try:
        piece = far.recv(100_000)
    except BlockingIOError:
        gevent.sleep(0.001)
        continue
    if not piece:
        break
    got += piece
print(bytes(got) == data, greenlet.dead, one.writer)
"""
    assert run(code) == "True True None\n"


def test_blocking_work_runs_in_a_thread() -> None:
    """Its value comes back, and others have their turn meanwhile."""
    code = """
one, far = pair()
turns = 0
def count():
    global turns
    while True:
        turns += 1
        gevent.sleep(0.001)
counter = gevent.spawn(count)
sleep = monkey.get_original("time", "sleep")
get_ident = monkey.get_original("threading", "get_ident")
def work(seconds, *, factor):
    sleep(seconds)
    return seconds * factor, get_ident()
value, thread = one.run_blocking("disk", work, 0.2, factor=10)
assert thread != get_ident() and turns > 5
counter.kill()
print(value)
"""
    assert run(code) == "2.0\n"


def test_errors_of_blocking_work_come_out_as_they_are() -> None:
    """With their traceback, and without a word on standard error."""
    code = """
import traceback
one, far = pair()
class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)
def fail(error):
    raise error
for error in (Odd(1, 2), FileNotFoundError(2, "gone"), KeyError("x"), ConnectionLost("away")):
    try:
        one.run_blocking("disk", fail, error)
    except type(error) as found:
        assert found is error
        assert "in fail" in "".join(traceback.format_exception(found))
    else:
        sys.exit("no error")
print("done")
"""
    assert run(code) == "done\n"


def test_pools_do_not_hold_each_other_up() -> None:
    """Ten slow lookups of names leave the password hashes their threads."""
    code = """
sleep = monkey.get_original("time", "sleep")
one, far = pair()
slow = [gevent.spawn(one.run_blocking, "dns", sleep, 1.0) for _ in range(10)]
gevent.sleep(0.05)
start = time.monotonic()
assert one.run_blocking("hash", lambda: 7) == 7
assert one.run_blocking("disk", lambda: 8) == 8
assert not any(greenlet.dead for greenlet in slow)
print("done")
gevent.joinall(slow)
"""
    assert run(code) == "done\n"


def test_a_stop_ends_waits_but_no_commit() -> None:
    """Before the wait, as the worker asks; inside uninterrupted() everything goes on."""
    code = """
one, far = pair()
orders.stop = True
far.sendall(b"x\\r\\n")
with one.uninterrupted():
    one.pause(0.01)
    one.write(b"+OK\\r\\n")
    one.flush()
try:
    one.pause(10)
except ServerStopping:
    print("stopped", far.recv(9))
"""
    assert run(code) == "stopped b'+OK\\r\\n'\n"


# -- a worker -------------------------------------------------------------------------------------

ODD = '''
import os

from netserver.echo import EchoServer
from netserver.errors import ServerStopping


class Odd(EchoServer):
    """Does what the first line says."""

    def process_request(self, connection):
        word = connection.read_line()
        if word == b"flood":
            while True:
                connection.write(bytes(65536))
        elif word == b"pause":
            connection.write(b"pausing\\r\\n")
            connection.pause(60)
        elif word == b"commit":
            with connection.uninterrupted():
                connection.pause(1.0)
                open(os.path.join(os.environ["HOME"], "committed"), "x").close()
                connection.write(b"done\\r\\n")
                connection.flush()
        elif word == b"long":
            connection.idle_timeout = 60
            connection.write(b"long\\r\\n")
        else:
            connection.write(word + b"\\r\\n")
        super().process_request(connection)
'''


def odd(start: Start, home: Path, *options: str) -> RunningServer:
    """Run the server above in one worker."""
    (home / "odd.py").write_text(ODD)
    return start(
        personality="gevent",
        program="net-server",
        target="odd:Odd",
        env={"PYTHONPATH": f"{home}{os.pathsep}{ROOT}"},
        options=("--workers", "1", *options),
    )


def test_deadlines_are_looked_at_each_second(start: Start, tmp_path: Path) -> None:
    """The silent client and the stalled one end in their time; one with a longer time does not."""
    server = odd(start, tmp_path, "--timeout", "2")
    with (
        server.connect(greeted=False) as silent,
        server.connect(greeted=False) as stalled,
        server.connect(greeted=False) as patient,
    ):
        patient.send(b"long\r\n")
        assert patient.line() == b"long"
        stalled.send(b"flood\r\n")
        begun = time.monotonic()
        silent.send(b"x\r\n")
        assert silent.line() == b"x"
        assert silent.ended()
        assert time.monotonic() - begun > 1.5
        stalled.read_to_end()
        patient.send(b"still here\r\n")
        assert patient.line() == b"still here"


def test_a_stop_ends_all_waits(start: Start, tmp_path: Path) -> None:
    """Reading, writing and pausing at once; a commit is finished; then the worker is gone."""
    server = odd(start, tmp_path)
    words = (b"idle", b"flood", b"pause", b"commit")
    clients = {word: server.connect(greeted=False) for word in words}
    try:
        for word, client in clients.items():
            client.send(word + b"\r\n")
        assert clients[b"idle"].line() == b"idle"
        assert clients[b"pause"].line() == b"pausing"
        assert clients[b"flood"].socket.recv(1) == b"\0"
        server.signal(signal.SIGTERM)
        assert clients[b"commit"].line() == b"done"
        assert clients[b"commit"].ended()
        assert (tmp_path / "committed").exists()
        assert clients[b"idle"].ended()
        assert clients[b"pause"].ended()
        assert not clients[b"flood"].read_to_end().strip(b"\0")
    finally:
        for client in clients.values():
            client.close()
    assert server.wait_for_exit(10) == 0


def test_the_ceiling_leaves_clients_in_the_queue(start: Start, tmp_path: Path) -> None:
    """--max-connections clients are served; the next when one has left."""
    server = odd(start, tmp_path, "--max-connections", "2")
    clients = [server.connect(greeted=False, timeout=0.7) for _ in range(3)]
    try:
        for client in clients:
            client.send(b"hello\r\n")
        for client in clients[:2]:
            client.timeout = 15.0
            assert client.line() == b"hello"
        with pytest.raises(TimeoutError):
            clients[2].line()
        clients[0].close()
        clients[2].timeout = 15.0
        assert clients[2].line() == b"hello"
    finally:
        for client in clients:
            client.close()


def test_a_worker_that_has_served_enough_is_replaced_at_once(start: Start, tmp_path: Path) -> None:
    """Clients that stay with it for long do not keep new ones out."""
    server = odd(start, tmp_path, "--max-requests", "2")
    with server.connect(greeted=False) as first, server.connect(greeted=False) as second:
        for client in (first, second):
            client.send(b"x\r\n")
            assert client.line() == b"x"
        with server.connect(greeted=False, timeout=8.0) as third:
            third.send(b"x\r\n")
            assert third.line() == b"x"
        first.send(b"still here\r\n")
        assert first.line() == b"still here"


def test_a_killed_master_leaves_no_worker(start: Start, tmp_path: Path) -> None:
    """The worker serves who is there and ends."""
    server = odd(start, tmp_path)
    (worker,) = server.workers()
    with server.connect(greeted=False) as client:
        client.send(b"x\r\n")
        assert client.line() == b"x"
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait_for_exit() == -signal.SIGKILL
        server.stopped = True
        client.send(b"still here\r\n")
        assert client.line() == b"still here"
    wait_until(lambda: not os.path.exists(f"/proc/{worker}"), 15, "the worker's end")
