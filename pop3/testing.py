r"""A pytest plugin: a real POP3 server for the tests of programs that fetch mail.

    def test_fetch(pop3_server):
        pop3_server.deliver("anna", b"Subject: hello\n\nworld\n")
        fetch_mail(pop3_server.host, pop3_server.port, "anna", "secret")
        assert pop3_server.messages("anna") == []

`pop3_servers(users=…, options=…)` starts others than the one that has the user anna.
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from email.message import Message
from pathlib import Path

import pytest

USERS: Mapping[str, str] = {"anna": "secret"}
START_SECONDS = 30.0
STOP_SECONDS = 15.0

__all__ = ["MailServer", "pop3_server", "pop3_servers", "running"]


class MailServer:
    """A server in a process of its own, on a free port of 127.0.0.1, with a maildir per user."""

    host = "127.0.0.1"

    def __init__(
        self,
        directory: Path,
        *,
        users: Mapping[str, str] = USERS,
        options: Sequence[str] = (),
    ) -> None:
        """Start it; all its files are in that directory. Raises RuntimeError with what it said."""
        self.directory = directory
        self.users = dict(users)
        self._delivered = 0
        for user in self.users:
            for folder in ("new", "cur", "tmp"):
                (self.maildir(user) / folder).mkdir(parents=True, exist_ok=True)
        passwords = directory / "users"
        passwords.write_text("".join(f"{name}:{{PLAIN}}{word}\n" for name, word in users.items()))
        passwords.chmod(0o600)
        with socket.create_server((self.host, 0), backlog=64) as listening:
            self.port: int = listening.getsockname()[1]
            self._process = self._start(listening, options)
        try:
            self._greet()
        except BaseException:
            self.stop()
            raise

    def _start(self, listening: socket.socket, options: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Give the bound socket to the server: whoever connects waits until it accepts."""
        home = self.directory
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("POP3_")
        }
        package = str(Path(__file__).resolve().parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(
            [package, *filter(None, [environment.get("PYTHONPATH")])]
        )
        command = [sys.executable, "-m", "pop3.tools.server", "--no-default-config"]
        command += ["--personality", "fork", "--listen", f"fd:{listening.fileno()}"]
        command += ["--maildir", f"{home}/mail/{{user}}", "--auth", f"passwd-file:{home}/users"]
        command += ["--state", f"sqlite:///{home}/state/state.sqlite", "--auth-failure-delay", "0"]
        command += ["--log-file", str(home / "server.log"), "--log-level", "debug", *options]
        with (home / "stderr").open("wb") as errors:
            return subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env=environment,
                cwd=home,
                pass_fds=[listening.fileno()],
            )

    def _greet(self) -> None:
        """Return when it serves. Raises RuntimeError if it does not."""
        greeting = b""
        with (
            suppress(OSError),
            socket.create_connection((self.host, self.port), START_SECONDS) as client,
        ):
            greeting = client.recv(512)
            client.sendall(b"QUIT\r\n")
        if not greeting.startswith(b"+OK"):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            said = (self.directory / "stderr").read_text(errors="replace")
            raise RuntimeError(f"the server did not start: {said or self.log()}")

    def deliver(self, user: str, message: bytes | str | Message) -> None:
        """Put a message into a user's mailbox; a session that is open already does not see it.

        Raises KeyError if there is no such user.
        """
        if user not in self.users:
            raise KeyError(f"no user {user!r}; there are: {', '.join(self.users)}")
        octets = message.as_bytes() if isinstance(message, Message) else message
        self._delivered += 1
        name = f"{1_700_000_000 + self._delivered}.M{self._delivered:06d}.test"
        beside = self.maildir(user) / "tmp" / name
        beside.write_bytes(octets if isinstance(octets, bytes) else octets.encode())
        beside.rename(self.maildir(user) / "new" / name)

    def messages(self, user: str) -> list[bytes]:
        """Return what is in a user's mailbox now, the oldest first, with the line ends it came."""
        folders = [self.maildir(user) / folder for folder in ("new", "cur")]
        files = [file for folder in folders for file in folder.iterdir()]
        return [file.read_bytes() for file in sorted(files, key=lambda file: file.name)]

    def maildir(self, user: str) -> Path:
        """Return where a user's mail is."""
        return self.directory / "mail" / user

    def log(self) -> str:
        """Return what the server has logged."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """End it; connections that are open are closed."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running(
    *, users: Mapping[str, str] = USERS, options: Sequence[str] = ()
) -> Iterator[MailServer]:
    """Run a server for the time of a `with` block: for tests that are not pytest's."""
    with tempfile.TemporaryDirectory(prefix="pop3-") as directory:
        server = MailServer(Path(directory), users=users, options=options)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def pop3_servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., MailServer]]:
    """Return a function that starts a `MailServer`; all are stopped when the test ends."""
    servers: list[MailServer] = []

    def start(*, users: Mapping[str, str] = USERS, options: Sequence[str] = ()) -> MailServer:
        server = MailServer(tmp_path_factory.mktemp("pop3"), users=users, options=options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def pop3_server(pop3_servers: Callable[..., MailServer]) -> MailServer:
    """Return a running server with the user anna, whose password is secret."""
    return pop3_servers()
