"""What every personality owes to every server, shown with an echo server that knows no mail."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.support.processes import wait_until
from tests.support.servers import CONCURRENT, ROOT, RunningServer, running

concurrent = pytest.mark.parametrize("personality", CONCURRENT, indirect=True)

PROBE = '''
"""An echo server that writes down which hooks ran, and misbehaves when told to."""
import os

from netserver.echo import EchoServer


def note(text):
    """Append one line; O_APPEND keeps the lines of many processes whole."""
    descriptor = os.open(os.environ["PROBE_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{os.getpid()} {text}\\n".encode())
    os.close(descriptor)


class Probe(EchoServer):
    """Every hook says its name."""

    def process_request(self, connection):
        note("process_request")
        line = connection.read_line()
        if line == b"raise":
            raise RuntimeError("told to")
        if line == b"keep":
            self.kept = line
        connection.write(line + b"\\r\\n")
        super().process_request(connection)

    def allow_deny_hook(self, connection):
        note("allow_deny_hook")
        return not os.path.exists(os.environ["PROBE_NOTES"] + ".deny")

    def request_denied_hook(self, connection):
        note("request_denied_hook")

    def post_accept_hook(self, connection):
        note("post_accept_hook")

    def post_process_request_hook(self, connection, allowed):
        note(f"post_process_request_hook {allowed}")

    def post_client_connection_hook(self, connection):
        note("post_client_connection_hook")

    def pre_loop_hook(self):
        note("pre_loop_hook")

    def child_init_hook(self):
        note("child_init_hook")

    def child_finish_hook(self):
        note("child_finish_hook")

    def pre_server_close_hook(self):
        note("pre_server_close_hook")
'''


class Client:
    """A line-wise client of the echo server."""

    def __init__(self, server: RunningServer) -> None:
        """Connect."""
        self.socket = socket.create_connection((server.host, server.port), 15)
        self.file = self.socket.makefile("rb")

    def say(self, line: bytes) -> bytes:
        """Send a line, return the answer with its line end; empty if the connection ended."""
        self.socket.sendall(line + b"\r\n")
        try:
            return self.file.readline()
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        """Leave without "quit"."""
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


class Probed:
    """A running `Probe` and what it has noted."""

    def __init__(self, server: RunningServer, notes: Path) -> None:
        """Keep both."""
        self.server = server
        self.path = notes

    def notes(self) -> list[str]:
        """Return all notes so far, without process ids."""
        text = self.path.read_text() if self.path.exists() else ""
        return [line.partition(" ")[2] for line in text.splitlines()]

    def pids(self, note: str) -> list[int]:
        """Return the processes that made this note."""
        found = [line.partition(" ") for line in self.path.read_text().splitlines()]
        return [int(pid) for pid, _, text in found if text == note]


@pytest.fixture
def probed(personality: str, tmp_path: Path) -> Iterator[Probed]:
    """Run `Probe` under each personality, by bin/net-server."""
    (tmp_path / "probe.py").write_text(PROBE)
    notes = tmp_path / "notes"
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PROBE_NOTES": str(notes)}
    with running(
        tmp_path, personality=personality, program="net-server", target="probe:Probe", env=env
    ) as server:
        yield Probed(server, notes)


@pytest.fixture(scope="module")
def echo(personality: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Run the plain echo server under each personality."""
    home = tmp_path_factory.mktemp("echo")
    with running(home, personality=personality, program="net-server") as server:
        yield server


def test_lines_come_back(echo: RunningServer) -> None:
    """One client after the other is served, each line answered."""
    for number in range(5):
        with Client(echo) as client:
            assert client.say(b"hello %d" % number) == b"hello %d\r\n" % number
            assert client.say(b"") == b"\r\n"
            assert client.say(b"quit") == b""


def test_a_batch_is_answered_in_order(echo: RunningServer) -> None:
    """Many lines in one packet, and the last one cut in two."""
    with Client(echo) as client:
        lines = b"".join(b"%d\r\n" % number for number in range(500))
        client.socket.sendall(lines + b"la")
        assert client.file.read(len(lines)) == lines
        assert client.say(b"st") == b"last\r\n"


