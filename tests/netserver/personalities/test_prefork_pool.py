"""How many workers prefork wants, and how fork and prefork behave at their limits."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from netserver.personalities.prefork import DEFAULT_MAX_SERVERS, MAX_REQUESTS, Prefork
from netserver.scoreboard import Scoreboard, State
from netserver.settings import ServerSettings
from tests.support.processes import wait_until
from tests.support.servers import OWN_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Start
    from tests.support.servers import RunningServer


@pytest.fixture
def prefork() -> Iterator[Callable[..., Prefork]]:
    """Return a maker of masters that are not running."""
    boards: list[Scoreboard] = []

    def make(idle: int = 0, starting: int = 0, busy: int = 0, **settings: Any) -> Prefork:
        boards.append(Scoreboard.create(128, 0))
        states = [State.IDLE] * idle + [State.STARTING] * starting + [State.BUSY] * busy
        for index, state in enumerate(states):
            boards[-1].row(index).begin(0.0)
            boards[-1].row(index).state = state
        server: Any = SimpleNamespace(
            settings=ServerSettings(**settings),
            signals=SimpleNamespace(writer_copy=lambda: -1),
            boards=[boards[-1]],
        )
        return Prefork(server)

    yield make
    for board in boards:
        board.close()


# idle, starting, busy → missing; 5 to 50 workers, 2 to 10 of them spare, as Net::Server has it
POOL = [
    ((0, 0, 0), 5),
    ((5, 0, 0), 0),
    ((2, 0, 0), 3),
    ((0, 5, 0), 0),  # those on their way count: no second batch for the same need
    ((1, 0, 4), 1),
    ((0, 1, 4), 1),
    ((0, 0, 5), 2),
    ((2, 0, 40), 0),
    ((0, 0, 49), 1),
    ((0, 0, 50), 0),  # the ceiling, though none is spare
    ((0, 0, 53), -3),
    ((10, 0, 0), 0),
    ((11, 0, 0), -1),
    ((40, 0, 0), -1),  # one at a time
    ((11, 0, 39), -1),
    ((6, 5, 1), -1),
]


@pytest.mark.parametrize(("pool", "missing"), POOL)
def test_how_many_are_missing(
    prefork: Callable[..., Prefork], pool: tuple[int, int, int], missing: int
) -> None:
    """Enough for the present clients and those to come, never more than the ceiling."""
    assert prefork(*pool)._missing(sum(pool)) == missing


@pytest.mark.parametrize(
    ("pool", "settings", "missing"),
    [
        ((0, 0, 0), {"workers": 3}, 3),
        ((0, 0, 3), {"workers": 3}, 0),
        ((9, 0, 0), {"workers": 3}, -6),
        ((0, 0, 0), {"min_servers": 1, "max_servers": 1}, 1),
        ((0, 0, 1), {"min_servers": 1, "max_servers": 1}, 0),
        ((3, 0, 0), {"min_servers": 1, "max_spare_servers": 2}, -1),
        ((3, 0, 0), {"min_servers": 3, "max_spare_servers": 2}, 0),
        ((1, 0, 9), {"min_spare_servers": 8}, 7),
    ],
)
def test_how_the_options_change_that(
    prefork: Callable[..., Prefork],
    pool: tuple[int, int, int],
    settings: dict[str, int],
    missing: int,
) -> None:
    """A fixed pool, a tiny one, and other numbers of spare workers."""
    assert prefork(*pool, **settings)._missing(sum(pool)) == missing


@pytest.mark.parametrize(
    ("settings", "steps", "after"),
    [
        ({"workers": 2}, [1, 1], (4, DEFAULT_MAX_SERVERS, 5)),
        ({"workers": 2}, [-1, -1, -1], (1, DEFAULT_MAX_SERVERS, 5)),
        ({"workers": 126}, [1, 1, 1], (127, DEFAULT_MAX_SERVERS, 5)),
        ({}, [1], (None, 51, 6)),
        ({}, [-1, -1], (None, 48, 3)),
        ({"min_servers": 1, "max_servers": 2}, [-1, -1, -1], (None, 1, 1)),
    ],
)
def test_one_more_or_one_less(
    prefork: Callable[..., Prefork],
    settings: dict[str, int],
    steps: list[int],
    after: tuple[int | None, int, int],
) -> None:
    """TTIN and TTOU stay within one and what the scoreboard can show."""
    master = prefork(**settings)
    for step in steps:
        master.change_target(step)
    assert (master._fixed, master._most, master._least) == after


@pytest.mark.parametrize(("given", "most"), [(None, MAX_REQUESTS), (100, 100), (3, 3), (1, 1)])
def test_workers_do_not_end_all_at_once(
    prefork: Callable[..., Prefork], given: int | None, most: int
) -> None:
    """Each serves up to a tenth fewer than it may."""
    found = {prefork(max_requests=given)._requests() for _ in range(40)}
    assert found <= set(range(most - most // 10, most + 1))
    assert len(found) > 1 or most < 10


def test_no_limit_of_requests(prefork: Callable[..., Prefork]) -> None:
    """0 means for ever."""
    assert prefork(max_requests=0)._requests() == float("inf")


# -- running --------------------------------------------------------------------------------------


def echo(start: Start, personality: str, *options: str) -> RunningServer:
    """Start an echo server."""
    return start(personality=personality, program="net-server", options=options)


def test_the_pool_grows_with_its_clients(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --workers there are as many as needed, up to --max-servers; others wait."""
    monkeypatch.delitem(OWN_OPTIONS, "prefork")
    options = ("--min-servers", "1", "--max-servers", "4", "--min-spare-servers", "1")
    server = echo(start, "prefork", *options)
    clients = [server.connect(greeted=False, timeout=1.0) for _ in range(5)]
    try:
        for client in clients[:4]:
            client.timeout = 15.0
        for client in clients:
            client.send(b"hello\r\n")
        answered = [client for client in clients[:4] if client.line() == b"hello"]
        assert len(answered) == 4
        assert len(server.workers()) == 4
        with pytest.raises(TimeoutError):
            clients[4].line()
        clients[0].close()
        clients[4].timeout = 15.0
        assert clients[4].line() == b"hello"
    finally:
        for client in clients:
            client.close()


