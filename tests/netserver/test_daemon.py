"""Pid files, background and descriptor limits, in real processes."""

import fcntl
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from netserver.daemon import PidFile
from netserver.errors import BindError

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


# -- pid file -------------------------------------------------------------------------------------


def test_pid_file_is_written_and_removed(tmp_path: Path) -> None:
    """It holds the pid and a line end, has no siblings, and goes with its master."""
    path = tmp_path / "pid"
    pid_file = PidFile(str(path))
    pid_file.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644
    pid_file.remove()
    pid_file.remove()
    assert list(tmp_path.iterdir()) == []


def test_second_master_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    """The file stays as it is, and is free when the first one is gone."""
    path = tmp_path / "pid"
    first, second = PidFile(str(path)), PidFile(str(path))
    first.acquire()
    expected = f"^--pid-file {path}: a server is running already, its pid is {os.getpid()}$"
    with pytest.raises(BindError, match=expected):
        second.acquire()
    assert list(tmp_path.iterdir()) == [path]
    first.close()
    second.acquire()
    second.remove()


def test_stale_pid_file_is_replaced(tmp_path: Path) -> None:
    """What a killed master left does not hinder, even if its pid is somebody else's now."""
    path = tmp_path / "pid"
    path.write_text("1\nand more")
    pid_file = PidFile(str(path))
    pid_file.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.remove()


def test_pid_file_follows_no_link_and_takes_only_files(tmp_path: Path) -> None:
    """Nothing outside is written, whoever put the link there."""
    victim, link, fifo = tmp_path / "victim", tmp_path / "link", tmp_path / "fifo"
    victim.write_text("precious")
    link.symlink_to(victim)
    os.mkfifo(fifo)
    with pytest.raises(BindError, match="too many levels of symbolic links"):
        PidFile(str(link)).acquire()
    with pytest.raises(BindError, match="not a regular file"):
        PidFile(str(fifo)).acquire()
    with pytest.raises(BindError, match="not a regular file"):
        PidFile(str(tmp_path)).acquire()
    with pytest.raises(BindError, match="/gone/pid: no such file or directory"):
        PidFile("/gone/pid").acquire()
    assert victim.read_text() == "precious"
    assert {p.name for p in tmp_path.iterdir()} == {"victim", "link", "fifo"}


def test_pid_file_of_another_is_not_removed(tmp_path: Path) -> None:
    """A file that was replaced meanwhile belongs to who replaced it."""
    path = tmp_path / "pid"
    pid_file = PidFile(str(path))
    pid_file.acquire()
    path.unlink()
    path.write_text("4711\n")
    pid_file.remove()
    assert path.read_text() == "4711\n"


def test_child_neither_holds_nor_removes_the_pid_file(tmp_path: Path) -> None:
    """The lock ends with the master, though its children live on."""
    path = tmp_path / "pid"
    program = """
import os, sys
from netserver.daemon import PidFile
pid_file = PidFile(sys.argv[1])
pid_file.acquire()
if os.fork() == 0:
    pid_file.remove()
    os.close(1)
    os.close(2)
    os.read(0, 1)
    os._exit(0)
os._exit(0)
"""
    reader, writer = os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-c", program, path], stdin=reader, cwd=ROOT, timeout=30, check=True
        )
        assert path.exists()
        successor = PidFile(str(path))
        successor.acquire()
        successor.remove()
    finally:
        os.close(writer)
        os.close(reader)


def test_lock_survives_exec(tmp_path: Path) -> None:
    """The same process after exec adopts it, nobody could come in between, and removes it."""
    path = tmp_path / "pid"
    program = """
import os, subprocess, sys
from netserver.daemon import PidFile
from netserver.errors import BindError
path = sys.argv[1]
if len(sys.argv) == 2:
    pid_file = PidFile(path)
    pid_file.acquire()
    os.set_inheritable(pid_file.fd, True)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[0], path, str(pid_file.fd)])
pid_file = PidFile.adopt(path, int(sys.argv[2]))
assert not os.get_inheritable(pid_file.fd)
try:
    PidFile(path).acquire()
except BindError as error:
    print(error)
assert open(path).read() == f"{os.getpid()}\\n"
pid_file.remove()
"""
    done = run(f"import sys; sys.argv[0] = {program!r}; exec(sys.argv[0])", path)
    assert "a server is running already" in done.stdout, done.stderr
    assert not path.exists()


def test_of_many_masters_at_once_one_wins(tmp_path: Path) -> None:
    """All others are refused, whether the file was there before or not."""
    program = """
import sys
from netserver.daemon import PidFile
from netserver.errors import BindError
sys.stdin.readline()
pid_file = PidFile(sys.argv[1])
try:
    pid_file.acquire()
    print("won", flush=True)
    sys.stdin.readline()
except BindError:
    print("refused", flush=True)
"""
    stale = tmp_path / "stale"
    stale.write_text("999999999\n")
    for path in (tmp_path / "new", stale):
        masters = [
            subprocess.Popen(
                [sys.executable, "-c", program, path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for _ in range(6)
        ]
        said = []
        for master in masters:
            assert master.stdin is not None
            master.stdin.write("go\n")
            master.stdin.flush()
        for master in masters:
            assert master.stdout is not None
            said.append(master.stdout.readline())
        for master in masters:
            master.communicate(timeout=10)
        assert sorted(said) == ["refused\n"] * 5 + ["won\n"]


def test_flock_is_what_holds_the_file(tmp_path: Path) -> None:
    """A script can ask the same question by flock(1)."""
    path = tmp_path / "pid"
    pid_file = PidFile(str(path))
    pid_file.acquire()
    with path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    pid_file.remove()


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
