"""A move from another server, with that server itself where it is installed: the same ids."""

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.servers import RunningServer
from tests.support.wire import Wire

UID = 5000  # owner of the mail; needs no entry in the user database

CONFIGURATION = """\
protocols = pop3
base_dir = {home}/run
state_dir = {home}/state
instance_name = uidl-test
log_path = {home}/log
disable_plaintext_auth = no
ssl = no
mail_location = maildir:{mail}/%u
first_valid_uid = {uid}
stats_writer_socket_path =
mbox_write_locks = fcntl
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = passwd-file
  args = {home}/users
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""

# a user of each kind: where the mail is, and pop3_uidl_format
BOXES = {
    "maildir": ("maildir", "%08Xu%08Xv"),
    "dotted": ("maildir", "%v.%u"),
    "names": ("maildir", "%f"),
    "mbox": ("mbox", "%08Xu%08Xv"),
    "washington": ("mbox", "%08Xv%08Xu"),
    "hashes": ("mbox", "%m"),
    "internal": ("mbox", "%08Xv%08Xu"),
    "saved": ("maildir", "%v-%u userdb_pop3_save_uidl=yes"),
    "reused": ("maildir", "%08Xu%08Xv userdb_pop3_reuse_xuidl=yes"),
}

INTERNAL = b"""\
From MAILER-DAEMON Mon Jan  1 00:00:00 2024
Date: 01 Jan 2024 00:00:00 +0000
From: Mail System Internal Data <MAILER-DAEMON@host>
Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA
X-IMAP: 1700000000 0000000007
Status: RO

This text is part of the internal format of your mail folder.

"""

MESSAGES = [
    b"Delivered-To: anna@example.org\nReceived: by a\n\tb\nReceived: by z\nDate: x\n\none\n",
    b"Date: Mon, 1 Jan 2024 00:00:01 +0000\nMessage-ID: <2@x>\nX-Delivery-ID: 7\n\ntwo\n",
    b"Message-ID: <3@x>\nReceived: by y\nReceived: by z\nDate: late\n\nthree\n",
    b"Subject: four\nX-UIDL: 0123456789abcdef\n\nfour\n",
]


@dataclass(frozen=True)
class Peer:
    """A running Dovecot."""

    port: int
    mail: Path

    def ids(self, user: str) -> list[bytes]:
        """Log in and return its ids."""
        with Wire("127.0.0.1", self.port) as wire:
            wire.login(user)
            found = [line.split(b" ")[1] for line in wire.lines(b"UIDL")]
            wire.quit()
        return found


def fill_mail(mail: Path) -> None:
    """Give every user the messages."""
    for user, (kind, _) in BOXES.items():
        if kind == "mbox":
            (mail / user).write_bytes(
                (INTERNAL if user == "internal" else b"")
                + b"".join(
                    b"From a@x Mon Jan  1 00:00:0%d 2024\n%b\n" % (number, message)
                    for number, message in enumerate(MESSAGES)
                )
            )
            continue
        for name in ("new", "cur", "tmp"):
            (mail / user / name).mkdir(parents=True)
        for number, message in enumerate(MESSAGES):
            flags = ":2,S" if number % 2 else ""
            folder = "cur" if flags else "new"
            path = mail / user / folder / f"170000000{number}.M{number}P1.host{flags}"
            path.write_bytes(message)
    for directory, _, files in os.walk(mail):
        for name in (".", *files):
            os.chown(os.path.join(directory, name), UID, UID)


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Peer]:
    """Run the real Dovecot over mail of each kind."""
    if shutil.which("dovecot") is None:
        pytest.skip("Dovecot is not installed")
    if os.geteuid() != 0:
        pytest.skip("Dovecot is started as root only")
    with tempfile.TemporaryDirectory(prefix="uidl-") as base:  # not below pytest's: Dovecot changes
        Path(base).chmod(0o755)  # its uid
        yield from running_dovecot(Path(base))


def running_dovecot(base: Path) -> Iterator[Peer]:
    """Start Dovecot in a directory, and stop it."""
    home, mail = base / "home", base / "mail"
    home.mkdir()
    mail.mkdir()
    fill_mail(mail)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (home / "users").write_text(
        "".join(
            f"{user}::{UID}:{UID}::{mail}/{user}::userdb_pop3_uidl_format={form}"
            + (f" userdb_mail=mbox:{home}/{user}:INBOX={mail}/{user}" if kind == "mbox" else "")
            + "\n"
            for user, (kind, form) in BOXES.items()
        ).replace("%", "%%")
    )
    for user, (kind, _) in BOXES.items():
        if kind == "mbox":
            (home / user).mkdir()
            os.chown(home / user, UID, UID)
    (home / "conf").write_text(CONFIGURATION.format(home=home, mail=mail, uid=UID, port=port))
    with (home / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            ["dovecot", "-F", "-c", str(home / "conf")], stdout=errors, stderr=errors
        )
    try:
        wait_for_greeting(port, process, home)
        yield Peer(port, mail)
    finally:
        process.terminate()
        process.wait(15)


def wait_for_greeting(port: int, process: "subprocess.Popen[bytes]", home: Path) -> None:
    """Return when the server greets (Dovecot tells nobody when it is ready)."""
    end = time.monotonic() + 15
    while time.monotonic() < end and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                if probe.recv(3) == b"+OK":
                    return
        except OSError:
            time.sleep(0.02)
    pytest.fail((home / "stderr").read_text())


def moved(start: Start, dovecot: Peer, user: str, *words: str) -> RunningServer:
    """Start our server over a copy of a user's mail."""
    kind = BOXES[user][0]
    server = start(
        personality="gevent",
        source=kind,
        users={user: "secret"},
        options=(*(("--mbox", "mail/{user}") if kind == "mbox" else ()), *words),
    )
    if kind == "mbox":
        shutil.copy(dovecot.mail / user, server.mail / user)
    else:
        shutil.copytree(dovecot.mail / user, server.mail / user)
    return server


