"""The unpatched primitives: the real ones, also in a process that gevent has patched."""

import os
import subprocess
import sys
from pathlib import Path

from netserver import native

ROOT = Path(__file__).resolve().parents[2]

USE_ALL = """
import os
import gevent.monkey
gevent.monkey.patch_all()
import gevent._hub_local
import select, socket, time
from netserver import native

near, far = native.socketpair()
assert type(near) is native.socket is not socket.socket
native.write(far.fileno(), b"x")
assert native.select([near], [], [], 10)[0] == [near]
poll = native.poll()
poll.register(near, select.POLLIN)
assert poll.poll(10000)
assert native.read(near.fileno(), 1) == b"x"
assert native.select([near], [], [], 0) == ([], [], [])
before = native.monotonic()
native.sleep(0.01)
assert native.monotonic() > before
with native.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
    listener.bind(native.getaddrinfo("127.0.0.1", 0)[0][4])
    listener.listen()
pid = native.fork()
if pid == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(native.waitpid(pid, 0)[1]) == 7
pid = native.posix_spawn("/bin/true", ["true"], {})
assert native.waitpid(pid, 0) == (pid, 0)
native.close(far.detach())
near.close()

assert gevent._hub_local.get_hub_if_exists() is None, "a hub was made"
assert len(os.listdir("/proc/self/task")) == 1, "a thread was made"
{plant}
print("done")
"""


def run(plant: str = "") -> "subprocess.CompletedProcess[str]":
    """Use everything in a fresh patched interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", USE_ALL.replace("{plant}", plant)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_patched_master_that_uses_them_has_no_hub_and_one_thread() -> None:
    """Socket, select, sleep, fork, waitpid: none of them wakes gevent up."""
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_the_patched_ones_would_make_a_hub() -> None:
    """The check above can fail: one patched sleep is seen."""
    plant = "time.sleep(0)\nassert gevent._hub_local.get_hub_if_exists() is None, 'seen'"
    assert "AssertionError: seen" in run(plant).stderr


def test_unpatched_they_are_the_plain_functions() -> None:
    """Without gevent nothing is looked up and nothing imported."""
    code = (
        "import os, select, socket, sys, time; from netserver import native;"
        "assert native.socket is socket.socket and native.select is select.select;"
        "assert native.sleep is time.sleep and native.fork is os.fork;"
        "assert 'gevent' not in sys.modules"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, env=environ)


def test_a_pair_is_connected() -> None:
    """Both ends speak to each other and are not inherited over exec."""
    near, far = native.socketpair()
    with near, far:
        near.settimeout(10)
        far.sendall(b"x")
        assert near.recv(1) == b"x"
        assert not near.get_inheritable()
        assert not far.get_inheritable()