def test_a_reset_ends_only_its_connection(echo: RunningServer) -> None:
    """Clients that vanish at any moment leave a server that serves."""
    for words in (b"", b"half", b"x\r\n" * 2000):
        client = Client(echo)
        client.socket.sendall(words)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    with Client(echo) as client:
        assert client.say(b"alive") == b"alive\r\n"


@concurrent
def test_ten_clients_at_once(echo: RunningServer) -> None:
    """Ten open connections, each answered while the others wait."""
    clients = [Client(echo) for _ in range(10)]
    try:
        for turn in range(3):
            for number, client in enumerate(clients):
                word = b"%d of %d" % (turn, number)
                assert client.say(word) == word + b"\r\n"
    finally:
        for client in clients:
            client.close()


def test_hooks_run_in_order(probed: Probed) -> None:
    """The steps around one client, in the order of Net::Server."""
    with Client(probed.server) as client:
        assert client.say(b"hello") == b"hello\r\n"
        client.say(b"quit")
    last = "post_client_connection_hook"
    wait_until(lambda: last in probed.notes(), 10, f"{last} in {probed.notes()}")
    notes = [note for note in probed.notes() if not note.startswith(("child", "pre_"))]
    assert notes[:5] == [
        "post_accept_hook",
        "allow_deny_hook",
        "process_request",
        "post_process_request_hook True",
        last,
    ]
    assert len(probed.pids("pre_loop_hook")) == 1


def test_every_child_that_begins_ends(probed: Probed) -> None:
    """child_init_hook and child_finish_hook run once in each child, the stop hook in the master."""
    with Client(probed.server) as client:
        assert client.say(b"hello") == b"hello\r\n"
        client.say(b"quit")
    probed.server.stop()
    begun, ended = probed.pids("child_init_hook"), probed.pids("child_finish_hook")
    assert sorted(begun) == sorted(ended)
    assert len(set(begun)) == len(begun)
    if probed.server.personality in ("fork", "prefork", "gevent"):
        assert begun
        assert probed.server.pid not in begun
    if probed.server.personality != "inetd":
        assert probed.pids("pre_server_close_hook") == [probed.server.pid]


def test_an_error_in_one_connection_is_contained(probed: Probed) -> None:
    """An uncaught exception closes that connection, is logged, and nothing else happens."""
    with Client(probed.server) as client:
        assert client.say(b"raise") == b""
    probed.server.wait_for_log("told to")
    with Client(probed.server) as client:
        assert client.say(b"again") == b"again\r\n"


def test_the_server_is_sealed(probed: Probed) -> None:
    """State kept on the server during a connection is an error under every personality."""
    with Client(probed.server) as client:
        assert client.say(b"keep") == b""
    probed.server.wait_for_log("set after start-up")
    lines = probed.server.log_text().splitlines()
    assert any('"level":"error"' in line and "set after start-up" in line for line in lines), lines
    with Client(probed.server) as client:
        assert client.say(b"again") == b"again\r\n"


def test_a_denied_client_is_not_served(probed: Probed) -> None:
    """request_denied_hook runs in place of process_request."""
    Path(f"{probed.path}.deny").touch()
    with Client(probed.server) as client:
        assert client.file.readline() == b""
    last = "post_client_connection_hook"
    wait_until(lambda: last in probed.notes(), 10, f"{last} in {probed.notes()}")
    assert "request_denied_hook" in probed.notes()
    assert "process_request" not in probed.notes()
    assert "post_process_request_hook False" in probed.notes()


@pytest.mark.parametrize("personality", ["single", "fork", "prefork", "gevent"], indirect=True)
def test_hup_serves_on_with_new_code(personality: str, tmp_path: Path) -> None:
    """HUP reads the program again: same pid, same port, changed class."""
    module = tmp_path / "shout.py"
    body = (
        "from netserver.echo import EchoServer\n"
        "class Shout(EchoServer):\n"
        "    def process_request(self, connection):\n"
        "        connection.write(b'{}\\r\\n')\n"
        "        super().process_request(connection)\n"
    )
    module.write_text(body.format("one"))
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with running(
        tmp_path, personality=personality, program="net-server", target="shout:Shout", env=env
    ) as server:
        with Client(server) as client:
            assert client.file.readline() == b"one\r\n"
        module.write_text(body.format("other"))
        server.reload()

        def changed() -> bool:
            with Client(server) as client:
                return client.file.readline() == b"other\r\n"

        wait_until(changed, 15, "the new class serves")
