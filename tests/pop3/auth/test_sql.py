"""Users in a database: who gets in, what a name can do to a query, broken servers."""

import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from netserver.errors import ConfigError
from pop3.auth import AuthChain, Identity, LoginName, Secret
from pop3.auth.sql import SQL
from pop3.errors import AuthFailed, TemporaryFailure
from tests.support.postgres import Postgres

SHA = "{SHA}B/PcQHeAKywePq/ztWiCWf9lImE="  # pass wörd
SLOW = (
    "{SHA512-CRYPT}$6$rounds=1000$saltsalt$"
    "COk9WGwRxFX7iGffLTT4mtAqyxAFq9jLIAKSnAy8z8ABbwQo/QEzLr9QGE7cf8xjoUIaR0Gilt8GNDTD33y4i1"
)
RIGHT, WRONG, EMPTY = Secret("pass wörd".encode()), Secret(b"guess"), Secret(b"")
QUERY = "SELECT password, uid, gid, home FROM users WHERE username = :user"

Configure = Callable[..., AuthChain]


class Pools:
    """A `run_blocking` that runs in place and keeps what was asked for."""

    def __init__(self) -> None:
        self.hashes: list[str] = []

    def __call__(self, pool: str, function: Callable[..., Any], *args: Any) -> Any:
        """Run the function."""
        if pool == "hash":
            self.hashes.append(args[0])
        return function(*args)


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[Postgres]:
    """Fill a table once."""
    postgres.run(
        "CREATE TABLE users (username text, password text, uid int, gid text, home text)",
        f"INSERT INTO users VALUES ('anna', '{SHA}', 1000, '1001', '/home/anna'),"
        f" ('müller@example.org', '{SLOW}', NULL, NULL, ''), ('null', NULL, 1, '1', '/'),"
        f" ('empty', '', 1, '1', '/'), ('locked', '!{SLOW}', 1, '1', '/'),"
        f" ('twice', '{SHA}', 1, '1', '/'), ('twice', '{SHA}', 2, '2', '/'),"
        f" ('badhome', '{SHA}', 1, '1', 'home'), ('badhash', 'pass wörd', 1, '1', '/'),"
        " ('%', '{PLAIN}x', 1, '1', '/')",
    )
    yield postgres
    postgres.run("DROP TABLE users")


@pytest.fixture
def warnings() -> list[str]:
    """Return what was logged."""
    return []


@pytest.fixture
def configure(tmp_path: Path, warnings: list[str]) -> Iterator[Configure]:
    """Return a maker of chains of one sql backend with such a file."""
    chains: list[AuthChain] = []

    def made(**keys: object) -> AuthChain:
        path = tmp_path / f"sql{len(chains)}.yaml"
        path.write_text("".join(f"{key}: '{value}'\n" for key, value in keys.items()))
        chain = AuthChain.from_specs(
            [f"sql:{path.name}"], base_directory=str(tmp_path), warn=warnings.append
        )
        chains.append(chain)
        return chain

    yield made
    for chain in chains:
        sql = chain.backends[0]
        assert isinstance(sql, SQL)
        sql.close()


@pytest.fixture
def chain(database: Postgres, configure: Configure) -> AuthChain:
    """Ask PostgreSQL."""
    return configure(url=database.url(), query=QUERY, timeout=2)


def log_in(chain: AuthChain, name: str, secret: Secret, pools: Pools | None = None) -> Identity:
    """Authenticate with names that no check has seen."""
    local, at, domain = name.rpartition("@")
    login = LoginName(local, None, domain) if at else LoginName(name, None, None)
    return chain.authenticate(login, secret, pools or Pools())


def test_the_right_password(chain: AuthChain) -> None:
    """The row says who it is, in whatever types its columns are."""
    assert log_in(chain, "anna", RIGHT) == Identity("anna", 1000, 1001, "/home/anna")
    assert log_in(chain, "müller@example.org", RIGHT) == Identity("müller@example.org")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("anna", WRONG),
        ("anna", EMPTY),
        ("nobody", RIGHT),
        ("null", RIGHT),
        ("null", EMPTY),
        ("empty", EMPTY),
        ("empty", RIGHT),
        ("locked", RIGHT),
    ],
)
def test_refused(chain: AuthChain, name: str, secret: Secret) -> None:
    """A wrong or empty password, an unknown user, and one without a hash are all the same."""
    with pytest.raises(AuthFailed, match=r"^authentication failed$"):
        log_in(chain, name, secret)


