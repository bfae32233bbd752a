"""Logins against the machine's own users, PAM and lists of virtual domains, by real servers."""

import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.e2e.test_daemon import give_to_nobody, root_only, status
from tests.e2e.test_tls import make_certificate
from tests.support.maildirs import PLAIN, make_maildir, with_crlf
from tests.support.processes import children_of, descriptors, is_alive, reachable, wait_until
from tests.support.servers import PERSONALITIES, RunningServer, run_program
from tests.support.wire import Wire

MASTERS = ("fork", "prefork", "gevent")
RIGHT = "pass word"
SHA512 = (
    "$6$rounds=1000$saltsalt$"
    "nrkbTG/TULo0bJv7dJR0HxGm.iGVxIXV8bUeHRggjctOWeNYyrq6B6CWaV8zLK/K8.e4xVoDwEJXHPmiHieC8."
)
FAILED = b"-ERR [AUTH] authentication failed"
TEMPORARY = b"-ERR [SYS/TEMP]"
needs_accounts = [
    *root_only,
    pytest.mark.skipif(shutil.which("useradd") is None, reason="useradd is not here"),
]


@pytest.fixture(scope="module")
def accounts() -> Iterator[dict[str, str]]:
    """Make system users that live as long as this module: one in order, and those that are not."""
    made = {
        "good": ["-p", SHA512],
        "locked": ["-p", f"!{SHA512}"],
        "gone": ["-p", SHA512, "-e", "2001-01-01"],
    }
    names = {kind: f"np3{kind}{os.getpid()}" for kind in made}
    try:
        for kind, options in made.items():
            command = ["useradd", "-M", "-N", "-s", "/usr/sbin/nologin", *options, names[kind]]
            subprocess.run(command, check=True, capture_output=True, timeout=20)
        yield names
    finally:
        for name in names.values():
            subprocess.run(["userdel", name], check=False, capture_output=True, timeout=20)


@pytest.fixture
def service() -> Iterator[str]:
    """Write a PAM service for this test."""
    path = Path(f"/etc/pam.d/np3-{os.getpid()}")
    if not path.parent.is_dir():
        pytest.skip("no PAM here")
    path.write_text("auth required pam_unix.so nodelay\naccount required pam_unix.so\n")
    yield path.name
    path.unlink()


def start_for_nobody(
    start: Start, home: Path, kind: str, *options: str, users: tuple[str, ...] = ()
) -> RunningServer:
    """Start a server whose workers are nobody, with a message for each user."""
    for user in users:
        make_maildir(home / "mail" / user, [PLAIN])
    (home / "mail").mkdir(exist_ok=True)
    give_to_nobody(home / "mail")
    reachable(home)
    rights = ("--user", "nobody", "--group", "nogroup", "--state", f"sqlite:///{home}/state/db")
    return start(personality=kind, users={}, options=(*rights, *options))


def answer(server: RunningServer, user: str, password: str) -> bytes:
    """Return what the server says to a login."""
    with server.connect() as wire:
        wire.send(b"USER %b\r\nPASS %b\r\n" % (user.encode(), password.encode()))
        assert wire.reply() == b"+OK"
        return wire.reply()


