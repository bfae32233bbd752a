"""Whole servers whose users are in PostgreSQL and in slapd."""

import contextlib
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.maildirs import make_maildir
from tests.support.postgres import Postgres
from tests.support.servers import RunningServer
from tests.support.slapd import BASE, Slapd
from tests.support.wire import Wire

HASH = (  # pass wörd
    "{SHA512-CRYPT}$6$rounds=1000$saltsalt$"
    "COk9WGwRxFX7iGffLTT4mtAqyxAFq9jLIAKSnAy8z8ABbwQo/QEzLr9QGE7cf8xjoUIaR0Gilt8GNDTD33y4i1"
)
TOGETHER = 20


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[Postgres]:
    """Fill a table once."""
    postgres.run(
        "CREATE TABLE mailboxes (name text, password text)",
        f"INSERT INTO mailboxes VALUES ('sqlanna', '{HASH}')",
        f"INSERT INTO mailboxes SELECT 'many' || n, '{HASH}' FROM generate_series(1, 20) n",
    )
    yield postgres
    postgres.run("DROP TABLE mailboxes")


def options(home: Path, database: Postgres, slapd: Slapd) -> tuple[str, ...]:
    """Write both files, return the options that name them."""
    (home / "sql.yaml").write_text(
        f"url: {database.url()}\ntimeout: 10\n"
        "query: SELECT password FROM mailboxes WHERE name = :user\n"
    )
    (home / "ldap.yaml").write_text(f"urls: [{slapd.url}]\nbase: 'ou=people,{BASE}'\ntimeout: 10\n")
    return ("--auth", f"sql:{home}/sql.yaml", "--auth", f"ldap:{home}/ldap.yaml")


def replies(server: RunningServer, *attempts: tuple[str, str]) -> list[bytes]:
    """Return the replies to PASS, all on one connection."""
    found = []
    with server.connect() as wire:
        for user, password in attempts:
            wire.ok(b"USER " + user.encode())
            found.append(wire.command(b"PASS " + password.encode()))
    return found


def test_logins(
    personality: str, start: Start, tmp_path: Path, database: Postgres, slapd: Slapd
) -> None:
    """Each backend lets its users in and nobody else; a broken one is a temporary failure."""
    for user in ("sqlanna", "bert"):
        make_maildir(tmp_path / "mail" / user, [b"Subject: x\n\n" + user.encode()])
    server = start(personality=personality, users={}, options=options(tmp_path, database, slapd))
    for user, right in (("sqlanna", "pass wörd"), ("bert", "secret")):
        wrong, empty, good = replies(server, (user, "wrong"), (user, ""), (user, right))
        assert wrong.startswith(b"-ERR [AUTH]")
        assert empty.startswith(b"-ERR")
        assert good.startswith(b"+OK"), server.log_text()
    for names in (("nobody", "' OR 1=1 -- "), ("*", "bert)(uid=*")):
        for reply in replies(server, *((name, "secret") for name in names)):
            assert reply.startswith(b"-ERR [AUTH]")
    with server.session("BERT") as wire:
        assert b"bert" in wire.message(b"RETR 1")  # the maildir of the proper name
        wire.quit()
    database.stop()
    try:
        (reply,) = replies(server, ("sqlanna", "pass wörd"))
        assert reply.startswith(b"-ERR [SYS/TEMP]")
    finally:
        database.start()
    (reply,) = replies(server, ("sqlanna", "pass wörd"))
    assert reply.startswith(b"+OK")
    assert "secret" not in server.log_text()
    assert "wörd" not in server.log_text()


def waiting_logins(server: RunningServer, users: list[str], word: bytes) -> list[Wire]:
    """Send PASS on one connection for each user."""
    wires = []
    for user in users:
        wire = server.connect()
        wire.ok(b"USER " + user.encode())
        wire.send(b"PASS " + word + b"\r\n")
        wires.append(wire)
    return wires


@contextlib.contextmanager
def locked(database: Postgres) -> Iterator[None]:
    """Let the database keep everybody waiting."""
    import psycopg  # noqa: PLC0415 - an extra

    place = {"host": str(database.directory), "user": "pop3", "dbname": "postgres"}
    with psycopg.connect(**place) as connection:  # type: ignore[arg-type]
        connection.execute("LOCK TABLE mailboxes IN ACCESS EXCLUSIVE MODE")
        yield


@contextlib.contextmanager
def stopped(slapd: Slapd) -> Iterator[None]:
    """Let the directory keep everybody waiting."""
    slapd.hold()
    try:
        yield
    finally:
        slapd.go_on()


@pytest.mark.parametrize("slow", ["sql", "ldap"])
def test_a_slow_server_holds_up_nobody_else(
    slow: str, start: Start, tmp_path: Path, database: Postgres, slapd: Slapd
) -> None:
    """Twenty logins wait in one worker for a held server; others go on, then all twenty do."""
    server = start(
        personality="gevent",
        users={"early": "secret", "quick": "secret"},
        options=(*options(tmp_path, database, slapd), "--workers", "1"),
    )
    held = locked(database) if slow == "sql" else stopped(slapd)
    kind = "many" if slow == "sql" else "few"
    users = [f"{kind}{number}" for number in range(1, TOGETHER + 1)]
    word = "pass wörd" if slow == "sql" else "secret"
    wires: list[Wire] = []
    try:
        with server.session("early") as early, held:
            wires = waiting_logins(server, users, word.encode())
            early.ok(b"NOOP")
            with server.session("quick") as quick:
                quick.ok(b"STAT")
            answered, _, _ = select.select([wire.socket for wire in wires], [], [], 0)
            assert answered == []
        answers = [wire.reply() for wire in wires]
        assert [answer for answer in answers if not answer.startswith(b"+OK")] == []
    finally:
        for wire in wires:
            wire.close()
