"""Fixtures for every test: the five personalities, and servers that are always stopped."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.maildirs import make_maildir, stored_messages
from tests.support.postgres import postgres  # noqa: F401 - a fixture
from tests.support.servers import PERSONALITIES, RunningServer, running, start_server
from tests.support.slapd import slapd  # noqa: F401 - a fixture
from tests.support.wire import Wire

USERS = 999
SHARED_OPTIONS = ("--lock-wait", "1")
Start = Callable[..., RunningServer]


@pytest.fixture(params=PERSONALITIES, scope="session")
def personality(request: pytest.FixtureRequest) -> str:
    """Each process model in turn."""
    return str(request.param)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return `start_server` for this test's directory; what it starts is stopped afterwards."""
    servers: list[RunningServer] = []

    def started(home: Path | None = None, **arguments: Any) -> RunningServer:
        server = start_server(home or tmp_path, **arguments)
        servers.append(server)
        return server

    yield started
    failures = []
    for server in servers:
        try:
            server.stop()
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@dataclass(frozen=True)
class Mailbox:
    """A user of a running server, and the maildir behind the name."""

    server: RunningServer
    user: str
    path: Path

    def session(self) -> Wire:
        """Return a logged-in connection."""
        return self.server.session(self.user)

    def stored(self) -> list[bytes]:
        """Return the messages that are there now."""
        return stored_messages(self.path)

    def login_lines(self) -> bytes:
        """Return USER and PASS as octets to send."""
        return b"USER " + self.user.encode() + b"\r\nPASS secret\r\n"


@pytest.fixture(scope="session")
def server(personality: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One maildir server per personality for all tests that do not disturb each other."""
    users = {f"user{number:03d}": "secret" for number in range(USERS)}
    home = tmp_path_factory.mktemp(personality)
    # a certificate here would hide the plain case; see test_tls for STLS
    with running(home, personality=personality, users=users, options=SHARED_OPTIONS) as shared:
        yield shared


@pytest.fixture(scope="session")
def fresh_names() -> Iterator[str]:
    """Names of users that no test has used yet."""
    return (f"user{number:03d}" for number in range(USERS))


@pytest.fixture
def mailbox(server: RunningServer, fresh_names: Iterator[str]) -> Callable[..., Mailbox]:
    """Return a maker of mailboxes that nobody else uses."""

    def made(messages: Iterable[bytes] = (), *, folder: str = "new") -> Mailbox:
        user = next(fresh_names)
        path = make_maildir(server.maildir(user), messages, folder=folder)
        return Mailbox(server, user, path)

    return made
