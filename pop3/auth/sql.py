"""Users in a database, by any URL of SQLAlchemy: `sql:URL` or `sql:FILE`.

A query is asked in a pool thread where clients share a process; each thread has one connection of
its own, so a process has no more connections than that pool has threads, and no driver's object
ever meets a second thread or a hub. SQLAlchemy is imported when the backend is checked; the first
connection is made by the first login, long after the fork.
"""

import mmap
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from netserver import native
from netserver.declarations import Settings, option
from netserver.errors import ConfigError
from netserver.reach import Reach
from pop3.auth import directories, schemes
from pop3.auth.backend import Backend, Identity, Setup, is_right
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import RunBlocking
from pop3.auth.secret import Secret
from pop3.auth.sql_engine import checked_query, make_engine, url_of, why_down
from pop3.auth.stored import Stored
from pop3.errors import AuthFailed, TemporaryFailure

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, TextClause

DEFAULT_QUERY = "SELECT password FROM users WHERE username = :user"
_COLUMNS = frozenset({"password", "user", "uid", "gid", "home"})
_TOO_MANY = "too many questions wait for the database"
_DUMMY_SIZE = 1024  # octets; the longest hash of any scheme is far shorter


@dataclass(frozen=True)
class SQLParameters(Settings):
    """The keys of the FILE."""

    url: str = option("", help="URL of SQLAlchemy", secret=True)
    password_file: str | None = option(None, help="file whose first line is the password")
    password_env: str | None = option(None, help="environment variable with the password")
    query: str = option(DEFAULT_QUERY, help="asks for one user: :user, :localpart, :domain")
    default_scheme: str | None = option(None, help="scheme of hashes without {SCHEME}")
    example_hash: str | None = option(None, help="a hash like most users'", secret=True)
    timeout: float = option(5.0, help="seconds to connect, and to answer")


