"""The control socket's protocol and place, and what a scoreboard keeps of clients."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from netserver import entries
from netserver.admin_http import metrics
from netserver.control import LINE_LIMIT, Caller, ControlError, Place, default_path, holder
from netserver.endpoints import Address
from netserver.scoreboard import ClientTable, Scoreboard, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    """Return a scoreboard of two processes with room for three clients each."""
    made = Scoreboard.create(2, 3, entries.SIZE)
    yield made
    made.close()


def client(number: int = 7, host: str = "192.0.2.1") -> Any:
    """Return what the table needs of a connection."""
    return SimpleNamespace(
        peer=Address(host, 4711),
        slot=None,
        entry=None,
        octets_out=0,
        number=number,
        opened=0.0,
        waiting=None,
    )


def table_of(board: Scoreboard, index: int = 0, pid: int = 0x2A) -> ClientTable:
    """Return the table of one process."""
    table = ClientTable([board])
    row = board.row(index)
    row.begin(0.0, "worker")
    row.pid = pid
    table.use(row)
    return table


def test_a_client_is_seen_from_its_first_to_its_last_octet(board: Scoreboard) -> None:
    """Address at once, user when logged in, nothing in the end."""
    table, one = table_of(board), client()
    table.enter(one)
    (seen,) = entries.clients(board)
    assert (seen.id, seen.address, seen.host, seen.user) == (
        "2a-7",
        "192.0.2.1:4711",
        "192.0.2.1",
        "",
    )
    assert seen.as_dict()["state"] == "connected"
    table.claim_user(one, "anna")
    assert not one.entry.look(4242)
    (seen,) = entries.clients(board)
    assert (seen.user, seen.octets, seen.as_dict()["state"]) == ("anna", 4242, "logged in")
    table.release_user(one)
    assert [seen.user for seen in entries.clients(board)] == [""]
    table.release(one)
    assert list(entries.clients(board)) == []


@pytest.mark.parametrize("user", ["ä" * 90, "x" * 300])
def test_a_long_name_is_cut_and_still_means_its_client(board: Scoreboard, user: str) -> None:
    """A name may have 255 octets; an entry has room for 80."""
    table, one = table_of(board), client()
    table.enter(one)
    table.claim_user(one, user)
    (seen,) = entries.clients(board)
    assert len(seen.user.encode()) <= 82
    assert seen.is_meant_by(user)
    assert not seen.is_meant_by(user[:10])


def test_kick_marks_one_client_and_no_successor(board: Scoreboard) -> None:
    """A wish for somebody who has gone does not meet who came after."""
    table, one, other = table_of(board), client(1), client(2)
    table.enter(one)
    table.enter(other)
    first = next(found for found in entries.clients(board) if found.number == 1)
    assert entries.kick(first)
    assert one.entry.look(0)
    assert not other.entry.look(0)
    table.release(one)
    third = client(3)
    table.enter(third)
    assert not third.entry.look(0)
    assert not entries.kick(first)
    assert not third.entry.look(0)


def test_a_kick_that_comes_too_late_meets_nobody(
    board: Scoreboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place changes hands between the look at it and the wish: the new client stays."""
    table, one, other = table_of(board), client(1), client(2)
    table.enter(one)
    first = next(iter(entries.clients(board)))

    class Meanwhile:
        """Lets the client go, and another one come, just before the wish is written."""

        def __getitem__(self, at: int) -> int:
            return board.integers[at]

        def __setitem__(self, at: int, value: int) -> None:
            table.release(one)
            table.enter(other)
            board.integers[at] = value

    row = SimpleNamespace(
        board=SimpleNamespace(integers=Meanwhile()), pid=first.pid, entry_at=first.row.entry_at
    )
    assert entries.kick(replace(first, row=row))  # type: ignore[arg-type]
    assert not other.entry.look(0)
    assert [seen.leaving for seen in entries.clients(board)] == [False]


def test_a_process_that_died_leaves_no_clients_and_its_counts(board: Scoreboard) -> None:
    """Its row is cleared by others; what it served still counts."""
    table, row = table_of(board), board.row(0)
    table.enter(client())
    row.served = (5, 1)
    row.octets = 100
    row.clear()
    assert list(entries.clients(board)) == []
    assert board.totals() == (5, 100)
    row.begin(0.0)
    assert board.totals() == (5, 100)
    assert (row.high, row.state) == (0, State.STARTING)