def test_fork_at_its_ceiling_leaves_clients_in_the_queue(start: Start) -> None:
    """They are served when there is room, none is sent away."""
    server = echo(start, "fork", "--max-servers", "2")
    clients = [server.connect(greeted=False, timeout=0.7) for _ in range(4)]
    try:
        for client in clients:
            client.send(b"hello\r\n")
        for client in clients[:2]:
            client.timeout = 15.0
            assert client.line() == b"hello"
        assert len(server.workers()) == 2
        for client in clients[2:]:
            with pytest.raises(TimeoutError):
                client.line()
            client.timeout = 15.0
        for gone, waiting in ((0, 2), (1, 3)):
            clients[gone].close()
            assert clients[waiting].line() == b"hello"
    finally:
        for client in clients:
            client.close()


def test_workers_are_replaced_after_so_many_clients(start: Start) -> None:
    """None of the clients notices."""
    server = echo(start, "prefork", "--workers", "2", "--max-requests", "3")
    seen = set(server.workers())
    for number in range(20):
        with server.connect(greeted=False) as client:
            client.send(b"%d\r\nquit\r\n" % number)
            assert client.line() == b"%d" % number
            assert client.ended()
        seen |= set(server.workers())
    assert len(seen) >= 6
    assert "badly" not in server.log_text()
    wait_until(lambda: len(server.workers()) == 2, 10, "two workers")


def test_ttou_takes_an_idle_worker(start: Start) -> None:
    """The one without a client goes; the other serves on."""
    server = echo(start, "prefork", "--workers", "2")
    with server.connect(greeted=False) as client:
        client.send(b"one\r\n")
        assert client.line() == b"one"
        server.signal(signal.SIGTTOU)
        wait_until(lambda: len(server.workers()) == 1, 15, "one worker")
        client.send(b"two\r\n")
        assert client.line() == b"two"
    assert os.getpid() not in server.workers()
