"""What outlives a session: what each user has hidden, and sizes found once.

Nothing of it is asked for by a source that can delete and knows its sizes. SQLAlchemy is imported
by the first process that needs it. The methods of State wait for a disk or a network: they are
called through `connection.run_blocking("disk", …)`.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netserver import native
from netserver.errors import ConfigError
from pop3.errors import TemporaryFailure

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table

    from pop3.settings import POP3Settings

SCHEMA_VERSION = 1
_BUSY_SECONDS = 15  # how long a writer of SQLite waits for another one
_BUSY_PAUSE = 0.02
_SQLITE_BUSY = 5
_KEY_OCTETS = 32
_ROWS = 500  # of one INSERT: SQLite takes 32,766 parameters, its older releases 999


def default_directory() -> Path:
    """Return the directory for what must survive a restart.

    $STATE_DIRECTORY (as systemd gives it), /var/lib/pop3-server for root, else
    $XDG_STATE_HOME/pop3-server or ~/.local/state/pop3-server.
    """
    environ = os.environ.get
    return _default_directory(
        environ("STATE_DIRECTORY"), environ("XDG_STATE_HOME"), os.path.expanduser("~")
    )


@cache
def _default_directory(given: str | None, xdg_state: str | None, home: str) -> Path:
    # kept, since a worker that has given up being root must find what the master found
    if given:
        return Path(given.split(":", 1)[0])
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/pop3-server")
    return Path(xdg_state or os.path.join(home, ".local", "state")) / "pop3-server"


def state_directory(settings: "POP3Settings") -> Path:
    """Return the directory that also holds `locks/` and `index/`.

    It is where the SQLite file of --state lies, the default one for any other database.
    """
    prefix, slashes, path = (settings.state or "").partition(":///")
    if slashes and prefix.partition("+")[0] == "sqlite" and path:
        return Path(path.partition("?")[0]).absolute().parent
    return default_directory()


def state_url(settings: "POP3Settings", directory: Path) -> str:
    """Return the database's URL: --state, or the default file; a file is in `directory`."""
    url = settings.state
    if url is None or url.startswith("sqlite"):
        name = "state.sqlite" if url is None else Path(url.partition(":///")[2]).name
        return f"sqlite:///{directory / name}"
    return url


def shown(url: str) -> str:
    """Return the URL without what may be a password, for a message."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "URL"  # who knows what it is
    return f"{scheme}://{rest.rpartition('@')[2]}"


def needs_library(settings: "POP3Settings") -> bool:
    """Tell whether a look at --state needs the library: not for a plain file, the usual case.

    Raises ConfigError for SQLite without a file, which would forget all.
    """
    url = settings.state
    if url is None:
        return False
    if url.partition(":")[0] == "sqlite":
        if not url.startswith("sqlite:///") or not Path(url.partition(":///")[2]).name:
            raise ConfigError("--state: SQLite needs a file: sqlite:///PATH, sqlite:////abs/PATH")
        return False
    return True


def seen_from(chroot: str | None, directory: Path) -> Path:
    """Return the path of a directory as it is inside `chroot`. Raises ConfigError outside of it."""
    if chroot is None:
        return directory
    try:
        return Path("/") / directory.relative_to(os.path.abspath(chroot))
    except ValueError:
        raise ConfigError(f"--state: {directory} does not lie inside --chroot {chroot}") from None


def make_directory(directory: Path, owner: tuple[int, int] | None = None) -> None:
    """Make the state directory and its rooms, for their owner (uid, gid) only.

    Raises ConfigError when that cannot be done.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        for room in (directory, directory / "locks", directory / "index"):
            try:
                room.mkdir(mode=0o700)
            except FileExistsError:
                continue
            if owner is not None:
                os.chown(room, *owner, follow_symlinks=False)
    except OSError as error:
        raise ConfigError(f"--state: cannot make {directory}: {error.strerror}") from error


def secret_key(path: Path, owner: tuple[int, int] | None = None) -> bytes:
    """Return the 32 random octets in a file for its owner only, made when they are missing.

    Raises ConfigError.
    """
    try:
        if not path.exists():
            _make_key(path, owner)
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--state: {path}: {error.strerror}") from error
    if len(key) != _KEY_OCTETS:
        raise ConfigError(f"--state: {path}: broken; remove it")
    return key


def _make_key(path: Path, owner: tuple[int, int] | None) -> None:
    """Write a key under another name first: several processes may start at once."""
    descriptor, made = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_OCTETS))
            if owner is not None:
                os.fchown(descriptor, *owner)
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        os.unlink(made)