def ids(server: RunningServer, user: str) -> list[bytes]:
    """Log in and return the ids."""
    with server.session(user) as wire:
        found = [line.split(b" ")[1] for line in wire.lines(b"UIDL")]
        wire.quit()
    return found


@pytest.mark.parametrize(
    ("user", "preset"),
    [
        ("maildir", "dovecot"),
        ("dotted", "dovecot:%v.%u"),
        ("dotted", "cyrus"),
        ("names", "maildir-name"),
        ("names", "dovecot:%f"),
        ("mbox", "dovecot"),
        ("washington", "uw"),
        ("hashes", "dovecot:%m"),
        ("internal", "uw"),
        ("saved", "dovecot"),
        ("reused", "x-uidl,dovecot"),
    ],
)
def test_a_move_from_dovecot(start: Start, dovecot: Peer, user: str, preset: str) -> None:
    """UIDL says what Dovecot says of the same mail, and new mail gets ids of its own."""
    known = dovecot.ids(user)
    assert len(set(known)) == len(MESSAGES)
    server = moved(start, dovecot, user, "--uidl", preset)
    before = listing_of(server.mail)
    assert ids(server, user) == known
    assert listing_of(server.mail) == before  # nothing is written into the mail
    new = b"Subject: new\nX-UID: 2\n\nnew\n"
    if BOXES[user][0] == "mbox":
        with (server.mail / user).open("ab") as box:
            box.write(b"From b@x Mon Jan  1 00:00:09 2024\n" + new + b"\n")
    else:
        (server.mail / user / "new" / "1700000009.M9P1.host").write_bytes(new)
        (server.mail / user / "dovecot-uidlist").unlink()  # it is not needed any more
    with server.session(user) as wire:
        found = [line.split(b" ")[1] for line in wire.lines(b"UIDL")]
        assert found[:-1] == known
        assert found[-1] not in known
        wire.ok(b"DELE 1")
        wire.quit()
    assert ids(server, user) == found[1:]


@pytest.mark.parametrize(("preset", "length"), [("qpopper", 20), ("qpopper-old", 32)])
def test_a_move_from_qpopper(start: Start, preset: str, length: int) -> None:
    """The "From " line of an mbox counts, and X-UIDL where Qpopper has written it."""
    server = start(
        personality="fork", source="mbox", options=("--mbox", "mail/{user}", "--uidl", preset)
    )
    first, second = b"From a@x Mon Jan  1 00:00:00 2024\n", b"From b@x Mon Jan  1 00:00:00 2024\n"
    fields = b"Subject: x\nDate: y\n"
    marked = b"X-UIDL: 0123456789abcdef\n"
    (server.mail / "anna").write_bytes(
        b"".join(
            envelope + header + b"\nbody\n\n"
            for envelope, header in ((first, fields), (second, fields), (first, fields + marked))
        )
    )
    found = ids(server, "anna")
    assert [len(one) for one in found] == [length, length, 16]
    assert found[0] != found[1]
    if length == 32:
        expected = [hashlib.md5(line + fields).hexdigest().encode() for line in (first, second)]
        assert found[:2] == expected
    assert ids(server, "anna") == found


def test_what_is_no_mail_may_be_written_anew(start: Start) -> None:
    """c-client gives its own first message another date each time: never shown, never a failure."""
    server = start(
        personality="fork", source="mbox", options=("--mbox", "mail/{user}", "--uidl", "uw")
    )
    mail = b"From a@x Mon Jan  1 00:00:00 2024\nSubject: mail\nX-UID: 1\n\nbody\n\n"
    for day in (1, 2, 3):
        (server.mail / "anna").write_bytes(
            b"From MAILER-DAEMON Mon Jan  1 00:00:00 2024\n"
            b"Date: %d Jan 2024 00:00:00 +0000\n"
            b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n"
            b"X-IMAP: 1704067200 0000000001\n\nThis text is part of the format.\n\n" % day + mail
        )
        assert ids(server, "anna") == [b"6592008000000001"]


