"""What `--auth sql` asks with: the URL, the driver, limits on time, and the query, all checked.

See `sql` for when connections are made.
"""

import math
import os
import re
import select
import time
from typing import TYPE_CHECKING, Any

from netserver import native
from netserver.errors import ConfigError
from pop3.auth import directories

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine, TextClause

_PARAMETERS = frozenset({"user", "localpart", "domain"})
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}
_PACKAGES = {"psycopg": "'netserver-pop3[sql]'"}
_PARAMETER = re.compile(r":(?:user|localpart|domain)\b")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|`[^`]*`""")


def url_of(text: str, base: str) -> "URL":
    """Read a URL of SQLAlchemy. Raises ConfigError without the text: it may hold a password."""
    from sqlalchemy import make_url  # noqa: PLC0415 - see the module's text

    if not text:
        raise ConfigError("url: is missing, such as postgresql://pop3@localhost/mail")
    try:
        url = make_url(text)
    except Exception:  # noqa: BLE001 - whatever it says could show the text
        raise ConfigError(
            "url: not like driver://user@host:port/database; odd letters are written %XX"
        ) from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        url = url.set(database=os.path.join(base, str(url.database)))
    return url


def make_engine(url: "URL", timeout: float) -> "Engine":
    """Make what makes connections, and load the driver. Raises ConfigError."""
    import sqlalchemy as sa  # noqa: PLC0415 - see the module's text

    try:
        engine = sa.create_engine(
            url,
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args=_connect_arguments(url, timeout),
        )
    except sa.exc.NoSuchModuleError:
        raise ConfigError(f"url: SQLAlchemy knows no {url.drivername!r}") from None
    except ImportError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise ConfigError(f"url: {url.drivername} needs: pip install {package}") from None
    except (sa.exc.SQLAlchemyError, ValueError, TypeError) as error:
        raise ConfigError(f"url: {directories.reason(error)}") from None
    if engine.dialect.is_async:
        raise ConfigError(f"url: {url.drivername} is a driver for asyncio; take another one")
    if engine.dialect.driver == "psycopg":
        sa.event.listen(engine, "do_connect", _impatient(timeout))
    return engine


def _connect_arguments(url: "URL", timeout: float) -> dict[str, Any]:
    """Return the limits on time, by the names the drivers have for them; the URL may say others."""
    whole = math.ceil(timeout)
    driver = url.get_driver_name()
    if url.get_backend_name() == "sqlite":
        # closed at the end by another thread than the one that opened it
        return {"timeout": timeout, "check_same_thread": False}
    if driver in ("psycopg", "psycopg2"):
        options = f"-c statement_timeout={math.ceil(timeout * 1000)}"
        found = {"connect_timeout": whole, "options": options, "application_name": "pop3-server"}
    elif driver in ("pymysql", "mysqldb"):
        found = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), whole)
    else:
        return {}
    return {name: value for name, value in found.items() if name not in url.query}


def _impatient(timeout: float) -> Any:
    """Make psycopg give up by itself: the server's own limit needs a server that still runs."""
    import psycopg  # noqa: PLC0415 - see the module's text

    class Impatient(psycopg.Connection[Any]):
        def wait(self, gen: Any, *_: object, **__: object) -> Any:
            until = time.monotonic() + timeout + 1  # the server's limit comes first
            try:
                wanted = next(gen)
                while True:
                    ready = _ready(self.pgconn.socket, wanted, until)
                    if not ready:
                        self.close()
                        raise psycopg.OperationalError("no answer in time")
                    wanted = gen.send(psycopg.waiting.Ready(ready))
            except StopIteration as end:
                return end.value

    def connect(_dialect: object, _record: object, words: Any, named: Any) -> Any:
        return Impatient.connect(*words, **named)

    return connect


def _ready(descriptor: int, wanted: int, until: float) -> int:
    """Wait without a hub; return what is ready of 1 (read) and 2 (write), 0 when time is up."""
    poller = native.poll()
    poller.register(descriptor, _POLLS[int(wanted)])
    events = poller.poll(max(0.0, until - time.monotonic()) * 1000)
    if not events:
        return 0
    event = events[0][1]
    ready = (1 if event & select.POLLIN else 0) | (2 if event & select.POLLOUT else 0)
    return ready or int(wanted)  # the error shows when it is read


_POLLS = {1: select.POLLIN, 2: select.POLLOUT, 3: select.POLLIN | select.POLLOUT}


def checked_query(text: str, engine: "Engine") -> "TextClause":
    """Return the query with its parameters bound as text. Raises ConfigError."""
    import sqlalchemy as sa  # noqa: PLC0415 - see the module's text

    if old := re.search(r"%[und]\b|%\{", text):
        raise ConfigError(f"query: instead of {old[0]} write :user, :localpart or :domain")
    # some drivers put quotes of their own around a value: two pairs leave it outside
    if any(_PARAMETER.search(literal) for literal in _QUOTED.findall(text)):
        raise ConfigError("query: a parameter such as :user stands without quotes")
    query = sa.text(text)
    used = set(query.compile(dialect=engine.dialect).params)
    if unknown := used - _PARAMETERS:
        raise ConfigError(f"query: no :{min(unknown)}; there are :user, :localpart and :domain")
    if not used & {"user", "localpart"}:
        raise ConfigError("query: asks for nobody; it needs :user or :localpart")
    # a type, since PostgreSQL cannot guess that of a domain that is NULL
    return query.bindparams(*(sa.bindparam(name, type_=sa.String()) for name in used))


def why_down(url: "URL") -> str | None:
    """Return why the database cannot be reached, None if it can or nobody knows how to look."""
    database, backend = url.database, url.get_backend_name()
    if backend == "sqlite":
        if database in (None, "", ":memory:") or os.access(str(database), os.R_OK):
            return None
        return f"{database} cannot be read"
    host, port = url.host or url.query.get("host"), url.port or url.query.get("port")
    number = int(str(port)) if str(port).isdecimal() else _PORTS.get(backend)
    if not isinstance(host, str) or number is None:
        return None
    if host.startswith("/"):
        host = f"{host}/.s.PGSQL.{number}" if backend == "postgresql" else host
    return directories.why_unreachable(host, number)
