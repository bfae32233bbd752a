"""Where log lines go, and what happens when they cannot."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from netserver import log_targets, logs
from netserver.logs import Log, configure

ROOT = Path(__file__).parents[2]


def test_reopen_follows_a_renamed_file(tmp_path: Path) -> None:
    """Loggers that exist go on in the new file; a new configuration does not disturb the old."""
    path, rotated = tmp_path / "log", tmp_path / "log.1"
    log = configure(format="logfmt", file=str(path))
    bound = log.bind(user="alice")
    log.info("one")
    path.rename(rotated)
    log.info("two")
    assert logs.reopen()
    bound.info("three")
    assert rotated.read_text().count("\n") == 2
    assert "event=three user=alice" in path.read_text()
    other = configure(format="json", file=str(tmp_path / "other"))
    other.info("four")
    bound.info("five")
    assert "event=five" in path.read_text()


def test_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """The directory is gone: what is logged still lands in the open file."""
    directory = tmp_path / "d"
    directory.mkdir()
    log = configure(format="logfmt", file=str(directory / "log"))
    directory.rename(tmp_path / "e")
    assert not logs.reopen()
    log.info("still here")
    assert "still here" in (tmp_path / "e" / "log").read_text()


# -- broken targets -------------------------------------------------------------------------------


def test_a_full_disk_is_counted_and_told_later(tmp_path: Path) -> None:
    """No event raises; the next that can be written says how many were lost."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    link = tmp_path / "log"
    link.symlink_to("/dev/full")
    log = configure(format="json", file=str(link))
    log.info("one")
    log.info("two")
    assert logs.lines_dropped() == 2
    link.unlink()
    assert logs.reopen()
    log.info("three")
    log.info("four")
    lines = [json.loads(line) for line in link.read_text().split("\n")[:-1]]
    assert [line.get("lines_lost") for line in lines] == [2, None]
    assert logs.lines_dropped() == 2


def test_a_line_cut_by_a_full_disk_does_not_swallow_the_next(tmp_path: Path) -> None:
    """After a short write the next event begins a line of its own."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    path = tmp_path / "log"
    log = configure(format="json", file=str(path))
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        log.info("cut")
        log.info("refused")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    log.info("whole")
    first, second, _ = path.read_text().split("\n")
    assert len(first) == 50
    assert json.loads(second)["event"] == "whole"
    assert json.loads(second)["lines_lost"] == 2


def test_a_closed_pipe_does_not_end_the_process() -> None:
    """Whoever read standard error is gone."""
    program = """
import sys
from netserver.logs import configure, lines_dropped
log = configure()
sys.stdin.readline()
log.info("nobody hears this")
print(lines_dropped())
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    child.stderr.close()
    child.stderr = None
    out, _ = child.communicate("go\n", timeout=30)
    assert (child.returncode, out) == (0, "1\n")


def test_many_processes_write_whole_lines(tmp_path: Path) -> None:
    """Children that share the file never mix their lines."""
    path = tmp_path / "log"
    program = """
import os, sys
from netserver.logs import configure
log = configure(format="json", file=sys.argv[1])
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        for _ in range(200):
            log.info("x" * 50, number=number, text="y" * 500)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, timeout=30, check=True)
    lines = path.read_text().split("\n")[:-1]
    numbers = [json.loads(line)["number"] for line in lines]
    assert sorted(numbers) == sorted(list(range(4)) * 200)


# -- syslog and journal ---------------------------------------------------------------------------


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], socket.socket]:
    """Return a function that opens the socket of a syslog daemon or journal, anew at each call."""
    path = tmp_path / "socket"
    monkeypatch.setattr(log_targets.SyslogTarget, "path", str(path))
    monkeypatch.setattr(log_targets.JournalTarget, "path", str(path))

    def open_socket() -> socket.socket:
        path.unlink(missing_ok=True)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(str(path))
        receiver.settimeout(5)
        return receiver

    return open_socket


def test_syslog_gets_facility_mail_and_the_level(collector: Callable[[], socket.socket]) -> None:
    """Each event is one message in the form of /dev/log."""
    with collector() as receiver:
        log = configure(file="syslog", name="pop3-server")
        log.warning("disk is slow", user="a\nb", seconds=2)
        message = receiver.recv(10_000).decode()
        expected = (
            rf"<20>[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d pop3-server\[{os.getpid()}\]: "
            r'warning disk is slow user="a\\nb" seconds=2'
        )
        assert re.fullmatch(expected, message)
        configure(file="syslog", format="json").critical("x")
        assert re.fullmatch(r"<18>.*\]: \{.*\"event\":\"x\"\}", receiver.recv(10_000).decode())


def test_syslog_daemon_may_restart(collector: Callable[[], socket.socket]) -> None:
    """Messages in between are counted, later ones go to the new socket."""
    with collector():
        log = configure(file="syslog")
    log.info("lost")
    assert logs.lines_dropped() == 1
    with collector() as receiver:
        log.info("found")
        assert b"found lines_lost=1" in receiver.recv(10_000)


def test_journal_gets_fields(collector: Callable[[], socket.socket]) -> None:
    """The native protocol: one KEY=value a line, whatever the key or the value was."""
    with collector() as receiver:
        log: Log = configure(file="journald", name="pop3-server")
        log.error("failed", user="a\nMESSAGE=forged", retries=2, **{"_odd key": "x"})
        lines = receiver.recv(10_000).decode().split("\n")
    assert lines == [
        "PRIORITY=3",
        "SYSLOG_FACILITY=2",
        "SYSLOG_IDENTIFIER=pop3-server",
        "LEVEL=error",
        r'MESSAGE=failed user="a\nMESSAGE=forged" retries=2 _odd_key=x',
        r"USER=a\nMESSAGE=forged",
        "RETRIES=2",
        "ODD_KEY=x",
        "",
    ]
