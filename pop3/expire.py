"""EXPIRE: how long fetched messages stay (RFC 2449 §6.7). Off unless it is asked for.

The days of a message are counted from its first RETR that was sent whole, in a session that ended
with QUIT. Nothing that no client has fetched is ever deleted, nor anything between two sessions:
QUIT deletes what is due, beside what DELE has marked.
"""

import os
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from netserver.errors import ConfigError
from pop3.errors import TemporaryFailure
from pop3.state import State, insert_new

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

    from pop3.server import POP3Server
    from pop3.session import Session

_DAY = 86400
_LONGEST = 36500
_FEW = 400  # parameters of one statement


def days(text: str) -> int | None:
    """Read the value of --expire; None for never. Raises ValueError."""
    if text == "never":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_LONGEST)):
        raise ValueError("a number of days, or never")
    number = int(text)
    if number > _LONGEST:
        raise ValueError(f"at most {_LONGEST} days")
    return number


class Fetched:
    """Which messages were fetched first when. Its methods block, and may raise TemporaryFailure."""

    def __init__(self, state: State) -> None:
        """Take the state; nothing is opened yet."""
        self._state = state
        self._table: Table | None = None
        self._metadata: MetaData
        self._made_by = 0

    def since(self, maildrop: str) -> dict[str, int]:
        """Return since when each message is known as fetched, in seconds since 1970, by uid."""
        table = self._open()
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        query = sa.select(table.c.uid, table.c.since).where(table.c.maildrop == maildrop)
        with self._state.transaction() as connection:
            return {uid: since for uid, since in connection.execute(query)}  # noqa: C416 - rows

    def note(self, maildrop: str, new: Collection[str], gone: Collection[str]) -> None:
        """Note messages as fetched now, those known stay; forget those that are gone."""
        if not new and not gone:
            return
        table = self._open()
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        now = int(time.time())
        rows = [{"maildrop": maildrop, "uid": uid, "since": now} for uid in new]
        old = list(gone)
        with self._state.transaction() as connection:
            for begin in range(0, len(old), _FEW):
                part = table.c.uid.in_(old[begin : begin + _FEW])
                connection.execute(sa.delete(table).where(table.c.maildrop == maildrop, part))
            if rows:
                insert_new(connection, table, rows)

    def _open(self) -> "Table":
        if self._table is None:
            self._table = self._declare()
        if self._made_by != os.getpid():
            with self._state.transaction() as connection:
                if connection.dialect.name == "sqlite":
                    # two workers may come here together: the second finds what the first has made
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                self._metadata.create_all(connection)
            self._made_by = os.getpid()
        return self._table

    def _declare(self) -> "Table":
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        self._metadata = sa.MetaData()
        return sa.Table(
            "fetched",
            self._metadata,
            sa.Column("maildrop", sa.Text, primary_key=True),
            sa.Column("uid", sa.Text, primary_key=True),
            sa.Column("since", sa.BigInteger, nullable=False),
        )


class Expiry:
    """What --expire asks for, where it asks for something."""

    def __init__(self, days: int, state: State) -> None:
        """Take the days a fetched message stays; 0 means to the end of the session."""
        self.days = days
        self._fetched = Fetched(state)

    def begin(self, session: "Session[Any]") -> None:
        """Let the session note what it fetches; views and debug sessions are left alone."""
        if session.view is None and not session.debug:
            session.fetched = set()

    def mark(self, server: "POP3Server[Any]", session: "Session[Any]") -> None:
        """Mark, at QUIT, what is due like what was deleted; note what was fetched.

        Where the state cannot be read nothing is due.
        """
        maildrop, fetched = session.maildrop, session.fetched
        if maildrop is None or fetched is None:
            return
        if self.days == 0:
            due = fetched - maildrop.deleted
        else:
            try:
                due = self._due(session, server.maildrop_name(session))
            except TemporaryFailure as error:
                session.log.warning("nothing expires", reason=error.text)
                return
        for index in due:
            maildrop.delete(index)
        if due:
            # who pipelines RETR and QUIT has got the mail before it is deleted, or it is not
            session.connection.flush()
            session.log.info("expired", messages=len(due), days=self.days)

    def _due(self, session: "Session[Any]", name: str) -> set[int]:
        """Return what is due, and bring the notes up to date; they run ahead of the deletion."""
        maildrop, run_blocking = session.maildrop, session.connection.run_blocking
        assert maildrop is not None
        assert session.fetched is not None
        since: Mapping[str, int] = run_blocking("disk", self._fetched.since, name)
        uids = [uid.decode("ascii") for uid in maildrop.listing.uids]
        end = time.time() - self.days * _DAY
        due = {index for index, uid in enumerate(uids) if since.get(uid, end + 1) <= end}
        new = [uids[index] for index in session.fetched if uids[index] not in since]
        gone = since.keys() - set(uids)
        run_blocking("disk", self._fetched.note, name, new, gone)
        return due - maildrop.deleted


def prepare(server: "POP3Server[Any]") -> Expiry | None:
    """Return what QUIT has to do; None for nothing. Raises ConfigError."""
    days = server.settings.expire
    if days is None:
        return None
    if server.delete_policy == "ignore":
        raise ConfigError("--expire: with --delete ignore nothing is ever deleted")
    return Expiry(days, server.state)
