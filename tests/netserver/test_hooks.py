"""The hooks: in the order of Net::Server, and unable to harm other clients."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from netserver.echo import EchoServer
from netserver.errors import ConnectionLost, NetServerError
from netserver.hooks import Hooks
from netserver.server import NetServer
from tests.netserver.pairs import Process
from tests.support.processes import wait_until
from tests.support.servers import ROOT, RunningServer, run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Start

NOTED = '''
import os
from netserver.echo import EchoServer
from netserver.hooks import Hooks
from netserver.server import NetServer

STEPS = """configure post_configure pre_bind bind post_bind loop server_close shutdown_sockets
    child_init child_finish post_accept get_client_info allow_deny secure process_request
    post_process_request""".split()
ELSEWHERE = ("run_dequeue", "write_to_log_hook")  # each has tests of its own
HOOKS = [name for name in vars(Hooks) if not name.startswith("_") and name not in ELSEWHERE]


def note(name):
    descriptor = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, f"{os.getpid()} {name}\\n".encode())
    os.close(descriptor)


class Noted(EchoServer):
    """Every step and every hook says its name, then does what it does."""


def noted(name):
    def method(self, *args, **kwargs):
        note(name)
        return getattr(super(Noted, self), name)(*args, **kwargs)
    return method


for name in [*STEPS, *HOOKS]:
    assert callable(getattr(NetServer, name)), name
    setattr(Noted, name, noted(name))
'''

# Net::Server, "PROCESS FLOW", by the same names
START = [
    *("configure_hook", "configure", "post_configure", "post_configure_hook", "pre_bind", "bind"),
    *("post_bind_hook", "post_bind", "pre_loop_hook", "loop"),
]
CLIENT = [
    *("post_accept", "get_client_info", "post_accept_hook", "allow_deny", "allow_deny_hook"),
    *("secure", "process_request", "post_process_request_hook", "post_process_request"),
    "post_client_connection_hook",
]
BORN = ["child_init", "child_init_hook"]
GONE = ["child_finish", "child_finish_hook"]
END = ["pre_server_close_hook", "server_close", "shutdown_sockets"]
FORK = ["pre_fork_hook", "register_child"]
# asked and run as often as the loop turns
REPEATED = {"idle_loop_hook", "can_read_hook"}


class Notes:
    """What the processes of one server noted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pairs(self) -> list[tuple[int, str]]:
        """Return pid and name, in order."""
        text = self.path.read_text() if self.path.exists() else ""
        return [(int(pid), name) for pid, name in map(str.split, text.splitlines())]

    def of(self, pid: int) -> list[str]:
        """Return the names that one process noted, but for the repeated ones."""
        return [name for one, name in self.pairs() if one == pid and name not in REPEATED]

    def others(self, *pids: int) -> list[int]:
        """Return the other processes, in order of their first note."""
        return list(dict.fromkeys(pid for pid, _ in self.pairs() if pid not in pids))

    def wait_for(self, name: str) -> None:
        """Wait until some process has noted it."""
        wait_until(lambda: name in [n for _, n in self.pairs()], 15, f"{name}: {self.pairs()}")


@pytest.fixture
def noted(start: Start, tmp_path: Path) -> Callable[..., tuple[RunningServer, Notes]]:
    """Return what starts the server above."""
    (tmp_path / "noted.py").write_text(NOTED)
    notes = tmp_path / "notes"

    def started(personality: str, *options: str) -> tuple[RunningServer, Notes]:
        server = start(
            personality=personality,
            program="net-server",
            target="noted:Noted",
            env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "NOTES": str(notes)},
            options=options,
        )
        return server, Notes(notes)

    return started


def one_client(server: RunningServer, notes: Notes) -> None:
    """Be served, and wait until the server is through with it."""
    with server.connect(greeted=False) as client:
        client.send(b"hello\r\nquit\r\n")
        assert client.line() == b"hello"
    notes.wait_for("post_client_connection_hook")