def test_a_locked_user_stays_out_whatever_proves_the_name(chain: AuthChain) -> None:
    """A certificate or a token is no way around the "!" of a row; no password is no lock."""
    for user, locked in (("locked", True), ("anna", False), ("null", False), ("empty", False)):
        found = chain.stored(LoginName(user, None, None), Pools())
        assert found is not None
        assert (found.identity.user, found.locked) == (user, locked)
    assert chain.stored(LoginName("nobody", None, None), Pools()) is None


@pytest.mark.parametrize(
    "name",
    [
        "' OR 1=1 -- ",
        "' OR '1'='1",
        "anna' -- ",
        "'; DROP TABLE users; --",
        "anna\\",
        "\\' OR 1=1 -- ",
        "anna\0",
        "\0",
        "%(user)s",
        ":user",
        "$1",
        "an%",
        "a' UNION SELECT '{PLAIN}guess', 0, '0', '/' -- ",
        "\u02bc OR 1=1",
        "ANNA",
        "anna ",
        "*)(uid=*",
        "\U0001f600" * 50,
    ],
)
@pytest.mark.parametrize("secret", [RIGHT, WRONG])
def test_injection(chain: AuthChain, database: Postgres, name: str, secret: Secret) -> None:
    """Whatever a name is made of, it is compared with names and nothing else."""
    with pytest.raises(AuthFailed):
        log_in(chain, name, secret)
    assert database.run("SELECT count(*) FROM users")[0][0] == 10


def test_injection_in_all_parameters(database: Postgres, configure: Configure) -> None:
    """The parts of a name are bound as well; a missing domain is NULL."""
    query = (
        "SELECT password FROM users WHERE username = :user"
        " AND :localpart <> :domain AND :domain IS NOT NULL"
    )
    chain = configure(url=database.url(), query=query.replace("'", "''"))
    assert log_in(chain, "müller@example.org", RIGHT).user == "müller@example.org"
    for name in ("anna", "x@' OR 1=1 -- ", "' OR 1=1 -- @x"):
        with pytest.raises(AuthFailed):
            log_in(chain, name, RIGHT)


@pytest.mark.parametrize(
    ("name", "why"),
    [("twice", "more than one row"), ("badhome", "home is not"), ("badhash", "hash of a user")],
)
def test_a_wrong_row(chain: AuthChain, warnings: list[str], name: str, why: str) -> None:
    """A row nobody can trust is logged in one line, and is no refusal."""
    with pytest.raises(TemporaryFailure):
        log_in(chain, name, RIGHT)
    assert len(warnings) == 1
    assert why in warnings[0]
    assert "wörd" not in warnings[0]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT password, true AS nologin FROM users WHERE username = :user", "nologin"),
        ("SELECT uid FROM users WHERE username = :user", "no column named password"),
        ("SELECT password FROM user_s WHERE username = :user", "user_s"),
    ],
)
def test_a_wrong_query(
    database: Postgres, configure: Configure, warnings: list[str], query: str, why: str
) -> None:
    """A mistake only the database finds is logged, without values, and is no refusal."""
    chain = configure(url=database.url(), query=query)
    with pytest.raises(TemporaryFailure):
        log_in(chain, "anna", RIGHT)
    assert why in warnings[0]
    assert "\n" not in warnings[0]


def test_columns_and_schemes(tmp_path: Path, configure: Configure) -> None:
    """Hashes without a scheme get the default one; columns of Dovecot's names; the proper name."""
    query = (
        "SELECT 'Anna' AS \"user\", 'pass wörd' AS password, 7 AS userdb_uid, 'x' AS note"
        " WHERE :user IN ('anna', 'Anna')"
    ).replace(", 'x' AS note", "")
    chain = configure(url="sqlite://", query=query.replace("'", "''"), default_scheme="PLAIN")
    assert log_in(chain, "anna", RIGHT) == Identity("Anna", 7)
    with pytest.raises(AuthFailed):
        log_in(chain, "anna", WRONG)


def test_a_name_the_column_cannot_hold(database: Postgres, configure: Configure) -> None:
    """A name that is no number is nobody's where users are numbers."""
    query = "SELECT password FROM users WHERE uid = CAST(:user AS int)"
    chain = configure(url=database.url(), query=query)
    assert log_in(chain, "1000", RIGHT).user == "1000"
    for name in ("anna", "99999999999999", "1 OR 1=1"):
        with pytest.raises(AuthFailed):
            log_in(chain, name, RIGHT)


