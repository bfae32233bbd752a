"""NetServer: who is let in, how a connection ends, the seal, and what Unix is needed for."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from netserver import client_flow
from netserver.echo import EchoServer
from netserver.endpoints import ListenSpec
from netserver.errors import ConfigError, LineTooLong, SealedError, ServerStopping
from netserver.settings import ServerSettings
from tests.netserver.certs import make_certificate
from tests.netserver.pairs import Process
from tests.support.servers import ROOT, run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from netserver.connection import Connection

    Make = Callable[..., Process]


class Talk(EchoServer):
    """Does what the class attribute says, and notes who was there."""

    talk: Any = staticmethod(lambda connection: None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.served: list[str] = []

    def process_request(self, connection: Connection) -> None:
        """Note, then do it."""
        self.served.append(str(connection.peer))
        type(self).talk(connection)

    def request_denied_hook(self, connection: Connection) -> None:
        """Say so."""
        connection.write(b"go away\r\n")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return a maker of servers in this process whose process_request is the given function."""
    made: list[Process] = []

    def maker(talk: Callable[[Connection], object], **settings: Any) -> Process:
        talkative = type("Talkative", (Talk,), {"talk": staticmethod(talk)})
        made.append(Process(talkative, tmp_path / f"log{len(made)}", **settings))
        return made[-1]

    yield maker
    for process in made:
        process.close()


def greet(connection: Connection) -> None:
    """Say one line."""
    connection.write(b"hello\r\n")


# -- who is let in --------------------------------------------------------------------------------


def test_a_denied_client_is_not_served(make: Make) -> None:
    """request_denied_hook talks to it instead, and what that writes is sent."""
    process = make(greet, deny=("127.0.0.0/8",))
    answer = process.serve(b"STAT\r\n")
    assert (answer.text, answer.reset) == (b"go away\r\n", False)
    assert process.server.served == []  # type: ignore[attr-defined]
    assert any(event.get("rule") == "127.0.0.0/8" for event in process.events())


def test_a_listener_may_have_rules_of_its_own(make: Make) -> None:
    """They only take away from what the others let in."""
    denied = make(greet, listen=("127.0.0.1:0?deny=127.0.0.0/8",))
    assert denied.serve().text == b"go away\r\n"
    allowed = make(greet, deny=("127.0.0.1",), listen=("127.0.0.1:0?allow=127.0.0.0/8",))
    assert allowed.serve().text == b"go away\r\n"
    both = make(greet, listen=("127.0.0.1:0?allow=127.0.0.0/8,::1",))
    assert both.serve().text == b"hello\r\n"


def test_a_denied_client_gets_no_handshake(make: Make, tmp_path: Path) -> None:
    """Who may not connect costs no TLS."""
    cert, key = make_certificate(tmp_path)
    process = make(greet, deny=("127.0.0.1",), tls_cert=(str(cert),), tls_key=(str(key),))
    process.listener.tls = True
    answer = process.serve(b"\x16\x03\x01 no real hello")
    assert answer.text == b"go away\r\n"
    assert answer.connection.tls is None


