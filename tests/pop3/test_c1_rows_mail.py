"""Where the mail of Mail::POP3 was, and how the program was run: rows 32 to 67 (test_c1_rows)."""

import io
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from netserver import ConfigError
from pop3 import Message, POP3Server, POP3Settings, Session
from pop3.sources.maildir import MaildirSettings, POP3Maildir
from pop3.sources.mbox import MboxSettings, POP3Mbox
from tests.conftest import Start
from tests.e2e.test_daemon import give_to_nobody, status
from tests.e2e.test_startup import BLOCKER
from tests.support.maildirs import PLAIN, add_message, make_maildir, stored_messages
from tests.support.processes import children_of, reachable, wait_until
from tests.support.servers import ROOT, environment, run_program, write_users

LOGIN = b"USER anna\r\nPASS secret\r\n"
ENVELOPE = b"From a@example.org Thu Jan  1 00:00:00 1970\n"
ONE = ENVELOPE + b"Message-ID: <1@x>\n\none\n\n"
TWO = ENVELOPE + b"Message-ID: <2@x>\n\ntwo\n\n"


class Site:
    """Servers on files in this process, for the user anna with one mbox or maildir."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.box = directory / "mail/anna"
        self.box.parent.mkdir()
        self.users = write_users(directory / "users", {"anna": "secret"})

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return these and what every server here has."""
        return {
            "auth": (f"passwd-file:{self.users}",),
            "state": f"sqlite:///{self.directory}/state/state.sqlite",
            "log_file": str(self.directory / "log"),
            "lock_wait": 0.0,
            **options,
        }

    def mbox(self, said: bytes, **options: Any) -> list[bytes]:
        """Serve the mbox to a client that says this; return the lines it hears after PASS."""
        pattern = f"{self.box.parent}/{{user}}"
        return self.hear(POP3Mbox(MboxSettings(**self.options({"mbox": pattern} | options))), said)

    def maildir(self, said: bytes, **options: Any) -> list[bytes]:
        """Serve the maildir in the same way."""
        pattern = f"{self.box.parent}/{{user}}"
        settings = MaildirSettings(**self.options({"maildir": pattern} | options))
        return self.hear(POP3Maildir(settings), said)

    @staticmethod
    def hear(server: POP3Server[Any], said: bytes) -> list[bytes]:
        """Let anna say this; return the lines she hears, from the reply to PASS on."""
        out = io.BytesIO()
        with server:
            server.serve(io.BytesIO(LOGIN + said), out)
        return out.getvalue().split(b"\r\n")[2:-1]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return one."""
    return Site(tmp_path)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights up")
def test_c1_row_32_rights(start: Start, tmp_path: Path) -> None:
    """Who serves is another user, once and for good."""
    reachable(tmp_path)
    options = ["--user", "nobody", "--workers", "1", "--state", f"sqlite:///{tmp_path}/state/db"]
    server = start(personality="prefork", options=options)
    make_maildir(server.maildir(), [PLAIN])
    give_to_nobody(server.mail)
    [worker] = children_of(server.pid)
    assert set(status(worker)["Uid"].split()) == {str(pwd.getpwnam("nobody").pw_uid)}
    with server.session() as wire:
        wire.ok(b"DELE 1")
        wire.quit()
    assert stored_messages(server.maildir()) == []


def test_c1_row_33_index(site: Site) -> None:
    """A box of 16 MiB is served by a process whose memory hardly grows."""
    body = b"a line of a message, and another word\n" * 4000
    with site.box.open("wb") as box:
        for _ in range(110):
            box.write(ENVELOPE + b"Subject: x\n\n" + body + b"\n")
    program = f"""
import io, resource
from pop3.sources.mbox import MboxSettings, POP3Mbox
settings = MboxSettings(mbox={str(site.box)!r}, auth=({f"passwd-file:{site.users}"!r},),
    state={f"sqlite:///{site.directory}/state/s.db"!r}, log_level="warning")
with POP3Mbox(settings) as server:
    server.serve(io.BytesIO(), io.BytesIO())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    server.serve(io.BytesIO({LOGIN!r} + b"STAT\\r\\n"), out := io.BytesIO())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(out.getvalue().split(b"\\r\\n")[3], grown)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env=environment(site.directory),
    )
    answer, _, kilobytes = done.stdout.strip().rpartition(" ")
    assert answer.startswith("b'+OK 110 ")
    assert int(kilobytes) < 6000


def test_c1_row_35_separators(site: Site) -> None:
    """MMDF, and lines of one's own."""
    site.box.write_bytes(b"\1\1\1\1\nSubject: a\n\nx\n\1\1\1\1\n" * 2)
    assert site.mbox(b"STAT\r\n", mbox_format="mmdf")[1].startswith(b"+OK 2 ")
    site.box.write_bytes(b"BEGIN 1\nSubject: a\n\nx\nEND\nBEGIN 2\nSubject: b\n\ny\nEND\n")
    own = {"mbox_format": "custom", "message_start": "^BEGIN [0-9]", "message_end": "^END$"}
    assert site.mbox(b"RETR 2\r\n", **own)[2:] == [b"Subject: b", b"", b"y", b"."]


