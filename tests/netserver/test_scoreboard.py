"""The scoreboard and the client table, within one process and across forks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from netserver.endpoints import Address
from netserver.errors import RestartError
from netserver.scoreboard import ClientTable, Scoreboard, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def boards() -> Iterator[Callable[..., Scoreboard]]:
    """Return a maker of scoreboards that are closed in the end."""
    made: list[Scoreboard] = []

    def make(rows: int = 4, slots: int = 2) -> Scoreboard:
        made.append(Scoreboard.create(rows, slots))
        return made[-1]

    yield make
    for board in made:
        board.close()


def client(host: str = "192.0.2.1") -> Any:
    """Return what the table needs of a connection."""
    return SimpleNamespace(peer=Address(host, 1), slot=None, entry=None, octets_out=0)


def test_a_new_board_is_empty(boards: Callable[..., Scoreboard]) -> None:
    """No row in use, the first one free."""
    board = boards(70, 3)
    assert list(board.living()) == []
    assert board.free_row() == 0
    assert board.count(State.EMPTY) == 70
    assert not board.memory[-2 * 70 * 3 * 16 :].strip(b"\0")


def test_rows_do_not_touch_each_other(boards: Callable[..., Scoreboard]) -> None:
    """Each field of each row is as it was written last, whatever the neighbours do."""
    board = boards(65, 1)
    for index in range(65):
        row = board.row(index)
        row.begin(float(index))
        row.state = State.BUSY if index % 2 else State.IDLE
        row.pid = (1 << 40) + index
        row.beat = index + 0.25
        row.served = ((1 << 50) + index, index)
    for index in range(65):
        row = board.row(index)
        found = (row.state, row.pid, row.beat, row.served)
        state = State.BUSY if index % 2 else State.IDLE
        assert found == (state, (1 << 40) + index, index + 0.25, ((1 << 50) + index, index))
    assert (board.count(State.IDLE), board.count(State.BUSY)) == (33, 32)
    assert board.free_row() is None
    board.row(30).clear()
    assert board.free_row() == 30
    assert [row.index for row in board.living()] == [i for i in range(65) if i != 30]


def test_a_row_begins_anew(boards: Callable[..., Scoreboard]) -> None:
    """Nothing of the process before is left, and the newborn counts as alive."""
    row = boards().row(1)
    row.begin(1.0)
    row.pid, row.served = 77, (5, 1)
    row.begin(9.5)
    assert (row.state, row.pid, row.beat, row.served) == (State.STARTING, 0, 9.5, (0, 0))


def test_a_board_is_attached_by_its_descriptor(boards: Callable[..., Scoreboard]) -> None:
    """Both maps show the same memory; its layout comes from the board itself."""
    board = boards(5, 7)
    board.row(4).begin(1.0)
    again = Scoreboard.attach(os.dup(board.descriptor))
    try:
        assert (again.rows, again.slots) == (5, 7)
        again.row(4).state = State.BUSY
        assert board.row(4).state is State.BUSY
    finally:
        again.close()


@pytest.mark.parametrize("header", [b"", b"NSB1", b"NSB0" + bytes(60), bytes(4096), b"x" * 4096])
def test_another_layout_is_refused(tmp_path: Path, header: bytes) -> None:
    """A board of another release, or what is none at all, is a RestartError and stays as it is."""
    path = tmp_path / "board"
    path.write_bytes(header)
    with path.open("r+b") as file, pytest.raises(RestartError, match="layout"):
        Scoreboard.attach(os.dup(file.fileno()))
    assert path.read_bytes() == header


def test_a_row_is_shared_over_fork() -> None:
    """The master reads what its children write, and each sees what the others wrote."""
    code = """
import os
from netserver.scoreboard import Scoreboard, State
board = Scoreboard.create(3, 0)
pids = []
for index in range(3):
    row = board.row(index)
    row.begin(0.0)
    if (pid := os.fork()) == 0:
        row.pid, row.state, row.served = os.getpid(), State.BUSY, (index, 1)
        os._exit(0)
    pids.append(pid)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0
assert [row.pid for row in board.living()] == pids
assert [row.served for row in board.living()] == [(0, 1), (1, 1), (2, 1)]
assert board.count(State.BUSY) == 3
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=ROOT)


# -- the client table -----------------------------------------------------------------------------


def table(board: Scoreboard, index: int, *older: Scoreboard, **limits: int) -> ClientTable:
    """Return the table as the process of that row uses it."""
    row = board.row(index)
    if row.state is State.EMPTY:
        row.begin(0.0)
    made = ClientTable([board, *older], **limits)
    made.use(row)
    return made