def test_a_name_is_looked_up_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the pool for it, with the answer kept for the next client of that address."""
    asked: list[str] = []

    def names(host: str) -> tuple[str, ...]:
        asked.append(host)
        return ("host.test",)

    monkeypatch.setattr(client_flow, "confirmed_names", names)
    process = make(greet, allow=("192.0.2.0/24", ".test"))
    assert [process.serve().text for _ in range(3)] == [b"hello\r\n"] * 3
    assert asked == ["127.0.0.1"]


def test_too_many_of_one_address_are_denied(make: Make) -> None:
    """--max-per-source counts who is here now; a client that left does not count."""
    inner: list[bytes] = []

    def talk(connection: Connection) -> None:
        inner.append(process.serve().text)  # a second one while the first is here

    process = make(talk, max_per_source=1)
    process.serve()
    process.serve()
    assert inner == [b"go away\r\n"] * 2
    assert sum("too many" in event["event"] for event in process.events()) == 2


# -- how a connection ends ------------------------------------------------------------------------


def fail(error: Exception) -> Callable[[Connection], None]:
    """Return a process_request that says half an answer and fails."""

    def talk(connection: Connection) -> None:
        connection.write(b"+OK message follows\r\n")
        connection.flush()
        raise error

    return talk


def test_an_end_is_an_orderly_one(make: Make) -> None:
    """What was written is sent, though process_request did not flush."""
    answer = make(greet).serve()
    assert (answer.text, answer.reset) == (b"hello\r\n", False)


def test_a_long_answer_without_flush_arrives_whole(make: Make) -> None:
    """Returning from process_request is not the way to lose the end of an answer."""
    # less than is sent by itself, more than the buffers take
    answer = make(lambda connection: connection.write(b"x" * 60_000)).serve()
    assert answer.reset or len(answer.text) == 60_000


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("disk"), ServerStopping()])
def test_half_an_answer_ends_by_a_reset(make: Make, error: Exception) -> None:
    """A client must not take it for the whole."""
    process = make(fail(error))
    assert process.serve().reset
    logged = [event for event in process.events() if event["level"] == "error"]
    assert bool(logged) is not isinstance(error, ServerStopping)
    assert all("exception" in event for event in logged)


def test_a_line_too_long_is_no_bug(make: Make) -> None:
    """A server that does not catch it closes in good order, and logs no traceback."""
    process = make(fail(LineTooLong()))
    answer = process.serve()
    assert (answer.text, answer.reset) == (b"+OK message follows\r\n", False)
    assert [event["event"] for event in process.events()] == ["connection ended"]


def test_a_client_that_leaves_is_no_bug(make: Make) -> None:
    """At debug level, in one line, with who it was."""
    process = make(lambda connection: connection.read_line())
    process.serve(b"half a line")
    (event,) = process.events()
    assert (event["level"], event["event"]) == ("debug", "connection lost")
    assert event["peer"].startswith("127.0.0.1:")


def test_a_stop_amid_a_torn_answer_says_nothing_more(make: Make) -> None:
    """Whatever process_request tries to say then, the client gets a reset."""

    def talk(connection: Connection) -> None:
        process.stop = True
        try:
            connection.write(b"x" * (1 << 21))
        except ServerStopping:
            connection.write(b".\r\n-ERR [SYS/TEMP] stopping\r\n")
            with suppress(Exception):
                connection.flush()

    process = make(talk)
    answer = process.serve(leave=False)
    assert answer.reset
    assert not answer.text.strip(b"x")


def test_a_stop_waits_for_a_commit(make: Make) -> None:
    """Inside uninterrupted() the process may read and write; the next wait after it ends."""
    done: list[str] = []

    def talk(connection: Connection) -> None:
        process.stop = True
        with connection.uninterrupted():
            connection.pause(0.01)
            connection.write(b"+OK\r\n")
            connection.flush()
            done.append("committed")
        connection.write(b"never sent")
        connection.read_line()
        done.append("went on")

    process = make(talk)
    answer = process.serve(leave=False)
    assert done == ["committed"]
    assert answer.reset


# -- the seal -------------------------------------------------------------------------------------


def test_a_sealed_server_takes_no_attribute(make: Make) -> None:
    """New or old, from within or without; the message says where to keep things instead."""
    server = make(greet).server
    for name in ("user", "settings", "log"):
        with pytest.raises(SealedError, match=rf"Talkative\.{name} .* on its connection"):
            setattr(server, name, None)
    assert not hasattr(server, "user")


def test_child_init_hook_may_set_attributes() -> None:
    """What belongs to a process is made there; afterwards the seal is on again."""

    class Opens(EchoServer):
        def child_init_hook(self) -> None:
            self.database = "open"

    server = Opens(ServerSettings(log_file="/dev/null"))
    server.configure()
    server.post_configure()
    server.seal()
    server.child_init()
    assert server.database == "open"
    with pytest.raises(SealedError):
        server.database = "closed"


# -- configuration --------------------------------------------------------------------------------


def test_stdin_is_for_inetd_alone() -> None:
    """Elsewhere it is a mistake of the user."""
    server = EchoServer(ServerSettings(listen=("stdin",), log_file="/dev/null"))
    with pytest.raises(ConfigError, match="inetd"):
        server.post_configure()


def test_settings_may_be_given_instead_of_options() -> None:
    """Then nothing is read from anywhere."""
    server = EchoServer(ServerSettings(timeout=7), argv=["--timeout", "8"])
    server.configure()
    assert server.settings.timeout == 7


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--check-config"], 0, ""),
        (["--check-config", "--personality", "fork", "--workers", "2"], 2, "--max-servers"),
        (["--check-config", "--personality", "prefork", "--workers", "0"], 2, "--workers"),
        (["--personality", "prefork", "--min-servers", "9", "--max-servers", "3"], 2, "--min-s"),
        (["--personality", "prefork", "--min-spare-servers", "20"], 2, "--min-spare-servers"),
        (["--personality", "gevent", "--max-connections", "0"], 2, "--max-connections"),
        (["--personality", "single", "--workers", "2"], 2, "--workers"),
        (["--personality", "inetd"], 1, "stdin"),
        (["--listen", "192.0.2.1:1"], 1, "192.0.2.1:1"),
        (["--listen", "127.0.0.1:0?what=1"], 2, "what"),
    ],
)
def test_exit_codes(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    """0, 1 or 2, one line that names the option or the place, and never a traceback."""
    done = run_program("net-server", *options, home=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (code, int(bool(said))), done.stderr
    assert said in done.stderr


def test_specs_of_a_server_class_have_its_own_keys() -> None:
    """Keys that only this class knows are taken behind the question mark."""
    spec = ListenSpec.parse("127.0.0.1:0?colour=red", extra_keys=frozenset({"colour"}))
    assert spec.options == {"colour": "red"}
    with pytest.raises(ConfigError, match="colour"):
        ListenSpec.parse("127.0.0.1:0?colour=red")


# -- other systems --------------------------------------------------------------------------------

WITHOUT_UNIX = """
import os, select, signal, socket, sys, threading
import structlog, yaml, configargparse  # at home on all systems; so is what they load

