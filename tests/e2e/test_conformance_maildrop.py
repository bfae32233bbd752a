"""One maildrop and the world around it: locks, deliveries, other programs, clients."""

import threading
from collections.abc import Callable

import pytest

from tests.conftest import Mailbox
from tests.support.maildirs import HEADER, NASTY, PLAIN, add_message, with_crlf
from tests.support.servers import CONCURRENT
from tests.support.wire import Wire

Make = Callable[..., Mailbox]
concurrent = pytest.mark.parametrize("personality", CONCURRENT, indirect=True)


@concurrent
def test_a_second_session_is_in_use(mailbox: Make) -> None:
    """One session per maildrop: the second login waits, then gets [IN-USE] and may try again."""
    box = mailbox([PLAIN])
    with box.session() as first, box.server.connect() as second:
        second.ok(b"USER " + box.user.encode())
        assert second.err(b"PASS secret").startswith(b"-ERR [IN-USE] ")
        first.quit()
        second.login(box.user)
        assert second.ok(b"STAT").split()[1] == b"1"


@concurrent
def test_a_lock_is_free_when_the_holder_drops(mailbox: Make) -> None:
    """A lost connection leaves no lock behind."""
    box = mailbox([PLAIN])
    for end in ("close", "reset"):
        wire = box.session()
        getattr(wire, end)()
        with box.session() as again:
            again.ok(b"STAT")
            again.quit()


@concurrent
def test_a_login_waits_for_a_session_that_ends(mailbox: Make) -> None:
    """Within --lock-wait the second login succeeds when the first session quits."""
    box = mailbox([PLAIN])
    with box.session() as first, box.server.connect() as second:
        second.send(box.login_lines())
        second.reply()
        timer = threading.Timer(0.3, first.send, (b"QUIT\r\n",))
        timer.start()
        try:
            assert second.reply().startswith(b"+OK")
        finally:
            timer.join()


@concurrent
def test_other_users_are_not_held_up(mailbox: Make) -> None:
    """A login that waits for its maildrop does not stop other logins."""
    box, other = mailbox([PLAIN]), mailbox([PLAIN])
    with box.session(), box.server.connect() as waiting:
        waiting.send(box.login_lines())
        waiting.reply()
        with other.session() as wire:
            wire.quit()
        assert waiting.reply().startswith(b"-ERR [IN-USE]")


def test_a_delivery_is_invisible_until_the_next_session(mailbox: Make) -> None:
    """The maildrop is a snapshot: counts and numbers stay."""
    box = mailbox([PLAIN])
    with box.session() as wire:
        before = wire.ok(b"STAT")
        add_message(box.path, PLAIN, 7)
        assert wire.ok(b"STAT") == before
        assert len(wire.lines(b"LIST")) == 1
        wire.err(b"RETR 2")
        wire.ok(b"RSET")
        assert wire.ok(b"STAT") == before
        wire.ok(b"DELE 1")
        wire.quit()
    with box.session() as wire:
        assert wire.ok(b"STAT").split()[1] == b"1"
    assert len(box.stored()) == 1


def test_a_message_removed_elsewhere_is_a_temporary_error(mailbox: Make) -> None:
    """Another program removed it: [SYS/TEMP], and the numbers of the others stay."""
    box = mailbox([HEADER + b"\n%d\n" % number for number in range(3)])
    with box.session() as wire:
        wire.ok(b"STAT")
        sorted((box.path / "new").iterdir())[1].unlink()
        assert wire.err(b"RETR 2").startswith(b"-ERR [SYS/TEMP] ")
        assert wire.err(b"TOP 2 0").startswith(b"-ERR [SYS/TEMP] ")
        assert wire.message(b"RETR 3").endswith(b"2\r\n")


def test_a_message_that_moved_to_cur_is_still_there(mailbox: Make) -> None:
    """A mail reader moves new to cur and sets flags during the session: nothing is lost."""
    box = mailbox([HEADER + b"\n%d\n" % number for number in range(3)])
    with box.session() as wire:
        wire.ok(b"STAT")
        for file in list((box.path / "new").iterdir()):
            file.rename(box.path / "cur" / (file.name + ":2,S"))
        assert wire.message(b"RETR 2").endswith(b"1\r\n")
        wire.ok(b"DELE 2")
        assert wire.quit().startswith(b"+OK")
    assert box.stored() == [HEADER + b"\n0\n", HEADER + b"\n2\n"]