def test_one_address_has_so_many_sessions_and_no_more(boards: Callable[..., Scoreboard]) -> None:
    """Over all processes; who is refused does not count, and a place is free again at once."""
    board = boards(3, 5)
    tables = [table(board, index, per_source=3) for index in range(3)]
    here = [client() for _ in range(3)]
    assert all(tables[i].claim_source(one) for i, one in enumerate(here))
    for _ in range(4):
        late = client()
        assert not tables[0].claim_source(late)
        tables[0].release(late)
    assert tables[1].claim_source(client("192.0.2.2"))
    tables[2].release(here[2])
    tables[2].release(here[2])
    assert tables[0].claim_source(client())


def test_addresses_of_one_ipv6_network_are_one(boards: Callable[..., Scoreboard]) -> None:
    """A /64 counts as a whole."""
    mine = table(boards(), 0, per_source=1)
    assert mine.claim_source(client("2001:db8::1"))
    assert not mine.claim_source(client("2001:db8::ffff"))


def test_a_user_and_an_address_are_counted_apart(boards: Callable[..., Scoreboard]) -> None:
    """One place holds both keys of a client, and both are gone with it."""
    board = boards(2, 4)
    mine = table(board, 0, per_source=2, per_user=1)
    first, second, third = client(), client(), client("192.0.2.9")
    assert mine.claim_source(first)
    assert mine.claim_user(first, "anna")
    assert mine.claim_source(second)
    assert not mine.claim_user(second, "anna")
    assert mine.claim_user(second, "j\udcf6rg")
    mine.release(first)
    assert mine.claim_source(third)
    assert mine.claim_user(third, "anna")


def test_without_a_limit_nothing_is_kept(boards: Callable[..., Scoreboard]) -> None:
    """Then a board needs no places at all."""
    mine = table(boards(2, 0), 0)
    clients = [client() for _ in range(50)]
    assert all(mine.claim_source(one) and mine.claim_user(one, "anna") for one in clients)
    assert all(one.slot is None for one in clients)


def test_no_place_left_is_a_refusal(boards: Callable[..., Scoreboard]) -> None:
    """More clients than places cannot be counted, so they are not let in."""
    mine = table(boards(1, 2), 0, per_source=9)
    assert mine.claim_source(client())
    assert mine.claim_source(client())
    assert not mine.claim_source(client())


def test_clients_of_a_process_that_ended_do_not_count(boards: Callable[..., Scoreboard]) -> None:
    """A killed worker leaves its keys; the master clears them with the row."""
    board = boards(2, 2)
    assert table(board, 0, per_source=1).claim_source(client())
    other = table(board, 1, per_source=1)
    assert not other.claim_source(client())
    board.row(0).clear()
    assert other.claim_source(client())


def test_clients_of_the_image_before_count(boards: Callable[..., Scoreboard]) -> None:
    """A restart does not give anybody a second set of sessions."""
    old, new = boards(1, 2), boards(3, 5)
    assert table(old, 0, per_source=1).claim_source(client())
    mine = table(new, 0, old, per_source=1)
    assert not mine.claim_source(client())
    assert mine.claim_source(client("192.0.2.2"))


RACE = """
import os
from types import SimpleNamespace
from netserver.endpoints import Address
from netserver.scoreboard import ClientTable, Scoreboard
board = Scoreboard.create(8, 50)
table = ClientTable([board], 20)
go, start = os.pipe()
answers, answer = os.pipe()
pids = []
for index in range(8):
    row = board.row(index)
    row.begin(0.0)
    if (pid := os.fork()) == 0:
        table.use(row)
        os.read(go, 1)
        got = 0
        for _ in range(20):
            one = SimpleNamespace(peer=Address("192.0.2.1", 1), slot=None, entry=None, octets_out=0)
            if table.claim_source(one):
                got += 1
            else:
                table.release(one)
        os.write(answer, b"%3d" % got)
        os._exit(0)
    pids.append(pid)
os.write(start, b"x" * 8)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0
print(sum(int(os.read(answers, 3)) for _ in pids))
"""


def test_the_limit_holds_when_all_come_at_once() -> None:
    """Eight processes and no lock: some may be refused too many, none let in too many."""
    done = subprocess.run(
        [sys.executable, "-c", RACE],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=ROOT,
    )
    assert 1 <= int(done.stdout) <= 20


def test_a_sign_of_life_is_never_seen_half_written() -> None:
    """A reader beside a writer sees the time before or the time after, never a 0 in between."""
    code = """
import os, time
from netserver.scoreboard import Scoreboard
row = Scoreboard.create(2, 0).row(1)
row.begin(time.monotonic())
end = time.monotonic() + 1
child = os.fork()
while time.monotonic() < end:
    for _ in range(500):
        if child == 0:
            row.beat = time.monotonic()
        else:
            assert time.monotonic() - row.beat < 30, "a number in pieces"
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=50, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, b"")
