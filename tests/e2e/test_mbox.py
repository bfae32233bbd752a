"""Mailboxes through the whole server, under each process model."""

import os
import socket
import time
from pathlib import Path

import pytest

from pop3.sources.mbox_index import file_name
from tests.conftest import Start
from tests.pop3.sources.test_mbox_recovery import Site
from tests.support.processes import wait_until
from tests.support.servers import CONCURRENT, RunningServer

ENVELOPE = b"From a@example.org Thu Jan  1 00:00:00 1970\n"
MAIL = [b"Subject: %d\n\n>From the body of %d\n.\n" % (number, number) for number in range(4)]
LATE = b"Subject: late\n\nlate\n"


def stored(*messages: bytes) -> bytes:
    """Return an mbox of these."""
    return b"".join(ENVELOPE + message + b"\n" for message in messages)


def started(start: Start, personality: str, home: Path) -> RunningServer:
    """Start a server with a mailbox for anna."""
    server = start(
        personality=personality,
        source="mbox",
        options=("--mbox", f"{home}/mail/{{user}}", "--lock-wait", "0.3"),
    )
    path = server.mail / "anna"
    if not path.exists():
        path.write_bytes(stored(*MAIL))
    return server


def deliver(path: Path, message: bytes = LATE) -> None:
    """Append as a delivery agent does: with a dotlock of its own."""
    lock = Path(f"{path}.lock")
    with lock.open("x") as file:
        file.write(f"{os.getpid()} {socket.gethostname()} 1\n")
    with path.open("ab") as box:
        box.write(stored(message))
    lock.unlink()


def errors_in(server: RunningServer) -> list[str]:
    """Return the lines of the log that are warnings or worse."""
    lines = server.log_text().split("\n")
    return [line for line in lines if '"error"' in line or '"warning"' in line]


def test_read_delete_and_late_mail(start: Start, personality: str, tmp_path: Path) -> None:
    """What is sent is what is stored; what comes meanwhile stays, and is seen at the next login."""
    server = started(start, personality, tmp_path)
    path = server.mail / "anna"
    with server.session() as wire:
        ids = [line.split(b" ")[1] for line in wire.lines(b"UIDL")]
        sizes = [int(line.split(b" ")[1]) for line in wire.lines(b"LIST")]
        got = [wire.message(b"RETR %d" % number) for number in range(1, 5)]
        assert got == [message.replace(b"\n", b"\r\n") for message in MAIL]
        assert sizes == [len(message) for message in got]
        deliver(path)
        assert wire.ok(b"STAT").startswith(b"+OK 4 ")
        wire.ok(b"DELE 1")
        wire.ok(b"DELE 3")
        assert wire.quit().startswith(b"+OK")
    assert path.read_bytes() == stored(MAIL[1], MAIL[3], LATE)
    with server.session() as wire:
        after = [line.split(b" ")[1] for line in wire.lines(b"UIDL")]
        assert after[:2] == [ids[1], ids[3]]
        assert len(after) == 3
        wire.quit()
    assert os.listdir(server.mail) == ["anna"]
    assert errors_in(server) == []


def test_quit_that_fails_tells_it(start: Start, personality: str, tmp_path: Path) -> None:
    """The journal cannot be written: -ERR, all mail is there, and the next try deletes it."""
    server = started(start, personality, tmp_path)
    path = server.mail / "anna"
    draft = server.home / "mbox" / "journals" / f"{file_name(str(path))}.tmp"
    with server.session() as wire:
        wire.ok(b"DELE 2")
        draft.mkdir(parents=True)
        assert wire.command(b"QUIT").startswith(b"-ERR [SYS/TEMP]")
    assert path.read_bytes() == stored(*MAIL)
    draft.rmdir()
    with server.session() as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 4 ")
        wire.ok(b"DELE 2")
        assert wire.quit().startswith(b"+OK")
    assert path.read_bytes() == stored(MAIL[0], MAIL[2], MAIL[3])


@pytest.mark.parametrize("kind", CONCURRENT)
def test_second_session_is_told_to_wait(start: Start, kind: str, tmp_path: Path) -> None:
    """One session for each mailbox, whoever asks; another user is not held up."""
    server = started(start, kind, tmp_path)
    with server.session() as first:
        with server.connect() as second:
            second.ok(b"USER anna")
            assert second.command(b"PASS secret").startswith(b"-ERR [IN-USE]")
        first.ok(b"DELE 1")
        assert first.quit().startswith(b"+OK")
    with server.session() as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 3 ")
        wire.quit()


def test_lock_of_an_agent_is_respected(start: Start, personality: str, tmp_path: Path) -> None:
    """At QUIT too: nothing is deleted, and nothing is changed under the agent's hands."""
    server = started(start, personality, tmp_path)
    path = server.mail / "anna"
    with server.session() as wire:
        wire.ok(b"DELE 1")
        Path(f"{path}.lock").write_text(f"{os.getpid()} {socket.gethostname()} 1\n")
        assert wire.command(b"QUIT").startswith(b"-ERR [IN-USE]")
    assert path.read_bytes() == stored(*MAIL)


@pytest.mark.parametrize("kind", [one for one in CONCURRENT if one != "inetd"])
def test_reload_during_a_session(start: Start, kind: str, tmp_path: Path) -> None:
    """HUP: the session goes on, keeps its mailbox to itself, and deletes at its QUIT."""
    server = started(start, kind, tmp_path)
    path = server.mail / "anna"
    with server.session() as wire:
        wire.ok(b"DELE 4")
        server.reload()
        with server.connect() as second:
            second.ok(b"USER anna")
            assert second.command(b"PASS secret").startswith(b"-ERR [IN-USE]")
        assert wire.message(b"RETR 1") == MAIL[0].replace(b"\n", b"\r\n")
        assert wire.quit().startswith(b"+OK")
    assert path.read_bytes() == stored(*MAIL[:3])
    with server.session() as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 3 ")
        wire.quit()


def test_crash_is_healed_at_the_next_start(start: Start, personality: str, tmp_path: Path) -> None:
    """Before anybody logs in, with one line in the log; a locked mailbox holds nothing up."""
    site = Site.__new__(Site)
    site.mail, site.state = tmp_path / "mail", tmp_path
    site.mail.mkdir()
    healed, locked = site.crash("anna"), site.crash("bert")
    Path(f"{locked}.lock").write_text(f"{os.getpid()} elsewhere 1\n")
    before = time.monotonic()
    server = started(start, personality, tmp_path)
    if personality in {"fork", "inetd"}:  # those who serve come with their clients
        server.connect().close()
    wait_until(lambda: server.log_text().count("deletion") >= 2, 15, "the log")
    assert time.monotonic() - before < 15
    assert b"Subject: 1" in healed.read_bytes()
    assert healed.read_bytes().count(ENVELOPE) == 2
    text = server.log_text()
    assert text.count("deletion finished that a crash had interrupted") == 1
    assert text.count("interrupted deletion waits") == 1
    assert str(locked) in text
