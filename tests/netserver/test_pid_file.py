"""Pid files, in real processes."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netserver.errors import BindError
from netserver.pid_file import PidFile

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
from netserver.pid_file import PidFile
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
from netserver.pid_file import PidFile
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
from netserver.pid_file import PidFile
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


def test_check_tells_what_acquire_would_say(tmp_path: Path) -> None:
    """And takes nothing: neither the lock nor the name."""
    held, free = tmp_path / "held", tmp_path / "free"
    master = PidFile(str(held))
    master.acquire()
    with pytest.raises(BindError, match=f"running already, its pid is {os.getpid()}"):
        PidFile(str(held)).check()
    master.remove()
    free.write_text("1\n")
    PidFile(str(free)).check()
    PidFile(str(tmp_path / "new")).check()
    assert [path.name for path in tmp_path.iterdir()] == ["free"]
    with pytest.raises(BindError, match="not a regular file"):
        PidFile(str(tmp_path)).check()
    with pytest.raises(BindError, match="missing or not writable"):
        PidFile("/gone/pid").check()


def left_by(path: Path) -> tuple[int, str]:
    """Take a pid file and return what a restart would hand over."""
    before = PidFile(str(path))
    before.acquire()
    assert before.fd is not None
    bequest = os.dup(before.fd), before.path
    before.close()
    return bequest


def test_the_same_file_stays_as_it_is(tmp_path: Path) -> None:
    """A restart with the same --pid-file never gives the lock back."""
    path = tmp_path / "pid"
    left = left_by(path)
    inode = path.stat().st_ino
    after = PidFile.follow(str(path), left)
    assert after is not None
    assert path.stat().st_ino == inode
    with pytest.raises(BindError, match="running already"):
        PidFile(str(path)).acquire()
    after.remove()


def test_another_file_takes_over(tmp_path: Path) -> None:
    """The new one is written, the old one removed."""
    old, new = tmp_path / "old", tmp_path / "new"
    after = PidFile.follow(str(new), left_by(old))
    assert after is not None
    assert new.read_text() == f"{os.getpid()}\n"
    assert not old.exists()
    after.remove()
    assert PidFile.follow(None, left_by(old)) is None
    assert not old.exists()


def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """Whoever cleaned up too much is helped by a restart."""
    path = tmp_path / "pid"
    left = left_by(path)
    path.unlink()
    after = PidFile.follow(str(path), left)
    assert after is not None
    assert path.read_text() == f"{os.getpid()}\n"
    after.remove()
