"""SASL over the wire: every personality, real clients, certificates, tokens, garbage."""

import base64
import datetime as dt
import hashlib
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scramp import ScramClient  # type: ignore[import-untyped]

from tests.conftest import Start
from tests.e2e.clients import private_file
from tests.support.maildirs import PLAIN, make_maildir
from tests.support.oauth import Authority, authorization_server
from tests.support.servers import RunningServer, running
from tests.support.wire import Wire

PASSWORD = "s3cret word"
JOE = "joe@example.com"
ASKED = "scram-sha-256-plus,scram-sha-256,scram-sha-1,external,oauthbearer,xoauth2,cram-md5,plain"


def make_certificate(directory: Path, name: str, mail: str | None = None) -> Path:
    """Write a certificate that vouches for itself, with its key."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if mail is not None:
        names = [x509.RFC822Name(mail)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA384())
    )
    path = directory / f"{name}.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory with those of the server and of joe."""
    directory = tmp_path_factory.mktemp("certificates")
    make_certificate(directory, "localhost")
    make_certificate(directory, "joe", JOE)
    return directory


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    """Run one authorization server for all."""
    with authorization_server() as server:
        yield server


def options(certificates: Path, authority: Authority, home: Path) -> list[str]:
    """Return what turns everything on."""
    oauth = authority.write(home / "oauth.yaml")
    return [
        *("--tls-cert", str(certificates / "localhost.pem")),
        *("--tls-client-ca", str(certificates / "joe.pem"), "--tls-client-cert", "optional"),
        *("--auth", f"oauth2:{oauth}", "--sasl", ASKED),
    ]


@pytest.fixture(scope="module")
def full(
    personality: str,
    certificates: Path,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningServer]:
    """Serve joe, anna and ann under each personality."""
    home = tmp_path_factory.mktemp("sasl")
    users = {"anna@example.com": PASSWORD, JOE: PASSWORD}
    with running(
        home,
        personality=personality,
        users=users,
        options=options(certificates, authority, home),
    ) as server:
        yield server


def context(certificates: Path, *, client: bool = False) -> ssl.SSLContext:
    """Return what a client uses."""
    made = ssl.create_default_context(cafile=str(certificates / "localhost.pem"))
    if client:
        made.load_cert_chain(certificates / "joe.pem")
    return made


def start_tls(wire: Wire, with_context: ssl.SSLContext) -> ssl.SSLSocket:
    """Change to TLS."""
    wire.ok(b"STLS")
    wire.start_tls(with_context)
    assert isinstance(wire.socket, ssl.SSLSocket)
    return wire.socket


def b64(octets: bytes) -> bytes:
    """Encode; an empty initial response is "="."""
    return base64.b64encode(octets) or b"="


def ask(wire: Wire, line: bytes) -> bytes:
    """Send a line, return the challenge that must follow."""
    said = wire.command(line)
    assert said.startswith(b"+ "), said
    return base64.b64decode(said[2:], validate=True)


def scram(wire: Wire, client: ScramClient, mechanism: str) -> bytes:
    """Run SCRAM, return the reply."""
    first = client.get_client_first().encode()
    client.set_server_first(ask(wire, f"AUTH {mechanism} ".encode() + b64(first)).decode())
    said = wire.command(b64(client.get_client_final().encode()))
    if not said.startswith(b"+ "):
        return said
    client.set_server_final(base64.b64decode(said[2:]).decode())
    return wire.command(b"")


def mechanisms(wire: Wire) -> set[bytes]:
    """Return what CAPA offers."""
    lines = [line for line in wire.lines(b"CAPA") if line.startswith(b"SASL ")]
    assert set(wire.lines(b"AUTH")) == set(lines[0].split()[1:])
    return set(lines[0].split()[1:])


def test_without_tls(full: RunningServer) -> None:
    """SCRAM in clear: wrong, unknown, cancelled, right; all refusals alike, and no PLUS."""
    with full.connect() as wire:
        assert mechanisms(wire) == {
            b"SCRAM-SHA-256", b"SCRAM-SHA-1", b"CRAM-MD5", b"PLAIN", b"OAUTHBEARER", b"XOAUTH2",
        }  # fmt: skip
        wrong = scram(wire, ScramClient(["SCRAM-SHA-256"], JOE, "x"), "SCRAM-SHA-256")
        unknown = scram(wire, ScramClient(["SCRAM-SHA-256"], "no", "x"), "SCRAM-SHA-256")
        assert wrong == unknown == b"-ERR [AUTH] authentication failed"
        ask(wire, b"AUTH SCRAM-SHA-1")
        assert wire.command(b"*").startswith(b"-ERR")
        client = ScramClient(["SCRAM-SHA-256"], JOE, PASSWORD)
        assert scram(wire, client, "SCRAM-SHA-256").startswith(b"+OK")
        wire.ok(b"STAT")
        wire.quit()


