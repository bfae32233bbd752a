"""One client on two handles, inside a program that is no server."""

from __future__ import annotations

import io
import os
import signal
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from netserver import ConfigError, Connection, NetServer, ServerSettings
from netserver.embed import Ends

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BIG = b"x" * 300_000 + b"\n"


class Parrot(NetServer):
    """Repeats lines; BIG, WHO and BREAK are words of its own."""

    begun: bool

    def child_init_hook(self) -> None:
        """Show that it runs once."""
        self.begun = True

    def process_request(self, connection: Connection) -> None:
        """Talk until QUIT."""
        while (line := connection.read_line()) != b"QUIT":
            if line == b"BIG":
                connection.write(BIG)
            elif line == b"WHO":
                connection.write(b"%s\n" % str(connection.peer).encode())
            elif line == b"BREAK":
                raise RuntimeError("broken")
            else:
                connection.write(line + b"\n")


@pytest.fixture
def parrot(tmp_path: Path) -> Iterator[Parrot]:
    """Return a server that logs to a file and has short limits."""
    settings = ServerSettings(log_file=str(tmp_path / "log"), timeout=0.3)
    with Parrot(settings) as server:
        yield server


@contextmanager
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """Yield two pipes: what the client writes and reads, what the server reads and writes."""
    server_in, client_out = os.pipe()
    client_in, server_out = os.pipe()
    try:
        yield client_out, client_in, server_in, server_out
    finally:
        for descriptor in (client_out, client_in, server_in, server_out):
            os.close(descriptor)


def test_descriptors(parrot: Parrot) -> None:
    """Pipes by their numbers; they stay open and blocking."""
    with pipes() as (client_out, client_in, server_in, server_out):
        os.write(client_out, b"hello\r\nWHO\nQUIT\n")
        parrot.serve(server_in, server_out, peer="192.0.2.7")
        assert os.read(client_in, 100) == b"hello\n192.0.2.7:0\n"
        assert os.get_blocking(server_in)
        os.write(server_out, b"still mine")
        assert os.read(client_in, 100) == b"still mine"


def test_much_through_a_pipe(parrot: Parrot) -> None:
    """A client that reads slower than we write gets all of it."""
    with pipes() as (client_out, client_in, server_in, server_out):
        os.write(client_out, b"BIG\nQUIT\n")
        thread = threading.Thread(target=parrot.serve, args=(server_in, server_out))
        thread.start()
        with open(client_in, "rb", closefd=False) as stream:
            assert stream.read(len(BIG)) == BIG
        thread.join(10)
        assert not thread.is_alive()


def test_a_socket_both_ways(parrot: Parrot) -> None:
    """One socket is reader and writer, tells its peer, and stays the caller's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), 10)
        served, address = listening.accept()
    with client, served:
        client.sendall(b"WHO\nQUIT\n")
        parrot.serve(served, served)
        assert client.recv(100) == b"127.0.0.1:%d\n" % address[1]
        client.sendall(b"more")
        assert served.recv(10) == b"more"


def test_files(parrot: Parrot, tmp_path: Path) -> None:
    """A dialogue comes from a file and goes to a file, as in the tests of Mail::POP3."""
    asked, answered = tmp_path / "in", tmp_path / "out"
    asked.write_bytes(b"one\nBIG\n")
    with asked.open("rb") as reader, answered.open("wb") as writer:
        writer.write(b"before\n")
        parrot.serve(reader, writer)
    assert answered.read_bytes() == b"before\none\n" + BIG


def test_memory(parrot: Parrot) -> None:
    """Objects without a descriptor serve as well."""
    out = io.BytesIO()
    parrot.serve(io.BytesIO(b"one\ntwo\nBIG\n"), out)
    assert out.getvalue() == b"one\ntwo\n" + BIG


def test_a_silent_client_is_left(parrot: Parrot) -> None:
    """The time limit holds for reading and for writing."""
    with pipes() as (client_out, client_in, server_in, server_out):
        parrot.serve(server_in, server_out)
        os.write(client_out, b"BIG\n")
        parrot.serve(server_in, server_out)
        assert 0 < len(os.read(client_in, 1 << 20)) < len(BIG)


def test_a_closed_pipe_ends_the_call(parrot: Parrot, tmp_path: Path) -> None:
    """Nobody reads any more: the call returns, and so it does after an error in the server."""
    with pipes() as (client_out, _, server_in, _):
        gone, server_out = os.pipe()
        os.close(gone)
        os.write(client_out, b"hello\n")
        parrot.serve(server_in, server_out)
        os.close(server_out)
    parrot.serve(io.BytesIO(b"BREAK\n"), io.BytesIO())
    assert "RuntimeError: broken" in (tmp_path / "log").read_text()


def test_threads(parrot: Parrot) -> None:
    """Several threads share one server, begun once."""
    outs = [io.BytesIO() for _ in range(8)]
    threads = [
        threading.Thread(target=parrot.serve, args=(io.BytesIO(b"%d\n" % number), out))
        for number, out in enumerate(outs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [out.getvalue() for out in outs] == [b"%d\n" % number for number in range(8)]
    assert parrot.begun


def test_the_program_stays_as_it_is(parrot: Parrot) -> None:
    """No signal handler, no descriptor left open, no change of the directory or the mask."""
    handled = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    parrot.serve(io.BytesIO(), io.BytesIO())
    before = sorted(os.listdir("/proc/self/fd"))
    with pipes() as (client_out, _, server_in, server_out):
        os.write(client_out, b"QUIT\n")
        parrot.serve(server_in, server_out)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == handled


def test_access_rules_hold(tmp_path: Path) -> None:
    """A client that --deny names is not served."""
    settings = ServerSettings(deny=("192.0.2.0/24",), log_file=str(tmp_path / "log"))
    with Parrot(settings) as server:
        for peer, answer in (("192.0.2.1", b""), ("::1", b"hello\n"), ("unix", b"hello\n")):
            out = io.BytesIO()
            server.serve(io.BytesIO(b"hello\n"), out, peer=peer)
            assert out.getvalue() == answer


def test_mistakes_are_told(parrot: Parrot) -> None:
    """A peer that is no address, a TLS socket, and options that cannot be."""
    with pytest.raises(ValueError, match="'localhost' is no IP address"):
        parrot.serve(io.BytesIO(), io.BytesIO(), peer="localhost")
    near, far = socket.socketpair()
    with near, far:
        context = ssl.create_default_context()
        tls = context.wrap_socket(near, server_hostname="x", do_handshake_on_connect=False)
        with tls, pytest.raises(TypeError, match="bypass its TLS"):
            Ends(tls, tls)
    with Parrot(ServerSettings(deny=("nonsense/99",))) as server:
        for _ in range(2):
            with pytest.raises(ConfigError, match="nonsense/99"):
                server.serve(io.BytesIO(), io.BytesIO())