def auth_children(server: RunningServer) -> list[int]:
    """Return the children that still have the rights of root."""
    found = []
    for pid in children_of(server.pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # a client's process that has ended
            if status(pid)["Uid"].split()[0] == "0":
                found.append(pid)
    return found


class TestSystemUsers:
    """Workers are nobody, the auth children read shadow and ask PAM."""

    pytestmark = needs_accounts

    @pytest.mark.parametrize(
        ("kind", "backend"),
        [*((kind, "system") for kind in PERSONALITIES), ("fork", "pam"), ("gevent", "pam")],
    )
    def test_they_log_in_under_user_nobody(  # noqa: PLR0917 - fixtures
        self,
        start: Start,
        tmp_path: Path,
        accounts: dict[str, str],
        service: str,
        kind: str,
        backend: str,
    ) -> None:
        """The right password opens the mail; wrong, unknown, locked, expired and root get one."""
        spec = backend if backend == "system" else f"pam:{service}"
        server = start_for_nobody(start, tmp_path, kind, "--auth", spec, users=(accounts["good"],))
        with server.session(accounts["good"], RIGHT) as wire:
            assert wire.message(b"RETR 1") == with_crlf(PLAIN)
            wire.quit()
        assert answer(server, accounts["good"], "guess") == FAILED
        for user in ("np3nobody", "root", "daemon", accounts["locked"], accounts["gone"]):
            assert answer(server, user, RIGHT) == FAILED
        assert RIGHT not in server.log_text()
        if kind in MASTERS:
            wait_until(lambda: len(auth_children(server)) == 4, 10, "only auth children are root")

    @pytest.mark.parametrize("kind", ["fork", "gevent"])
    def test_only_auth_children_can_read_questions(
        self, start: Start, tmp_path: Path, accounts: dict[str, str], kind: str
    ) -> None:
        """A worker has one end of the socket pair, so that it sees no password of others."""
        server = start_for_nobody(
            start, tmp_path, kind, "--auth", "system", users=(accounts["good"],)
        )
        with server.session(accounts["good"], RIGHT):
            rooted = auth_children(server)
            workers = [pid for pid in children_of(server.pid) if pid not in rooted]
            shared = set(descriptors(rooted[0])) & set(descriptors(rooted[1]))
            (questions,) = [name for name in shared if name.startswith("socket:")]
            assert workers
            assert all(questions not in descriptors(pid) for pid in workers)

    def test_the_admin_child_cannot_read_questions(
        self, start: Start, tmp_path: Path, accounts: dict[str, str]
    ) -> None:
        """It has root's rights and answers strangers of its own, so it sees no passwords."""
        (tmp_path / "control").mkdir(mode=0o700)
        control = ("--control-socket", str(tmp_path / "control" / "socket"))
        server = start_for_nobody(
            start, tmp_path, "gevent", "--auth", "system", *control, users=(accounts["good"],)
        )
        server.session(accounts["good"], RIGHT).close()
        wait_until(lambda: len(auth_children(server)) == 5, 10, "the admin child")
        held = [set(descriptors(pid)) for pid in auth_children(server)]
        sockets = {name for names in held for name in names if name.startswith("socket:")}
        assert max(sum(name in names for names in held) for name in sockets) == 4

    @pytest.mark.parametrize("kind", ["fork", "gevent"])
    def test_a_login_is_possible_while_the_server_leaves(
        self, start: Start, tmp_path: Path, accounts: dict[str, str], kind: str
    ) -> None:
        """QUIT lets the client of an old worker log in; then all end."""
        server = start_for_nobody(
            start, tmp_path, kind, "--auth", "system", users=(accounts["good"],)
        )
        with server.connect() as wire:
            server.signal(signal.SIGQUIT)
            server.wait_for_log("stopping")
            wire.login(accounts["good"], RIGHT)
            wire.quit()
        assert server.wait_for_exit() == 0

    @pytest.mark.parametrize("kind", ["fork", "gevent"])
    def test_old_children_answer_old_workers_after_hup(
        self, start: Start, tmp_path: Path, accounts: dict[str, str], kind: str
    ) -> None:
        """A client from before HUP logs in after it, and the old children end behind it."""
        server = start_for_nobody(
            start, tmp_path, kind, "--auth", "system", users=(accounts["good"],)
        )
        with server.connect() as wire:
            old = auth_children(server)
            server.reload()
            wire.login(accounts["good"], RIGHT)
            assert all(map(is_alive, old))
            wire.quit()
        wait_until(lambda: not any(map(is_alive, old)), 10, "the end of the old auth children")
        server.session(accounts["good"], RIGHT).close()


SLOW = """
import os
from pop3.auth import Backend, Identity

class Slow(Backend):
    name = "slow"
    always_apart = True

    def __init__(self, argument, setup):
        self.directory = argument

    def lookup(self, login, run_blocking):
        return Identity(login.user)

    def verify(self, login, secret, run_blocking):
        if secret.equals(b"slow"):
            with open(self.directory + "/asked", "w") as file:
                file.write(str(os.getpid()))
            os.rename(self.directory + "/asked", self.directory + "/asked.pid")
            open(self.directory + "/never", "rb").read()
        return Identity(login.user)
"""


@pytest.mark.parametrize("kind", MASTERS)
def test_a_child_that_dies_over_a_question(start: Start, tmp_path: Path, kind: str) -> None:
    """Whoever asked hears [SYS/TEMP] at once, and the next login works."""
    (tmp_path / "slow_backend.py").write_text(SLOW)
    os.mkfifo(tmp_path / "never")
    make_maildir(tmp_path / "mail/anna", [PLAIN])
    spec = f"kind-7:slow_backend:Slow:{tmp_path}"
    server = start(personality=kind, users={}, options=("--auth", spec, "--auth-workers", "1"))
    asked = tmp_path / "asked.pid"
    with server.connect() as wire:
        wire.ok(b"USER anna")
        wire.send(b"PASS slow\r\n")
        wait_until(asked.exists, 10, "the question")
        os.kill(int(asked.read_text()), signal.SIGKILL)
        assert wire.reply().startswith(TEMPORARY)
        wire.login("anna", "any")
        wire.quit()


LIST = f"joe:{SHA512}:5000:\nann:!:5001:\n"


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    """Write the lists of two domains, and of the host this test runs on."""
    for domain in ("one.org", "two.org", "localhost"):
        place = tmp_path / "lists" / domain[0] / domain
        place.mkdir(parents=True)
        (place / "userlist").write_text(LIST)
    return tmp_path / "lists"


def test_virtual_domains_by_login_name_and_by_host_name(
    start: Start, tmp_path: Path, domains: Path
) -> None:
    """Of kind 5, the domain is that of the name, else that of the client's host."""
    make_maildir(tmp_path / "mail/joe@two.org", [PLAIN])
    make_maildir(tmp_path / "mail/joe@localhost", [])
    spec = f"kind-5:{domains}/{{initial}}/{{domain}}/userlist"
    server = start(personality="gevent", users={}, options=("--auth", spec))
    with server.session("joe@two.org", RIGHT) as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 1 ")
    with server.session("joe", RIGHT) as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 0 ")
    for user in ("ann", "joe@three.org", "ann@one.org", "bob"):
        assert answer(server, user, RIGHT) == FAILED


def test_virtual_domains_by_tls_name(start: Start, tmp_path: Path, domains: Path) -> None:
    """The name in the TLS handshake says which list counts; without one there is none."""
    make_maildir(tmp_path / "mail/joe@one.org", [PLAIN])
    pattern = f"userlist:{domains}/{{initial}}/{{domain}}/userlist?domain=tls"
    options = ("--auth", pattern, "--tls-cert", str(make_certificate(tmp_path)))
    server = start(personality="gevent", users={}, options=options, listen=("tls://127.0.0.1:0",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = server.endpoint(0)
    for name, expected in (("one.org", b"+OK"), (None, FAILED), ("none.org", FAILED)):
        with Wire(host, port, greeted=False) as wire:
            wire.socket = context.wrap_socket(wire.socket, server_hostname=name)
            assert wire.line().startswith(b"+OK")
            wire.send(b"USER joe\r\nPASS pass word\r\n")
            assert wire.reply() == b"+OK"
            assert wire.reply().startswith(expected)


def test_reject_bogus_user(start: Start) -> None:
    """With the option an unknown name is refused at USER; without it nobody is."""
    closed = start(personality="fork", options=("--reject-bogus-user",))
    with closed.connect() as wire:
        wire.send(b"USER nobody-here\r\n")
        assert wire.reply() == b"-ERR no such user"
        wire.login("anna", "secret")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--auth", "pam:np3-no-such-service"), "--auth pam: /etc/pam.d/np3-no-such-service: no"),
        (("--auth", "system", "--auth-workers", "0"), "--auth-workers: at least 1"),
        (("--auth", "kind-2"), "--auth kind-2: needs the place of the lists"),
        (("--auth", "any", "--auth-for", "joe"), "--auth-for 'joe': not PATTERN="),
    ],
)
def test_mistakes_stop_the_start_with_one_line(
    tmp_path: Path, options: tuple[str, ...], what: str
) -> None:
    """Exit 2 and one line that begins with the option."""
    ended = run_program("pop3-server", "--no-default-config", *options, home=tmp_path)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert what in line
