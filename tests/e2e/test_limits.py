"""Bounds on what a stranger may do: time, bad commands, other protocols, connections."""

import contextlib
import socket
import time

import pytest

from tests.conftest import Start
from tests.support.maildirs import PLAIN, make_maildir, stored_messages
from tests.support.processes import wait_until
from tests.support.servers import RunningServer
from tests.support.wire import Wire


def test_an_idle_session_is_closed_without_a_reply(start: Start, personality: str) -> None:
    """RFC 1939 section 3: the timer closes, says nothing and deletes nothing."""
    server = start(personality=personality, options=("--timeout", "1"))
    make_maildir(server.maildir(), [PLAIN])
    with server.session() as wire:
        wire.ok(b"DELE 1")
        assert wire.ended()
    assert stored_messages(server.maildir()) == [PLAIN]
    with server.session() as wire:
        wire.quit()


def test_every_command_restarts_the_timer(start: Start, personality: str) -> None:
    """A client that says something within the time stays."""
    server = start(personality=personality, options=("--timeout", "2"))
    with server.session() as wire:
        for _ in range(6):
            wire.socket.settimeout(0.6)
            with pytest.raises(TimeoutError):
                wire.socket.recv(1)
            wire.ok(b"NOOP")


def test_the_login_has_its_own_time(start: Start, personality: str) -> None:
    """--login-timeout counts from the greeting; commands before login do not prolong it."""
    server = start(personality=personality, options=("--login-timeout", "2"))
    begin = time.monotonic()
    with server.connect() as wire:
        try:
            while True:
                wire.send(b"CAPA\r\n")
                wire.reply()
                wire.rest_of_reply()
                assert time.monotonic() - begin < 30, "no end of the login time"
                time.sleep(0.1)
        except (EOFError, ConnectionError):
            pass
    with server.session() as wire:  # once logged in the time no longer counts
        wire.socket.settimeout(3)
        with pytest.raises(TimeoutError):
            wire.socket.recv(1)
        wire.ok(b"NOOP")


def test_a_dripped_line_does_not_prolong_the_login(start: Start) -> None:
    """One octet at a time before login: closed in the end (slow senders hold no slot)."""
    server = start(personality="gevent", options=("--login-timeout", "1"))
    begin = time.monotonic()
    with server.connect() as wire, contextlib.suppress(OSError):
        while time.monotonic() - begin < 30:
            wire.send(b"x")
            time.sleep(0.1)
    assert time.monotonic() - begin < 30, "no end of the login time"


def bad_commands(wire: Wire, most: int) -> int:
    """Send bad commands until the server closes, return how many it answered."""
    for count in range(most):
        try:
            wire.send(b"FOO\r\n")
            assert wire.reply().startswith(b"-ERR")
        except (EOFError, ConnectionError):
            return count
    return most


def test_bad_commands_before_login_are_few(server: RunningServer) -> None:
    """A handful, then the connection is closed."""
    with server.connect() as wire:
        assert 1 <= bad_commands(wire, 50) <= 10


def test_bad_commands_after_login_are_bounded(server: RunningServer, mailbox: object) -> None:
    """A client that only makes mistakes is closed, and deletes nothing."""
    box = mailbox([PLAIN])  # type: ignore[operator]
    with box.session() as wire:
        wire.ok(b"DELE 1")
        assert 5 <= bad_commands(wire, 500) <= 100
    assert len(box.stored()) == 1


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1",
        b"POST / HTTP/1.1",
        b"PUT /x HTTP/1.0",
        b"HEAD / HTTP/1.1",
        b"get / HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT x:110 HTTP/1.1",
        b"DELETE / HTTP/1.1",
    ],
)
def test_a_browser_is_closed_at_once(server: RunningServer, request_line: bytes) -> None:
    """An HTTP request closes the connection: commands in its body are never reached."""
    with server.connect() as wire:
        wire.send(request_line + b"\r\nHost: x\r\n\r\nUSER user000\r\nPASS secret\r\nSTAT\r\n")
        rest = wire.read_to_end()
    assert b"+OK" not in rest
    assert rest.count(b"\r\n") <= 1


def test_failed_logins_are_bounded_and_delayed(start: Start, personality: str) -> None:
    """Guessing on one connection comes to an end."""
    server = start(personality=personality)
    with server.connect() as wire:
        for _count in range(100):
            try:
                wire.ok(b"USER anna")
                assert wire.err(b"PASS wrong").startswith(b"-ERR [AUTH]")
            except (EOFError, ConnectionError):
                break
        else:
            pytest.fail("a hundred guesses on one connection")


@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_the_first_failure_is_delayed(start: Start, kind: str) -> None:
    """--auth-failure-delay holds the answer back; a right password is answered at once."""
    server = start(personality=kind, options=("--auth-failure-delay", "1"))
    with server.connect() as wire:
        wire.ok(b"USER anna")
        begin = time.monotonic()
        wire.err(b"PASS wrong")
        assert time.monotonic() - begin >= 0.9
    server.stop()


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_sessions_of_one_address_are_limited(start: Start, kind: str) -> None:
    """--max-per-source: one more connection is refused or closed, and possible again later."""
    server = start(personality=kind, options=("--max-per-source", "2"))
    with server.connect(), server.connect() as second:
        with server.connect(greeted=False) as third:
            assert not third.read_to_end().startswith(b"+OK")
        second.quit()

        def admitted() -> bool:
            with server.connect(greeted=False) as wire:
                return wire.line().startswith(b"+OK")

        wait_until(admitted, 10, "a place for another connection")


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_sessions_of_one_user_are_limited(start: Start, kind: str) -> None:
    """--max-per-user names itself in an [IN-USE] answer."""
    options = ("--max-per-user", "1", "--lock-wait", "0")
    server = start(personality=kind, options=options)
    with server.session(), server.connect() as second:
        second.ok(b"USER anna")
        assert second.err(b"PASS secret").startswith(b"-ERR [IN-USE] ")


def test_denied_addresses_get_no_service(start: Start, personality: str) -> None:
    """--deny closes before anything is asked; other addresses are served."""
    if personality == "inetd":
        server = start(personality=personality, options=("--deny", "127.0.0.1"))
        with server.connect(greeted=False) as wire:
            assert not wire.read_to_end().startswith(b"+OK")
        return
    server = start(personality=personality, options=("--deny", "127.0.0.2"))
    with Wire(server.host, server.port, greeted=False, source="127.0.0.2") as wire:
        assert not wire.read_to_end().startswith(b"+OK")
    with server.connect() as wire:
        wire.quit()


def test_hundreds_of_silent_clients_keep_nobody_out(start: Start) -> None:
    """300 connections that say nothing; a login beside them works (gevent)."""
    server = start(personality="gevent")
    silent = [socket.create_connection((server.host, server.port), 10) for _ in range(300)]
    try:
        with server.session() as wire:
            wire.quit()
    finally:
        for connection in silent:
            connection.close()