def test_unknown_users_cost_the_same(chain: AuthChain) -> None:
    """For an unknown and a locked user a hash like the one seen last is computed."""
    pools = Pools()
    log_in(chain, "müller@example.org", RIGHT, pools)
    for name in ("nobody", "null", "' OR 1=1"):
        with pytest.raises(AuthFailed):
            log_in(chain, name, RIGHT, pools)
    assert len(pools.hashes) == 4
    assert {text.rpartition("$")[0].rpartition("$")[0] for text in pools.hashes} == {
        SLOW.rpartition("$")[0].rpartition("$")[0]
    }
    log_in(chain, "müller@example.org", RIGHT, pools)
    assert len(pools.hashes) == 4  # remembered


def test_example_hash(database: Postgres, configure: Configure) -> None:
    """A process that has seen no user yet takes the hash it was given as the example."""
    chain = configure(url=database.url(), query=QUERY, example_hash=SLOW)
    pools = Pools()
    with pytest.raises(AuthFailed):
        log_in(chain, "nobody", RIGHT, pools)
    assert pools.hashes[0].startswith(SLOW[:20])


def test_restart(database: Postgres, chain: AuthChain, warnings: list[str]) -> None:
    """Down means temporary, and the next login after a restart finds its way by itself."""
    log_in(chain, "anna", RIGHT)
    database.stop()
    try:
        for secret in (RIGHT, WRONG):
            with pytest.raises(TemporaryFailure):
                log_in(chain, "anna", secret)
        assert len(warnings) == 2
    finally:
        database.start()
    assert log_in(chain, "anna", RIGHT).uid == 1000
    database.stop()
    database.start()
    assert log_in(chain, "anna", RIGHT).uid == 1000  # on a connection that is gone
    assert len(warnings) == 2


def test_down_at_start(database: Postgres, configure: Configure, warnings: list[str]) -> None:
    """A database that is down when the server starts is a warning."""
    database.stop()
    try:
        chain = configure(url=database.url(), query=QUERY)
        assert "cannot be reached" in warnings[0]
    finally:
        database.start()
    assert log_in(chain, "anna", RIGHT).uid == 1000


