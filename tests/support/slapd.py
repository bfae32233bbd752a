"""A slapd of the tests' own, in a directory that goes with it."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.netserver.certs import make_certificate
from tests.support.postgres import own_directory, unprivileged
from tests.support.processes import wait_until

BASE = "dc=example,dc=org"
ADMIN_PASSWORD = "the admin's"
_CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/pid
TLSCertificateFile {cert}
TLSCertificateKeyFile {key}
allow bind_anon_cred
database mdb
maxsize 10485760
suffix "{base}"
rootdn "cn=admin,{base}"
rootpw "{password}"
directory {directory}/data
access to attrs=userPassword by anonymous auth by * none
access to * by users read by anonymous read
"""


class Slapd:
    """A server that can be stopped, started again and held.

    `allow bind_anon_cred` is on purpose: a bind with a DN and an empty password succeeds.
    """

    def __init__(self, ldif: str) -> None:
        self._program = shutil.which(
            "slapd", path="/usr/sbin:/usr/local/sbin:/usr/libexec:/usr/bin"
        )
        if self._program is None:
            pytest.skip("needs slapd: apt install slapd")
        self.directory = own_directory("ldap-")
        self.process: subprocess.Popen[bytes] | None = None
        self.ca, key = make_certificate(self.directory, ip=None)
        key.chmod(0o644)
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port = int(chosen.getsockname()[1])
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.tls_port = int(chosen.getsockname()[1])
        self._config = self.directory / "slapd.conf"
        self._config.write_text(
            _CONFIG.format(
                directory=self.directory,
                cert=self.ca,
                key=key,
                base=BASE,
                password=ADMIN_PASSWORD,
            )
        )
        (self.directory / "data.ldif").write_text(ldif)
        self._run("mkdir", str(self.directory / "data"))
        add = shutil.which("slapadd", path=str(Path(self._program).parent)) or "slapadd"
        self._run(add, "-q", "-f", str(self._config), "-l", str(self.directory / "data.ldif"))

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, timeout=30, check=False, cwd="/", **unprivileged()
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    @property
    def url(self) -> str:
        """The URL on TCP."""
        return f"ldap://localhost:{self.port}"

    @property
    def tls_url(self) -> str:
        """The URL with TLS from the beginning."""
        return f"ldaps://localhost:{self.tls_port}"

    @property
    def socket_url(self) -> str:
        """The URL of its UNIX socket."""
        return f"ldapi://{quote(str(self.directory / 'socket'), safe='')}"

    def start(self) -> None:
        """Start, and return when it answers."""
        assert self._program is not None
        urls = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port} {self.socket_url}"
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, "-d", "0", "-f", str(self._config), "-h", urls],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                **unprivileged(),
            )
        wait_until(self._answers, 15, "slapd answers")

    def _answers(self) -> bool:
        assert self.process is not None
        log = (self.directory / "log").read_text(errors="replace")
        assert self.process.poll() is None, log[-2000:]
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return False
        return True

    def hold(self) -> None:
        """Let it take connections and say nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End `hold`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None:
            process, self.process = self.process, None
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(15)

    def remove(self) -> None:
        """Stop and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def person(uid: str, *, name: str | None = None, password: str | None = "secret") -> str:
    """Return an entry in LDIF."""
    lines = [
        f"dn: cn={name or uid},ou=people,{BASE}",
        "objectClass: inetOrgPerson",
        f"cn: {name or uid}",
        f"sn: {uid}",
        f"uid: {uid}",
        f"mail: {uid}@example.org",
    ]
    if password is not None:
        lines.append(f"userPassword: {password}")
    return "\n".join(lines) + "\n\n"


def account(uid: str, number: int, password: str = "secret") -> str:
    """Return an entry of a user with uid, gid and home, named by its uid, in LDIF."""
    return (
        f"dn: uid={uid},ou=accounts,{BASE}\nobjectClass: account\nobjectClass: posixAccount\n"
        f"cn: {uid}\nuid: {uid}\nuidNumber: {number}\ngidNumber: {number}\n"
        f"homeDirectory: /home/{uid}\nuserPassword: {password}\n\n"
    )


TREE = (
    f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: test\n\n"
    f"dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n"
    f"dn: ou=accounts,{BASE}\nobjectClass: organizationalUnit\nou: accounts\n\n"
    + "".join(map(person, ("anna", "bert", *(f"few{number}" for number in range(1, 21)))))
    + person("twice", name="one")
    + person("twice", name="two")
    + person("nologin", password=None)
    + account("anton", 1200)
)


@pytest.fixture(scope="session")
def slapd() -> Iterator[Slapd]:
    """Run one server for all tests."""
    pytest.importorskip("pyasn1", reason="needs the extra ldap")
    server = Slapd(TREE)
    try:
        server.start()
        yield server
    finally:
        server.remove()
