"""Signals to the master: USR1, TTIN, TTOU, QUIT, TERM, INT; what open sessions see of them."""

import os
import signal
import time

import pytest

from tests.conftest import Start
from tests.support.maildirs import HEADER, PLAIN, make_maildir, stored_messages, with_crlf
from tests.support.processes import descriptors, threads, wait_until
from tests.support.servers import RunningServer
from tests.support.wire import Wire

POOLS = ("prefork", "gevent")


def big_message() -> bytes:
    """Return a message that no socket buffer holds."""
    return HEADER + b"\n" + (b"x" * 71 + b"\n") * (64 * 1024 * 1024 // 72)


def read_all(wire: Wire) -> None:
    """Read to the end of file, keep the last octets only; raises ConnectionResetError."""
    end = time.monotonic() + 20
    while data := wire.socket.recv(1 << 16):
        wire.received = wire.received[-16:] + data
        assert time.monotonic() < end


def refuses(server: RunningServer) -> bool:
    """Whether nobody accepts connections any more."""
    try:
        server.connect(greeted=False, timeout=2).close()
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_usr1_opens_the_log_again(start: Start, kind: str) -> None:
    """After a rotation new lines go to a new file, from the master and from its children."""
    server = start(personality=kind)
    with server.session() as wire:
        wire.quit()
    old = server.log_path.rename(server.home / "server.log.1")
    server.signal(signal.SIGUSR1)
    wait_until(server.log_path.exists, 10, "a new log file")
    size = old.stat().st_size

    def logged() -> bool:
        with server.session() as wire:
            wire.quit()
        return "anna" in server.log_path.read_text()

    wait_until(logged, 10, "a session in the new log")
    assert old.stat().st_size >= size


@pytest.mark.parametrize("kind", POOLS)
def test_ttin_and_ttou_change_the_number_of_workers(start: Start, kind: str) -> None:
    """One worker more, one less; sessions go on meanwhile."""
    server = start(personality=kind)
    count = len(server.workers())
    with server.session() as wire:
        server.signal(signal.SIGTTIN)
        wait_until(lambda: len(server.workers()) == count + 1, 10, "one worker more")
        server.signal(signal.SIGTTOU)
        wire.ok(b"NOOP")
        wire.quit()  # a worker goes only when its last client has gone
    wait_until(lambda: len(server.workers()) == count, 10, "one worker less")
    server.signal(signal.SIGTTOU)
    wait_until(lambda: len(server.workers()) == count - 1, 10, "one worker less")
    with server.session() as wire:
        wire.quit()


@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_quit_drains(start: Start, kind: str) -> None:
    """QUIT: no new clients, the present one finishes, then exit 0."""
    server = start(personality=kind)
    make_maildir(server.maildir(), [PLAIN, PLAIN])
    with server.session() as wire:
        wire.ok(b"DELE 1")
        server.signal(signal.SIGQUIT)
        if kind != "single":
            wait_until(lambda: refuses(server), 10, "the listener closed")
        assert wire.message(b"RETR 2") == with_crlf(PLAIN)
        assert wire.quit().startswith(b"+OK")
    assert server.wait_for_exit() == 0
    assert len(stored_messages(server.maildir())) == 1


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_quit_ends_after_the_graceful_timeout(start: Start, kind: str) -> None:
    """A client that stays is told so when the time is up."""
    server = start(personality=kind, options=("--graceful-timeout", "1"))
    make_maildir(server.maildir(), [PLAIN])
    with server.session() as wire:
        wire.ok(b"DELE 1")
        server.signal(signal.SIGQUIT)
        assert wire.reply().startswith(b"-ERR [SYS/TEMP] ")
        assert wire.ended()
    assert server.wait_for_exit() == 0
    assert len(stored_messages(server.maildir())) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_term_tells_idle_sessions_and_deletes_nothing(start: Start, kind: str, number: int) -> None:
    """An idle session gets -ERR [SYS/TEMP] and is closed, before and after login."""
    server = start(personality=kind)
    make_maildir(server.maildir(), [PLAIN])
    idle: list[Wire] = [server.session()]
    if kind != "single":
        idle.append(server.connect())
    try:
        idle[0].ok(b"DELE 1")
        server.signal(number)
        for wire in idle:
            assert wire.reply().startswith(b"-ERR [SYS/TEMP] ")
            assert wire.ended()
    finally:
        for wire in idle:
            wire.close()
    assert server.wait_for_exit() == 0
    assert stored_messages(server.maildir()) == [PLAIN]


def test_term_under_inetd(start: Start) -> None:
    """The one process of an inetd session does the same."""
    server = start(personality="inetd")
    make_maildir(server.maildir(), [PLAIN])
    with server.session() as wire:
        wire.ok(b"DELE 1")
        server.signal(signal.SIGTERM)
        assert wire.reply().startswith(b"-ERR [SYS/TEMP] ")
        assert wire.ended()
    assert stored_messages(server.maildir()) == [PLAIN]


def test_term_resets_a_running_retr(start: Start, personality: str) -> None:
    """A message that is being sent is never ended early by a dot: the connection is reset."""
    server = start(personality=personality)
    make_maildir(server.maildir(), [big_message()])
    with server.session() as wire:
        wire.send(b"RETR 1\r\n")
        wire.reply()
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            read_all(wire)
        assert not wire.received.endswith(b".\r\n")
    if personality != "inetd":
        assert server.wait_for_exit() == 0


@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_a_commit_is_whole_or_not_at_all(start: Start, kind: str) -> None:
    """TERM beside QUIT: all marked messages are gone after +OK, else all are there."""
    server = start(personality=kind)
    count = 1500
    make_maildir(server.maildir(), [PLAIN] * count)
    with server.session() as wire:
        wire.send(b"".join(b"DELE %d\r\n" % number for number in range(1, count + 1)))
        for _ in range(count):
            wire.reply()
        wire.send(b"QUIT\r\n")
        server.signal(signal.SIGTERM)
        answer = wire.read_to_end()
    assert server.wait_for_exit() == 0
    left = len(stored_messages(server.maildir()))
    if answer.startswith(b"+OK"):
        assert left == 0
    else:
        assert answer.startswith(b"-ERR [SYS/TEMP] ") or not answer
        assert left == count


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_signals_to_children_do_not_end_them(start: Start, kind: str) -> None:
    """A terminal's INT or HUP reaches the whole group: children leave it to the master."""
    server = start(personality=kind)
    with server.session() as wire:
        before = server.workers()
        for pid in before:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTTIN, signal.SIGTTOU):
                os.kill(pid, number)
        wire.ok(b"NOOP")
        wire.quit()
    if kind != "fork":
        assert server.workers() == before


def test_the_gevent_master_has_one_thread_and_no_hub(start: Start) -> None:
    """The process that holds the listeners runs no event loop, at start and after a HUP."""
    server = start(personality="gevent")
    with server.session() as wire:
        wire.quit()
    for _ in range(2):
        assert threads(server.pid) == 1
        assert "anon_inode:[eventpoll]" not in descriptors(server.pid)
        wait_until(
            lambda: all("anon_inode:[eventpoll]" in descriptors(pid) for pid in server.workers()),
            10,
            "every worker has its loop",
        )
        server.reload()
        with server.session() as wire:
            wire.quit()