@pytest.mark.parametrize("kind", ["prefork", "gevent"])
def test_order_with_workers(noted: Callable[..., tuple[RunningServer, Notes]], kind: str) -> None:
    """The master starts, makes a worker and ends; the worker serves between its two hooks."""
    server, notes = noted(kind, "--workers", "1")
    one_client(server, notes)
    server.stop()
    (worker,) = notes.others(server.pid)
    cleanup = ["delete_child_hook", "post_child_cleanup_hook"]
    assert notes.of(server.pid) == [*START, "run_n_children_hook", *FORK, *cleanup, *END]
    assert notes.of(worker) == [*BORN, *CLIENT, *GONE]
    assert (worker, "can_read_hook") in notes.pairs()
    assert (server.pid, "idle_loop_hook") in notes.pairs()


def test_order_under_fork(noted: Callable[..., tuple[RunningServer, Notes]]) -> None:
    """The master accepts, a child serves one client and is gone."""
    server, notes = noted("fork")
    one_client(server, notes)
    notes.wait_for("delete_child_hook")
    server.stop()
    (child,) = notes.others(server.pid)
    cleanup = ["delete_child_hook", "post_child_cleanup_hook"]
    assert notes.of(server.pid) == [*START, *FORK, *cleanup, *END]
    assert notes.of(child) == [*BORN, *CLIENT, *GONE]
    assert (server.pid, "can_read_hook") in notes.pairs()


def test_order_under_single(noted: Callable[..., tuple[RunningServer, Notes]]) -> None:
    """All in one process."""
    server, notes = noted("single")
    one_client(server, notes)
    server.stop()
    assert notes.others(server.pid) == []
    assert notes.of(server.pid) == [*START, *BORN, *CLIENT, *GONE, *END]
    assert {name for _, name in notes.pairs()} >= REPEATED


def test_order_under_inetd(noted: Callable[..., tuple[RunningServer, Notes]]) -> None:
    """A whole life for one client; nobody is asked whether to accept it."""
    server, notes = noted("inetd")
    one_client(server, notes)
    notes.wait_for("shutdown_sockets")
    (pid,) = notes.others()
    assert notes.of(pid) == [*START, *BORN, *CLIENT, *GONE, *END]


@pytest.mark.parametrize("kind", ["single", "prefork"])
def test_order_over_a_restart(noted: Callable[..., tuple[RunningServer, Notes]], kind: str) -> None:
    """A process checks the configuration; the old image closes, the new one opens and binds."""
    options = ("--workers", "1") if kind == "prefork" else ()
    server, notes = noted(kind, *options)
    before = len(notes.of(server.pid))
    server.reload()
    after = notes.of(server.pid)[before:]
    closing = after[: after.index("configure_hook")]
    assert closing[-3:] == ["pre_server_close_hook", "server_close", "restart_close_hook"]
    assert [name for name in closing[:-3] if not name.startswith("child_finish")] == []
    again = [*START[:5], "restart_open_hook", *START[5:]]
    assert after[len(closing) : len(closing) + len(again)] == again
    (check,) = [pid for pid in notes.others(server.pid) if "configure" in notes.of(pid)]
    assert notes.of(check) == START[:4]


@pytest.mark.parametrize("kind", ["single", "prefork"])
def test_child_finish_runs_over_a_restart_too(
    noted: Callable[..., tuple[RunningServer, Notes]], kind: str
) -> None:
    """Each serving process that began ends, also where a restart is the reason."""
    options = ("--workers", "1") if kind == "prefork" else ()
    server, notes = noted(kind, *options)
    server.reload()
    server.stop()
    names = [name for _, name in notes.pairs()]
    assert names.count("child_finish_hook") == names.count("child_init_hook") == 2


# -- errors in hooks ------------------------------------------------------------------------------

PER_CLIENT = [*CLIENT, "request_denied_hook"]


