"""What one process image leaves to the next, and the check before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netserver.errors import RestartError
from netserver.restart import VARIABLE, CommandLine, Inheritance

ROOT = Path(__file__).resolve().parents[2]

EXEC = """
import os, signal, socket, sys
from netserver.restart import CommandLine, Inheritance
from netserver.signals import SignalQueue

signals = SignalQueue()
mine = Inheritance.take(os.environ)
signals.install()
if not mine.restarted:
    listener = socket.create_server(("127.0.0.1", 0))
    board = os.memfd_create("board")
    os.write(board, b"facts")
    pid_file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    other = os.open("/dev/null", os.O_RDONLY)
    left = Inheritance(
        {"127.0.0.1:0": listener.fileno()},
        [(1, "worker"), (2, "leaving")],
        [board],
        (pid_file, sys.argv[1]),
    )
    command_line = CommandLine()
    os.chdir("/")
    os.kill(os.getpid(), signal.SIGUSR1)
    signals.take()
    print(os.getpid(), other)
    command_line.exec(left, signals)
print(os.getpid(), mine.children, sorted(mine.listeners), os.getcwd())
held, path = mine.pid_file
print(os.pread(mine.boards[0], 9, 0), os.readlink(f"/proc/self/fd/{held}"), path)
socket.socket(fileno=mine.listeners["127.0.0.1:0"]).getsockname()
print(sys.argv[1:], sys.flags.utf8_mode)
print(*[fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
        and os.readlink(f"/proc/self/fd/{fd}") == "/dev/null" and int(fd) > 2])
"""


def test_the_next_image_takes_what_was_left(tmp_path: Path) -> None:
    """Same pid, arguments, interpreter options and directory; the descriptors and no others."""
    (tmp_path / "program.py").write_text(EXEC)
    pid_file = tmp_path / "pid"
    done = subprocess.run(
        [sys.executable, "-X", "utf8=1", "program.py", str(pid_file), "two words", "--flag"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    before, after, left, arguments, stray = done.stdout.split("\n")[:5]
    pid = before.split()[0]
    assert (
        after
        == f"{pid} [(1, 'worker'), (2, 'leaving')] ['127.0.0.1:0'] {os.path.realpath(tmp_path)}"
    )
    assert left == f"b'facts' {pid_file} {pid_file}"
    assert arguments == f"['{pid_file}', 'two words', '--flag'] 1"
    assert stray == ""


def left_by(pid: int, **changes: object) -> str:
    """Return the variable as process ``pid`` would leave it."""
    usual = {"pid": pid, "listeners": {}, "children": [], "boards": [], "pid_file": None}
    return json.dumps({**usual, **changes})


def test_a_first_start_inherits_nothing() -> None:
    """Without the variable all is empty."""
    mine = Inheritance.take({})
    assert mine == Inheritance()
    assert not mine.restarted


def test_what_is_left_for_this_process_is_taken_once() -> None:
    """A child that is started later does not find it."""
    environ = {VARIABLE: left_by(os.getpid(), boards=[7], children=[[5, "client"]])}
    mine = Inheritance.take(environ)
    assert (mine.restarted, mine.boards, mine.children) == (True, [7], [(5, "client")])
    assert environ == {}


def test_what_is_left_for_another_process_is_ignored() -> None:
    """Such as one that a child of the server starts with the server's environment."""
    environ = {VARIABLE: left_by(os.getppid(), boards=[7])}
    assert Inheritance.take(environ) == Inheritance()
    assert environ == {}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", "7", '"x"', "{}"),
        left_by(77, children=None),
        left_by(77, children=[7]),
        left_by(77, children=[["x", "worker"]]),
        left_by(77, surprise=1),
        left_by(77, restarted=True),
    ],
)
def test_garbage_is_a_restart_error(text: str) -> None:
    """It is one line that names the variable, never a traceback."""
    text = text.replace("77", str(os.getpid()))  # a test's name must not depend on the process
    with pytest.raises(RestartError, match=VARIABLE):
        Inheritance.take({VARIABLE: text})


def test_an_exec_that_fails_is_a_restart_error(tmp_path: Path) -> None:
    """The process lives on, with its signals and without the variable."""
    code = """
import os, signal
from netserver.restart import VARIABLE, CommandLine, Inheritance
from netserver.errors import RestartError
from netserver.signals import SignalQueue
signals = SignalQueue()
signals.install()
command_line = CommandLine()
command_line.arguments[0] = "/nonexistent/python"
try:
    command_line.exec(Inheritance(), signals)
except RestartError as error:
    os.kill(os.getpid(), signal.SIGHUP)
    print(error, VARIABLE in os.environ, *map(int, signals.take()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=ROOT,
    )
    assert done.stdout == "exec failed: No such file or directory False 1\n"


@pytest.mark.parametrize(
    ("program", "status", "complaint"),
    [
        ("sys.exit('--check-config' not in sys.argv)", 0, None),
        ("print('no', file=sys.stderr); print('bad option'); sys.exit(2)", 2, "no"),
        ("print('one\\ntwo\\n', file=sys.stderr); sys.exit(1)", 1, "two"),
        ("os.write(2, b'\\xff\\n'); sys.exit(1)", 1, "\ufffd"),
        ("sys.exit(1)", 1, "it ended without a word"),
    ],
)
def test_the_check_is_the_same_program(
    tmp_path: Path, program: str, status: int, complaint: str | None
) -> None:
    """With --check-config added; its last line on standard error is the complaint."""
    script = tmp_path / "program.py"
    script.write_text(f"import os, sys\n{program}\n")
    command_line = CommandLine()
    command_line.arguments = [sys.executable, str(script)]
    pid = command_line.spawn_check(os.environ)
    _, found = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(found) == status
    said = command_line.complaint()
    assert complaint is None or said == complaint


def test_the_check_hears_signals_though_its_parent_blocks_them(tmp_path: Path) -> None:
    """A check that hangs can be ended by TERM."""
    code = """
import os, signal, sys
from netserver.restart import CommandLine
from netserver.signals import SignalQueue
SignalQueue().block()
command_line = CommandLine()
command_line.arguments = [sys.executable, "-c", "import time; time.sleep(60)"]
pid = command_line.spawn_check(os.environ)
os.kill(pid, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, timeout=30, cwd=ROOT
    )
    assert done.stdout == b"-15\n"
