"""HUP: a new image on the same sockets; nobody is turned away, a mistake changes nothing."""

import fcntl
import signal
import threading
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.maildirs import PLAIN, make_maildir, with_crlf
from tests.support.processes import wait_until
from tests.support.servers import RunningServer

KINDS = ("single", "fork", "prefork", "gevent")
HUPS = 20


class LoginLoop(threading.Thread):
    """Whole sessions, one after the other, until told to stop; counts and keeps what failed."""

    def __init__(self, server: RunningServer, user: str) -> None:
        super().__init__(name=user)
        self.server = server
        self.user = user
        self.done = 0
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Log in, read, quit."""
        while not self.over.is_set():
            seen = bytearray()
            try:
                with self.server.connect(greeted=False) as wire:
                    seen = wire.received
                    wire.reply()
                    wire.login(self.user)
                    assert wire.message(b"RETR 1") == with_crlf(PLAIN)
                    wire.quit()
                self.done += 1
            except (OSError, EOFError, AssertionError) as error:
                self.failures.append(f"{type(error).__name__}: {error} after {bytes(seen)!r}")

    def finish(self) -> None:
        """Stop after the present session."""
        self.over.set()
        self.join(30)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_hups_under_a_login_loop(start: Start, kind: str) -> None:
    """0 failed sessions, the same master, the same addresses."""
    users = [f"user{number}" for number in range(3)]
    server = start(personality=kind, users=dict.fromkeys(users, "secret"))
    for user in users:
        make_maildir(server.maildir(user), [PLAIN])
    loops = [LoginLoop(server, user) for user in users]
    for loop in loops:
        loop.start()
    try:
        for _ in range(HUPS):
            before = [loop.done for loop in loops]
            server.reload()
            wait_until(
                lambda before=before: any(  # type: ignore[misc]
                    loop.done > count for loop, count in zip(loops, before, strict=True)
                ),
                20,
                "a session after the HUP",
            )
    finally:
        for loop in loops:
            loop.finish()
    failures = [failure for loop in loops for failure in loop.failures]
    assert failures == []
    assert all(loop.done >= HUPS for loop in loops) or sum(loop.done for loop in loops) >= HUPS
    assert server.process is not None
    assert server.process.poll() is None
    assert (server.home / "addresses").read_text().split() == server.addresses


def test_hups_in_a_burst_are_survived(start: Start) -> None:
    """A second HUP while the first is on its way neither kills nor loses the master."""
    server = start(personality="prefork")
    make_maildir(server.maildir(), [PLAIN])
    for _ in range(30):
        server.signal(signal.SIGHUP)
    server.reload()
    with server.session() as wire:
        assert wire.message(b"RETR 1") == with_crlf(PLAIN)
        wire.quit()


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_an_open_session_survives(start: Start, kind: str) -> None:
    """A session of the old image goes on to its QUIT beside sessions of the new one."""
    server = start(personality=kind, users={"anna": "secret", "bert": "secret"})
    make_maildir(server.maildir(), [PLAIN, PLAIN])
    with server.session() as old:
        old.ok(b"DELE 1")
        server.reload()
        with server.session("bert") as new:
            new.quit()
        server.reload()
        assert old.message(b"RETR 2") == with_crlf(PLAIN)
        assert old.quit().startswith(b"+OK")
    assert len(list((server.maildir() / "new").iterdir())) == 1


@pytest.mark.parametrize("kind", ["prefork", "gevent"])
def test_old_workers_go_when_their_clients_have_gone(start: Start, kind: str) -> None:
    """After a HUP there are as many workers as before, all of them new."""
    server = start(personality=kind)
    before = server.workers()
    with server.session() as wire:
        server.reload()
        wire.quit()
    wait_until(
        lambda: len(server.workers()) == len(before) and not set(server.workers()) & set(before),
        15,
        "only new workers",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_config_keeps_the_old_server(start: Start, tmp_path: Path, kind: str) -> None:
    """The mistake is logged, the old server goes on, and a mended file works again."""
    config = tmp_path / "c.yaml"
    config.write_text("timeout: 700\n")
    server = start(personality=kind, options=("--config", str(config)))
    before = server.workers()
    config.write_text("timeout: 700\nno-such-key: 1\n")
    server.signal(signal.SIGHUP)
    server.wait_for_log("no-such-key")
    with server.session() as wire:
        wire.quit()
    if kind in ("prefork", "gevent"):
        assert server.workers() == before
    config.write_text("timeout: 710\n")
    server.reload()
    with server.session() as wire:
        wire.quit()


def test_a_new_config_takes_effect(start: Start, tmp_path: Path) -> None:
    """Users and options of the new image are those of the files now."""
    config = tmp_path / "c.yaml"
    config.write_text("login-timeout: 50\n")
    server = start(personality="gevent", options=("--config", str(config)))
    config.write_text("login-timeout: 1\n")
    server.reload()
    with server.connect() as wire:
        assert wire.ended()


def test_another_personality_takes_effect(start: Start, tmp_path: Path) -> None:
    """HUP may even change the process model, on the same sockets."""
    config = tmp_path / "c.yaml"
    config.write_text("lock-wait: 2\n")
    server = start(personality="prefork", options=("--config", str(config)))
    make_maildir(server.maildir(), [PLAIN])
    assert len(server.workers()) == 12
    with server.session() as wire:
        server.reload()
        assert wire.ok(b"STAT").split()[1] == b"1"
        wire.quit()


@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_single_takes_over_from_children(start: Start, tmp_path: Path, kind: str) -> None:
    """Open sessions end in peace, then only the one process is left; and the other way round."""
    config = tmp_path / "c.yaml"
    config.write_text(f"personality: {kind}\n")
    server = start(personality=None, options=("--config", str(config)))
    make_maildir(server.maildir(), [PLAIN])
    old = server.session()
    config.write_text("personality: single\n")
    server.reload()
    assert old.ok(b"STAT").split()[1] == b"1"
    old.quit()
    old.close()
    wait_until(lambda: not server.workers(), 15, "the old workers' end")
    config.write_text(f"personality: {kind}\n")
    server.reload()
    with server.session() as wire:
        assert wire.message(b"RETR 1") == with_crlf(PLAIN)
        wire.quit()


def test_a_running_server_does_not_become_inetd(start: Start, tmp_path: Path) -> None:
    """It has no client on its standard input; the reload is refused."""
    config = tmp_path / "c.yaml"
    config.write_text("personality: gevent\n")
    server = start(personality=None, options=("--config", str(config)))
    config.write_text("personality: inetd\n")
    server.signal(signal.SIGHUP)
    server.wait_for_log("a running server cannot become that")
    with server.session() as wire:
        wire.quit()


def test_a_sandbox_that_cannot_be_refuses_the_reload(start: Start, tmp_path: Path) -> None:
    """`single` cannot be shut in; the old image serves on."""
    config = tmp_path / "c.yaml"
    config.write_text("personality: gevent\n")
    server = start(personality=None, options=("--config", str(config)))
    config.write_text("personality: single\nsandbox: require\n")
    server.signal(signal.SIGHUP)
    server.wait_for_log("reload refused")
    with server.session() as wire:
        wire.quit()


def test_a_pid_file_that_cannot_be_had_refuses_the_reload(start: Start, tmp_path: Path) -> None:
    """It belongs to another server: the old one stays, with its own file."""
    config, held, own = (tmp_path / name for name in ("c.yaml", "held", "own"))
    config.write_text(f"pid-file: {own}\n")
    server = start(personality="prefork", options=("--config", str(config)))
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        config.write_text(f"pid-file: {held}\n")
        server.signal(signal.SIGHUP)
        server.wait_for_log("a server is running already")
    assert own.read_text() == f"{server.pid}\n"
    with server.session() as wire:
        wire.quit()


def test_a_moved_pid_file_is_followed(start: Start, tmp_path: Path) -> None:
    """The new path holds the pid after HUP, the old one is gone."""
    config, new, own = (tmp_path / name for name in ("c.yaml", "new", "own"))
    config.write_text(f"pid-file: {own}\n")
    server = start(personality="gevent", options=("--config", str(config)))
    config.write_text(f"pid-file: {new}\n")
    server.reload()
    assert new.read_text() == f"{server.pid}\n"
    assert not own.exists()


SOURCE_WITH_PROGRAMS = """
import subprocess
import sys

subprocess.run([sys.executable, "-c", "pass"], check=True)

from pop3.sources.maildir import POP3Maildir


class Programs(POP3Maildir):
    def open_box(self, session):
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        session.log.info("opened", by=subprocess.Popen.__module__)
        return super().open_box(session)
"""


def test_a_source_may_start_programs_when_it_is_imported(tmp_path: Path, start: Start) -> None:
    """The master of gevent waits in no hub for their end, before HUP and after; workers do."""
    (tmp_path / "programs.py").write_text(SOURCE_WITH_PROGRAMS)
    server = start(
        personality="gevent",
        source="programs:Programs",
        options=["--maildir", f"{tmp_path}/mail/{{user}}", "--sandbox", "off"],
        env={"PYTHONPATH": str(tmp_path)},
    )
    for _ in range(2):
        server.session().quit()
        server.reload()
    server.session().quit()
    assert '"by":"gevent.subprocess"' in server.log_text()
