"""The tables in which pages and messages of web sources are kept."""

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Table


class Tables(NamedTuple):
    """The tables; `columns` is SQLAlchemy's select, `highest` one of a greatest value."""

    mailboxes: "Table"
    messages: "Table"
    pages: "Table"
    columns: "Callable[..., Any]"
    highest: "Callable[..., Any]"


@cache
def tables() -> Tables:
    """Return the tables; the first call imports SQLAlchemy."""
    import sqlalchemy as sa  # noqa: PLC0415 - 0.2 s

    metadata = sa.MetaData()

    def column(name: str, kind: Any, **options: Any) -> "sa.Column[Any]":
        return sa.Column(name, kind, nullable=False, **options)

    mailboxes = sa.Table(
        "web_mailboxes",
        metadata,
        column("mailbox", sa.Text, primary_key=True),
        column("site", sa.Text, index=True),
        column("account", sa.Text),
        column("tried", sa.Double),
        column("checked", sa.Double),
        column("opened", sa.Double),
        column("problem", sa.Text),
    )
    messages = sa.Table(
        "web_messages",
        metadata,
        column("mailbox", sa.Text, primary_key=True),
        column("uid", sa.Text, primary_key=True),
        column("number", sa.BigInteger),
        column("octets", sa.BigInteger),
        sa.Column("body", sa.LargeBinary),
        column("entry", sa.Text),
        column("seen", sa.Double),
        column("tries", sa.Integer),
        column("notice", sa.Text),
    )
    pages = sa.Table(
        "web_pages",
        metadata,
        column("mailbox", sa.Text, primary_key=True),
        column("url", sa.Text, primary_key=True),
        column("final_url", sa.Text),
        column("headers", sa.Text),
        column("body", sa.LargeBinary),
    )

    def highest(one: Any) -> Any:
        return sa.select(sa.func.max(one))

    return Tables(mailboxes, messages, pages, sa.select, highest)


def make_tables(connection: Any) -> None:
    """Make the tables that are not there; two processes may do so at once."""
    from sqlalchemy.schema import CreateIndex, CreateTable  # noqa: PLC0415 - see tables

    made = tables()
    for table in (made.mailboxes, made.messages, made.pages):
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
