"""Dovecot, tuned for throughput, as the rival of the benchmark: on its own port, ended by pid.

The configuration is the fastest honest one that was found on two cores: two long-lived processes
that serve many sessions each (all users share one uid), no sync of indexes, an auth cache.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

UID = 5000  # owner of the mail; needs no entry in the user database
PACKAGE = "dovecot-pop3d"
START_DEADLINE = 15.0

CONFIGURATION = """\
protocols = pop3
base_dir = {home}/run
state_dir = {home}/state
instance_name = bench
log_path = {home}/log
disable_plaintext_auth = no
{tls}
verbose_proctitle = no
mail_location = {location}
first_valid_uid = {uid}
mail_fsync = {fsync}
mmap_disable = no
maildir_very_dirty_syncs = yes
maildir_stat_dirs = no
pop3_no_flag_updates = yes
pop3_lock_session = no
mail_max_userip_connections = 0
auth_cache_size = 10M
auth_cache_ttl = 1 hour
auth_verbose = no
stats_writer_socket_path =
default_client_limit = 20000
default_process_limit = 6000
passdb {{
  driver = passwd-file
  args = {passwd}
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={mail}/%u
}}
service auth {{
  client_limit = 20000
}}
service anvil {{
  client_limit = 20000
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service pop3-login {{
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = 8000
  vsz_limit = 1 G
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service pop3 {{
  service_count = 0
  client_limit = {clients}
  process_min_avail = 2
  process_limit = 2
  vsz_limit = 1 G
}}
"""


def install() -> str:
    """Make sure Dovecot is there; return why not, or an empty string.

    Installing needs root and apt. The service that the package brings is stopped and kept off.
    """
    if os.geteuid() != 0:
        return "Dovecot is started as root only (it changes uid by itself)"
    if shutil.which("dovecot"):
        return ""
    if not shutil.which("apt-get"):
        return f"no apt-get here; install {PACKAGE} by hand"
    print(f"installing {PACKAGE} …")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "--no-install-recommends", PACKAGE]
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}"
    if shutil.which("systemctl"):
        for word in ("stop", "disable"):
            for unit in ("dovecot.socket", "dovecot.service"):
                subprocess.run(["systemctl", word, unit], capture_output=True, check=False)
    return ""


def free_port() -> int:
    """Return a port nobody listens on now (Dovecot cannot take port 0)."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for_greeting(port: int, process: subprocess.Popen[bytes], deadline: float) -> None:
    """Return when the server greets; raise `RuntimeError` if it ends or stays silent."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                if probe.recv(3) == b"+OK":
                    return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"no greeting on port {port}")


DEFAULT_CONFIGURATION = """\
protocols = pop3
base_dir = {home}/run
state_dir = {home}/state
instance_name = bench-default
log_path = {home}/log
disable_plaintext_auth = no
{tls}
mail_location = {location}
first_valid_uid = {uid}
passdb {{
  driver = passwd-file
  args = {passwd}
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={mail}/%u
}}
service pop3-login {{
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""
TLS_LISTENER = """\
service pop3-login {{
  inet_listener pop3s {{
    address = 127.0.0.1
    port = {tls_port}
    ssl = yes
  }}
}}
"""


class Dovecot:
    """One running Dovecot over `mail`, a directory of maildirs."""

    name = "dovecot-tuned"
    idle_sessions = 1000
    configuration = CONFIGURATION

    def __init__(self, home: Path, mail: Path, passwd: Path) -> None:
        self.home = home
        self.mail = mail
        self.passwd = passwd
        self.location = f"maildir:{mail}/%u"
        self.fsync = "never"
        self.indexes = home.parent / "indexes"  # where `location` says so
        self.certificate: tuple[Path, Path] | None = None  # with its key; for TLS
        self.port = self.tls_port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The master's process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start in the foreground as a child of ours; return when it greets."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o755)
        self.port = free_port()
        configuration = self.home / "dovecot.conf"
        tls = "ssl = no"
        if self.certificate is not None:
            self.tls_port = free_port()
            tls = "ssl = yes\nssl_cert = <{}\nssl_key = <{}".format(*self.certificate)
        text = self.configuration + (TLS_LISTENER if self.certificate is not None else "")
        configuration.write_text(
            text.format(
                tls=tls,
                tls_port=self.tls_port,
                home=self.home,
                mail=self.mail,
                location=self.location,
                fsync=self.fsync,
                clients=1 if self.location.startswith("mbox:") else 5000,  # it asks for that
                passwd=self.passwd,
                port=self.port,
                uid=UID,
            )
        )
        with (self.home / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                ["dovecot", "-F", "-c", str(configuration)], stdout=errors, stderr=errors
            )
        try:
            wait_for_greeting(self.port, self.process, START_DEADLINE)
        except RuntimeError:
            self.stop()
            print((self.home / "stderr").read_text(), end="")
            raise

    def stop(self) -> None:
        """TERM by pid, and wait."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def forget(self, user: str) -> None:
        """Remove what is remembered of a maildir: indexes and the list of unique-ids."""
        for path in (self.mail / user).glob("dovecot*"):
            path.unlink()
        shutil.rmtree(self.indexes / user, ignore_errors=True)


class DefaultDovecot(Dovecot):
    """Dovecot as it comes: a process for each login and one for each session."""

    name = "dovecot-default"
    configuration = DEFAULT_CONFIGURATION
