"""Listeners: specs, sockets, hand-over, addresses."""

import errno
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from netserver.errors import BindError, ConfigError
from netserver.listeners import (
    Address,
    Listener,
    ListenSpec,
    SpareDescriptor,
    bind,
    handover,
    write_address_file,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bound() -> Iterator[list[Listener]]:
    """Return a list; listeners put into it are closed and unlinked after the test."""
    listeners: list[Listener] = []
    yield listeners
    for listener in listeners:
        listener.unlink()
        listener.close()


def run(program: str, stdin: Any = None) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program],
        stdin=stdin,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def specs(*texts: str) -> list[ListenSpec]:
    """Parse several specs."""
    return [ListenSpec.parse(text) for text in texts]


def connect(listener: Listener) -> socket.socket:
    """Return a client's socket connected to `listener`."""
    client = socket.socket(listener.socket.family, socket.SOCK_STREAM)
    client.settimeout(5)
    client.connect(listener.socket.getsockname())
    return client


# -- bind -----------------------------------------------------------------------------------------


def test_bind_gives_listeners_in_order_with_their_real_ports(bound: list[Listener]) -> None:
    """Port 0 becomes a real port, the same spec twice two of them, and clients are accepted."""
    bound += bind(specs("127.0.0.1:0", "tls://127.0.0.1:0", "127.0.0.1:0"), backlog=5)
    ports = {listener.socket.getsockname()[1] for listener in bound}
    assert len(ports) == 3
    assert re.fullmatch(r"127\.0\.0\.1:[1-9][0-9]+", bound[0].address)
    assert re.fullmatch(r"tls://127\.0\.0\.1:[1-9][0-9]+", bound[1].address)
    assert [listener.tls for listener in bound] == [False, True, False]
    for listener in bound:
        assert listener.accept() is None
        with connect(listener) as client:
            accepted = listener.accept()
            assert accepted is not None
            with accepted[0] as ours:
                assert ours.getblocking() is False
                assert not ours.get_inheritable()
                assert Address.of(accepted[1], ours.family).port == client.getsockname()[1]


def test_bind_resolves_a_name(bound: list[Listener]) -> None:
    """The address shows what the name became."""
    bound += bind(specs("localhost:0"), backlog=5)
    assert bound[0].address.startswith("127.0.0.1:")
    with pytest.raises(BindError, match=r"^nowhere\.invalid:110: .*[a-z]"):
        bind(specs("nowhere.invalid:110"), backlog=5)


def test_plain_ipv6_leaves_ipv4_alone(bound: list[Listener]) -> None:
    """[::]:PORT and 0.0.0.0:PORT are two sockets."""
    bound += bind(specs("[::]:0"), backlog=5)
    port = bound[0].socket.getsockname()[1]
    assert bound[0].address == f"[::]:{port}"
    bound += bind(specs(f"0.0.0.0:{port}"), backlog=5)


def test_star_serves_both_families_on_one_socket(bound: list[Listener]) -> None:
    """A client by IPv4 and one by IPv6 reach the same listener, and are told apart."""
    bound += bind(specs("*:0"), backlog=5)
    (listener,) = bound
    port = listener.socket.getsockname()[1]
    hosts = []
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), 5):
            accepted = listener.accept()
            assert accepted is not None
            hosts.append(Address.of(accepted[1], accepted[0].family).host)
            accepted[0].close()
    assert hosts == ["127.0.0.1", "::1"]