def test_c1_row_36_locks(site: Site) -> None:
    """The lock of a delivery agent is respected, and ours is gone afterwards."""
    site.box.write_bytes(ONE)
    lock = site.box.with_name("anna.lock")
    lock.write_text(str(os.getpid()))
    assert site.mbox(b"")[0].startswith(b"-ERR [")
    lock.unlink()
    for order in ("dotlock,fcntl,flock", "flock,dotlock", "fcntl"):
        assert site.mbox(b"DELE 1\r\nRSET\r\nQUIT\r\n", mbox_locks=order)[-1] == b"+OK bye"
        assert not lock.exists()


def test_c1_row_37_mail_that_comes_stays(site: Site) -> None:
    """What is delivered during a session is there after its deletions."""
    site.box.write_bytes(ONE)
    come = site.box

    class Late(POP3Mbox):
        def delete_messages(self, session: Any, messages: Sequence[Message]) -> None:
            with come.open("ab") as box:
                box.write(TWO)
            super().delete_messages(session, messages)

    settings = MboxSettings(**site.options({"mbox": f"{site.box.parent}/{{user}}"}))
    assert site.hear(Late(settings), b"DELE 1\r\nQUIT\r\n")[-1] == b"+OK bye"
    assert site.box.read_bytes() == TWO


def test_c1_row_38_from_lines(site: Site) -> None:
    """The "From " lines of what stays are the same octets, and no client sees them."""
    odd = b"From the  old machine,   in its own form 99:99\n" + ONE[len(ENVELOPE) :]
    site.box.write_bytes(TWO + odd)
    heard = site.mbox(b"RETR 2\r\nDELE 1\r\nQUIT\r\n")
    assert heard[2] == b"Message-ID: <1@x>"
    assert site.box.read_bytes() == odd


def test_c1_row_39_uidl(site: Site) -> None:
    """Ids are all different and stay; `message-id` gives those of the old program."""
    bare = ENVELOPE + b"Subject: no id\n\nx\n\n"
    site.box.write_bytes(ONE + ONE + bare + TWO)
    first = [line.split()[1] for line in site.mbox(b"UIDL\r\n")[2:-1]]
    assert len(set(first)) == 4
    site.box.write_bytes(ONE + bare + TWO)
    again = [line.split()[1] for line in site.mbox(b"UIDL\r\n")[2:-1]]
    assert set(again) < set(first)
    old = [line.split()[1] for line in site.mbox(b"UIDL\r\n", uidl="message-id")[2:-1]]
    assert (old[0], old[2]) == (b"<1@x>", b"<2@x>")


def test_c1_row_40_spool_and_group(site: Site) -> None:
    """One file a user in the spool directory, dotlocks with the group of `mailgroup`."""
    site.box.write_bytes(ONE)
    assert site.mbox(b"DELE 1\r\nQUIT\r\n", mailgroup=str(os.getegid()))[-1] == b"+OK bye"
    assert site.box.read_bytes() == b""
    with pytest.raises(ConfigError, match="--mailgroup"):
        site.mbox(b"", mailgroup="no-such-group")


def test_c1_row_41_maildir(site: Site) -> None:
    """new/ and cur/ are served; flags are no part of an id; nothing of ours lies in the mail."""
    make_maildir(site.box, [PLAIN])
    add_message(site.box, PLAIN, 1, folder="cur")
    before = sorted(path.name for path in site.box.rglob("*"))
    uids = [line.split()[1] for line in site.maildir(b"UIDL\r\n")[2:-1]]
    assert len(uids) == 2
    assert not [uid for uid in uids if b":" in uid]
    assert sorted(path.name for path in site.box.rglob("*")) == before


def test_c1_row_42_qmail(site: Site) -> None:
    """~/.qmail names the maildir, else it is ~/Maildir."""
    home = site.directory / "home"
    make_maildir(home / "Maildir", [PLAIN])
    make_maildir(home / "in", [PLAIN] * 2)
    site.users.write_text(f"anna:{{PLAIN}}secret:1:1::{home}:\n")
    options: dict[str, Any] = {"maildir": "~/Maildir", "maildir_from_qmail": True}
    assert site.maildir(b"STAT\r\n", **options)[1].startswith(b"+OK 1 ")
    (home / ".qmail").write_text("&somebody@example.org\n./in/\n")
    assert site.maildir(b"STAT\r\n", **options)[1].startswith(b"+OK 2 ")


def test_c1_row_53_a_dialogue_on_the_terminal(start: Start, tmp_path: Path) -> None:
    """`pop3-try talk` prints it, without the password."""
    server = start(personality="single")
    make_maildir(server.maildir(), [PLAIN])
    (tmp_path / "password").write_text("secret\n")
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "bin/pop3-try", "talk", server.host, str(server.port)),
            *("--user", "anna", "--password-file", str(tmp_path / "password")),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "TOP 1 0" in done.stdout
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["single", "inetd"])
def test_c1_row_54_how_it_is_started(start: Start, kind: str) -> None:
    """In one process, and from inetd."""
    server = start(personality=kind)
    make_maildir(server.maildir(), [PLAIN])
    with server.session() as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 1 ")
        wire.quit()


