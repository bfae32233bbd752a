"""TLS: STLS (RFC 2595) and implicit TLS; nothing from before the handshake survives it."""

import base64
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.netserver.certs import make_certificate as make_pair
from tests.support.maildirs import HEADER, NASTY, PLAIN, make_maildir, with_crlf
from tests.support.processes import wait_until
from tests.support.servers import RunningServer, running
from tests.support.wire import Wire

OTHER_NAMES = ("other.example", "*.wild.example", "xn--mller-kva.example")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
# what OpenSSL decides alike everywhere is asked of a patched process and of a plain one
two_kinds = pytest.mark.parametrize("personality", ["fork", "gevent"], indirect=True)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")


def make_certificate(directory: Path) -> Path:
    """Write a self-signed certificate for localhost, its key in the same file."""
    certificate, key = make_pair(directory)
    path = directory / "cert.pem"
    path.write_bytes(certificate.read_bytes() + key.read_bytes())
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
    home = tmp_path_factory.mktemp("tls")
    other = tmp_path_factory.mktemp("other") / "both.pem"
    other.write_bytes(b"".join(path.read_bytes() for path in make_pair(other.parent, OTHER_NAMES)))
    options = ("--tls-cert", str(certificate), "--tls-cert", str(other), "--lock-wait", "1")
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


@pytest.mark.parametrize(
    "injected",
    [
        b"USER anna\r\nPASS secret\r\n",
        b"AUTH PLAIN " + base64.b64encode(b"\0anna\0secret") + b"\r\n",
        b"\r\nUSER anna\nPASS secret",
        b"STLS\r\nQUIT\r\n",
    ],
)
def test_injected_commands_have_no_effect(
    tls_server: RunningServer, context: ssl.SSLContext, injected: bytes
) -> None:
    """Whatever came with STLS in clear: inside TLS nobody is logged in, named or gone."""
    with tls_server.connect() as wire:
        wire.send(b"stls\n" + injected)
        assert wire.reply().startswith(b"+OK")
        try:
            wire.start_tls(context)
        except (ssl.SSLError, ConnectionError, EOFError):
            return  # closed is good, too
        wire.err(b"STAT")
        wire.err(b"PASS secret")
        assert wire.received.count(b"\r\n") == 4  # greeting, STLS, and these two
        wire.login()
        wire.quit()


def hello(context: ssl.SSLContext, name: str = "localhost") -> bytes:
    """Return what a client says first."""
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_a_handshake_that_begins_too_early_is_no_handshake(
    tls_server: RunningServer, context: ssl.SSLContext
) -> None:
    """A TLS record in STLS's own packet is dropped as all that came in clear; a new one counts."""
    with tls_server.connect() as wire:
        wire.send(b"STLS\r\n" + hello(context))
        assert wire.reply().startswith(b"+OK")
        try:
            wire.start_tls(context)
        except (ssl.SSLError, ConnectionError, EOFError):
            return
        wire.login()
        wire.quit()


def test_a_handshake_that_breaks_off_leaves_nothing(
    tls_server: RunningServer, context: ssl.SSLContext
) -> None:
    """In the middle of a ClientHello or after it: closed or garbage, no reply to any command."""
    first = hello(context)
    commands = b"\r\nUSER anna\r\nPASS secret\r\n" * 100
    for begin in (first[:100], first[:1] + commands, first + commands):
        with tls_server.connect() as wire:
            wire.ok(b"STLS")
            wire.send(begin)
            wire.half_close()
            assert b"+OK" not in wire.read_to_end()
    with tls_server.connect() as wire:
        start_tls(wire, context)
        wire.quit()


@two_kinds
@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\0" * 70])
def test_garbage_is_refused_at_once(tls_server: RunningServer, octets: bytes) -> None:
    """Without the wait for the rest: an alert and the end."""
    with tls_server.connect() as wire:
        wire.ok(b"STLS")
        wire.send(octets)
        answer = wire.read_to_end()
    assert (answer[:1], len(answer)) == (b"\x15", 7)


def test_a_name_that_is_not_ascii_is_no_error_of_ours(
    tls_server: RunningServer, context: ssl.SSLContext
) -> None:
    """An alert for the client; standard error and the log stay silent (`stop` looks at one)."""
    with tls_server.connect() as wire:
        wire.ok(b"STLS")
        wire.send(hello(context, "abcdefgh.example").replace(b"abcdefgh", b"\xff\xfe\xfdabcde"))
        assert wire.read_to_end()[:1] == b"\x15"
    assert "Traceback" not in tls_server.log_text()


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


