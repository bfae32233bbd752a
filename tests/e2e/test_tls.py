"""TLS: STLS (RFC 2595) and implicit TLS; nothing from before the handshake survives it."""

import base64
import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import Start
from tests.support.maildirs import HEADER, NASTY, PLAIN, make_maildir, with_crlf
from tests.support.servers import RunningServer, running
from tests.support.wire import Wire


def make_certificate(directory: Path) -> Path:
    """Write a self-signed certificate for localhost with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "cert.pem"
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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key in one file."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def context(certificate: Path) -> ssl.SSLContext:
    """Return what a careful client uses: it trusts this certificate only."""
    return ssl.create_default_context(cafile=str(certificate))


@pytest.fixture(scope="module")
def tls_server(
    personality: str, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """Offer STLS under each personality, and implicit TLS under all but inetd."""
    options = ("--tls-cert", str(certificate), "--lock-wait", "1")
    home = tmp_path_factory.mktemp("tls")
    users = {f"user{number}": "secret" for number in range(9)} | {"anna": "secret"}
    listen = ("127.0.0.1:0", "tls://127.0.0.1:0")
    with running(
        home, personality=personality, options=options, users=users, listen=listen
    ) as server:
        make_maildir(server.maildir(), [PLAIN, NASTY["dot CR without LF"], NASTY["1 MiB"]])
        yield server


def start_tls(wire: Wire, context: ssl.SSLContext) -> None:
    """STLS and the handshake."""
    wire.ok(b"STLS")
    wire.start_tls(context)


def test_stls_session(tls_server: RunningServer, context: ssl.SSLContext) -> None:
    """CAPA offers STLS, a whole session works after it, CAPA no longer offers it."""
    with tls_server.connect() as wire:
        assert b"STLS" in wire.lines(b"CAPA")
        start_tls(wire, context)
        assert b"STLS" not in wire.lines(b"CAPA")
        wire.login()
        assert wire.message(b"RETR 1") == with_crlf(PLAIN)
        assert wire.message(b"RETR 3") == with_crlf(NASTY["1 MiB"])
        wire.quit()


def test_a2_13_dot_and_cr_at_the_end_under_tls(
    tls_server: RunningServer, context: ssl.SSLContext
) -> None:
    r"""Row 13 of the faults: the last line ".\r" without LF, under TLS."""
    with tls_server.connect() as wire:
        start_tls(wire, context)
        wire.login()
        assert wire.message(b"RETR 2") == with_crlf(HEADER + b"\nlast\n.\r")
        wire.ok(b"NOOP")


def test_implicit_tls(tls_server: RunningServer, context: ssl.SSLContext, start: Start) -> None:
    """A tls:// listener speaks TLS from the first octet."""
    server, number = tls_server, 1
    if server.personality == "inetd":
        cert = tls_server.super_server.command  # type: ignore[union-attr]
        path = cert[cert.index("--tls-cert") + 1]
        options = ("--tls-cert", path, "--listen", "tls:stdin")
        server, number = start(personality="inetd", options=options), 0
        make_maildir(server.maildir(), [PLAIN])
    host, port = server.endpoint(number)
    with Wire(host, port, tls=context) as wire:
        said = wire.lines(b"CAPA")
        assert b"STLS" not in said
        wire.err(b"STLS")
        wire.login()
        assert wire.message(b"RETR 1") == with_crlf(PLAIN)
        wire.quit()


def test_octets_after_stls_in_the_same_packet_are_never_executed(
    tls_server: RunningServer, context: ssl.SSLContext
) -> None:
    """Command injection (CVE-2021-38084 and its family): dropped, or the connection is."""
    with tls_server.connect() as wire:
        wire.send(b"STLS\r\nUSER anna\r\nCAPA\r\nNOOP\r\n")
        assert wire.reply().startswith(b"+OK")
        try:
            wire.start_tls(context)
        except (ssl.SSLError, ConnectionError, EOFError):
            return
        assert wire.err(b"PASS secret")
        wire.err(b"NOOP")
        wire.lines(b"CAPA")


def test_a2_20_half_a_command_does_not_survive(
    tls_server: RunningServer, context: ssl.SSLContext
) -> None:
    """Row 20 of the faults: the begin of a command in clear is not finished inside TLS."""
    with tls_server.connect() as wire:
        wire.send(b"STLS\r\nUSER an")
        assert wire.reply().startswith(b"+OK")
        try:
            wire.start_tls(context)
        except (ssl.SSLError, ConnectionError, EOFError):
            return
        wire.err(b"na")
        wire.err(b"PASS secret")


def test_the_user_is_forgotten(tls_server: RunningServer, context: ssl.SSLContext) -> None:
    """USER before STLS does not count after it."""
    with tls_server.connect() as wire:
        wire.ok(b"USER anna")
        start_tls(wire, context)
        wire.err(b"PASS secret")
        wire.login()


def test_stls_is_refused_where_it_does_not_belong(
    tls_server: RunningServer, context: ssl.SSLContext
) -> None:
    """Not with an argument, not after login, not twice, not inside AUTH."""
    with tls_server.connect() as wire:
        wire.err(b"STLS x")
        assert wire.command(b"AUTH PLAIN").startswith(b"+ ")
        wire.err(b"STLS")
    with tls_server.connect() as wire:
        start_tls(wire, context)
        wire.err(b"STLS")
        wire.login()
        wire.err(b"STLS")
        wire.ok(b"NOOP")


def test_a_failed_handshake_ends_only_that_connection(
    tls_server: RunningServer, context: ssl.SSLContext
) -> None:
    """Plain text or nothing where TLS is expected: closed, and the server goes on."""
    with tls_server.connect() as wire:
        wire.ok(b"STLS")
        wire.send(b"USER anna\r\nPASS secret\r\n" * 10)
        assert b"+OK" not in wire.read_to_end()
    with tls_server.connect() as wire:
        wire.ok(b"STLS")
        wire.reset()
    with tls_server.connect() as wire:
        start_tls(wire, context)
        wire.quit()


def test_old_protocols_are_refused(tls_server: RunningServer, certificate: Path) -> None:
    """TLS below 1.2 is no TLS."""
    old = ssl.create_default_context(cafile=str(certificate))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with tls_server.connect() as wire:
        wire.ok(b"STLS")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            wire.start_tls(old)


@pytest.mark.parametrize("kind", ["single", "gevent"])
def test_plaintext_auth_only_under_tls(
    start: Start, certificate: Path, context: ssl.SSLContext, kind: str
) -> None:
    """--plaintext-auth tls: no password crosses in clear, and CAPA does not ask for one."""
    options = ("--tls-cert", str(certificate), "--plaintext-auth", "tls")
    server = start(personality=kind, options=options)
    response = base64.b64encode(b"\0anna\0secret")
    with server.connect() as wire:
        said = wire.lines(b"CAPA")
        assert b"USER" not in said
        assert not any(b"PLAIN" in line or b"LOGIN" in line.split() for line in said)
        wire.err(b"USER anna")
        wire.err(b"AUTH PLAIN " + response)
        start_tls(wire, context)
        said = wire.lines(b"CAPA")
        assert b"USER" in said
        wire.ok(b"AUTH PLAIN " + response)
        wire.quit()


def test_term_and_idle_time_under_tls(
    start: Start, certificate: Path, context: ssl.SSLContext
) -> None:
    """The last words of a stopping server arrive inside TLS."""
    server = start(personality="gevent", options=("--tls-cert", str(certificate)))
    with server.connect() as wire:
        start_tls(wire, context)
        wire.login()
        server.signal(15)
        assert wire.reply().startswith(b"-ERR [SYS/TEMP] ")
