"""Failed logins and bans of many machines that serve the same mail: by way of their common state.

On one machine the file of the tables is enough (see `table_file`). Where --state is a database that
others may use too, a child that serves nobody tells it what is new here and fetches what is new
elsewhere: no login ever waits for it. The names of users are not among what is told, but for bans.
"""

import time
from typing import TYPE_CHECKING, Any

from netserver import jobs
from netserver.personalities.side import SideChild
from pop3.auth.penalty import DECAY
from pop3.errors import TemporaryFailure
from pop3.state import State, insert_new

if TYPE_CHECKING:
    from netserver.scoreboard import Row
    from netserver.server import NetServer
    from pop3.auth.guard import Guard
    from pop3.server import POP3Server

PERIOD = 5.0  # seconds between two exchanges
_MOST = 4096  # entries taken from elsewhere
_LATER = 0.5  # seconds: what differs by less is the same event, told by another clock


def side_children(server: "POP3Server[Any]") -> list[SideChild]:
    """Return the child that exchanges, where there is somebody to exchange with."""
    if (server.settings.state or "sqlite").startswith("sqlite"):
        return []

    core: NetServer = server

    def run(row: "Row") -> None:
        server.child_init()
        try:
            exchange = Exchange(server.guard, server.state)
            jobs.run(core, row, lambda: _round(server, exchange), PERIOD)
        finally:
            server.child_finish()

    return [SideChild("penalties", run)]


def _round(server: "POP3Server[Any]", exchange: "Exchange") -> None:
    try:
        exchange.round()
    except TemporaryFailure as error:
        server.log.warning("failed logins not exchanged", why=error.text)


class Exchange:
    """What one machine has told the others, and was told; `round` may raise TemporaryFailure."""

    def __init__(self, guard: "Guard", state: State) -> None:
        """Take the tables; nothing is opened yet."""
        self._guard = guard
        self._state = state
        self._tables: Any = None
        self._counts: dict[str, int] = {}  # of failures, by key, as the database has them
        self._bans: set[str] = set()  # that the database has

    def round(self) -> None:
        """Tell what is new here, take what is new there."""
        with self._state.transaction() as connection:
            if self._tables is None:
                self._declare()
                self._metadata.create_all(connection)
                self._agree_on_key(connection)
            self._exchange_failures(connection, time.time())
            self._exchange_bans(connection, time.time())

    def _exchange_failures(self, connection: Any, now: float) -> None:
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        table = self._tables[1]
        penalties = self._guard.penalties
        here = {key.hex(): (count, now - age) for key, count, age in penalties.entries()}
        told = []
        for key in here.keys() | self._counts.keys():
            count, seen = here.get(key, (0, now))
            if count != (known := self._counts.get(key, 0)):
                told.append({"key": key, "failures": count, "seen": seen if count > known else now})
        if told:
            insert_new(connection, table, told)
            change = (
                sa.update(table)
                .where(table.c.key == sa.bindparam("of"), table.c.seen < sa.bindparam("at"))
                .values(failures=sa.bindparam("count"), seen=sa.bindparam("at"))
            )
            rows = [{"of": one["key"], "count": one["failures"], "at": one["seen"]} for one in told]
            connection.execute(change, rows)
        connection.execute(sa.delete(table).where(table.c.seen < now - DECAY))
        query = sa.select(table.c.key, table.c.failures, table.c.seen)
        there = connection.execute(query.order_by(table.c.seen.desc()).limit(_MOST)).all()
        for key, count, seen in there:
            mine, when = here.get(key, (0, 0.0))
            if count != mine and seen > when + _LATER:
                penalties.take(bytes.fromhex(key), count, max(0.0, now - seen))
        self._counts = {key: count for key, count, _ in there if count}

    def _exchange_bans(self, connection: Any, now: float) -> None:
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        table, bans = self._tables[2], self._guard.bans
        connection.execute(sa.delete(table).where(table.c.until <= now))
        here = {ban.name: ban for ban in bans.listing()}
        query = sa.select(table.c.name, table.c.until, table.c.by_hand)
        there = {name: (until, by_hand) for name, until, by_hand in connection.execute(query)}
        for name in self._bans:
            if name in there and name not in here:  # lifted here
                connection.execute(sa.delete(table).where(table.c.name == name))
                del there[name]
            elif name in here and name not in there:  # lifted elsewhere
                bans.lift(name)
                del here[name]
        for name, (until, by_hand) in there.items():
            if name not in here:
                bans.add(name, until - now, by_hand=by_hand)
        new = [
            {"name": ban.name, "until": ban.end, "by_hand": ban.by_hand}
            for ban in here.values()
            if ban.name not in there
        ]
        if new:
            insert_new(connection, table, new)
        self._bans = {*there, *here}

    def _agree_on_key(self, connection: Any) -> None:
        """Let the hashes of all machines be the same."""
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        table, penalties = self._tables[0], self._guard.penalties
        insert_new(connection, table, [{"id": 1, "key": penalties.key.hex()}])
        key = bytes.fromhex(connection.scalar(sa.select(table.c.key)))
        if key != penalties.key:
            penalties.rekey(key)

    def _declare(self) -> None:
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        self._metadata = sa.MetaData()
        self._tables = (
            sa.Table(
                "penalty_key",
                self._metadata,
                sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("key", sa.Text, nullable=False),
            ),
            sa.Table(
                "penalties",
                self._metadata,
                sa.Column("key", sa.Text, primary_key=True),
                sa.Column("failures", sa.Integer, nullable=False),
                sa.Column("seen", sa.Double, nullable=False),
            ),
            sa.Table(
                "bans",
                self._metadata,
                sa.Column("name", sa.Text, primary_key=True),
                sa.Column("until", sa.Double, nullable=False),
                sa.Column("by_hand", sa.Boolean, nullable=False),
            ),
        )
