"""The servers that are set beside each other, and their copies of the mail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import dovecot

if TYPE_CHECKING:
    from bench import Bench

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 64
USERS = 1000
START_DEADLINE = 30.0


class Server(Protocol):
    """What the bench needs of each rival."""

    name: str
    idle_sessions: int
    port: int
    tls_port: int

    @property
    def pid(self) -> int:
        """Process id of the root of the process tree."""

    def start(self) -> None:
        """Return when it serves."""

    def stop(self) -> None:
        """End it and all its children."""

    def forget(self, user: str) -> None:
        """Remove indexes and caches of one mailbox; called while stopped."""


class Ours:
    """bin/pop3-server under one personality."""

    source = "maildir"

    def __init__(self, name: str, home: Path, mail: Path, passwd: Path, *options: str) -> None:
        self.name = name
        self.home = home
        self.mail = mail
        self.passwd = passwd
        self.options = options
        self.idle_sessions = CLIENTS if "prefork" in options else USERS
        self.port = self.tls_port = 0
        self.certificate: tuple[Path, Path] | None = None
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The master's process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start on a free port; return when the address file is there."""
        self.home.mkdir(parents=True, exist_ok=True)
        addresses = self.home / "addresses"
        addresses.unlink(missing_ok=True)
        command = [sys.executable, str(ROOT / "bin/pop3-server"), "--no-default-config"]
        command += ["--listen", "127.0.0.1:0", "--address-file", str(addresses)]
        command += ["--source", self.source, f"--{self.source}", f"{self.mail}/{{user}}"]
        command += ["--auth", f"passwd-file:{self.passwd}"]
        command += ["--state", f"sqlite:///{self.home}/state/state.db"]
        command += ["--log-file", str(self.home / "log"), *self.options]
        if self.certificate is not None:
            command += ["--tls-cert", str(self.certificate[0]), "--tls-key"]
            command += [str(self.certificate[1]), "--listen", "tls://127.0.0.1:0"]
        (self.home / "state").mkdir(exist_ok=True)
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.home / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(command, env=variables, stdout=errors, stderr=errors)
        end = time.monotonic() + START_DEADLINE
        while not addresses.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                print((self.home / "stderr").read_text(), end="")
                raise RuntimeError(f"{self.name} did not start")
            time.sleep(0.02)
        ports = [int(line.rpartition(":")[2]) for line in addresses.read_text().split()]
        self.port, self.tls_port = ports[0], ports[-1]

    def stop(self) -> None:
        """TERM by pid, and wait."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def forget(self, user: str) -> None:
        """Remove the state directory: index files of all mailboxes."""
        shutil.rmtree(self.home / "state", ignore_errors=True)


def contestants(bench: Bench, chosen: set[str]) -> list[Server]:
    """Return the servers that can run here, each with its own copy of the mail."""
    why_not = dovecot.install()
    kinds = ["gevent", "prefork"] + ([] if why_not else ["dovecot"])
    if why_not:
        print(f"without Dovecot: {why_not}", file=sys.stderr)
    servers: list[Server] = []
    for kind in kinds:
        base = bench.work / kind
        print(f"making mail for {kind} …", file=sys.stderr)
        bench.make_mail(
            base,
            small=bool(chosen - {"big", "large", "mbox"}),
            large=bool(chosen & {"large", "tls"}),
            big="big" in chosen,
        )
        mail, passwd = base / "maildir", base / "passwd"
        if kind == "dovecot":
            servers.append(dovecot.Dovecot(base / "server", mail, passwd))
        else:
            workers = {"gevent": "2", "prefork": str(CLIENTS)}[kind]
            options = ("--personality", kind, "--workers", workers)
            servers.append(Ours(f"ours-{kind}", base / "server", mail, passwd, *options))
    if "tls" in chosen and bench.tls:
        for server in servers:
            server.certificate = make_certificate(bench.work)
    return servers


def make_certificate(work: Path) -> tuple[Path, Path]:
    """Write a certificate and its key, of the kind that is usual (ECDSA P-256)."""
    certificate, key = work / "cert.pem", work / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o644)  # a certificate for one benchmark; Dovecot reads it as root, we as ourselves
    return certificate, key


def defaults(servers: list[Server]) -> list[Server]:
    """Return the same servers as they come, over the same mail."""
    found: list[Server] = []
    for server in servers:
        if isinstance(server, dovecot.Dovecot):
            home = server.home.parent / "default"
            found.append(dovecot.DefaultDovecot(home, server.mail, server.passwd))
        elif isinstance(server, Ours) and "gevent" in server.options:
            home = server.home.parent / "default"
            found.append(Ours("ours-default", home, server.mail, server.passwd))
    return found
