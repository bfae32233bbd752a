"""EXPIRE: fetched mail goes when it is due, and no other ever (RFC 2449 section 6.7)."""

from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.maildirs import PLAIN, make_maildir, stored_messages
from tests.support.servers import RunningServer

OTHER = PLAIN + b"more\r\n"


def visit(server: RunningServer, *commands: bytes, end: bool = True) -> None:
    """Log in, send commands, and leave with QUIT or without."""
    with server.session() as wire:
        for command in commands:
            if command.startswith((b"RETR", b"TOP")):
                wire.message(command)
            else:
                wire.ok(command)
        if end:
            assert wire.quit().startswith(b"+OK")


def capabilities(server: RunningServer) -> list[bytes]:
    """Return what CAPA says of EXPIRE before and after the login."""
    with server.connect() as wire:
        before = wire.lines(b"CAPA")
        wire.login()
        lines = before + wire.lines(b"CAPA")
        wire.quit()
    return [line for line in lines if line.startswith(b"EXPIRE")]


def test_never_is_the_default(start: Start) -> None:
    """Nothing is deleted, and CAPA says so."""
    server = start(personality="prefork")
    make_maildir(server.maildir(), [PLAIN, OTHER])
    visit(server, b"RETR 1", b"RETR 2")
    assert len(stored_messages(server.maildir())) == 2
    assert capabilities(server) == [b"EXPIRE NEVER"] * 2


def test_0_deletes_what_was_fetched_in_a_session_that_ended_well(
    start: Start, personality: str
) -> None:
    """RETR and QUIT; not TOP, not LIST, and not without QUIT."""
    server = start(personality=personality, options=("--expire", "0"))
    make_maildir(server.maildir(), [PLAIN, OTHER])
    assert capabilities(server) == [b"EXPIRE 0"] * 2
    visit(server, b"RETR 1", b"RETR 2", end=False)
    visit(server, b"TOP 1 999", b"LIST 2", b"UIDL 1")
    assert len(stored_messages(server.maildir())) == 2
    visit(server, b"RETR 2", b"RETR 2")
    assert stored_messages(server.maildir()) == [PLAIN]


def test_days_are_counted_from_the_first_fetch(
    start: Start, personality: str, tmp_path: Path
) -> None:
    """What no client has fetched stays for good, however old it is."""
    import sqlite3  # noqa: PLC0415 - this test alone looks into the state

    server = start(personality=personality, options=("--expire", "30"))
    make_maildir(server.maildir(), [PLAIN, OTHER])
    assert capabilities(server) == [b"EXPIRE 30"] * 2
    visit(server, b"RETR 1")
    visit(server)
    assert len(stored_messages(server.maildir())) == 2
    for days, left in ((29, 2), (31, 1)):
        database = sqlite3.connect(tmp_path / "state.db")
        with database:
            changed = database.execute(
                "UPDATE fetched SET since = strftime('%s', 'now') - ?", (days * 86400,)
            )
            assert changed.rowcount == 1
        database.close()
        visit(server, b"RETR 1")  # which does not begin the time anew
        assert len(stored_messages(server.maildir())) == left
    assert stored_messages(server.maildir()) == [OTHER]
    visit(server)
    database = sqlite3.connect(tmp_path / "state.db")
    assert database.execute("SELECT count(*) FROM fetched").fetchone() == (0,)
    database.close()


@pytest.mark.parametrize("options", [("--delete", "hide"), ("--user-debug", "anna")])
def test_what_cannot_or_must_not_be_deleted_is_left(start: Start, options: tuple[str, ...]) -> None:
    """Hidden where DELE hides; and a debug session changes nothing."""
    server = start(personality="prefork", options=("--expire", "0", *options))
    make_maildir(server.maildir(), [PLAIN])
    visit(server, b"RETR 1")
    assert stored_messages(server.maildir()) == [PLAIN]
    with server.session() as wire:
        hidden = options[0] == "--delete"
        assert wire.ok(b"STAT").startswith(b"+OK 0 " if hidden else b"+OK 1 ")