@two_kinds
def test_http_inside_tls_closes_with_one_line(
    tls_server: RunningServer, context: ssl.SSLContext
) -> None:
    """A browser that got so far reaches no command either; the log has the session's line."""
    before = tls_server.log_text().count('"reason":"http"')
    with tls_server.connect() as wire:
        start_tls(wire, context)
        wire.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nUSER anna\r\nPASS secret\r\n")
        assert b"+OK" not in wire.read_to_end()
    wait_until(lambda: tls_server.log_text().count('"reason":"http"') > before, 10, "its line")
    assert tls_server.log_text().count('"reason":"http"') == before + 1


# -- programs -------------------------------------------------------------------------------------


def s_client(server: RunningServer, *options: str) -> str:
    """Return what openssl's client prints."""
    done = subprocess.run(
        [
            *("openssl", "s_client", "-starttls", "pop3", "-ign_eof"),
            *("-connect", f"{server.host}:{server.port}", *options),
        ],
        input="QUIT\r\n",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=20,
        check=False,
    )
    return done.stdout + done.stderr


@two_kinds
@needs_openssl
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_openssl_of_both_versions(tls_server: RunningServer, version: str) -> None:
    """Forward secrecy, no compression, secure renegotiation known, a session to the end."""
    said = s_client(tls_server, "-" + version.lower().replace(".", "_").replace("v", ""))
    assert f"New, {version}, Cipher is " in said
    assert "Compression: NONE" in said or version == "TLSv1.3"
    assert "Server Temp Key: X25519" in said
    assert "+OK" in said.rpartition("---")[2]


@two_kinds
@needs_openssl
def test_there_is_no_renegotiation(tls_server: RunningServer) -> None:
    """A client that asks for it in TLS 1.2 is told no, and gives up."""
    where = f"{tls_server.host}:{tls_server.port}"
    with subprocess.Popen(
        ("openssl", "s_client", "-starttls", "pop3", "-connect", where, "-tls1_2"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"R\n")
        client.stdin.flush()
        try:
            client.wait(20)  # its input stays open: it ends by itself
        finally:
            client.kill()
        said = client.stdout.read()
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said


@two_kinds
@needs_openssl
@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256"])
def test_weak_ciphers_are_refused(tls_server: RunningServer, cipher: str) -> None:
    """No forward secrecy, or no authenticated encryption: no handshake."""
    said = s_client(tls_server, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert "handshake failure" in said


@two_kinds
@needs_openssl
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("localhost", "localhost"),
        ("OTHER.example", "other.example"),
        ("pop.wild.example", "other.example"),
        ("xn--mller-kva.example", "other.example"),
        ("a.b.wild.example", "localhost"),
    ],
)
def test_the_certificate_is_that_of_the_name(
    tls_server: RunningServer, asked: str, shown: str
) -> None:
    """Exact, by a wildcard for one label, by an IDNA name; the first one to all others."""
    assert f"subject=CN = {shown}\n" in s_client(tls_server, "-servername", asked)


@two_kinds
@needs_openssl
def test_the_protocol_is_agreed_on_or_there_is_none(tls_server: RunningServer) -> None:
    """ALPN (RFC 7301): pop3 is agreed on; a browser's request for HTTP ends in an alert."""
    assert "ALPN protocol: pop3" in s_client(tls_server, "-alpn", "http/1.1,pop3")
    assert "No ALPN negotiated" in s_client(tls_server)
    said = s_client(tls_server, "-alpn", "h2,http/1.1")
    assert "no application protocol" in said
    assert "+OK" not in said.partition("CONNECTED")[2].partition("alert")[2]


@pytest.mark.parametrize("personality", ["single", "prefork", "gevent"], indirect=True)
@needs_openssl
@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_openssl_resumes_its_session(
    tls_server: RunningServer, tmp_path: Path, version: str
) -> None:
    """A ticket kept in a file is good later, at whichever process."""
    ticket = str(tmp_path / "ticket")
    assert "New, TLS" in s_client(tls_server, f"-{version}", "-sess_out", ticket)
    assert "Reused, TLS" in s_client(tls_server, f"-{version}", "-sess_in", ticket)


@needs_curl
@two_kinds
@pytest.mark.parametrize("implicit", [True, False])
def test_curl_reads_a_message(tls_server: RunningServer, certificate: Path, implicit: bool) -> None:
    """By tls:// and by STLS, with all of its checks."""
    port = tls_server.endpoint(1 if implicit else 0)[1]
    scheme = "pop3s" if implicit else "pop3"
    done = subprocess.run(
        [
            *("curl", "-sS", "--ssl-reqd", "--cacert", str(certificate)),
            *("--max-time", "20", "-u", "anna:secret", f"{scheme}://localhost:{port}/1"),
            *("--connect-to", f"localhost:{port}:127.0.0.1:{port}"),
        ],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == with_crlf(PLAIN)