def test_deleting_what_is_gone_already(mailbox: Make) -> None:
    """DELE of a message that another program removed: QUIT is still +OK, the rest is deleted."""
    box = mailbox([PLAIN, PLAIN])
    with box.session() as wire:
        wire.ok(b"DELE 1")
        wire.ok(b"DELE 2")
        min((box.path / "new").iterdir()).unlink()
        assert wire.quit().startswith(b"+OK")
    assert box.stored() == []


def test_sizes_are_exact_for_every_kind_of_message(mailbox: Make) -> None:
    """LIST equals the octets received with dots undone, STAT equals their sum."""
    box = mailbox(NASTY.values(), folder="cur")
    with box.session() as wire:
        listed = [int(line.split()[1]) for line in wire.lines(b"LIST")]
        received = [len(wire.message(b"RETR %d" % n)) for n in range(1, len(listed) + 1)]
        assert listed == received == [len(with_crlf(message)) for message in NASTY.values()]
        assert wire.ok(b"STAT") == b"+OK %d %d" % (len(listed), sum(listed))


@concurrent
def test_ten_clients_at_once(mailbox: Make) -> None:
    """Ten sessions side by side, each gets its own mail."""
    boxes = [mailbox([HEADER + b"\nfor %d\n" % number] * 3) for number in range(10)]
    sessions = [box.session() for box in boxes]
    try:
        for step in range(1, 4):
            for number, wire in enumerate(sessions):
                assert wire.message(b"RETR %d" % step).endswith(b"for %d\r\n" % number)
        for wire in sessions:
            assert wire.quit().startswith(b"+OK")
    finally:
        for wire in sessions:
            wire.close()


def test_half_close_still_gets_its_answers(mailbox: Make) -> None:
    """A client that sends everything and closes its side is answered to the end."""
    box = mailbox([PLAIN, PLAIN])
    with box.server.connect() as wire:
        wire.send(box.login_lines() + b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
        wire.half_close()
        assert [wire.reply()[:3] for _ in range(3)] == [b"+OK"] * 3
        assert wire.rest_of_reply().endswith(b"third line\r\n")
        assert [wire.reply()[:3] for _ in range(2)] == [b"+OK"] * 2
        assert wire.ended()
    assert len(box.stored()) == 1


def replies(wire: Wire, box: Mailbox) -> int:
    """Run a short session to its end, return how many octets came."""
    wire.send(box.login_lines() + b"LIST\r\nRETR 1\r\nUIDL\r\n")
    for _ in range(3):
        wire.reply()
    for _ in range(2):
        wire.rest_of_reply()
        wire.reply()
    wire.rest_of_reply()
    return len(wire.received)


def test_a_reset_at_every_reply_offset_leaves_the_server_alive(mailbox: Make) -> None:
    """RST after any number of received octets ends that session only; nothing is deleted."""
    box = mailbox([PLAIN])
    with box.server.connect() as wire:
        total = replies(wire, box)
    step = 40 if box.server.personality == "inetd" else 5
    workers = box.server.workers() if box.server.personality in ("prefork", "gevent") else []
    for offset in range(1, total, step):
        wire = box.server.connect(greeted=False)
        wire.send(box.login_lines() + b"DELE 1\r\nRSET\r\nLIST\r\nRETR 1\r\nUIDL\r\n")
        got = 0
        while got < offset and (data := wire.socket.recv(min(offset - got, 512))):
            got += len(data)
        wire.reset()
    with box.session() as wire:
        assert wire.ok(b"STAT").split()[1] == b"1"
    if workers:
        assert box.server.workers() == workers


def test_a_reader_that_stalls_in_retr_holds_up_nobody(mailbox: Make) -> None:
    """A client takes nothing of a big reply and resets; the server goes on."""
    box = mailbox([NASTY["1 MiB"] * 8])
    with box.session() as wire:
        wire.send(b"RETR 1\r\nRETR 1\r\n")
        wire.socket.recv(1000)
        wire.reset()
    with box.session() as wire:
        assert wire.ok(b"STAT").split()[1] == b"1"
