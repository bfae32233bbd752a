"""The row "mbox": one mailbox file of 1 GiB with 50,000 messages, ours beside Dovecot's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dovecot

if TYPE_CHECKING:
    from bench import Bench
    from contestants import Ours

HERE = Path(__file__).resolve().parent
USER = 902_000
MESSAGES = 50_000
SIZE = 21_384  # octets of a message: 1 GiB in all
ROUNDS = 3
_BLOCK = 1 << 20


def make_mail(out: Path) -> None:
    """Write the mailbox and the password file."""
    owner = ["--owner", f"{dovecot.UID}:{dovecot.UID}"] if os.geteuid() == 0 else []
    words = ["--out", str(out), "--first-user", str(USER), "--users", "1", "--no-maildir", "--mbox"]
    words += ["--messages", str(MESSAGES), "--size", str(SIZE), "--passwd", "plain", *owner]
    subprocess.run([sys.executable, str(HERE / "mkmail.py"), *words], check=True)


def rivals(bench: Bench, ours: type[Ours]) -> list[Ours | dovecot.Dovecot]:
    """Return the servers, each with a mailbox of its own."""
    servers: list[Ours | dovecot.Dovecot] = []
    for kind in ["gevent"] if dovecot.install() else ["gevent", "dovecot"]:
        base = bench.work / f"mbox-{kind}"
        print(f"making the mailbox of {kind} …", file=sys.stderr)
        make_mail(base)
        mail, passwd = base / "mbox", base / "passwd"
        os.chmod(mail, 0o777)  # dotlocks are made here by those who serve
        if kind == "gevent":
            words = ("--personality", kind, "--workers", "2")
            server = ours("ours-gevent", base / "server", mail, passwd, *words)
            server.source = "mbox"
            servers.append(server)
        else:
            rival = dovecot.Dovecot(base / "server", mail, passwd)
            rival.location = f"mbox:{base}/folders:INBOX={mail}/%u:INDEX={rival.indexes}/%u"
            for directory in (base / "folders", rival.indexes):
                directory.mkdir(parents=True)
                os.chown(directory, dovecot.UID, dovecot.UID)
            rival.fsync = "optimized"  # its default: the mail is on disk when QUIT is answered
            servers.append(rival)
    return servers


def measure(bench: Bench, servers: list[Ours | dovecot.Dovecot]) -> None:
    """Seconds of a login with STAT without and with an index, and of DELE 1 with QUIT."""
    user = f"user{USER}"
    words = ["--first-user", str(USER), "-n", "1"]
    for _ in range(ROUNDS):
        for server in servers:
            server.forget(user)
            server.start()
            try:
                bench.note("mbox, one read of the file, s", server.name, read(server.mail / user))
                for row in ("first", "warm", "warm"):
                    report = bench.load(server, *words, "--script", "user,pass,stat,quit", users=1)
                    bench.note(f"mbox, {row} login + STAT, s", server.name, report["seconds"])
                script = "user,pass,stat,dele1,quit"
                report = bench.load(server, *words, "--script", script, users=1)
                bench.note("mbox, DELE 1 + QUIT, s", server.name, report["seconds"])
            finally:
                server.stop()


def read(path: Path) -> float:
    """Read a file from its beginning to its end, as `cat` does; return the seconds."""
    started = time.perf_counter()
    buffer = bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - started
