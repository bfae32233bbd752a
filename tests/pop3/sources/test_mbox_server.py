"""Mailboxes through the real server, under the process models that differ most."""

import fcntl
import os
import socket

import pytest

from tests.conftest import Start
from tests.support.maildirs import NASTY, with_crlf
from tests.support.servers import RunningServer

MODELS = ("gevent", "fork")
ENVELOPE = b"From a@example.org Thu Jan  1 00:00:00 1970\n"
# as a delivery agent stores them: with a last line end
MAIL = [text if text.endswith(b"\n") or not text else text + b"\n" for text in NASTY.values()]


def stored(messages: list[bytes]) -> bytes:
    """Return an mbox of these."""
    return b"".join(ENVELOPE + message + b"\n" for message in messages)


def started(start: Start, kind: str, messages: list[bytes], *options: str) -> RunningServer:
    """Start a server with mail for anna."""
    server = start(
        personality=kind,
        source="mbox",
        options=("--mbox", "mail/{user}", "--lock-wait", "0.3", *options),
    )
    (server.mail / "anna").write_bytes(stored(messages))
    return server


@pytest.mark.parametrize("kind", MODELS)
def test_a_session_from_login_to_quit(start: Start, kind: str) -> None:
    """Sizes are exact, content is whole, QUIT deletes, what came meanwhile stays."""
    server = started(start, kind, MAIL)
    path = server.mail / "anna"
    with server.session() as wire:
        sizes = [int(line.split(b" ")[1]) for line in wire.lines(b"LIST")]
        ids = [line.split(b" ")[1] for line in wire.lines(b"UIDL")]
        got = [wire.message(b"RETR %d" % (number + 1)) for number in range(len(MAIL))]
        assert got == [with_crlf(message) for message in MAIL]
        assert sizes == [len(message) for message in got]
        assert len(set(ids)) == len(MAIL)
        with path.open("ab") as agent:  # nothing holds it up during the session
            fcntl.lockf(agent, fcntl.LOCK_EX | fcntl.LOCK_NB)
            agent.write(stored([b"Subject: late\n\nlate\n"]))
        for number in range(1, len(MAIL) + 1, 2):
            wire.ok(b"DELE %d" % number)
        assert wire.quit().startswith(b"+OK")
    assert path.read_bytes() == stored([*MAIL[1::2], b"Subject: late\n\nlate\n"])
    assert os.listdir(server.mail) == ["anna"]
    with server.session() as wire:
        assert [line.split(b" ")[1] for line in wire.lines(b"UIDL")][:-1] == ids[1::2]
        wire.quit()
    assert "error" not in {
        line.split('"level": "')[-1][:5] for line in server.log_text().split("\n")
    }


@pytest.mark.parametrize("kind", MODELS)
def test_quit_says_when_nothing_was_deleted(start: Start, kind: str) -> None:
    """Another program has the mailbox: -ERR, and all is there at the next login."""
    server = started(start, kind, MAIL[:3])
    lock = server.mail / "anna.lock"
    with server.session() as wire:
        wire.ok(b"DELE 1")
        lock.write_text(f"{os.getpid()} {socket.gethostname()} 1\n")
        assert wire.command(b"QUIT").startswith(b"-ERR [IN-USE]")
    with server.connect() as wire:
        wire.ok(b"USER anna")
        assert wire.command(b"PASS secret").startswith(b"-ERR [IN-USE]")
    lock.unlink()
    with server.session() as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 3 ")
        wire.quit()
    assert (server.mail / "anna").read_bytes() == stored(MAIL[:3])


def test_wrong_lock_is_refused_at_start(start: Start) -> None:
    """One line that names the option."""
    with pytest.raises(pytest.fail.Exception, match="mbox-locks"):
        started(start, "fork", [], "--mbox-locks", "lockf")
