"""What single users had, who let them in, and what told of it: rows 16 to 59 (see test_c1_rows)."""

import io
import json
import os
import pwd
import re
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from netserver import access
from pop3.auth import system
from pop3.sources.maildir import MaildirSettings, POP3Maildir
from pop3.tools import ctl, stats
from tests.conftest import Start
from tests.pop3.tools.test_stats import OLD
from tests.support.logins import MD5, RIGHT, SHA512
from tests.support.maildirs import PLAIN, make_maildir, stored_messages
from tests.support.processes import wait_until
from tests.support.servers import ROOT, write_users

LOGIN = b"USER anna\r\nPASS secret\r\n"
REFUSED = b"-ERR [AUTH] authentication failed"


class Site:
    """Maildirs of anna and ben, served on files in this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.logs = directory / "state/user-logs"
        self.mail = make_maildir(directory / "mail/anna", [PLAIN] * 2)
        make_maildir(directory / "mail/ben", [PLAIN])
        self.users = write_users(directory / "users", {"anna": "secret", "ben": "secret"})

    def hear(self, said: bytes, peer: str = "127.0.0.1", **options: Any) -> list[bytes]:
        """Let a client say all this and return the lines it hears after the greeting."""
        defaults: dict[str, Any] = {
            "maildir": f"{self.directory}/mail/{{user}}",
            "auth": (f"passwd-file:{self.users}",),
            "state": f"sqlite:///{self.directory}/state/state.sqlite",
            "auth_failure_delay": 0.0,
            "plaintext_auth": "always",
            "lock_wait": 0.0,
            "log_file": str(self.log),
        }
        out = io.BytesIO()
        with POP3Maildir(MaildirSettings(**(defaults | options))) as server:
            server.serve(io.BytesIO(said), out, peer=peer)
        return out.getvalue().split(b"\r\n")[1:-1]

    def login(self, user: str, auth: tuple[str, ...], peer: str = "127.0.0.1") -> bytes:
        """Return what this user hears to the right password."""
        said = b"USER %b\r\nPASS %b\r\n" % (user.encode(), RIGHT)
        return self.hear(said, peer, auth=auth)[1]

    def lists(self) -> str:
        """Write the user lists of two domains in the old form; return their pattern."""
        for domain in ("one.org", "two.org"):
            place = self.directory / "vmail" / domain[0] / domain / "userlist"
            place.parent.mkdir(parents=True)
            place.write_text(f"joe:{SHA512}:{os.getuid()}:\n")
            make_maildir(self.directory / f"mail/joe@{domain}", [])
        return f"{self.directory}/vmail/{{initial}}/{{domain}}/userlist"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return one."""
    return Site(tmp_path)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a machine with the users joe, in shadow, old, in passwd by MD5, and toor of uid 0."""
    users = {"joe": ("x", 1000), "old": (MD5, 1001), "toor": ("x", 0)}

    def getpwnam(name: str) -> pwd.struct_passwd:
        password, uid = users[name]
        return pwd.struct_passwd((name, password, uid, 100, "", f"/home/{name}", "/bin/false"))

    shadow = {"joe": (SHA512, True), "toor": (SHA512, True)}
    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(system, "_shadow", shadow.get)


@pytest.fixture
def host_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have 192.0.2.1 be one.org, and 192.0.2.2 only say so."""
    hosts = {"192.0.2.1": "one.org", "192.0.2.2": "two.org"}

    def name_of(address: tuple[str, int], _flags: int) -> tuple[str, str]:
        if address[0] not in hosts:
            raise socket.gaierror(socket.EAI_NONAME, "no name")
        return hosts[address[0]], "0"

    def addresses_of(name: str, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", ("192.0.2.1" if name == "one.org" else "::", 0))]

    monkeypatch.setattr(access, "getnameinfo", name_of)
    monkeypatch.setattr(access, "getaddrinfo", addresses_of)


def test_c1_row_16_received(site: Site) -> None:
    """The header is put before the mail of those named, says whence, and has a time zone."""
    options: dict[str, Any] = {"add_received": ("anna",), "received_from": "mail.example.org"}
    header = b"\n".join(site.hear(LOGIN + b"RETR 1\r\n", **options)[3:7])
    assert header.startswith(b"Received: from mail.example.org\n by [127.0.0.1] with POP3\n")
    assert re.search(rb"\n id \S+; \w{3}, \d\d \w{3} \d{4} [\d:]{8} [+-]\d{4}$", header)
    others = site.hear(b"USER ben\r\nPASS secret\r\nRETR 1\r\n", **options)
    assert not [line for line in others if line.startswith(b"Received:")]


def test_c1_row_19_user_debug(site: Site) -> None:
    """Nothing is deleted in a session of those named, and QUIT says so."""
    heard = site.hear(LOGIN + b"DELE 1\r\nQUIT\r\n", user_debug=("anna",))
    assert heard[-1] == b"+OK bye, nothing deleted (debug)"
    assert len(stored_messages(site.mail)) == 2
    site.hear(LOGIN + b"DELE 1\r\nQUIT\r\n", user_debug=("ben",))
    assert len(stored_messages(site.mail)) == 1


def test_c1_row_20_user_log(site: Site) -> None:
    """Level 1 tells of logins and retrievals, level 2 of every command and answer."""
    said = LOGIN + b"STAT\r\nRETR 1\r\nQUIT\r\n"
    site.hear(said, user_log=("anna=brief",))
    brief = (site.logs / "anna.log").read_text()
    assert [line.split()[2] for line in brief.splitlines()] == [
        "connect",
        "retrieved",
        "disconnect",
    ]
    site.hear(said, user_log=("anna=full",))
    full = (site.logs / "anna.log").read_text().removeprefix(brief)
    for command in ("STAT", '"RETR 1"', "QUIT"):
        assert f" command={command} answer=" in full


def test_c1_row_21_no_secrets(site: Site) -> None:
    """No password is in any log, wherever it was said."""
    said = b"USER anna\r\nPASS wr0ng\r\n" + LOGIN + b"PASS hunter2\r\nhunter2\r\nQUIT\r\n"
    site.hear(said, user_log=("*=full",), log_level="debug")
    text = (site.logs / "anna.log").read_text() + site.log.read_text()
    assert 'command="PASS ?"' in text
    assert [word for word in ("secret", "wr0ng", "hunter2") if word in text] == []


def test_c1_row_22_rights_of_user_logs(site: Site) -> None:
    """Nobody but who serves can write there, and only the owner reads a log."""
    site.hear(LOGIN, user_log=("*=brief",))
    assert stat.S_IMODE(site.logs.stat().st_mode) == 0o750
    assert stat.S_IMODE((site.logs / "anna.log").stat().st_mode) == 0o600


PLUG_IN = """
from pop3.auth import Backend, Identity
class Own(Backend):
    def __init__(self, argument, setup):
        self.user = argument
    def lookup(self, login, run_blocking):
        return Identity(login.user) if login.user == self.user else None
    def verify(self, login, secret, run_blocking):
        return self.lookup(login, run_blocking)
"""


@pytest.mark.usefixtures("machine", "host_names")
def test_c1_row_29_the_seven_kinds(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lets in whom it did; one user can have another than the rest."""
    (site.directory / "central").write_text(f"ann:{SHA512}:\n")
    (site.directory / "row_29.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(site.directory)
    lists = site.lists()
    ways = ("joe", "joe@one.org", "joe@two.org", "ann")  # all from one.org
    expected = {
        "kind-1": ["joe"],
        f"kind-2:{lists}": ["joe", "joe@one.org"],
        f"kind-3:{lists}": ["joe", "joe@one.org", "joe@two.org"],
        f"kind-4:{lists}": ["joe", "joe@one.org"],
        f"kind-5:{lists}": ["joe", "joe@one.org", "joe@two.org"],
        f"kind-6:{site.directory}/central": ["ann"],
        "kind-7:row_29:Own:ann": ["ann"],
    }
    for kind, users in expected.items():
        heard = {user: site.login(user, (kind,), "192.0.2.1") for user in ways}
        assert [user for user in ways if heard[user].startswith(b"+OK")] == users, kind
        assert set(heard.values()) <= {b"+OK logged in", REFUSED}
    said = b"USER ann\r\nPASS %b\r\n" % RIGHT
    mixed = site.hear(said, auth=("kind-1",), auth_for=(f"ann=kind-6:{site.directory}/central",))
    assert mixed[1] == b"+OK logged in"


@pytest.mark.usefixtures("machine")
def test_c1_row_30_passwords_of_the_machine(site: Site) -> None:
    """Shadow, passwd with MD5, the schemes of users files; root never."""
    heard = [site.login(user, ("system",)) for user in ("joe", "old", "toor", "nobody")]
    assert heard == [b"+OK logged in"] * 2 + [REFUSED] * 2
    site.users.write_text(f"a:{MD5}\nb:{{PLAIN}}{RIGHT.decode()}\nc:{{SHA512-CRYPT}}{SHA512}\n")
    chain = (f"passwd-file:{site.users}",)
    assert {site.login(user, chain) for user in "abc"} == {b"+OK logged in"}


@pytest.mark.usefixtures("host_names")
def test_c1_row_31_virtual_domains(site: Site) -> None:
    """A list for each domain: that of the login name, or of the client's confirmed host name."""
    lists = site.lists()
    by_name, by_host = (f"userlist:{lists}?domain={way}" for way in ("login", "client"))
    assert site.login("joe@two.org", (by_name,)) == b"+OK logged in"
    assert site.login("joe", (by_name,)) == REFUSED
    assert site.login("joe", (by_host,), "192.0.2.1") == b"+OK logged in"
    assert site.login("joe", (by_host,), "192.0.2.2") == REFUSED
    assert site.login("joe", (by_host,), "192.0.2.3") == REFUSED


def test_c1_row_59_stats(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Connections, octets, the first and the last day: of our logs, and of the old ones."""
    site.hear(LOGIN + b"RETR 1\r\nQUIT\r\n", user_log=("*=brief",))
    (site.logs / "ben").write_text(OLD)
    assert stats.main(["--json", "--user-log-dir", str(site.logs)]) == 0
    users = json.loads(capsys.readouterr().out)["users"]
    size = len(PLAIN) + PLAIN.count(b"\n")
    assert [users["anna"][key] for key in ("connects", "octets")] == [1, size]
    assert [users["ben"][key] for key in ("connects", "octets")] == [2, 1234]
    assert users["ben"]["first"] < users["ben"]["last"] < users["anna"]["first"]


FULL = '''
import errno
import os

from netserver import native
from pop3.sources.maildir import POP3Maildir

real = native.fork


def fork():
    if os.path.exists("full"):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
    return real()


class Full(POP3Maildir):
    """The system has no room for another process while the file exists."""

    def pre_loop_hook(self):
        native.fork = fork
'''


def test_c1_row_56_no_process_can_be_made(start: Start, tmp_path: Path) -> None:
    """The log says so with the reason, and when there is room clients are served again."""
    (tmp_path / "row_56.py").write_text(FULL)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    own = ["--maildir", f"{tmp_path}/mail/{{user}}"]
    server = start(personality="fork", source="row_56:Full", env=path, options=own)
    (tmp_path / "full").touch()
    with server.connect(greeted=False) as client:
        assert client.ended()
    server.wait_for_log("fork failed")
    [line] = [line for line in server.log_text().splitlines() if "fork failed" in line]
    found = json.loads(line)
    assert (found["level"], found["error"]) == ("error", "Resource temporarily unavailable")
    (tmp_path / "full").unlink()
    with server.session() as wire:
        wire.quit()


def test_c1_row_58_control(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words of mpopdctl, with -f for the configuration and -p for the port."""
    config = tmp_path / "server.yaml"
    config.write_text(f"pid-file: {tmp_path}/pid\ncontrol-socket: {tmp_path}/ctl\n")
    options = ["--config", str(config), "--control-socket", f"{tmp_path}/ctl"]
    server = start(personality="fork", options=options)
    port = str(server.port)
    wait_until((tmp_path / "ctl").exists, 10, "the control socket")
    for where, told in (
        (["--control-socket", f"{tmp_path}/ctl"], "reloaded\n"),
        (["-p", port], ""),
    ):
        assert ctl.main([*where, "refresh"]) == 0
        assert capsys.readouterr().out.startswith(told)
    assert ctl.main(["-f", str(config), "stop"]) == 0
    assert server.wait_for_exit() == 0
    assert ctl.main(["-f", str(config), "stop"]) == 1
    assert capsys.readouterr().err.endswith(": no server is running\n")
    for word in ("start", "restart", "config"):
        assert ctl.parser().parse_args(["-e", word]).command == word
