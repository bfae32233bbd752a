"""Start the real programs of bin/ for a test, and end them without leaving anything behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.support.inetd import Inetd
from tests.support.processes import children_of, marked, wait_until
from tests.support.wire import Wire

ROOT: Final = Path(__file__).resolve().parents[2]
PERSONALITIES: Final = ("single", "inetd", "fork", "prefork", "gevent")
CONCURRENT: Final = ("inetd", "fork", "prefork", "gevent")
START_DEADLINE: Final = 20.0
STOP_DEADLINE: Final = 15.0
MARK: Final = "NETSERVER_TEST_MARK"  # in the environment of all that a test starts

OWN_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "gevent": ("--workers", "2"),
    "prefork": ("--workers", "12"),
}


def write_users(path: Path, users: Mapping[str, str]) -> Path:
    """Write a passwd-file with plain passwords."""
    path.write_text("".join(f"{name}:{{PLAIN}}{word}\n" for name, word in users.items()))
    path.chmod(0o600)
    return path


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which a server finds nothing of the machine's own set-up."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_STATE_HOME": str(home / "state"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "always",  # what is left open, above all; `stop` finds it
        **(extra or {}),
    }


def run_program(
    program: str, *options: str, home: Path, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program of bin/ that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, str(ROOT / "bin" / program), *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=home,
        env=environment(home, env),
    )


@dataclass
class RunningServer:
    """A server that accepts connections now."""

    home: Path
    personality: str
    addresses: list[str]
    log_path: Path
    stderr_path: Path
    mark: str
    process: "subprocess.Popen[bytes] | None" = None
    super_server: Inetd | None = None
    stopped: bool = field(default=False, init=False)

    @property
    def host(self) -> str:
        """The host of the first address."""
        return self.endpoint(0)[0]

    @property
    def port(self) -> int:
        """The port of the first address."""
        return self.endpoint(0)[1]

    def endpoint(self, number: int) -> tuple[str, int]:
        """Return host and port of one line of the address file."""
        host, _, port = self.addresses[number].removeprefix("tls://").rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def pid(self) -> int:
        """The master's process id (not under inetd, which has none)."""
        assert self.process is not None
        return self.process.pid

    @property
    def mail(self) -> Path:
        """The directory that holds one maildir per user."""
        return self.home / "mail"

    def maildir(self, user: str = "anna") -> Path:
        """Return the path of a user's maildir."""
        return self.mail / user

    def log_text(self) -> str:
        """Return all that was logged, standard error included."""
        texts = [path.read_text(errors="replace") for path in self._logs() if path.exists()]
        return "".join(texts)

    def _logs(self) -> tuple[Path, Path]:
        return self.log_path, self.stderr_path

    def workers(self) -> list[int]:
        """Return the living children of the master."""
        return children_of(self.pid)

    def connect(self, *, number: int = 0, timeout: float = 15.0, greeted: bool = True) -> Wire:
        """Return a new connection, its greeting read."""
        host, port = self.endpoint(number)
        return Wire(host, port, timeout=timeout, greeted=greeted)

    def session(self, user: str = "anna", password: str = "secret") -> Wire:
        """Return a logged-in connection."""
        wire = self.connect()
        try:
            wire.login(user, password)
        except BaseException:
            wire.close()
            raise
        return wire

    def signal(self, number: int) -> None:
        """Send a signal to the master (under inetd: to every running child)."""
        if self.super_server is not None:
            self.super_server.signal(number)
        else:
            os.kill(self.pid, number)

    def reload(self, deadline: float = 20.0) -> None:
        """HUP; return when the new master has written its addresses."""
        path = self.home / "addresses"
        before = path.stat().st_mtime_ns
        self.signal(signal.SIGHUP)
        wait_until(lambda: path.stat().st_mtime_ns != before, deadline, "new addresses after HUP")

    def wait_for_log(self, text: str, deadline: float = 10.0) -> None:
        """Wait until `text` is in the log."""
        wait_until(lambda: text in self.log_text(), deadline, f"{text!r} in {self.log_text()}")

    def wait_for_exit(self, deadline: float = STOP_DEADLINE) -> int:
        """Wait until the master has ended, return its exit code."""
        assert self.process is not None
        return self.process.wait(deadline)

    def stop(self) -> None:
        """TERM, then KILL; the server must end with 0, in silence, and leave no process behind."""
        if self.stopped:
            return
        self.stopped = True
        codes = self._end()
        left = self._leftovers()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"processes left: {left}\n{self.log_text()[-3000:]}"
        errors = self.stderr_path.read_text(errors="replace") if self.stderr_path.exists() else ""
        assert errors == "", f"on standard error:\n{errors[-3000:]}"
        assert set(codes) <= {0}, f"exit codes {codes}\n{self.log_text()[-3000:]}"

    def _end(self) -> list[int]:
        if self.super_server is not None:
            return self.super_server.stop(STOP_DEADLINE)
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_DEADLINE)
        return [self.process.returncode]

    def _leftovers(self) -> list[int]:
        """Return what still runs a second after the master has gone."""
        end = time.monotonic() + 1
        while (left := marked(self.mark)) and time.monotonic() < end:
            time.sleep(0.02)
        return left


