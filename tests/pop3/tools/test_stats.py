"""pop3-stats: every form of log it reads, what it counts, and how it fails."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from netserver import logs
from pop3.tools.log_lines import LONGEST_LINE, files_in, user_of
from pop3.tools.stats import main
from tests.support.servers import ROOT, run_program

SESSION = {
    "peer": "192.0.2.1:4711", "session": "1a2b-3", "user": "anna", "tls": None, "messages": 9,
    "retr": 3, "top": 2, "dele": 1, "errors": 4, "octets": 5000, "octets_in": 90,
    "octets_out": 6000, "seconds": 2.5, "reason": "quit",
}  # fmt: skip


def counted(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run pop3-stats --json, return what it printed."""
    assert main(["--json", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def some(found: dict[str, Any], names: str) -> list[Any]:
    """Return some counts, by names with blanks between."""
    return [found[name] for name in names.split(" ")]


@pytest.mark.parametrize("form", logs.FORMATS)
def test_the_servers_log_in_each_form(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line of a session is read as the server writes it, odd names and other lines as well."""
    file = tmp_path / "server.log"
    log = logs.configure(format=form, file=str(file))
    log.info("ready", listen="127.0.0.1:110", personality="gevent")
    log.info("session", **SESSION)
    log.info("session", **{**SESSION, "user": 'q "x" = \x01é\\', "retr": 1})
    log.info("session", **{**SESSION, "user": "", "retr": 0})
    log.warning("login failed", user="anna", reason="authentication failed")
    log.info("session failed", user="anna", retr=100)
    found = counted(capsys, "--log", str(file))
    assert found["bad_lines"] == 0
    assert list(found["users"]) == ["anna", 'q "x" = \x01é\\']
    anna = found["users"]["anna"]
    assert some(anna, "connects messages retr top dele errors octets failed") == [
        1, 3, 3, 2, 1, 4, 5000, 1,
    ]  # fmt: skip
    assert some(found["total"], "connects retr failed") == [2, 4, 1]
    assert sum(anna["hours"]) == 1
    assert anna["hours"][int(anna["first"][11:13])] == 1


def test_a_session_begins_before_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dates and hours are those of the begin, and the extremes are found in any order."""
    file = tmp_path / "server.log"
    lines = [
        {"timestamp": f"2026-11-{day}T00:00:01.000Z", "event": "session", **SESSION}
        for day in ("25", "23", "24")
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    anna = counted(capsys, "anna", "--log", str(file))["users"]["anna"]
    assert some(anna, "first last") == ["2026-11-22T23:59:58Z", "2026-11-24T23:59:58Z"]
    assert anna["hours"][23] == 3


OLD = """\
Tue Nov 13 23:38:04 2001 CONNECTION OPENED
Tue Nov 13 23:38:05 2001 USER anna
Tue Nov 13 23:38:07 2001 RETRieved\t1200
Tue Nov 13 23:38:08 2001 RETRieved\t34
Tue Nov 13 23:38:08 2001 DELE 1
Tue Nov 13 23:38:08 2001 TOP 2 0
Tue Nov 13 23:38:09 2001 -ERR no such message
Thu Nov  1 02:00:00 2001 CONNECTION OPENED
"""


def test_user_logs_of_mail_pop3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C1 59, C2 8: lines that begin with a date count, and octets are no longer always 0."""
    (tmp_path / "anna").write_text(OLD)
    found = counted(capsys, "--user-log-dir", str(tmp_path))
    anna = found["users"]["anna"]
    assert some(anna, "connects retr octets dele top errors") == [2, 2, 1234, 1, 1, 1]
    assert some(anna, "first last") == ["2001-11-01T02:00:00Z", "2001-11-13T23:38:04Z"]
    assert [hour for hour, count in enumerate(anna["hours"]) if count] == [2, 23]
    assert found["bad_lines"] == 0


TEXT = """\
2026-11-25T14:00:00Z 1a-1 connect user="anna b" peer=192.0.2.1:5 tls=-
2026-11-25T14:00:01Z 1a-1 command command="RETR 1" answer="+OK 10 octets"
2026-11-25T14:00:01Z 1a-1 retrieved number=1 octets=10
2026-11-25T14:00:02Z 1a-1 disconnect retr=1 top=2 dele=3 errors=4 octets=10 seconds=2.0 reason=quit
"""


def test_our_user_logs_rotated_and_compressed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All files of a user are one user, also where the file name is only a hash of it."""
    (tmp_path / "anna%20b.log").write_text(TEXT)
    (tmp_path / "anna%20b.log.1").write_text(TEXT)
    (tmp_path / "anna%20b.log.2.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / f"={'0' * 64}.log").write_text(TEXT)
    (tmp_path / "link.log").symlink_to(tmp_path / "anna%20b.log")
    found = counted(capsys, "--user-log-dir", str(tmp_path))
    assert list(found["users"]) == ["anna b"]
    assert some(found["users"]["anna b"], "connects retr octets top dele errors") == [
        4, 4, 40, 8, 12, 16,
    ]  # fmt: skip
    assert len(files_in(str(tmp_path))) == 4


@pytest.mark.parametrize(
    ("file", "user"),
    [
        ("anna", "anna"),
        ("anna.log", "anna"),
        ("a.log.log", "a.log"),
        ("anna@x.org.log-20261125.gz", "anna@x.org"),
        ("%2Ea%2Fb.log.12", ".a/b"),
    ],
)
def test_the_user_of_a_file(file: str, user: str) -> None:
    """The name of the file without what log and rotation add."""
    assert user_of(f"/var/log/{file}") == user


def test_bad_lines_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is in no form of ours is counted, costs no more than a line, and ends nothing."""
    file = tmp_path / "mixed.log"
    bad = [
        b"\xff\xfe",
        b"{",
        b"[1]",
        b'{"timestamp":1,"event":"session"}',
        b'{"timestamp":"2026-11-25T99:00:00Z","event":"session","user":"x"}',
        b"timestamp=yesterday event=session user=x",
        b"Tue Foo 13 23:38:04 2001 RETRieved\t12",
        b"[" * 40_000,
        b"x" * (3 * LONGEST_LINE),
    ]
    odd = {"timestamp": "2026-11-25T10:00:00Z", "event": "session", "user": "odd"}
    odds = [{**odd, "retr": "many", "octets": -5}, {**odd, "timestamp": "0900-01-01T10:00:00Z"}]
    odds += [{**odd, "seconds": seconds} for seconds in ("x", [1], 1e300)]
    good = [*map(str.encode, TEXT.splitlines()), *(json.dumps(one).encode() for one in odds)]
    file.write_bytes(b"\n".join([*bad, b"", *good]))
    found = counted(capsys, "--log", str(file))
    assert found["bad_lines"] == len(bad)
    assert some(found["users"]["anna b"], "retr octets") == [1, 10]
    assert some(found["users"]["odd"], "connects retr octets") == [5, 0, 0]


def test_users_asked_for_are_there_and_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one of whom nothing is known; the total is of those asked for."""
    (tmp_path / "anna").write_text(OLD)
    (tmp_path / "ben").write_text(OLD)
    found = counted(capsys, "ben", "carl", "--user-log-dir", str(tmp_path))
    assert list(found["users"]) == ["ben", "carl"]
    assert found["users"]["carl"]["connects"] == 0
    assert found["users"]["carl"]["first"] is None
    assert found["total"]["octets"] == 1234


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each user, the total, the busy hours, the bad lines."""
    (tmp_path / "anna").write_text(OLD + "nonsense\n")
    assert main(["--all", "--user-log-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "user", "connects", "retr", "top", "dele", "octets", "errors", "failed", "first", "last",
    ]  # fmt: skip
    assert lines[1].split()[:6] == ["anna", "2", "2", "1", "1", "1234"]
    assert lines[2].split()[:6] == ["total", "2", "2", "1", "1", "1234"]
    assert [line.split() for line in lines[4:7]] == [["hour", "connects"], ["02", "1"], ["23", "1"]]
    assert lines[-1] == "1 lines could not be read"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--log", "none.log"], "none.log: cannot be read: No such file"),
        (["--log", "."], ".: cannot be read: Is a directory"),
        (["--log", "broken.gz"], "broken.gz: cannot be read: not a whole .gz file"),
        (["--log", "damaged.gz"], "damaged.gz: cannot be read: "),
        (["--user-log-dir", "none"], "none"),
        (["--all", "anna"], "--all"),
        ([], "nothing to read"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: Sequence[str], says: str) -> None:
    """Exit 2 and one line that names the file."""
    whole = gzip.compress(os.urandom(5000))
    (tmp_path / "broken.gz").write_bytes(whole[:-20])
    (tmp_path / "damaged.gz").write_bytes(whole[:100] + b"\xff" * 50 + whole[150:])
    done = run_program("pop3-stats", *arguments, home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("pop3-stats: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_standard_input_and_a_reader_that_leaves(tmp_path: Path) -> None:
    """A dash is standard input; a closed pipe is no traceback."""
    command = [sys.executable, str(ROOT / "bin" / "pop3-stats"), "--log", "-"]
    done = subprocess.run(
        command, input=TEXT.encode(), capture_output=True, timeout=30, check=False, cwd=tmp_path
    )
    assert done.returncode == 0
    assert b"anna b" in done.stdout
    reading, writing = os.pipe()
    os.close(reading)
    try:
        left = subprocess.run(
            command, input=TEXT.encode(), stdout=writing, stderr=subprocess.PIPE, timeout=30,
            check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert left.stderr == b""


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Names that guessers try are not all kept, and a log is never held whole."""
    file = tmp_path / "server.log"
    line = '{{"timestamp":"2026-11-25T10:00:00.000Z","event":"login failed","user":"guess{}"}}\n'
    with file.open("w") as log:
        for number in range(150_000):
            log.write(line.format(number))
    script = (
        "import resource, sys; from pop3.tools.stats import count;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "tally = count([sys.argv[1]]); assert tally.total.failed == 150_000;"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, timeout=60,
        check=True, cwd=ROOT,
    )  # fmt: skip
    assert int(done.stdout) < 60 * 1024
