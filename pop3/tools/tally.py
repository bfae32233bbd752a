"""Counts of sessions: for each user and in all."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pop3.tools.log_lines import Record

_OF_SERVER = ("session", "login failed")  # of all users, so that the file's name tells none
_MOST_STRANGERS = 100_000  # names that were tried and never logged in, as guessers try many


@dataclass
class Counts:
    """What one user did; `retr` are messages, `octets` theirs; dates as ISO 8601."""

    connects: int = 0
    retr: int = 0
    top: int = 0
    dele: int = 0
    octets: int = 0
    errors: int = 0
    failed: int = 0
    first: str | None = None
    last: str | None = None
    hours: list[int] = field(default_factory=lambda: [0] * 24)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts by name; `messages` is another name of `retr`."""
        return {"messages": self.retr, **asdict(self)}

    def connected(self, moment: str) -> None:
        """Count a session that began then."""
        self.connects += 1
        self.hours[int(moment[11:13])] += 1
        self.first = moment if self.first is None else min(self.first, moment)
        self.last = moment if self.last is None else max(self.last, moment)

    def more(self, fields: dict[str, Any], names: Iterable[str]) -> None:
        """Add what fields of these names say."""
        for name in names:
            setattr(self, name, getattr(self, name) + _number(fields.get(name)))


class Tally:
    """Takes records one by one; memory grows with the number of users, not of records."""

    def __init__(self, users: Iterable[str] = ()) -> None:
        """Count these users only; without any, all."""
        self.total = Counts()
        self.bad_lines = 0
        self._wanted = frozenset(users)
        self._users: dict[str, Counts] = {}
        self._failed: dict[str, int] = {}

    def sorted_users(self) -> Iterator[tuple[str, Counts]]:
        """Yield the users by name, those asked for in any case."""
        for name in sorted(self._wanted | self._users.keys()):
            counts = self._users.get(name, Counts())
            counts.failed = self._failed.get(name, 0)
            yield name, counts

    def add(self, record: Record) -> None:
        """Count one record; one of a kind that says nothing here is passed over."""
        fields = record.fields
        of_server = record.event in _OF_SERVER
        user = str(fields.get("user") or ("" if of_server else record.user))
        if self._wanted and user not in self._wanted:
            return
        if record.event == "login failed":
            self._login_failed(user)
            return
        handle = _EVENTS.get(record.event)
        if handle is None or not user:
            return
        for counts in (self._users.setdefault(user, Counts()), self.total):
            handle(counts, record)

    def _login_failed(self, user: str) -> None:
        self.total.failed += 1
        if user in self._failed or len(self._failed) < _MOST_STRANGERS:
            self._failed[user] = self._failed.get(user, 0) + 1


def _number(value: object) -> int:
    """Return a count as it stands in a line; what is none counts as 0."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0  # noqa: PLR2004


def _session(counts: Counts, record: Record) -> None:
    """Take the server's line about a whole session, written at its end."""
    counts.connected(_began(record))
    counts.more(record.fields, ("retr", "top", "dele", "octets", "errors"))


def _began(record: Record) -> str:
    try:
        seconds = float(record.fields.get("seconds") or 0)
        ended = datetime.fromisoformat(record.timestamp)
        began = ended - timedelta(seconds=seconds)
        return began.isoformat(timespec="seconds").replace("+00:00", "Z")
    except (TypeError, ValueError, OverflowError):
        return record.timestamp


def _connect(counts: Counts, record: Record) -> None:
    counts.connected(record.timestamp)


def _retrieved(counts: Counts, record: Record) -> None:
    counts.retr += 1
    counts.more(record.fields, ("octets",))


def _disconnect(counts: Counts, record: Record) -> None:
    counts.more(record.fields, ("top", "dele", "errors"))


_EVENTS = {
    "session": _session,
    "connect": _connect,
    "retrieved": _retrieved,
    "disconnect": _disconnect,
}