def test_slow_query(database: Postgres, configure: Configure, warnings: list[str]) -> None:
    """A query over its time is ended, here and in the database."""
    query = "SELECT password, pg_sleep(50)::text AS home FROM users WHERE username = :user"
    chain = configure(url=database.url(), query=query, timeout=0.2)
    with pytest.raises(TemporaryFailure):
        log_in(chain, "anna", RIGHT)
    assert "statement timeout" in warnings[0]
    assert not database.run("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


def test_hung_session(database: Postgres, configure: Configure, warnings: list[str]) -> None:
    """A database that says nothing more is given up, and the next login is on a new connection."""
    chain = configure(url=database.url(), query=QUERY, timeout=0.2)
    log_in(chain, "anna", RIGHT)
    pids = database.run("SELECT pid FROM pg_stat_activity WHERE application_name = 'pop3-server'")
    for (pid,) in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(TemporaryFailure):
            log_in(chain, "anna", RIGHT)
        assert "no answer in time" in warnings[0]
        assert log_in(chain, "anna", RIGHT).uid == 1000
    finally:
        for (pid,) in pids:
            os.kill(pid, signal.SIGCONT)


def test_black_hole(configure: Configure, warnings: list[str]) -> None:
    """What takes connections and never answers is given up."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        port = hole.getsockname()[1]
        chain = configure(url=f"postgresql://pop3@127.0.0.1:{port}/x", timeout=1)
        with pytest.raises(TemporaryFailure):
            log_in(chain, "anna", RIGHT)
    assert "timeout" in warnings[0]


def test_waiting_in_line(database: Postgres, configure: Configure, warnings: list[str]) -> None:
    """A question that has waited too long for a thread is not asked any more."""
    chain = configure(url=database.url(), query=QUERY, timeout=0.05)

    def late(pool: str, function: Callable[..., Any], *args: Any) -> Any:
        until = time.monotonic() + 0.1
        while pool == "auth" and time.monotonic() < until:
            time.sleep(0.01)
        return function(*args)

    with pytest.raises(TemporaryFailure):
        chain.authenticate(LoginName("anna", None, None), RIGHT, late)
    assert "too many" in warnings[0]


def test_one_connection_per_thread(database: Postgres, chain: AuthChain) -> None:
    """Logins at the same time are on connections of their own, that are used again."""
    barrier = threading.Barrier(4)

    def many() -> None:
        barrier.wait(10)
        for _ in range(5):
            log_in(chain, "anna", RIGHT)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(many) for _ in range(4)]:
            done.result(20)
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pop3-server'"
    assert database.run(count)[0][0] == 4


def test_lookup(chain: AuthChain) -> None:
    """Who it is can be asked without a password."""
    found = chain.lookup(LoginName("anna", None, None), Pools())
    assert found == Identity("anna", 1000, 1001, "/home/anna")
    assert chain.lookup(LoginName("nobody", None, None), Pools()) is None


def test_passwords_of_the_database(
    database: Postgres, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password comes from a file beside the other or from the environment, and is not shown."""
    (tmp_path / "word").write_text("pw of db\nnot this\n")
    (tmp_path / "word").chmod(0o600)
    monkeypatch.setenv("POP3_DB_WORD", "pw of db")
    for key, value in (("password_file", "word"), ("password_env", "POP3_DB_WORD")):
        chain = configure(url=database.url(), query=QUERY, **{key: value})
        sql = chain.backends[0]
        assert isinstance(sql, SQL)
        assert sql._engine is not None
        assert sql._engine.url.password == "pw of db"
        assert "pw of db" not in repr(sql._engine)
        assert log_in(chain, "anna", RIGHT).uid == 1000


def test_sqlite(configure: Configure, tmp_path: Path, warnings: list[str]) -> None:
    """A relative path of SQLite begins at the file that names it; it may be made later."""
    chain = configure(url="sqlite:///mail.db")
    assert "mail.db cannot be read" in warnings[0]
    connection = sqlite3.connect(tmp_path / "mail.db")
    connection.execute("CREATE TABLE users (username TEXT, password TEXT)")
    connection.execute("INSERT INTO users VALUES ('anna', ?)", [SHA])
    connection.commit()
    connection.close()
    assert log_in(chain, "anna", RIGHT) == Identity("anna")
    with pytest.raises(AuthFailed):
        log_in(chain, "' OR 1=1 -- ", RIGHT)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "url: is missing"),
        ("url: nonsense", "url: not like"),
        ("url: postgresql://a:hunter2@h:port/", "url: not like"),
        ("url: oracle9://x/y", "SQLAlchemy knows no 'oracle9'"),
        ("url: mysql+nodriver://x/y", "SQLAlchemy knows no 'mysql.nodriver'"),
        ("url: mysql+mysqldb://a:hunter2@h/y", "needs: pip install"),
        ("url: sqlite+aiosqlite://", "needs: pip install|for asyncio"),
        ("url: sqlite://\nquery: SELECT 1 AS password", "asks for nobody"),
        ("url: sqlite://\nquery: SELECT :userr AS password", "no :userr"),
        ("url: sqlite://\nquery: SELECT ':user' AS password", "without quotes"),
        ("url: sqlite://\nquery: \"SELECT '%u' AS password\"", "instead of %u"),
        ("url: sqlite://\nfoo: bar", r"auth.yaml:2: no key \"foo\""),
        ("url: sqlite://\ntimeout: soon", "auth.yaml:2: timeout"),
        ("url: sqlite://\ntimeout: 0", "timeout: must be"),
        ("url: sqlite://\npassword_file: nowhere", "nowhere: cannot be read"),
        ("url: sqlite://\npassword_env: NO_SUCH_WORD", "NO_SUCH_WORD is not set"),
        ("url: sqlite://\ndefault_scheme: ROT13", "default_scheme: unknown scheme"),
        ("url: sqlite://\nexample_hash: '!'", "example_hash: "),
        ("url: [a, b]", "auth.yaml:1: url"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, why: str) -> None:
    """Each mistake is one line that begins with the option and shows no password."""
    (tmp_path / "auth.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError, match=why) as caught:
        AuthChain.from_specs(["sql:auth.yaml"], base_directory=str(tmp_path))
    assert str(caught.value).startswith("--auth sql: ")
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_no_argument(tmp_path: Path) -> None:
    """`--auth sql` alone says what it needs, and a missing file is named."""
    with pytest.raises(ConfigError, match=r"^--auth sql: needs"):
        AuthChain.from_specs(["sql"], base_directory=str(tmp_path))
    with pytest.raises(ConfigError, match=r"^--auth sql: .*gone.yaml: cannot be read"):
        AuthChain.from_specs(["sql:gone.yaml"], base_directory=str(tmp_path))


def test_a_password_on_the_command_line(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that everybody can see in the list of processes is warned of."""
    spec = "sql:postgresql://pop3:hunter2@127.0.0.1:1/mail"
    AuthChain.from_specs([spec], base_directory=str(tmp_path), warn=warnings.append)
    assert not [text for text in warnings if "command line" in text]
    monkeypatch.setattr("sys.argv", ["pop3-server", "--auth", spec])
    AuthChain.from_specs([spec], base_directory=str(tmp_path), warn=warnings.append)
    assert [text for text in warnings if "command line" in text]
    assert "hunter2" not in "".join(warnings)
