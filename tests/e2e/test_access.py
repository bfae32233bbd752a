"""Who may connect, asked from several addresses of 127.0.0.0/8."""

import os
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.processes import wait_until
from tests.support.servers import RunningServer, run_program
from tests.support.wire import Wire

KINDS = ("prefork", "gevent")


def welcome(server: RunningServer, source: str) -> bool:
    """Return whether a client from this address is greeted."""
    with Wire(server.host, server.port, greeted=False, source=source) as wire:
        try:
            greeting = wire.line()
        except (EOFError, ConnectionError):
            return False
        assert greeting.startswith(b"+OK"), greeting
        return True


@pytest.mark.parametrize("kind", KINDS)
def test_the_access_file_decides_and_may_change(start: Start, tmp_path: Path, kind: str) -> None:
    """Whole octets, the first match, DENY ALL; a new file counts without a reload."""
    path = tmp_path / "access"
    path.write_text("deny ALL\nWARN 127.0.0.1\nALLOW 127.0.0.1\nALLOW 127.0.1.\n")
    options = ("--workers", "1", "--access-file", str(path))  # each worker looks by itself
    server = start(personality=kind, options=options)
    answers = [welcome(server, f"127.0.{last}") for last in ("0.1", "0.12", "1.1", "10.1")]
    assert answers == [True, False, True, False]
    server.wait_for_log(f"{path}:1: DENY ALL")
    server.wait_for_log(f"{path}:2: WARN 127.0.0.1")

    fresh = tmp_path / "fresh"
    fresh.write_text("DENY 127.0.0.1\n")
    os.replace(fresh, path)
    wait_until(lambda: welcome(server, "127.0.0.12"), 20, "the new rules")
    assert not welcome(server, "127.0.0.1")

    path.write_text("DENY nobody at all\n")
    wait_until(lambda: not welcome(server, "127.0.0.1") and broken(server, path), 20, "a warning")
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert not welcome(server, "127.0.0.1")
        time.sleep(0.1)
    assert server.log_text().count("the old ones stay") == 1


def broken(server: RunningServer, path: Path) -> bool:
    """Whether the server has told what is wrong with the file."""
    return f"--access-file {path}:1: not ALLOW" in server.log_text()


def has_name(host: str) -> bool:
    """Whether this machine's resolver has a name for the address."""
    try:
        socket.getnameinfo((host, 0), socket.NI_NAMEREQD)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["on", "double"])
def test_reverse_lookup_by_the_real_resolver(
    start: Start, tmp_path: Path, kind: str, mode: str
) -> None:
    """127.0.0.1 has a name; who is trusted needs none, who is denied gains nothing by trust."""
    trusted = tmp_path / "trusted"
    trusted.write_text("127.0.2.\n127.0.3.0/24\n")
    config = tmp_path / "config.yaml"  # where `on` is a word, not a truth
    config.write_text(f"reverse-lookup: {mode}\ntrusted-file: {trusted}\ndeny: 127.0.3.3\n")
    server = start(personality=kind, options=("--config", str(config)))
    assert welcome(server, "127.0.0.1")
    if not has_name("127.0.4.1"):
        assert not welcome(server, "127.0.4.1")
        server.wait_for_log(f"--reverse-lookup {mode}")
    assert welcome(server, "127.0.2.1")
    assert welcome(server, "127.0.3.1")
    assert not welcome(server, "127.0.3.3")


def test_a_bad_file_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """Both files, with option, path and line."""
    path = tmp_path / "rules"
    path.write_text("ALLOW ALL\nALLOW 10.0.0\n")
    for option, line in (("--access-file", 2), ("--trusted-file", 1)):
        done = run_program(
            "net-server", "--no-default-config", option, str(path), "--check-config", home=tmp_path
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f"net-server: {option} {path}:{line}: ")
        assert done.stderr.count("\n") == 1