class Fragile(EchoServer):
    """Fails in the hook that is named, as long as it is named."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.broken: dict[str, Exception] = {}
        self.welcome = [True]


def _fragile(name: str) -> Callable[..., Any]:
    def method(self: Fragile, *args: Any, **kwargs: Any) -> Any:
        if name in self.broken:
            raise self.broken[name]
        if name == "allow_deny_hook":
            return self.welcome[-1]
        return getattr(super(Fragile, self), name)(*args, **kwargs)

    return method


for _name in PER_CLIENT:
    setattr(Fragile, _name, _fragile(_name))


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Process]:
    """Return one that counts its clients."""
    process = Process(Fragile, tmp_path / "log", max_per_source=1)
    yield process
    process.close()


@pytest.mark.parametrize("hook", PER_CLIENT)
@pytest.mark.parametrize("kind", [RuntimeError, OSError, ConnectionLost, NetServerError])
def test_an_error_ends_only_its_connection(
    fragile: Process, hook: str, kind: type[Exception]
) -> None:
    """It is logged unless it is a normal end, the client's place is free, the next is served."""
    server = fragile.server
    assert isinstance(server, Fragile)
    server.broken[hook] = kind("broken on purpose")
    server.welcome.append(hook != "request_denied_hook")
    answer = fragile.serve(b"hello\r\nquit\r\n")
    assert answer.connection.closed
    logged = [event for event in fragile.events() if "broken on purpose" in str(event)]
    assert logged
    if kind is not ConnectionLost:
        assert any(event["level"] == "error" for event in logged)
    server.broken.clear()
    server.welcome.append(True)
    assert fragile.serve(b"again\r\nquit\r\n").text == b"again\r\n"


@pytest.mark.parametrize("hook", ["post_accept_hook", "allow_deny_hook", "process_request"])
def test_the_last_hook_runs_whatever_happened(fragile: Process, hook: str) -> None:
    """What was opened for a connection can be closed there."""
    server = fragile.server
    assert isinstance(server, Fragile)
    server.broken[hook] = RuntimeError("first")
    server.broken["post_client_connection_hook"] = RuntimeError("last")
    fragile.serve()
    texts = [str(event) for event in fragile.events()]
    assert any("first" in text for text in texts)
    assert any("last" in text for text in texts)


BROKEN = """
import os
from netserver.echo import EchoServer
from netserver.errors import ConfigError


class Broken(EchoServer):
    def {hook}:
        {body}

    def fatal_hook(self, error):
        print("fatal", error, flush=True)
"""


def broken(home: Path, hook: str, body: str) -> dict[str, Any]:
    """Write such a class, return how to start it."""
    (home / "broken.py").write_text(BROKEN.replace("{hook}", hook).replace("{body}", body))
    return {
        "program": "net-server",
        "target": "broken:Broken",
        "env": {"PYTHONPATH": f"{home}{os.pathsep}{ROOT}"},
    }


@pytest.mark.parametrize("hook", ["configure_hook(self)", "post_configure_hook(self)"])
def test_a_config_error_of_a_hook_is_one_line(tmp_path: Path, hook: str) -> None:
    """Exit code 2, like any other mistake of the user."""
    arguments = broken(tmp_path, hook, "raise ConfigError('--x: no')")
    done = run_program("net-server", "broken:Broken", home=tmp_path, env=arguments["env"])
    assert (done.returncode, done.stderr) == (2, "net-server: --x: no\n")


@pytest.mark.parametrize("kind", ["single", "prefork"])
@pytest.mark.parametrize("hook", ["post_bind_hook(self)", "pre_loop_hook(self)"])
def test_fatal_hook_has_the_last_word(tmp_path: Path, hook: str, kind: str) -> None:
    """It gets the error that ends the server."""
    arguments = broken(tmp_path, hook, "raise ConfigError('--x: no')")
    options = ("--personality", kind, "--listen", "127.0.0.1:0")
    done = run_program("net-server", "broken:Broken", *options, home=tmp_path, env=arguments["env"])
    assert (done.returncode, done.stdout) == (2, "fatal --x: no\n")