def test_star_does_without_ipv6(bound: list[Listener], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has none the listener is an IPv4 one, and says so."""

    def without_ipv6(family: int = -1, *rest: int, **fileno: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6 here")
        return socket.socket(family, *rest, **fileno)

    monkeypatch.setattr("netserver.native.socket", without_ipv6)
    bound += bind(specs("*:0"), backlog=5)
    assert bound[0].address.startswith("0.0.0.0:")
    with pytest.raises(BindError, match=r"^\[::1\]:0: no IPv6 here$"):
        bind(specs("[::1]:0"), backlog=5)


def test_bind_error_names_the_place_and_nothing_stays_bound(tmp_path: Path) -> None:
    """When the second fails, the first is free again and its path is gone."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path = tmp_path / "first.sock"
        expected = f"^127\\.0\\.0\\.1:{port}: address already in use$"
        with pytest.raises(BindError, match=expected):
            bind(specs(f"unix:{path}", f"127.0.0.1:{port}?allow=::1"), backlog=5)
        assert not path.exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can stop being root")
def test_low_port_without_root_says_what_to_do() -> None:
    """A port below 1024 asks for root or systemd, in the message."""
    program = """
import os
from netserver.errors import BindError
from netserver.listeners import ListenSpec, bind
os.setuid(65534)
try:
    bind([ListenSpec.parse("127.0.0.1:110")], backlog=5)
except BindError as error:
    print(error)
"""
    low = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    if int(low) <= 110:
        pytest.skip("this kernel lets everybody bind port 110")
    done = run(program)
    expected = "ports below 1024 need root or systemd socket activation\n"
    assert done.stdout == "127.0.0.1:110: permission denied; " + expected


@pytest.mark.parametrize(
    "pair",
    [
        ("127.0.0.1:1110", "127.0.0.1:1110"),
        ("127.0.0.1:1110", "tls://127.0.0.1:1110?allow=::1"),
        ("unix:/tmp/x", "unix:/tmp/x"),
        ("stdin", "tls:stdin"),
    ],
)
def test_a_place_named_twice_is_refused(pair: tuple[str, str]) -> None:
    """Only port 0 may come twice."""
    with pytest.raises(ConfigError, match="named twice"):
        bind(specs(*pair), backlog=5)


def test_fd_is_taken_over_only_if_it_listens(bound: list[Listener], tmp_path: Path) -> None:
    """A listening socket becomes a listener; a connected one, a file and a wrong number do not."""
    with ExitStack() as stack:
        ready = socket.create_server(("127.0.0.1", 0))
        bound += bind(specs(f"fd:{ready.fileno()}?tls=implicit"), backlog=5)
        port = ready.getsockname()[1]
        ready.detach()
        assert bound[0].address == f"tls://127.0.0.1:{port}"
        one, two = socket.socketpair()
        stack.enter_context(one)
        stack.enter_context(two)
        file = stack.enter_context((tmp_path / "f").open("w"))
        for number, why in [
            (one.fileno(), "does not listen"),
            (file.fileno(), "is no socket"),
            (99999, "bad file descriptor"),
        ]:
            with pytest.raises(BindError, match=f"^fd:{number}: .*{why}"):
                bind(specs(f"fd:{number}"), backlog=5)
        one.send(b"still open")


def test_stdin_is_the_connection_itself() -> None:
    """Under inetd the listener's socket is the client's; a pipe there is an error."""
    program = """
from netserver.errors import BindError
from netserver.listeners import ListenSpec, bind
try:
    (listener,) = bind([ListenSpec.parse("tls:stdin")], backlog=5)
    listener.socket.send(b"served " + listener.address.encode())
except BindError as error:
    print(error)
"""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with ours, theirs:
        run(program, stdin=theirs)
        assert ours.recv(100) == b"served stdin"
    done = run(program, stdin=subprocess.DEVNULL)
    assert done.stdout == "tls:stdin: descriptor 0 is no socket\n"


def test_systemd_gives_all_sockets_of_a_name(
    bound: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sockets of one name become two listeners with keys of their own; a wrong name fails."""
    passed = {
        "pop3": [socket.create_server(("127.0.0.1", 0)).detach() for _ in range(2)],
        "pop3s": [socket.create_server(("127.0.0.1", 0)).detach()],
    }
    monkeypatch.setattr("netserver.systemd.listen_fds", lambda: passed)
    bound += bind(specs("systemd:pop3s?tls=implicit", "systemd:pop3"), backlog=5)
    assert [listener.key for listener in bound] == [
        "systemd:pop3s",
        "systemd:pop3",
        "systemd:pop3#2",
    ]
    with pytest.raises(BindError, match=r"systemd:imap: .*but pop3, pop3s"):
        bind(specs("systemd:imap"), backlog=5)


# -- UNIX sockets ---------------------------------------------------------------------------------


def test_unix_socket_is_made_served_and_removed(bound: list[Listener], tmp_path: Path) -> None:
    """Its mode is 0660, its peers are called unix, and unlink removes it."""
    path = tmp_path / "x.sock"
    bound += bind(specs(f"unix:{path}"), backlog=5)
    (listener,) = bound
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert listener.address == f"unix:{path}"
    with connect(listener):
        accepted = listener.accept()
        assert accepted is not None
        assert str(Address.of(accepted[1], accepted[0].family)) == "unix"
        accepted[0].close()
    listener.unlink()
    assert not path.exists()


def test_stale_unix_socket_is_replaced(bound: list[Listener], tmp_path: Path) -> None:
    """A socket file that nobody listens on does not hinder."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    bound += bind(specs(f"unix:{path}"), backlog=5)
    connect(bound[0]).close()


def test_live_unix_socket_and_other_files_are_left_alone(
    bound: list[Listener], tmp_path: Path
) -> None:
    """A running server keeps its path; a file or link that stands there is not touched."""
    path, file, link = tmp_path / "x.sock", tmp_path / "file", tmp_path / "link"
    bound += bind(specs(f"unix:{path}"), backlog=5)
    file.write_text("precious")
    link.symlink_to(path)
    with pytest.raises(BindError, match=r"x\.sock: a running server listens there$"):
        bind(specs(f"unix:{path}"), backlog=5)
    for other in (file, link):
        with pytest.raises(BindError, match="the path exists and is no socket"):
            bind(specs(f"unix:{other}"), backlog=5)
    assert file.read_text() == "precious"
    with pytest.raises(BindError, match="no such file or directory"):
        bind(specs(f"unix:{tmp_path}/gone/x.sock"), backlog=5)
    connect(bound[0]).close()


def test_unlink_spares_what_another_put_there(bound: list[Listener], tmp_path: Path) -> None:
    """A server that was replaced does not remove its successor's path."""
    path = tmp_path / "x.sock"
    (old,) = bind(specs(f"unix:{path}"), backlog=5)
    old.close()
    bound += bind(specs(f"unix:{path}"), backlog=5)
    old.unlink()
    assert path.exists()


def test_a_child_does_not_unlink(tmp_path: Path) -> None:
    """Only the process that bound the path removes it."""
    program = f"""
import os
from netserver.listeners import ListenSpec, bind
(listener,) = bind([ListenSpec.parse("unix:{tmp_path}/x.sock")], backlog=5)
if (child := os.fork()) == 0:
    listener.unlink()
    os._exit(0)
os.waitpid(child, 0)
print(os.listdir("{tmp_path}"))
listener.unlink()
print(os.listdir("{tmp_path}"))
"""
    assert run(program).stdout == "['x.sock']\n[]\n"


# -- hand-over ------------------------------------------------------------------------------------


def test_adopted_sockets_keep_their_ports(tmp_path: Path) -> None:
    """All that was bound comes back by its key, whatever its options are now."""
    texts = ["127.0.0.1:0", "127.0.0.1:0", f"unix:{tmp_path}/x.sock"]
    before = bind(specs(*texts), backlog=5)
    inherited = {key: os.dup(number) for key, number in handover(before).items()}
    for listener in before:
        listener.close()
    texts[0] = "tls://127.0.0.1:0?allow=::1"
    after = bind(specs(*texts), backlog=5, adopted=inherited)
    was = [listener.address for listener in before]
    assert [listener.address for listener in after] == [f"tls://{was[0]}", *was[1:]]
    assert after[0].tls
    for listener in after:
        assert not os.get_inheritable(listener.fileno())
        connect(listener).close()
        listener.unlink()
        listener.close()
    assert not (tmp_path / "x.sock").exists()


def test_adopted_sockets_that_nobody_wants_are_closed(
    bound: list[Listener], tmp_path: Path
) -> None:
    """A listener dropped from the configuration refuses clients, and its path is removed."""
    path = tmp_path / "x.sock"
    before = bind(specs("127.0.0.1:0", f"unix:{path}"), backlog=5)
    inherited = {key: os.dup(number) for key, number in handover(before).items()}
    where = before[0].socket.getsockname()
    for listener in before:
        listener.close()
    bound += bind(specs("127.0.0.1:0?allow=::1", "[::1]:0"), backlog=5, adopted=inherited)
    assert bound[0].socket.getsockname() == where
    assert not path.exists()
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.EBADF))):
        os.fstat(inherited[f"unix:{path}"])


