"""Which id was given to which message: written down before a client sees it, kept for good.

Only presets of --uidl other than the default need it. The journal lies in the state; a small file
in the state directory holds its name, so that an empty journal in place of one that was lost is
noticed: new ids for old mail would make every client download all of it again.
"""

import os
import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netserver import native
from pop3.errors import TemporaryFailure
from pop3.state import State, insert_new

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

KEPT_DAYS = 30
"""For how long the id of a message that has gone is neither forgotten nor given to another."""

_DAY = 86400
_LONGEST_NAME = 100


@dataclass(slots=True)
class Entries:
    """What is written down about one maildrop.

    `uids` are the announced ids by the source's own, of messages that have gone as well; `gone`
    says since when these have (seconds since 1970). `stamp` is that of the id file that was read.
    """

    uids: dict[str, str] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    stamp: str = ""


class Journal:
    """The journal of all maildrops. Its methods block, and may raise TemporaryFailure."""

    def __init__(self, state: State, directory: Path) -> None:
        """Take the state and the directory for the journal's name; nothing is opened yet."""
        self._state = state
        self.name_file = directory / "uidl-journal"
        self._tables: tuple[Table, Table, Table] | None = None
        self._metadata: MetaData
        self._checked_by = 0

    def read(self, maildrop: str) -> Entries:
        """Return what is known of a maildrop: one transaction that writes nothing."""
        ids, files, _ = self._open()
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        query = sa.select(ids.c.source, ids.c.uid, ids.c.gone).where(ids.c.maildrop == maildrop)
        stamp = sa.select(files.c.stamp).where(files.c.maildrop == maildrop)
        found = Entries()
        with self._state.transaction() as connection:
            for source, uid, gone in connection.execute(query):
                found.uids[source] = uid
                if gone is not None:
                    found.gone[source] = gone
            found.stamp = connection.scalar(stamp) or ""
        return found

    def write(self, maildrop: str, new: Mapping[str, str], stamp: str) -> None:
        """Write ids down, by the source's own, and which id file was read: all or nothing.

        Raises TemporaryFailure if another session has written something else meanwhile.
        """
        ids, files, _ = self._open()
        rows = [{"maildrop": maildrop, "source": key, "uid": uid} for key, uid in new.items()]
        with self._state.transaction() as connection:
            import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

            insert_new(connection, ids, rows)
            connection.execute(sa.delete(files).where(files.c.maildrop == maildrop))
            connection.execute(sa.insert(files).values(maildrop=maildrop, stamp=stamp))
            query = sa.select(ids.c.source, ids.c.uid).where(ids.c.maildrop == maildrop)
            there = {source: uid for source, uid in connection.execute(query)}  # noqa: C416 - rows
            if any(there.get(key) != uid for key, uid in new.items()):
                raise TemporaryFailure("the ids of messages are being written; try again")

    def note_gone(self, maildrop: str, entries: Entries, present: Collection[str]) -> None:
        """Note which messages have gone or come back; forget those that went long ago.

        Writes nothing if nothing of this has happened.
        """
        now = int(time.time())
        present = set(present)
        gone = [key for key in entries.uids if key not in present and key not in entries.gone]
        back = [key for key in entries.gone if key in present]
        old = now - KEPT_DAYS * _DAY
        if not (gone or back or any(since < old for since in entries.gone.values())):
            return
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        ids, _, _ = self._open()
        mine = ids.c.maildrop == maildrop
        this = sa.and_(mine, ids.c.source == sa.bindparam("key"))
        with self._state.transaction() as connection:
            for keys, since in ((gone, now), (back, None)):
                if keys:
                    update = sa.update(ids).where(this).values(gone=since)
                    connection.execute(update, [{"key": key} for key in keys])
            connection.execute(sa.delete(ids).where(mine, ids.c.gone < old))

    def _open(self) -> "tuple[Table, Table, Table]":
        """Return the tables, and see once in each process that the journal is the right one."""
        if self._tables is None:
            self._tables = self._declare()
        if self._checked_by != os.getpid():
            self._check(self._tables[2])
            self._checked_by = os.getpid()
        return self._tables

    def _declare(self) -> "tuple[Table, Table, Table]":
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        self._metadata = metadata = sa.MetaData()
        ids = sa.Table(
            "uidl",
            metadata,
            sa.Column("maildrop", sa.Text, primary_key=True),
            sa.Column("source", sa.Text, primary_key=True),
            sa.Column("uid", sa.Text, nullable=False),
            sa.Column("gone", sa.BigInteger),
            sa.UniqueConstraint("maildrop", "uid"),
        )
        files = sa.Table(
            "uidl_file",
            metadata,
            sa.Column("maildrop", sa.Text, primary_key=True),
            sa.Column("stamp", sa.Text, nullable=False),
        )
        names = sa.Table("uidl_journal", metadata, sa.Column("name", sa.Text, nullable=False))
        return ids, files, names

    def _check(self, names: "Table") -> None:
        """Compare the journal's name in the state with that in the state directory."""
        with self._state.transaction() as connection:
            if connection.dialect.name == "sqlite":
                # two workers may come here together: the second finds what the first has made
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            self._metadata.create_all(connection)
            noted = self._noted_name()
            name = self._stored_name(connection, names)
            if name is None and noted is None:
                name = secrets.token_hex(16)
                connection.execute(names.insert().values(name=name))
            if name is None or (noted is not None and noted != name):
                raise TemporaryFailure("the server's journal of message ids is lost")
        if noted is None:
            self._note_name(name)

    @staticmethod
    def _stored_name(connection: Any, names: "Table") -> str | None:
        import sqlalchemy as sa  # noqa: PLC0415 - see pop3.state

        name = connection.scalar(sa.select(names.c.name))
        return None if name is None else str(name)

    def _noted_name(self) -> str | None:
        try:
            descriptor = os.open(self.name_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return os.read(descriptor, _LONGEST_NAME).decode("ascii", "replace").strip()
        finally:
            native.close(descriptor)

    def _note_name(self, name: str) -> None:
        """Write the name file, whole and to the disk."""
        temporary = self.name_file.with_name(f"uidl-journal.{secrets.token_hex(6)}.tmp")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600)
            try:
                os.write(descriptor, name.encode("ascii") + b"\n")
                os.fsync(descriptor)
            finally:
                native.close(descriptor)
            os.rename(temporary, self.name_file)
        except OSError as error:
            raise TemporaryFailure("the server's state cannot be read or written") from error
