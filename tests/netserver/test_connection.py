"""Connection on real sockets: lines, limits, writes, deadlines and the ways it ends."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netserver.connection import DISCARD_LIMIT, RECEIVE_SIZE, SEND_SIZE, Connection
from netserver.errors import ConnectionLost, IdleTimeout, LineTooLong, ServerStopping
from tests.netserver.pairs import NOBODY, Pair, Script, reset, until_reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

TOO_LONG = b"(too long)"


@pytest.fixture
def pairs() -> Iterator[Callable[..., Pair]]:
    """Return a maker of pairs that are closed in the end."""
    made: list[Pair] = []

    def make(chunks: Iterable[bytes] = (), *, tcp: bool = False) -> Pair:
        made.append(Pair(chunks, tcp=tcp))
        return made[-1]

    yield make
    for pair in made:
        pair.close()


def lines_of(chunks: Iterable[bytes], limit: int = 255) -> list[bytes]:
    """Return what a server reads when the octets come in these pieces, until the client leaves."""
    pair = Pair(chunks)
    lines = []
    try:
        while True:
            try:
                lines.append(pair.connection.read_line(limit))
            except LineTooLong:
                lines.append(TOO_LONG)
    except ConnectionLost:
        return lines
    finally:
        pair.close()


BATCH = (
    b"USER anna\r\nPASS x y \r\n\r\n\nSTAT\nLIST\r1\r\n\r\r\n\x00\xff\r\n"
    + b"a" * 253
    + b"\r\n"
    + b"b" * 254
    + b"\r\n"
    + b"c" * 300
    + b"\nQUIT\r\nDELE 1"
)
LINES = [
    *(b"USER anna", b"PASS x y ", b"", b"", b"STAT", b"LIST\r1", b"\r", b"\x00\xff"),
    *(b"a" * 253, TOO_LONG, TOO_LONG, b"QUIT"),
]


# -- reading --------------------------------------------------------------------------------------


def test_a_batch_gives_its_lines_and_no_unfinished_one() -> None:
    """CRLF and LF end a line, CR alone does not, and what has no end is no line."""
    assert lines_of([BATCH]) == LINES


def test_every_cut_in_two_gives_the_same_lines() -> None:
    """Wherever the network cuts the batch, the server reads the same."""
    for at in range(1, len(BATCH)):
        assert lines_of([BATCH[:at], BATCH[at:]]) == LINES, at


def test_octet_by_octet_gives_the_same_lines() -> None:
    """A client that drips says the same."""
    assert lines_of(bytes((octet,)) for octet in BATCH) == LINES


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(
        st.one_of(
            st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"\r")),
            st.integers(250, 260).map(lambda size: b"x" * size),
        ),
        max_size=8,
    ),
    ends=st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=8, max_size=8),
    cuts=st.lists(st.integers(1, 300), max_size=20),
)
def test_any_chunking_gives_the_same_lines(
    lines: list[bytes], ends: list[bytes], cuts: list[int]
) -> None:
    """The lines depend on the octets alone; a whole line counts with its end up to 255."""
    data = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    chunks, at = [], 0
    for cut in cuts:
        if at < len(data):
            chunks.append(data[at : at + cut])
            at += cut
    chunks += [data[at:]] if at < len(data) else []
    expected = []
    for line in data.split(b"\n")[:-1]:
        text = line.removesuffix(b"\r")
        expected.append(text if len(line) < 255 else TOO_LONG)
    assert lines_of(chunks) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("octets", [254, 255, 256])
def test_the_limit_counts_the_line_end(octets: int, end: bytes) -> None:
    """255 octets with the line end pass, 256 do not (RFC 2449 section 4)."""
    text = b"x" * (octets - len(end))
    assert lines_of([text + end + b"NOOP\r\n"]) == [TOO_LONG if octets > 255 else text, b"NOOP"]


def test_another_limit_can_be_asked_for() -> None:
    """A line of a SASL exchange may be longer."""
    assert lines_of([b"x" * 998 + b"\r\n" + b"y" * 999 + b"\r\n"], 1000) == [b"x" * 998, TOO_LONG]


def test_an_overlong_line_is_dropped_whatever_it_holds() -> None:
    """No part of it is taken for a command, and the next line is intact."""
    line = b"x" * 8000 + b" DELE 1 " + b"y" * 9000
    pieces = [line[at : at + 1000] for at in range(0, len(line), 1000)]
    assert lines_of([*pieces, b"\r\nNOOP\r\n"]) == [TOO_LONG, b"NOOP"]


def test_a_line_without_end_ends_the_connection(pairs: Callable[..., Pair]) -> None:
    """No more than DISCARD_LIMIT is read, and none of it is kept."""
    pair = pairs(b"x" * RECEIVE_SIZE for _ in range(1000))
    with pytest.raises(ConnectionLost, match="without end"):
        pair.connection.read_line()
    assert pair.connection.octets_in <= DISCARD_LIMIT + RECEIVE_SIZE
    assert pair.connection._in == b""


def test_what_the_client_said_before_it_left_is_read(pairs: Callable[..., Pair]) -> None:
    """A half-closed client still gets its answer."""
    pair = pairs()
    pair.far.sendall(b"QUIT\r\n")
    pair.far.shutdown(socket.SHUT_WR)
    assert pair.connection.read_line() == b"QUIT"
    pair.connection.write(b"+OK\r\n")
    with pytest.raises(ConnectionLost, match="closed by the client"):
        pair.connection.read_line()
    pair.connection.close()
    assert pair.rest() == b"+OK\r\n"


def test_a_reset_is_a_lost_connection(pairs: Callable[..., Pair]) -> None:
    """Reading and writing both say so, with the reason."""
    pair = pairs(tcp=True)
    reset(pair.far)
    with pytest.raises(ConnectionLost, match="reset"):
        pair.connection.read_line()
    pair.connection.write(b"x")
    with pytest.raises(ConnectionLost):
        pair.connection.flush()


# -- writing --------------------------------------------------------------------------------------


def test_the_answers_to_a_batch_leave_in_one_send(pairs: Callable[..., Pair]) -> None:
    """Written pieces wait for the next read that has to wait, and are there before it does."""
    pair = pairs([b"1\r\n2\r\n3\r\n"])
    seen = []
    pair.waiter.before = lambda: seen.append(list(pair.socket.sends))
    for _ in range(3):
        line = pair.connection.read_line()
        pair.connection.write(b"+OK ")
        pair.connection.write(line + b"\r\n")
    assert pair.socket.sends == []
    with pytest.raises(ConnectionLost):
        pair.connection.read_line()
    assert seen == [[], [21]]
    assert pair.far.recv(100) == b"+OK 1\r\n+OK 2\r\n+OK 3\r\n"
    assert (pair.connection.octets_in, pair.connection.octets_out) == (9, 21)


def test_64_kib_are_sent_without_being_asked(pairs: Callable[..., Pair]) -> None:
    """A long answer does not pile up in memory."""
    pair = pairs()
    pair.connection.write(b"x" * (SEND_SIZE - 1))
    assert pair.socket.sends == []
    pair.connection.write(b"x")
    assert sum(pair.socket.sends) == SEND_SIZE
    pair.connection.flush()
    assert sum(pair.socket.sends) == SEND_SIZE


def test_what_the_socket_does_not_take_at_once_follows(pairs: Callable[..., Pair]) -> None:
    """Every octet arrives in order, and others get a turn meanwhile."""
    pair = pairs(tcp=True)
    data = bytes(range(256)) * 8192
    pair.connection.write(data)
    pair.connection.close()
    assert pair.rest() == data
    assert pair.waiter.breaths == 1


# -- deadlines ------------------------------------------------------------------------------------


def test_each_read_has_its_own_time(pairs: Callable[..., Pair]) -> None:
    """The deadline of a wait is idle_timeout from its start."""
    pair = pairs([b"1\r\n", b"2\r\n"])
    deadlines = []
    pair.waiter.before = lambda: deadlines.append(pair.connection.deadline)
    pair.connection.idle_timeout = 50
    start = time.monotonic()
    pair.connection.read_line()
    pair.connection.idle_timeout = 90
    pair.connection.read_line()
    assert 50 <= deadlines[0] - start < 80
    assert 90 <= deadlines[1] - start < 120


def test_a_phase_limits_all_its_reads_together(pairs: Callable[..., Pair]) -> None:
    """Each octet a client drips does not buy it more time, until the phase is lifted."""
    pair = pairs(bytes((octet,)) for octet in b"1\r\n2\r\n")
    deadlines = []
    pair.waiter.before = lambda: deadlines.append(pair.connection.deadline)
    pair.connection.limit_phase(60)
    pair.connection.read_line()
    assert len(set(deadlines)) == 1
    pair.connection.limit_phase(None)
    pair.connection.read_line()
    assert deadlines[-1] > deadlines[0] + 300
    pair.connection.limit_phase(0)
    with pytest.raises(IdleTimeout):
        pair.connection.read_line()


def test_a_client_that_takes_nothing_runs_into_the_idle_timeout(pairs: Callable[..., Pair]) -> None:
    """Each wait to send has a deadline too, whatever the phase says; nothing may follow then."""
    pair = pairs(tcp=True)
    deadlines = []

    def stalled(connection: Connection) -> None:
        deadlines.append(connection.deadline - time.monotonic())
        raise IdleTimeout

    pair.waiter.writable = stalled  # type: ignore[method-assign]
    pair.connection.idle_timeout = 7
    with pytest.raises(IdleTimeout):
        pair.connection.write(b"x" * (1 << 21))
    assert 5 < deadlines[0] <= 7
    pair.connection.write(b"more")
    with pytest.raises(ConnectionLost, match="cut short"):
        pair.connection.flush()


# -- the end --------------------------------------------------------------------------------------


def test_an_answer_cut_short_is_followed_by_a_reset(pairs: Callable[..., Pair]) -> None:
    """A stop amid an answer must not look like its end, not even through close()."""
    pair = pairs(tcp=True)

    def stop(connection: Connection) -> None:
        raise ServerStopping

    pair.waiter.writable = stop  # type: ignore[method-assign]
    with pytest.raises(ServerStopping):
        pair.connection.write(b"x" * (1 << 21))
    pair.connection.write(b"-ERR [SYS/TEMP] stopping\r\n")
    pair.connection.close()
    assert not until_reset(pair.far).strip(b"x")


def test_last_words_cut_short_are_followed_by_a_reset(pairs: Callable[..., Pair]) -> None:
    """What close() cannot send whole must not end as if it were whole."""
    pair = pairs(tcp=True)
    pair.connection.write(b"x" * (SEND_SIZE - 1))  # more than both buffers hold
    pair.connection.close()
    assert len(until_reset(pair.far)) < SEND_SIZE - 1


def test_close_sends_the_last_words(pairs: Callable[..., Pair]) -> None:
    """What was written arrives, also where the client had said more than was read."""
    pair = pairs(tcp=True)
    pair.far.sendall(b"unread\r\n" * 100)
    pair.connection.write(b"+OK bye\r\n")
    pair.connection.close()
    pair.connection.close()
    assert pair.connection.closed
    assert pair.rest() == b"+OK bye\r\n"


def test_close_does_not_wait_for_the_client(pairs: Callable[..., Pair]) -> None:
    """One that is gone or takes nothing holds nobody up, and close() never raises."""
    gone = pairs(tcp=True)
    reset(gone.far)
    gone.connection.write(b"+OK bye\r\n")
    gone.connection.close()
    full = pairs(tcp=True)
    with suppress(BlockingIOError):
        while full.socket._inner.send(b"x" * 4096):
            pass
    full.connection.write(b"+OK bye\r\n")
    full.connection.close()
    assert full.waiter.taken == b""


def test_abort_resets(pairs: Callable[..., Pair]) -> None:
    """Nothing written is sent, the client gets an error and no end of file."""
    pair = pairs(tcp=True)
    pair.connection.write(b"+OK")
    pair.connection.abort()
    pair.connection.abort()
    pair.connection.close()
    with pytest.raises(ConnectionResetError):
        pair.far.recv(100)


# -- who ------------------------------------------------------------------------------------------


def test_peer_and_local_are_the_two_ends(pairs: Callable[..., Pair]) -> None:
    """Both addresses as text, and what a UNIX socket's peer is called."""
    tcp = pairs(tcp=True)
    assert str(tcp.connection.peer) == "{}:{}".format(*tcp.far.getsockname())
    assert str(tcp.connection.local) == "{}:{}".format(*tcp.far.getpeername())
    assert str(pairs().connection.peer) == "unix"
    tcp.connection.close()
    assert tcp.connection.local.port is None


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_an_ipv4_client_of_an_ipv6_socket_is_shown_as_ipv4() -> None:
    """Rules and logs see 127.0.0.1, not ::ffff:127.0.0.1."""
    family, dual = socket.AF_INET6, True
    with (
        socket.create_server(("::", 0), family=family, dualstack_ipv6=dual) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 10) as far,
    ):
        near, address = listener.accept()
        near.setblocking(False)
        connection = Connection(near, address, NOBODY, Script(far), NOBODY)
        try:
            assert address[0] == "::ffff:127.0.0.1"
            assert connection.peer.host == "127.0.0.1"
            assert connection.local.host == "127.0.0.1"
            assert connection.peer.is_loopback
        finally:
            connection.close()


def test_uninterrupted_marks_a_commit(pairs: Callable[..., Pair]) -> None:
    """Waiters see the mark inside the block alone, also after an error in it."""
    connection = pairs().connection
    inside = []
    with suppress(OSError), connection.uninterrupted():
        inside.append(connection.committing)
        raise OSError("disk")
    assert (inside, connection.committing) == ([True], False)