def test_more_clients_than_places_are_served_unseen(board: Scoreboard) -> None:
    """Whom there is no room for is not shown, and nothing fails."""
    table = table_of(board)
    some = [client(number) for number in range(1, 6)]
    for one in some:
        table.enter(one)
    assert len(list(entries.clients(board))) == 3
    for one in some:
        table.release(one)
    assert list(entries.clients(board)) == []


def test_the_default_place_follows_the_environment(tmp_path: Path) -> None:
    """$RUNTIME_DIRECTORY before $XDG_RUNTIME_DIR before the fallback."""
    fallback = str(tmp_path)
    environ = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/1"}
    assert default_path("p", environ, fallback) == "/run/a/p.sock"
    del environ["RUNTIME_DIRECTORY"]
    assert default_path("p", environ, fallback) == "/run/user/1/p.sock"
    assert default_path("p", {}, fallback) == f"{fallback}/p.sock"


def test_a_place_is_taken_in_one_step_and_left_to_its_successor(tmp_path: Path) -> None:
    """However long its path is; only what is still ours is removed."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = str(directory / "sock")
    place, successor = Place(path), Place(path)
    assert place.is_free()
    with place.take():
        assert place.is_ours()
        assert not successor.is_free()
        assert holder(path) == os.getpid()
        with successor.take():
            assert not place.is_ours()
            place.leave()
            assert successor.is_ours()
            successor.leave()
    assert not os.path.lexists(path)
    assert os.listdir(directory) == []


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A file or a symbolic link there is somebody's; a dead socket is nobody's."""
    path = tmp_path / "sock"
    path.write_text("mine")
    assert not Place(str(path)).is_free()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert Place(str(path)).is_free()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", "lost"),
        (b"hello\n", "protocol"),
        (b"[]\n", "protocol"),
        (b"x" * (3 * LINE_LIMIT), "protocol"),
        (b'{"ok": false, "error": {"type": "odd", "text": "no"}}\n', "odd"),
        (b'{"ok": true, "more": true}\n', "lost"),
    ],
)
def test_any_answer_is_an_answer_or_a_typed_error(tmp_path: Path, said: bytes, kind: str) -> None:
    """Whatever is at the other end."""
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(LINE_LIMIT)
                try:
                    connection.sendall(said)
                except OSError:
                    return

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ControlError) as caught:
            Caller(path, 5.0).ask("stop")
        thread.join(10)
    assert caught.value.kind == kind


def test_lists_in_pieces_are_joined(tmp_path: Path) -> None:
    """As for many sessions."""
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(LINE_LIMIT)
                connection.sendall(b'{"ok": true, "sessions": [1], "more": true}\n')
                connection.sendall(b'{"ok": true, "sessions": [2], "more": false}\n')

        thread = threading.Thread(target=answer)
        thread.start()
        assert Caller(path, 5.0).ask("who")["sessions"] == [1, 2]
        thread.join(10)


def test_nobody_there_is_said_as_that(tmp_path: Path) -> None:
    """No socket at all is known at once."""
    with pytest.raises(ControlError, match="no server is running") as caught:
        Caller(str(tmp_path / "none")).ask("status")
    assert caught.value.kind == "not-running"


def test_metrics_have_the_form_of_openmetrics() -> None:
    """Each sample belongs to a family that was announced; the end is marked."""
    text = metrics(
        {
            "version": "1",
            "personality": "fork",
            "born": 1.5,
            "served": 3,
            "octets": 4,
            "open": 1,
            "workers": [{"state": "busy"}, {"state": "busy"}],
            "leaving": [],
        }
    )
    lines = text.split("\n")
    assert lines[-2:] == ["# EOF", ""]
    families = {line.split(" ")[2] for line in lines if line.startswith("# TYPE")}
    for line in lines[:-2]:
        if not line.startswith("#"):
            name = line.partition("{")[0].partition(" ")[0]
            assert (
                name in families
                or name.removesuffix("_total") in families
                or name.endswith("_info")
            )
    assert 'netserver_workers{state="busy"} 2' in lines