def start_server(
    tmp_path: Path,
    *,
    personality: str | None,
    source: str = "maildir",
    users: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    listen: Sequence[str] = ("127.0.0.1:0",),
    env: Mapping[str, str] | None = None,
    program: str = "pop3-server",
    target: str | None = None,
) -> RunningServer:
    """Start `program` and return when it accepts connections.

    Mail is under tmp_path/mail, one maildir per user. Options given here override the defaults;
    `target` is the module:Class that net-server takes first. Without a personality they name it.
    """
    tmp_path.mkdir(parents=True, exist_ok=True)
    arguments: list[str] = []
    if personality is not None:
        arguments = ["--personality", personality, *OWN_OPTIONS.get(personality, ())]
    arguments += ["--log-file", str(tmp_path / "server.log"), "--log-format", "json"]
    arguments += ["--no-default-config"]
    if program == "pop3-server":
        (tmp_path / "mail").mkdir(exist_ok=True)
        accounts = {"anna": "secret"} if users is None else users
        passwd = write_users(tmp_path / "users", accounts)
        arguments += ["--source", source, "--auth", f"passwd-file:{passwd}"]
        arguments += ["--state", f"sqlite:///{tmp_path}/state.db", "--auth-failure-delay", "0"]
        arguments += ["--control-socket", "none"]  # most tests count the processes
        if source == "maildir":
            arguments += ["--maildir", f"{tmp_path}/mail/{{user}}"]
    first = [target] if target else []
    command = [sys.executable, str(ROOT / "bin" / program), *first, *arguments]
    mark = f"{MARK}={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    variables = environment(tmp_path, {**(env or {}), name: value})
    if personality == "inetd":
        return _start_inetd(tmp_path, [*command, *options], variables, mark)
    listens = [word for spec in listen for word in ("--listen", spec)]
    address_file = tmp_path / "addresses"
    address_file.unlink(missing_ok=True)
    give_up = time.monotonic() + START_DEADLINE
    command += ["--address-file", str(address_file), *listens, *options]
    with (tmp_path / "stderr.log").open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=variables,
            cwd=tmp_path,
        )
    server = RunningServer(
        home=tmp_path,
        personality=personality or "",
        addresses=[],
        log_path=tmp_path / "server.log",
        stderr_path=tmp_path / "stderr.log",
        mark=mark,
        process=process,
    )
    wait_until(
        lambda: address_file.exists() or process.poll() is not None or time.monotonic() > give_up,
        2 * START_DEADLINE,
        "start",
    )
    if not address_file.exists():
        code = process.poll()
        process.kill()
        process.wait()
        how = f"no address file after {START_DEADLINE} s" if code is None else f"exit {code}"
        pytest.fail(f"{program}: {how}\n{server.log_text()}")
    server.addresses = address_file.read_text().split()
    return server


def _start_inetd(
    tmp_path: Path, command: Sequence[str], env: Mapping[str, str], mark: str
) -> RunningServer:
    super_server = Inetd(command, env, tmp_path / "stderr.log")
    return RunningServer(
        home=tmp_path,
        personality="inetd",
        addresses=[f"{super_server.host}:{super_server.port}"],
        log_path=tmp_path / "server.log",
        stderr_path=tmp_path / "stderr.log",
        mark=mark,
        super_server=super_server,
    )


@contextlib.contextmanager
def running(tmp_path: Path, **arguments: object) -> Iterator[RunningServer]:
    """`start_server` as a context that stops the server at its end."""
    server = start_server(tmp_path, **arguments)  # type: ignore[arg-type]
    try:
        yield server
    except BaseException:
        with contextlib.suppress(AssertionError):
            server.stop()
        raise
    else:
        server.stop()