@pytest.mark.parametrize("binding", ["tls-server-end-point", "tls-unique"])
def test_channel_binding(full: RunningServer, certificates: Path, binding: str) -> None:
    """-PLUS is bound to our certificate or handshake; a binding to another one is refused."""
    tls = context(certificates)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    if binding == "tls-server-end-point":
        tls.maximum_version = ssl.TLSVersion.TLSv1_3
    with full.connect() as wire:
        socket = start_tls(wire, tls)
        assert b"SCRAM-SHA-256-PLUS" in mechanisms(wire)
        octets = socket.get_channel_binding("tls-unique")
        if binding == "tls-server-end-point":
            octets = hashlib.sha384(socket.getpeercert(binary_form=True) or b"").digest()
        assert octets is not None
        names = ["SCRAM-SHA-256-PLUS"]
        for bound, good in ((octets[::-1], False), (octets, True)):
            client = ScramClient(names, JOE, PASSWORD, channel_binding=(binding, bound))
            assert scram(wire, client, names[0]).startswith(b"+OK") == good
        wire.quit()


def test_external(full: RunningServer, certificates: Path) -> None:
    """Offered to who shows a certificate, for the name in it and no other."""
    with full.connect() as wire:
        start_tls(wire, context(certificates))
        assert b"EXTERNAL" not in mechanisms(wire)
        wire.err(b"AUTH EXTERNAL =")
    with full.connect() as wire:
        start_tls(wire, context(certificates, client=True))
        assert b"EXTERNAL" in mechanisms(wire)
        assert wire.command(b"AUTH EXTERNAL " + b64(b"anna@example.com")).startswith(b"-ERR [AUTH]")
        assert ask(wire, b"AUTH EXTERNAL") == b""
        assert wire.command(b"").startswith(b"+OK")
        wire.quit()


def test_token(full: RunningServer, authority: Authority) -> None:
    """A refused token gets its JSON and then -ERR; a good one logs in; neither is logged."""
    good, bad = authority.token(), authority.token(exp=1)
    with full.connect() as wire:
        for token in (bad, good):
            response = f"n,a=anna@example.com,\x01auth=Bearer {token}\x01\x01".encode()
            said = wire.command(b"AUTH OAUTHBEARER " + b64(response))
            if token == bad:
                assert b'"status": "invalid_token"' in base64.b64decode(said[2:])
                said = wire.command(b64(b"\x01"))
                assert said == b"-ERR [AUTH] authentication failed"
        assert said.startswith(b"+OK")
        wire.quit()
    assert not any(token in full.log_text() for token in (good, bad))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    mechanism=st.sampled_from(ASKED.split(",")),
    lines=st.lists(
        st.one_of(
            st.binary(max_size=30).filter(lambda line: not set(line) & set(b"\r\n")),
            st.binary(max_size=30).map(base64.b64encode),
            st.sampled_from([b"", b"=", b"*", b"biws", b64(b"n,,n=joe,r=abc"), b"A" * 9000]),
        ),
        min_size=4,
        max_size=4,
    ),
)
def test_any_continuation_gets_one_answer(
    one: RunningServer, mechanism: str, lines: list[bytes]
) -> None:
    """Each line gets one reply, the exchange ends, and the session can still be used."""
    with one.connect() as wire:
        said = wire.command(b"AUTH " + mechanism.encode())
        for line in lines:
            if not said.startswith(b"+ "):
                break
            said = wire.command(line)
        assert said.startswith(b"-ERR ")
        wire.lines(b"CAPA")
        wire.ok(f"USER {JOE}".encode())
        wire.ok(f"PASS {PASSWORD}".encode())


