"""Background and descriptor limits, in real processes."""

import os
import select
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# -- background -----------------------------------------------------------------------------------

DAEMON = """
import os, sys
from netserver.daemon import background
parent = os.getpid()
print("before")
ready = background()
assert os.getpid() != parent
print("starting", flush=True)
if sys.argv[1] == "fail":
    print("option --x: wrong", file=sys.stderr)
    sys.exit(2)
if sys.argv[1] == "crash":
    os.kill(os.getpid(), 9)
report = os.open(sys.argv[2], os.O_WRONLY)
assert os.getsid(0) not in (os.getpid(), os.getsid(parent)), "is no session's leader"
ready()
for stream in (0, 1, 2):
    assert os.path.samestat(os.fstat(stream), os.stat("/dev/null"))
print("lost")
os.write(report, b"%d" % os.getpid())
"""


def test_background_ends_when_the_daemon_is_ready(tmp_path: Path) -> None:
    """The command ends with 0 when the daemon says so; its streams are /dev/null then."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    report = os.open(fifo, os.O_RDWR)
    done = run(DAEMON, "work", fifo)
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\nstarting\n", "")
    assert select.select([report], [], [], 10)[0]
    assert int(os.read(report, 20)) > 1
    os.close(report)


def test_background_passes_a_failure_on() -> None:
    """A daemon that ends before it is ready gives the command its exit code and its message."""
    done = run(DAEMON, "fail")
    assert (done.returncode, done.stderr) == (2, "option --x: wrong\n")
    assert run(DAEMON, "crash").returncode == 1


# -- descriptor limit -----------------------------------------------------------------------------


def test_descriptor_limit_is_raised_up_to_the_hard_one() -> None:
    """What is wanted is got if it can be; never less than before; the truth is returned."""
    program = """
import resource
from netserver.daemon import raise_descriptor_limit as raised
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
print(raised(50), raised(150), raised(120), raised(5000))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    assert run(program).stdout == "100 150 150 200\n(200, 200)\n"


def test_module_imports_without_the_unix_modules() -> None:
    """What the single personality needs of it can be imported where these do not exist."""
    program = """
import sys
for name in ("fcntl", "pwd", "grp", "resource"):
    sys.modules[name] = None
import netserver.access, netserver.daemon, netserver.listeners, netserver.systemd, netserver.tls
print(netserver.daemon.raise_descriptor_limit(100))
"""
    done = run(program)
    assert done.stdout == "100\n", done.stderr
