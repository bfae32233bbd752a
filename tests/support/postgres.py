"""A PostgreSQL server of the tests' own: UNIX socket only, in a directory that goes with it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import wait_until

PORT = 5432  # only the name of the socket
START_SECONDS = 30.0


def unprivileged() -> dict[str, int]:
    """Return as whom a server is started: initdb refuses root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def own_directory(prefix: str) -> Path:
    """Make a directory with a short path that such a server may use and pass through."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    path.chmod(0o755)
    if who := unprivileged():
        os.chown(path, who["user"], who["group"])
    return path


def _program(name: str) -> str:
    found = shutil.which(name) or max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), default="")
    if not found:
        pytest.skip(f"needs PostgreSQL's {name}: apt install postgresql")
    return str(found)


class Postgres:
    """A server that can be stopped, started again and held."""

    def __init__(self) -> None:
        self.directory = own_directory("pg-")
        self._process: subprocess.Popen[bytes] | None = None
        options = [
            "-U",
            "pop3",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        subprocess.run(
            [_program("initdb"), "-D", str(self.directory / "data"), *options],
            check=True,
            capture_output=True,
            timeout=60,
            cwd="/",
            **unprivileged(),  # type: ignore[call-overload]
        )

    def url(self, user: str = "pop3") -> str:
        """Return the URL for SQLAlchemy."""
        return f"postgresql://{user}@/postgres?host={self.directory}&port={PORT}"

    def start(self) -> None:
        """Start, and return when it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "port": str(PORT),
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", str(self.directory / "data"), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                **unprivileged(),
            )
        wait_until(self._answers, START_SECONDS, "PostgreSQL answers")

    def _answers(self) -> bool:
        import psycopg  # noqa: PLC0415 - an extra

        assert self._process is not None
        log = (self.directory / "log").read_text(errors="replace")
        assert self._process.poll() is None, log[-2000:]
        try:
            self.run("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the superuser, return the rows of the last."""
        import psycopg  # noqa: PLC0415 - an extra

        with psycopg.connect(
            host=str(self.directory), port=PORT, user="pop3", dbname="postgres", autocommit=True
        ) as connection:
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
            return rows

    def stop(self) -> None:
        """End all sessions and stop."""
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait(20)

    def remove(self) -> None:
        """Stop and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run one server for all tests."""
    pytest.importorskip("psycopg", reason="needs the extra sql")
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()
