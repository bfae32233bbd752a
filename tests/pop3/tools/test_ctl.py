"""pop3-ctl without a server: its command line, what it shows, and how it finds a server."""

import argparse
import fcntl
import os
from pathlib import Path

import pytest

from netserver.control import ControlError
from pop3.tools import ctl, ctl_certs, ctl_find, ctl_server, ctl_show
from tests.netserver.certs import make_certificate


def test_the_old_words_are_there() -> None:
    """Those of mpopdctl, and its short options."""
    for word in ("start", "stop", "restart", "refresh", "config", "reload"):
        options = ctl.parser().parse_args(["-f", "x.yaml", "-p", "1110", "-e", word])
        assert (options.command, options.config, options.edit) == (word, "x.yaml", True)


@pytest.mark.parametrize(("text", "number"), [("+1", 1), ("-3", -3), ("+999", 999)])
def test_more_and_fewer_workers(text: str, number: int) -> None:
    """With a sign, or it is a mistake."""
    assert ctl.parser().parse_args(["workers", text]).change == number


@pytest.mark.parametrize("text", ["1", "+", "+1000", "++1", "+\u0661"])
def test_what_is_no_change_is_refused(text: str) -> None:
    """In words."""
    with pytest.raises(argparse.ArgumentTypeError, match="is not"):
        ctl.change(text)


def test_what_p_means() -> None:
    """Digits are a port, anything else is a file."""
    by_port = ctl.target_of(ctl.parser().parse_args(["-p", "1110", "stop"]))
    assert (by_port.port, by_port.pid_file) == (1110, None)
    by_file = ctl.target_of(ctl.parser().parse_args(["-p", "/run/x.pid", "stop"]))
    assert (by_file.port, by_file.pid_file) == (None, "/run/x.pid")


def test_every_command_has_its_function() -> None:
    """And each function a command."""
    names = {name for command in ctl._COMMANDS for name in command[0]}
    assert names == set(ctl._RUN)


def test_only_a_held_pid_file_names_a_server(tmp_path: Path) -> None:
    """A number in a file that nobody holds may be anybody's by now."""
    path = tmp_path / "pid"
    with pytest.raises(ControlError, match="no server is running"):
        ctl_find.held(str(path))
    path.write_text("1\n")
    with pytest.raises(ControlError, match="no server is running"):
        ctl_find.held(str(path))
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ctl_find.held(str(path)) == 1
    path.write_text("sh -c\n")
    with pytest.raises(ControlError, match="no pid file"):
        ctl_find.held(str(path))


def test_who_holds_a_lock_is_told_by_the_kernel(tmp_path: Path) -> None:
    """By the file, not by its name."""
    path = tmp_path / "lock"
    with path.open("w") as held:
        assert ctl_server.lock_holders(str(path)) == []
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ctl_server.lock_holders(str(path)) == [os.getpid()]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9, "0 s"), (59, "59 s"), (3700, "1:01 h"), (90_000, "1 d 01:00")],
)
def test_times_are_readable(seconds: float, text: str) -> None:
    """Seconds, hours and minutes, days."""
    assert ctl_show.span(seconds) == text


def test_names_cannot_play_with_the_terminal() -> None:
    """What a client sent as a name is shown without its control characters."""
    one = {"id": "1-1", "address": "a", "user": "x\x1b[2J\ny", "state": "", "octets": 0}
    text = ctl_show.who([{**one, "seconds": 1.0}])
    assert "\x1b" not in text
    assert text.count("\n") == 1


def test_problems_of_certificates(tmp_path: Path) -> None:
    """A wrong key, no file, no certificate."""
    cert, key = make_certificate(tmp_path)
    good = ctl_certs.examine(str(cert), str(key))
    assert good["names"]
    assert not [one for one in good["problems"] if "key" in one]
    (tmp_path / "wrong").write_text("nothing")
    bad = ctl_certs.examine(str(cert), str(tmp_path / "wrong"))
    assert any("does not fit" in one for one in bad["problems"])
    assert ctl_certs.examine(str(tmp_path / "none"), "")["problems"] == [
        "no such file or directory"
    ]
    assert ctl_certs.examine(str(tmp_path / "wrong"), "")["problems"] == ["no certificate in it"]


def test_a_failure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the exit code tells which kind."""
    path = str(tmp_path / "none.sock")
    assert ctl.main(["--control-socket", path, "status"]) == 1
    assert capsys.readouterr().err == f"pop3-ctl: {path}: no server is running\n"
    assert ctl.main(["-f", str(tmp_path / "none.yaml"), "status"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