class SQL(Backend):
    """`sql:URL` or `sql:FILE`: one query per login."""

    name: ClassVar[str] = "sql"

    def __init__(self, argument: str, setup: Setup) -> None:
        if not argument:
            raise ConfigError("--auth sql: needs sql:URL or sql:FILE.yaml")
        self._argument = argument
        self._setup = setup
        self._parameters = SQLParameters()
        self._dummy = _SharedDummy()
        self._engine: Engine | None = None
        self._query: TextClause
        self._connections: dict[int, Connection] = {}  # by thread
        self._connecting = native.allocate_lock()

    # -- at start -----------------------------------------------------------------------------

    def reach(self) -> Reach | None:
        """Need the network and its certificates, or the directory of the file."""
        if self._engine is None:
            return None
        url = self._engine.url
        if url.get_backend_name() != "sqlite":
            values = [value for key, value in url.query.items() if key.startswith("ssl")]
            files = [value for value in values if isinstance(value, str) and value[:1] == "/"]
            return Reach(read=(os.path.expanduser("~/.postgresql"), *files), network=True)
        if url.database in (None, "", ":memory:"):
            return Reach()
        return Reach(write=(os.path.dirname(os.path.abspath(url.database)),))

    def check(self) -> None:
        """Read the FILE, load the driver, look at the query; a database that is down may come."""
        if self._engine is not None:
            return
        base = self._setup.base_directory
        if "://" in self._argument:
            self._parameters = SQLParameters(url=self._argument)
        else:
            path = os.path.join(base, os.path.expanduser(self._argument))
            self._parameters = directories.load(SQLParameters, path)
            base = os.path.dirname(path)
        given = self._parameters
        if given.timeout <= 0:
            raise ConfigError("timeout: must be more than 0")
        url = url_of(given.url, base)
        if url.password and any(str(url.password) in word for word in sys.argv):
            self._setup.warn("--auth sql: everybody can read a command line: use password_file")
        secret = directories.password(
            given.password_file, given.password_env, base, self._setup.warn
        )
        if secret is not None:
            url = url.set(password=secret.reveal().decode("utf-8", "surrogateescape"))
        self._engine = make_engine(url, given.timeout)
        self._query = checked_query(given.query, self._engine)
        self._check_hashes()
        if (down := why_down(url)) is not None:
            self._setup.warn(f"auth sql: the database cannot be reached for now: {down}")

    def _check_hashes(self) -> None:
        scheme, example = self._parameters.default_scheme, self._parameters.example_hash
        if scheme is not None:
            try:
                schemes.check(f"{{{scheme}}}!")
            except ValueError as error:
                raise ConfigError(f"default_scheme: {error}") from None
        if example is not None:
            try:
                if schemes.check(self._with_scheme(example)) is None:
                    raise ValueError("it means no login")  # noqa: TRY301 - gets its key below
            except ValueError as error:
                raise ConfigError(f"example_hash: {error}") from None
            self._dummy.learn(self._with_scheme(example))

    # -- logins -------------------------------------------------------------------------------

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Ask for the user's row."""
        row = self._row(login, run_blocking)
        return None if row is None else self._identity(login, row)

    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Ask for the user's row and compare the password with its hash."""
        row = self._row(login, run_blocking)
        if row is None:
            return None
        identity = self._identity(login, row)
        hash_text = self._hash(row)
        # who may not log in costs the same as who may
        right = is_right(
            self._setup,
            ("auth sql", identity.user),
            hash_text or self._dummy.text,
            secret,
            run_blocking,
        )
        if hash_text is None or not right:
            raise AuthFailed
        return identity

    def stored(self, login: LoginName, run_blocking: RunBlocking) -> Stored | None:
        """Ask for the user's row, and whether it has a hash that locks the user."""
        row = self._row(login, run_blocking)
        if row is None:
            return None
        # no hash at all is no lock: such users come with a token or a certificate
        locked = bool(row["password"]) and self._hash(row) is None
        return Stored(self._identity(login, row), locked=locked)

    def dummy_cost(self) -> float:
        """Estimate it for the hash seen last."""
        return schemes.cost(self._dummy.text)

    def refuse(self, secret: Secret, run_blocking: RunBlocking) -> None:
        """Do the work for such a hash."""
        is_right(self._setup, ("auth sql", ""), self._dummy.text, secret, run_blocking)

    def close(self) -> None:
        """Close the connections of this process."""
        while self._connections:
            _, connection = self._connections.popitem()
            _drop(connection)

    def _row(self, login: LoginName, run_blocking: RunBlocking) -> Mapping[str, Any] | None:
        if "\0" in login.user:  # no database has such a user, and some refuse to be asked
            return None
        rows = run_blocking("auth", self._ask, login, time.monotonic())
        if isinstance(rows, str):
            raise self._trouble(rows)
        if len(rows) > 1:
            raise self._trouble(f"the query returns more than one row for {login.user!r}")
        if not rows:
            return None
        row = {str(name).lower().removeprefix("userdb_"): value for name, value in rows[0].items()}
        # a column such as nologin or allow_nets must not be overlooked
        if unknown := row.keys() - _COLUMNS:
            raise self._trouble(
                f"the query returns {sorted(unknown)}; known are {sorted(_COLUMNS)}"
            )
        if "password" not in row:
            raise self._trouble("the query returns no column named password")
        return row

    def _identity(self, login: LoginName, row: Mapping[str, Any]) -> Identity:
        try:
            return directories.identity(login, **{k: v for k, v in row.items() if k != "password"})
        except ValueError as error:
            problem = str(error)
        raise self._trouble(f"the row of {login.user!r}: {problem}")

    def _hash(self, row: Mapping[str, Any]) -> str | None:
        """Return the hash, None if there is none to log in with."""
        value = row["password"]
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = bytes(value).decode("latin-1")
        if value is None or not value:
            return None
        hash_text = self._with_scheme(str(value))
        try:
            if schemes.check(hash_text) is None:
                return None
        except ValueError as error:
            problem = str(error)
        else:
            self._dummy.learn(hash_text)
            return hash_text
        raise self._trouble(f"the hash of a user cannot be used: {problem}; see default_scheme")

    def _with_scheme(self, hash_text: str) -> str:
        scheme = self._parameters.default_scheme
        plain = scheme is None or hash_text[0] in "{!*"
        return hash_text if plain else f"{{{scheme}}}{hash_text}"

    def _trouble(self, why: str) -> TemporaryFailure:
        """Log why nobody can tell, and return what the client gets."""
        self._setup.warn(f"auth sql: {why}")
        return TemporaryFailure("cannot verify passwords for now")

    # -- in the pool: raises and logs nothing ---------------------------------------------------

    def _ask(self, login: LoginName, asked: float) -> list[dict[str, Any]] | str:
        """Return at most two rows, or why there is no answer."""
        from sqlalchemy.exc import DataError, DBAPIError  # noqa: PLC0415 - see the module's text

        begun, limit = time.monotonic(), self._parameters.timeout
        if begun - asked > limit:
            return _TOO_MANY
        values = {"user": login.user, "localpart": login.localpart, "domain": login.domain}
        thread = threading.get_native_id()
        while True:
            connection = self._connections.pop(thread, None)
            kept = connection is not None
            try:
                if connection is None:
                    connection = self._connect(asked + limit)
                with connection.execute(self._query, values) as result:
                    rows = [dict(row) for row in result.mappings().fetchmany(2)]
            except Exception as error:  # noqa: BLE001 - whatever a driver may raise
                _drop(connection)
                if isinstance(error, DataError):
                    return []  # a name that the column cannot hold is nobody's
                # the server was restarted since the last login
                lost = isinstance(error, DBAPIError) and error.connection_invalidated
                if not (kept and lost and time.monotonic() - begun < limit / 2):
                    return directories.reason(getattr(error, "orig", None) or error)
            else:
                self._connections[thread] = connection
                return rows

    def _connect(self, until: float) -> "Connection":
        """Connect, one thread at a time.

        SQLAlchemy guards its first connection with locks that belong to a hub under gevent: threads
        that wait for one of those wait for ever. A lock of the system's own comes before them.
        """
        from sqlalchemy import select  # noqa: PLC0415 - see the module's text

        assert self._engine is not None
        if not self._connecting.acquire(timeout=max(0.0, until - time.monotonic())):
            raise TimeoutError(_TOO_MANY)
        try:
            connection = self._engine.connect()
            connection.scalar(select(1))  # so that all that is made once is made here
            return connection
        finally:
            self._connecting.release()


class _SharedDummy:
    """A hash nobody has the password for, like the one seen last by any process.

    A process that serves one client has seen no other user's hash.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _DUMMY_SIZE)
        self._default = schemes.dummy_like(None)
        self._seen: str | None = None

    @property
    def text(self) -> str:
        text = self._memory[:].rstrip(b"\0").decode("latin-1")
        try:
            if text and schemes.check(text) is not None:
                return text
        except ValueError:
            pass  # half written by another process
        return self._default

    def learn(self, hash_text: str) -> None:
        shape = schemes.check(hash_text)
        if shape is None or shape == self._seen:
            return
        self._seen = shape
        octets = schemes.dummy_like(hash_text).encode("latin-1", "replace")
        if len(octets) <= _DUMMY_SIZE:
            self._memory[:] = octets.ljust(_DUMMY_SIZE, b"\0")


def _drop(connection: "Connection | None") -> None:
    """Close a connection at once: a ROLLBACK would wait for a server that does not answer."""
    if connection is not None:
        try:
            connection.invalidate()
            connection.close()
        except Exception:  # noqa: BLE001, S110 - it is gone, one way or the other
            pass