@pytest.fixture(scope="module")
def one(
    certificates: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """Serve everything under gevent, with a message for joe."""
    home = tmp_path_factory.mktemp("one")
    more = ("--apop", "--listen", "tls://127.0.0.1:0")
    users = {JOE: PASSWORD, "anna@example.com": PASSWORD}
    with running(
        home,
        personality="gevent",
        users=users,
        options=[*options(certificates, authority, home), *more],
    ) as server:
        make_maildir(server.maildir(JOE), [PLAIN])
        make_maildir(server.maildir("anna@example.com"), [PLAIN])
        yield server
        assert PASSWORD not in server.log_text()
        assert "session failed" not in server.log_text()


def ran(command: Sequence[str], home: Path) -> str:
    """Run a client to its end; return what it said."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        command,
        cwd=home,
        env={"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    return said


@pytest.mark.parametrize("secret", ["password", "token"])
def test_curl(one: RunningServer, authority: Authority, tmp_path: Path, secret: str) -> None:
    """What curl can do: CRAM-MD5, APOP and both ways of tokens."""
    url = f"pop3://127.0.0.1:{one.port}/1"
    kinds = ("CRAM-MD5", "PLAIN", "+APOP") if secret == "password" else ("XOAUTH2", "OAUTHBEARER")
    for kind in kinds:
        who = ["--user", f"{JOE}:{PASSWORD}"]
        if secret == "token":
            who = ["--user", "anna@example.com", "--oauth2-bearer", authority.token()]
        login = ["--login-options", f"AUTH={kind}"]
        said = ran(["curl", "--silent", "--show-error", *login, *who, url], tmp_path)
        assert said.splitlines()[0] == PLAIN.decode().splitlines()[0]


MPOP = "scram-sha-256 scram-sha-1 cram-md5 apop plain external oauthbearer xoauth2"


@pytest.mark.parametrize("kind", MPOP.split())
def test_mpop(
    one: RunningServer, certificates: Path, authority: Authority, tmp_path: Path, kind: str
) -> None:
    """GNU SASL agrees with us."""
    tokens = kind in ("oauthbearer", "xoauth2")
    user = "anna@example.com" if tokens else JOE
    lines = [
        "account default", "host localhost", f"port {one.port}", f"user {user}", f"auth {kind}",
        f"password {authority.token() if tokens else PASSWORD}", "keep on", "delivery mbox box",
        "tls on", "tls_starttls on", f"tls_trust_file {certificates}/localhost.pem",
        "uidls_file uidls",
    ]  # fmt: skip
    if kind == "external":
        lines += [f"tls_cert_file {certificates}/joe.pem", f"tls_key_file {certificates}/joe.pem"]
    rc = private_file(tmp_path / "mpoprc", "\n".join(lines) + "\n")
    ran(["mpop", f"--file={rc}"], tmp_path)
    assert (tmp_path / "box").stat().st_size > len(PLAIN)


@pytest.mark.parametrize("how", ["protocol apop", "protocol pop3 auth cram-md5"])
def test_fetchmail(one: RunningServer, tmp_path: Path, how: str) -> None:
    """Old hands do it by digests."""
    protocol, _, auth = how.partition(" auth ")
    text = (
        f"poll 127.0.0.1 {protocol} service {one.port} {'auth ' + auth if auth else ''}\n"
        f'username "{JOE}" password "{PASSWORD}" keep sslproto "" mda "cat >>{tmp_path}/box"\n'
    )
    rc = private_file(tmp_path / "rc", text)
    ran(["fetchmail", "--nodetach", "-f", str(rc), "--pidfile", str(tmp_path / "pid")], tmp_path)
    assert (tmp_path / "box").stat().st_size > 0


def test_a_certificate_may_be_demanded(start: Start, certificates: Path) -> None:
    """--tls-client-ca alone: no certificate, no session."""
    server = start(
        personality="single",
        users={JOE: "!x"},
        options=[
            *("--tls-cert", str(certificates / "localhost.pem")),
            *("--tls-client-ca", str(certificates / "joe.pem"), "--plaintext-auth", "tls"),
        ],
        listen=("tls://127.0.0.1:0",),
    )
    with (
        pytest.raises((ssl.SSLError, ConnectionError, EOFError)),
        Wire(server.host, server.port, tls=context(certificates)),
    ):
        pass
    with Wire(server.host, server.port, tls=context(certificates, client=True)) as wire:
        assert wire.command(b"AUTH EXTERNAL =").startswith(b"+OK")
        wire.quit()