class State:
    """The state of all maildrops, behind one SQLAlchemy URL.

    A maildrop is named by one string; what is hidden in one of its views is hidden there only, and
    the maildrop itself is the view "". Uids are those announced to clients, since they are ASCII
    and of bounded length. Every method may raise TemporaryFailure.
    """

    def __init__(self, url: str) -> None:
        """Take the URL; nothing is opened before it is needed, and never before a fork."""
        self._url = url
        self._engine: Engine | None = None
        self._pid = 0
        self._hidden: Table
        self._sizes: Table

    def prepare(self) -> None:
        """Import all that will be needed; nothing is opened. Raises ConfigError."""
        try:
            from sqlalchemy import create_engine  # noqa: PLC0415 - see the module's text

            create_engine(self._url).dispose()
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"--state {shown(self._url)}: {reason}") from error

    def hidden(self, maildrop: str, view: str) -> set[str]:
        """Return the uids hidden in a view."""
        with self.transaction() as connection:
            from sqlalchemy import select  # noqa: PLC0415 - see the module's text

            table = self._hidden.c
            query = select(table.uid).where(table.maildrop == maildrop, table.view == view)
            return set(connection.scalars(query))

    def hide(self, maildrop: str, view: str, uids: Iterable[str]) -> None:
        """Hide messages in a view: all or none, on disk when this returns."""
        rows = [{"maildrop": maildrop, "view": view, "uid": uid} for uid in uids]
        with self.transaction() as connection:
            insert_new(connection, self._hidden, rows)

    def sizes(self, maildrop: str) -> dict[str, int]:
        """Return the sizes found so far, by uid."""
        with self.transaction() as connection:
            from sqlalchemy import select  # noqa: PLC0415 - see the module's text

            table = self._sizes.c
            query = select(table.uid, table.octets).where(table.maildrop == maildrop)
            return {uid: octets for uid, octets in connection.execute(query)}  # noqa: C416 - rows

    def remember_sizes(self, maildrop: str, sizes: Mapping[str, int]) -> None:
        """Keep sizes; one that is known already stays."""
        rows = [{"maildrop": maildrop, "uid": uid, "octets": size} for uid, size in sizes.items()]
        with self.transaction() as connection:
            insert_new(connection, self._sizes, rows)

    def close(self) -> None:
        """Close what this process has open."""
        engine, self._engine = self._engine, None
        if engine is not None and self._pid == os.getpid():
            engine.dispose()

    @contextmanager
    def transaction(self) -> "Iterator[Any]":
        """Open a connection of SQLAlchemy; what is done in the block is done whole or not."""
        try:
            with self._open().begin() as connection:
                yield connection
        except OSError as error:
            raise TemporaryFailure("the server's state cannot be read or written") from error
        except Exception as error:
            from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - see the module's text

            if isinstance(error, SQLAlchemyError):
                raise TemporaryFailure("the server's state cannot be read or written") from error
            raise

    def _open(self) -> "Engine":
        if self._engine is None or self._pid != os.getpid():
            self._engine = self._make_engine()
            self._pid = os.getpid()
        return self._engine

    def _make_engine(self) -> "Engine":
        import sqlalchemy as sa  # noqa: PLC0415 - 0.2 s that most servers never need

        # no pool: a connection made in one thread would be used in another, and a pool's locks
        # belong to greenlets under gevent; opening SQLite takes a tenth of what its fsync does
        options: dict[str, Any] = {"poolclass": sa.NullPool}
        if self._url.startswith("sqlite"):
            options["connect_args"] = {"timeout": _BUSY_SECONDS}
        engine = sa.create_engine(self._url, **options)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _set_up_sqlite)
        metadata = sa.MetaData()
        version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer))
        self._hidden = sa.Table(
            "hidden",
            metadata,
            sa.Column("maildrop", sa.Text, primary_key=True),
            sa.Column("view", sa.Text, primary_key=True),
            sa.Column("uid", sa.Text, primary_key=True),
        )
        self._sizes = sa.Table(
            "sizes",
            metadata,
            sa.Column("maildrop", sa.Text, primary_key=True),
            sa.Column("uid", sa.Text, primary_key=True),
            sa.Column("octets", sa.BigInteger, nullable=False),
        )
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                # two workers may come here together: the second waits, then finds the tables made
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            metadata.create_all(connection)
            found = connection.scalar(sa.select(version.c.version))
            if found is None:
                connection.execute(version.insert().values(version=SCHEMA_VERSION))
            elif found != SCHEMA_VERSION:
                raise TemporaryFailure("the server's state is of another version")
        return engine


def insert_new(connection: Any, table: "Table", rows: list[dict[str, Any]]) -> None:
    """Insert the rows that are in conflict with none."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert  # noqa: PLC0415
    else:
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment] # noqa: PLC0415

    for part in _parts(rows):
        connection.execute(insert(table).on_conflict_do_nothing(), part)


def _parts(rows: list[Any]) -> Iterator[list[Any]]:
    for begin in range(0, len(rows), _ROWS):
        yield rows[begin : begin + _ROWS]


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """WAL, so that readers never wait; FULL, so that a commit has reached the disk."""
    cursor = connection.cursor()
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except connection.OperationalError as error:
            # SQLite does not wait by itself while another process makes its tables in the new file
            if error.sqlite_errorcode != _SQLITE_BUSY or time.monotonic() > until:
                raise
            native.sleep(_BUSY_PAUSE)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