def listing_of(mail: Path) -> list[str]:
    """Return the names of all files."""
    return sorted(str(path) for path in mail.rglob("*"))


@pytest.mark.parametrize("personality", ["single", "inetd", "fork", "prefork", "gevent"])
def test_ids_of_an_id_file(start: Start, tmp_path: Path, personality: str) -> None:
    """Under each process model what Courier has written down is announced, and stays."""
    server = start(personality=personality, options=("--uidl", "courier"))
    box = server.maildir()
    for name in ("new", "cur", "tmp"):
        (box / name).mkdir(parents=True)
    for number in (1, 2):
        (box / "cur" / f"170000000{number}.M{number}P1.host:2,").write_bytes(b"Subject: x\n\nx\n")
    (box / "courierpop3dsizelist").write_bytes(
        b"/3 11 1690000000\n1700000002.M2P1.host:2, 17 9:1690000000:0\n"
    )
    expected = [b"1700000001.M1P1.host", b"UID9-1690000000"]
    assert ids(server, "anna") == expected
    (box / "courierpop3dsizelist").write_bytes(b"broken since\n")
    assert ids(server, "anna") == expected
    # a new mail makes it look at the file again
    (box / "courierpop3dsizelist").write_bytes(b"/7 broken since\n")
    (box / "new" / "1700000003.M3P1.host").write_bytes(b"Subject: x\n\nx\n")
    with server.connect() as wire:
        wire.ok(b"USER anna")
        assert b"[SYS/TEMP]" in wire.err(b"PASS secret")
    (box / "courierpop3dsizelist").unlink()
    assert ids(server, "anna") == [*expected, b"1700000003.M3P1.host"]
    assert (tmp_path / "uidl-journal").exists()


def test_the_default_touches_no_state(start: Start) -> None:
    """A login to a maildir with its own ids, cold or warm, opens no database."""
    server = start(personality="prefork")
    (server.maildir() / "new").mkdir(parents=True)
    name = "1700000003.M3P1.host"
    (server.maildir() / "new" / name).write_bytes(b"Message-ID: <x@y>\n\nx\n")
    for _ in range(3):
        assert ids(server, "anna") == [name.encode()]
    assert not list(server.home.glob("state.db*"))
    assert not (server.home / "uidl-journal").exists()


def test_the_default_ids_are_what_they_were(start: Start, tmp_path: Path) -> None:
    """File names, hashes of names that POP3 cannot carry, and hashes of content: to the octet."""
    message = b"Subject: pinned\nMessage-ID: <p@x>\n\nbody\n"
    names = ["1600000000.M1P1.host,S=40,W=44", f"1700000000.{'x' * 70}"]
    for words in ((), ("--uidl", "maildir-name")):
        server = start(home=tmp_path / f"maildir{len(words)}", personality="fork", options=words)
        (server.maildir() / "cur").mkdir(parents=True)
        for name in names:
            (server.maildir() / "cur" / f"{name}:2,S").write_bytes(message)
        assert ids(server, "anna") == [names[0].encode(), b"e264a05d4e729ed073d488a83b10dd51"]
        assert not (server.home / "uidl-journal").exists()
    server = start(personality="fork", source="mbox", options=("--mbox", "mail/{user}"))
    mbox = b"From a@x Mon Jan  1 00:00:00 2024\n" + message + b"\n"
    (server.mail / "anna").write_bytes(mbox + mbox.replace(b"Subject", b"Status: RO\nSubject"))
    same = b"d64a60be777030991f794e04b73d033c"
    assert ids(server, "anna") == [same, same + b".2"]


def test_a_state_that_cannot_be_used(start: Start) -> None:
    """Where ids are written down, a broken state means no login rather than other ids."""
    server = start(personality="fork", options=("--uidl", "md5"))
    (server.maildir() / "new").mkdir(parents=True)
    (server.maildir() / "new" / "1.M1.host").write_bytes(b"Message-ID: <x@y>\n\nx\n")
    first = ids(server, "anna")
    assert len(first[0]) == 16
    for path in server.home.glob("state.db*"):
        path.rename(path.with_name(f"away-{path.name}"))
    with server.connect() as wire:
        wire.ok(b"USER anna")
        assert b"[SYS/TEMP]" in wire.err(b"PASS secret")
    for path in server.home.glob("state.db*"):
        path.unlink()
    for path in server.home.glob("away-*"):
        path.rename(path.with_name(path.name.removeprefix("away-")))
    assert ids(server, "anna") == first