@pytest.mark.parametrize("kind", ["prefork", "gevent"])
def test_a_worker_that_can_never_start_ends_the_server(tmp_path: Path, kind: str) -> None:
    """child_init_hook says by ConfigError that it is no use to try again."""
    arguments = broken(tmp_path, "child_init_hook(self)", "raise ConfigError('--x: no')")
    options = ("--personality", kind, "--workers", "1", "--listen", "127.0.0.1:0")
    done = run_program("net-server", "broken:Broken", *options, home=tmp_path, env=arguments["env"])
    assert done.returncode == 1
    assert "--x: no" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_that_fails_to_start_is_tried_again(start: Start, tmp_path: Path) -> None:
    """A passing trouble in child_init_hook delays the server and does not end it."""
    body = (
        "os.mkdir(f'tries-{os.getpid()}');"
        " assert sum(name.startswith('tries-') for name in os.listdir()) == 3, 'not yet'"
    )
    server = start(
        personality="prefork",
        options=("--workers", "1"),
        **broken(tmp_path, "child_init_hook(self)", body),
    )
    assert len(list(tmp_path.glob("tries-*"))) == 3
    assert server.log_text().count('"a child failed"') == 2
    with server.connect(greeted=False) as client:
        client.send(b"hello\r\n")
        assert client.line() == b"hello"


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_an_error_in_child_finish_hook_is_logged(start: Start, tmp_path: Path, kind: str) -> None:
    """The master notices, and its own end is a clean one."""
    arguments = broken(tmp_path, "child_finish_hook(self)", "raise RuntimeError('at the end')")
    server = start(personality=kind, **arguments)
    with server.connect(greeted=False) as client:
        client.send(b"quit\r\n")
        client.ended()
    server.stop()
    assert "at the end" in server.log_text()


@pytest.mark.parametrize(
    ("kind", "hook"),
    [
        ("single", "can_read_hook"),
        ("single", "idle_loop_hook"),
        ("fork", "can_read_hook"),
        ("fork", "pre_fork_hook"),
        ("fork", "register_child"),
        ("fork", "delete_child_hook"),
        ("prefork", "idle_loop_hook"),
        ("gevent", "can_read_hook"),
    ],
)
def test_an_error_in_a_hook_of_the_master_is_contained(
    start: Start, tmp_path: Path, kind: str, hook: str
) -> None:
    """It is logged, and others are served as soon as it is over."""
    body = "assert not os.path.exists('on'), 'on purpose'"
    arguments = broken(tmp_path, f"{hook}(self, *arguments)", body)
    server = start(personality=kind, **arguments)
    (tmp_path / "on").touch()
    with server.connect(greeted=False) as client:
        client.send(b"quit\r\n")
        server.wait_for_log("on purpose", 5)
    (tmp_path / "on").unlink()
    with server.connect(greeted=False) as client:
        client.send(b"hello\r\n")
        assert client.line() == b"hello"


@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_a_client_left_in_the_queue_costs_no_cpu(start: Start, tmp_path: Path, kind: str) -> None:
    """can_read_hook says "not now" for as long as it likes; nobody spins over that."""
    hook, body = "can_read_hook(self, listener)", "return os.path.exists('closed')"
    options = () if kind in ("single", "fork") else ("--workers", "1")
    server = start(personality=kind, options=options, **broken(tmp_path, hook, body))
    (tmp_path / "closed").touch()
    with server.connect(greeted=False, timeout=1.5) as client:
        client.send(b"hello\r\n")
        pids = [server.pid, *server.workers()]
        before = sum(map(cpu_seconds, pids))
        with pytest.raises(TimeoutError):
            client.line()
        assert sum(map(cpu_seconds, pids)) - before < 0.3
        (tmp_path / "closed").unlink()
        client.timeout = 15
        assert client.line() == b"hello"


@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_a_listener_held_back_holds_no_other_back(start: Start, tmp_path: Path, kind: str) -> None:
    """Clients of the second address are served while those of the first have to wait."""
    body = "return os.path.exists('closed') and listener is self.listeners[0]"
    options = ("--listen", "127.0.0.1:0")
    if kind not in ("single", "fork"):
        options += ("--workers", "1")
    server = start(
        personality=kind, options=options, **broken(tmp_path, "can_read_hook(self, listener)", body)
    )
    (tmp_path / "closed").touch()
    with server.connect(greeted=False) as waiting:
        waiting.send(b"hello\r\nquit\r\n")
        for _ in range(30):  # at one a second this would take longer than the client waits
            with server.connect(number=1, greeted=False) as client:
                client.send(b"quit\r\n")
                assert client.ended()
        (tmp_path / "closed").unlink()
        assert waiting.line() == b"hello"


def cpu_seconds(pid: int) -> float:
    """Return how long a process has worked."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_every_hook_is_on_the_server() -> None:
    """NetServer has them all."""
    names = [name for name in vars(Hooks) if not name.startswith("_")]
    assert len(names) >= 24
    assert all(callable(getattr(NetServer, name)) for name in names)
