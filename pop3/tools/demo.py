"""The demonstration behind ``make demo``: a server on a few sample mails, and how to look at it."""

import contextlib
import io
import os
import poplib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from pathlib import Path

import argon2

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 15.0
USER = "demo"


class DemoError(Exception):
    """The demonstration cannot go on."""


@dataclass(frozen=True)
class Account:
    """Where the demonstration's server is, and who may log in."""

    host: str
    port: int
    user: str
    password: str

    @property
    def url(self) -> str:
        """The address as curl takes it, without the password."""
        return f"pop3://{self.host}:{self.port}/"


def make_home(home: Path, password: str) -> None:
    """Fill a directory: a maildir with the samples and a users file with one account."""
    maildir = home / "mail" / USER
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True)
    for number, sample in enumerate(sorted((ROOT / "share/demo/mail").glob("*.eml")), start=1):
        shutil.copyfile(sample, maildir / "new" / f"{1_770_000_000 + number}.{sample.stem}.demo")
    users = home / "users"
    users.touch(mode=0o600)
    users.write_text(f"{USER}:{{ARGON2ID}}{argon2.PasswordHasher().hash(password)}\n")


def server_command(home: Path) -> list[str]:
    """Return the command line of the server for such a directory."""
    return [
        sys.executable,
        str(ROOT / "bin/pop3-server"),
        "--no-default-config",
        "--personality=gevent",
        "--listen=127.0.0.1:0",
        f"--address-file={home / 'addresses'}",
        f"--maildir={home}/mail/{{user}}",
        f"--auth=passwd-file:{home / 'users'}",
        f"--state=sqlite:///{home}/state.db",
    ]


def wait_for_address(process: "subprocess.Popen[bytes]", file: Path) -> tuple[str, int]:
    """Return host and port once the server accepts. Raises DemoError if that does not come."""
    end = time.monotonic() + START_SECONDS
    while not file.exists():
        if process.poll() is not None:
            raise DemoError(f"the server ended at once with status {process.returncode}")
        if time.monotonic() > end:
            raise DemoError(f"the server was not ready after {START_SECONDS:.0f} seconds")
        time.sleep(0.05)
    host, _, port = file.read_text().split()[0].rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def serving() -> Iterator[tuple[Account, "subprocess.Popen[bytes]"]]:
    """Run a server on a new directory; stop it and remove the directory at the end."""
    password = secrets.token_urlsafe(9)
    with tempfile.TemporaryDirectory(prefix="pop3-demo-") as name:
        home = Path(name)
        make_home(home, password)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("POP3_")}
        # In a session of its own, Ctrl-C reaches this program alone and it stops the server.
        with subprocess.Popen(  # noqa: S603 this checkout's own server
            server_command(home), env=environment, start_new_session=True
        ) as process:
            try:
                host, port = wait_for_address(process, home / "addresses")
                yield Account(host, port, USER, password), process
            finally:
                stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server by TERM, and by KILL if that takes too long."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def introduce(account: Account) -> None:
    """Print what is there and how to look at it."""
    login = f"{account.user}:{account.password}"
    print(
        f"""
A POP3 server is running, with a few messages for one user:

    address   {account.host} port {account.port}
    user      {account.user}
    password  {account.password}

Look at it from another terminal: the list, the first message, a whole dialogue
(it asks for the password), or set up your mail program with the above.

    curl -u '{login}' {account.url}
    curl -u '{login}' {account.url}1
    {sys.executable} {ROOT}/bin/pop3-try talk {account.host} {account.port} --user {account.user}

Below, the server's log. Ctrl-C stops it and removes everything.
""",
        flush=True,
    )


def run_until_interrupted() -> int:
    """Serve until Ctrl-C, TERM or the server's own end; return the exit status."""
    with serving() as (account, process):
        introduce(account)
        with contextlib.suppress(KeyboardInterrupt):
            status = process.wait()
            print(f"The server ended by itself with status {status}.", file=sys.stderr)
            return 1
    print("\nStopped, and everything removed.")
    return 0


def fetch_once() -> int:
    """Fetch every message with real clients and print what came; return the exit status."""
    with serving() as (account, _):
        client = poplib.POP3(account.host, account.port, timeout=30)
        client.user(account.user)
        client.pass_(account.password)
        sizes = [int(line.split(b" ")[1]) for line in client.list()[1]]
        print(f"\n{len(sizes)} messages at {account.url} for {account.user}, by poplib:")
        failures = 0
        for number, size in enumerate(sizes, start=1):
            message = b"".join(line + b"\r\n" for line in client.retr(number)[1])
            subject = message_from_bytes(message, policy=policy.default)["Subject"]
            print(f"  {number}  {len(message):6} octets  {subject}")
            failures += len(message) != size
        client.quit()
        if curl := shutil.which("curl"):
            fetched = [fetch_by_curl(curl, account, n + 1) for n in range(len(sizes))]
            failures += [len(message) for message in fetched] != sizes
            print(f"and by curl: {len(fetched)} messages, {sum(map(len, fetched))} octets")
    print("All as long as LIST says." if not failures else "NOT what LIST says.", flush=True)
    return 1 if failures or not sizes else 0


def fetch_by_curl(curl: str, account: Account, number: int) -> bytes:
    """Return a message as curl gets it; the password goes by standard input, no argument."""
    return subprocess.run(  # noqa: S603 a fixed command line, found in PATH
        [
            curl,
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--config",
            "-",
            f"{account.url}{number}",
        ],
        input=f'user = "{account.user}:{account.password}"\n'.encode(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    ).stdout


def main() -> int:
    """Run the demonstration; ``DEMO_ONCE=1`` in the environment fetches once and ends."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return fetch_once() if os.environ.get("DEMO_ONCE") == "1" else run_until_interrupted()
    except (DemoError, OSError, poplib.error_proto, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