def test_c1_row_55_daemon(start: Start, tmp_path: Path) -> None:
    """A pid file, and a ceiling of children: who comes over it waits."""
    pid_file = tmp_path / "pid"
    options = ["--pid-file", str(pid_file), "--max-servers", "1"]
    server = start(personality="fork", options=options)
    assert pid_file.read_text().split() == [str(server.pid)]
    with server.session() as first, server.connect(greeted=False) as second:
        first.quit()
        assert second.line().startswith(b"+OK")
    server.stop()
    assert not pid_file.exists()


def test_c1_row_57_signals(start: Start, tmp_path: Path) -> None:
    """HUP takes a new configuration and keeps open sessions; USR1 opens the log again."""
    config = tmp_path / "config.yaml"
    config.write_text("greeting: before\n")
    server = start(personality="fork", options=["--config", str(config)])
    with server.session() as old:
        config.write_text("greeting: after\n")
        server.reload()
        with server.connect() as new:
            assert new.greeting == b"+OK after"
        assert old.ok(b"STAT")
        old.quit()
    moved = server.log_path.rename(tmp_path / "moved")
    server.signal(signal.SIGUSR1)
    wait_until(server.log_path.exists, 10, "a new log")
    assert moved.exists()


def test_c1_row_61_old_configurations(tmp_path: Path) -> None:
    """One of version 2 becomes a new file, and nothing in it is run."""
    old = tmp_path / "mpopd.conf"
    old.write_text(f"$port = 1110; $use_maildir = 1;\nunlink '{tmp_path}/users';\n1;\n")
    users = write_users(tmp_path / "users", {"anna": "x"})
    new = tmp_path / "new.yaml"
    done = run_program("pop3-update-conf", str(old), "-o", str(new), home=tmp_path)
    assert done.returncode == 1
    assert f"{old}:2: not converted" in done.stderr
    assert users.exists()
    check = ("--no-default-config", "--check-config", "--auth", f"passwd-file:{users}")
    done = run_program("pop3-server", "-c", str(new), *check, home=tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("\n") == done.stderr.count("no password is taken from other machines")


def test_c1_row_64_without_unix(tmp_path: Path) -> None:
    """The personality single passes its checks without fork, pwd, grp, fcntl and resource."""
    users = write_users(tmp_path / "users", {"anna": "x"})
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide/sitecustomize.py").write_text(BLOCKER)
    words = [
        "--no-default-config",
        "--check-config",
        "--personality",
        "single",
        "--maildir",
        "/x/{user}",
    ]
    words += ["--state", f"sqlite:///{tmp_path}/s/s.db", "--auth", f"passwd-file:{users}"]
    path = {"PYTHONPATH": f"{tmp_path}/hide{os.pathsep}{ROOT}"}
    done = run_program("pop3-server", *words, home=tmp_path, env=path)
    assert (done.returncode, done.stderr) == (0, "")


def test_c1_row_65_two_file_handles(site: Site) -> None:
    """One call serves one client on two pipes."""
    make_maildir(site.box, [PLAIN])
    settings = MaildirSettings(**site.options({"maildir": f"{site.box.parent}/{{user}}"}))
    there, here = os.pipe(), os.pipe()
    with (
        POP3Maildir(settings) as server,
        open(here[0], "rb") as heard,
        open(there[1], "wb") as said,
    ):
        thread = threading.Thread(target=server.serve, args=(there[0], here[1], "192.0.2.1"))
        thread.start()
        said.write(b"CAPA\r\nQUIT\r\n")
        said.flush()
        thread.join(10)
        os.close(here[1])
        os.close(there[0])
        assert b"\r\nUSER\r\n" not in heard.read()  # no password from another machine without TLS


class Two(POP3Server[list[bytes]]):
    """A source of three methods."""

    def open_box(self, session: Session[list[bytes]]) -> list[bytes]:
        """Have two messages."""
        return [b"Subject: a\n\n", b"Subject: b\n\n"]

    def list_messages(self, session: Session[list[bytes]]) -> list[Message]:
        """Name them."""
        return [Message(str(number)) for number in range(len(session.box))]

    def read_message(self, session: Session[list[bytes]], message: Message) -> BinaryIO:
        """Open one."""
        return io.BytesIO(session.box[int(message.uid)])


def test_c1_row_66_own_source(site: Site) -> None:
    """Three methods are a server: numbers, sizes, marks and hiding are not theirs."""
    server = Two(POP3Settings(**site.options({})))
    heard = site.hear(server, b"DELE 1\r\nSTAT\r\nRETR 2\r\nQUIT\r\n")
    assert heard[2] == b"+OK 1 14"
    again = Two(POP3Settings(**site.options({})))
    assert site.hear(again, b"UIDL\r\n")[1:] == [b"+OK", b"1 1", b"."]


def test_c1_row_67_golden() -> None:
    """There are dialogues over files, and calls of a folder."""
    golden = ROOT / "tests/golden"
    assert len(list(golden.glob("*.dialogue"))) >= 7
    assert (golden / "test_golden.py").read_text().count("def test_folder_") >= 5