for name in ("fcntl", "pwd", "grp", "resource", "termios", "syslog"):
    sys.modules[name] = None
for name in ("fork", "memfd_create", "posix_spawn", "waitpid", "register_at_fork", "setsid",
             "sched_getaffinity", "geteuid", "chroot", "getuid"):
    delattr(os, name)
for name in ("SIGQUIT", "SIGHUP", "SIGUSR1", "SIGTTIN", "SIGTTOU", "SIGCHLD", "SIGPIPE",
             "pthread_sigmask"):
    delattr(signal, name)
del select.poll, select.epoll, socket.AF_UNIX

from netserver.echo import EchoServer

class Once(EchoServer):
    def child_init_hook(self):
        address = self.listeners[0].socket.getsockname()
        threading.Thread(target=talk, args=(address,)).start()

def talk(address):
    with socket.create_connection(address, 20) as client, client.makefile("rb") as file:
        client.sendall(b"hello\\r\\nquit\\r\\n")
        print(file.readline(), file.readline())
    os.kill(os.getpid(), signal.SIGTERM)

sys.exit(Once.main(argv=["--listen", "127.0.0.1:0", "--personality", "single"]))
"""


def test_single_needs_nothing_of_unix() -> None:
    """It serves and stops where there is no fork, fcntl, pwd, grp, resource, poll or SIGHUP."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNIX],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (0, "b'hello\\r\\n' b''\n"), done.stderr