def test_address_file_is_written_whole(bound: list[Listener], tmp_path: Path) -> None:
    """One address a line in the order of the specs, nothing else left in the directory."""
    path = tmp_path / "addresses"
    path.write_text("old\n")
    bound += bind(specs("tls://[::1]:0", f"unix:{tmp_path}/x.sock", "127.0.0.1:0"), backlog=5)
    write_address_file(str(path), bound)
    ports = [bound[0].socket.getsockname()[1], bound[2].socket.getsockname()[1]]
    assert path.read_text().split("\n") == [
        f"tls://[::1]:{ports[0]}",
        f"unix:{tmp_path}/x.sock",
        f"127.0.0.1:{ports[1]}",
        "",
    ]
    assert {entry.name for entry in tmp_path.iterdir()} == {"addresses", "x.sock"}
    with pytest.raises(ConfigError, match=r"^--address-file /gone/f: No such file or directory$"):
        write_address_file("/gone/f", bound)


# -- too many open files --------------------------------------------------------------------------


def test_spare_descriptor_sheds_a_client_when_there_are_none_left(bound: list[Listener]) -> None:
    """At the limit accept fails; shedding closes that client, and the spare is there again."""
    resource = pytest.importorskip("resource")
    bound += bind(specs("127.0.0.1:0"), backlog=5)
    (listener,) = bound
    clients = [connect(listener), connect(listener)]
    spare = SpareDescriptor()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_free = os.dup(0)
    os.close(next_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_free, hard))
    try:
        with pytest.raises(OSError, match=re.escape(os.strerror(errno.EMFILE))):
            listener.accept()
        shed = [spare.shed(listener) for _ in range(3)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert shed == [True, True, False]
    for client in clients:
        assert client.recv(1) == b""
        client.close()
    spare.close()


def test_no_hub_in_a_patched_process() -> None:
    """Binding, accepting and resolving leave a patched process without hub and second thread."""
    program = """
from gevent import monkey
monkey.patch_all()
import _socket, threading
from gevent._hub_local import get_hub_if_exists
from netserver import native, systemd
from netserver.listeners import ListenSpec, SpareDescriptor, bind
listeners = bind([ListenSpec.parse(t) for t in ("localhost:0", "*:0")], backlog=5)
client = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
client.connect(listeners[0].socket.getsockname())
accepted = listeners[0].accept()
assert type(accepted[0]) is native.socket, type(accepted[0])
assert not SpareDescriptor().shed(listeners[0])
systemd.notify(READY=1)
assert get_hub_if_exists() is None
assert threading.active_count() == 1
print("clean")
"""
    done = run(program)
    assert done.stdout == "clean\n", done.stderr
