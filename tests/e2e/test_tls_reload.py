"""Certificates that are replaced while the server runs, and tickets that outlive workers."""

import os
import signal
import ssl
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.netserver.certs import make_certificate
from tests.support.maildirs import PLAIN, make_maildir, with_crlf
from tests.support.processes import wait_until
from tests.support.servers import RunningServer
from tests.support.wire import Wire

KINDS = ("single", "fork", "prefork", "gevent")
TLS_LISTENER = ("tls://127.0.0.1:0",)


def anyone(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return a client that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    return context


class Pair:
    """A certificate with its key in a server's files, and how certbot would replace them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self.cert, self.key = make_certificate(home)

    @property
    def options(self) -> tuple[str, ...]:
        """Return the options that name it."""
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))

    def replace(self) -> None:
        """Put another pair in its place, by renames, one after the other."""
        fresh = self.home / "fresh"
        fresh.mkdir()
        cert, key = make_certificate(fresh)
        cert.replace(self.cert)
        key.replace(self.key)
        fresh.rmdir()

    def der(self) -> bytes:
        """Return what a client is to see now."""
        return ssl.PEM_cert_to_DER_cert(self.cert.read_text())


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return files that are there."""
    return Pair(tmp_path / "tls")


def shown(server: RunningServer) -> bytes:
    """Return the certificate that a new client gets."""
    host, port = server.endpoint(0)
    with Wire(host, port, tls=anyone()) as wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        return wire.socket.getpeercert(binary_form=True) or b""


def wait_for_the_new(server: RunningServer, pair: Pair) -> None:
    """Wait until new clients see what is in the file."""
    wait_until(lambda: shown(server) == pair.der(), 20, "the new certificate")


@pytest.mark.parametrize("kind", KINDS)
def test_a_renewed_certificate_is_shown_without_a_signal(
    start: Start, pair: Pair, kind: str
) -> None:
    """New clients see it, sessions go on, the master is the same, and one line says so."""
    server = start(personality=kind, listen=TLS_LISTENER, options=pair.options)
    make_maildir(server.maildir(), [PLAIN])
    host, port = server.endpoint(0)
    old = pair.der()
    assert shown(server) == old
    before = Wire(host, port, tls=anyone())
    with before:
        before.login()
        if kind == "single":
            before.quit()  # it serves nobody else meanwhile
        pair.replace()
        wait_for_the_new(server, pair)
        if kind != "single":
            assert before.message(b"RETR 1") == with_crlf(PLAIN)
            before.quit()
    assert pair.der() != old
    assert server.log_text().count("new certificates are shown") == 1
    assert '"level":"error"' not in server.log_text()


def test_inetd_reads_them_for_each_client(start: Start, pair: Pair) -> None:
    """So the next one sees what is there."""
    options = (*pair.options, "--listen", "tls:stdin")
    server = start(personality="inetd", options=options)
    assert shown(server) == pair.der()
    pair.replace()
    assert shown(server) == pair.der()


@pytest.mark.parametrize("kind", ["prefork", "gevent"])
def test_workers_are_replaced_in_good_order(start: Start, pair: Pair, kind: str) -> None:
    """The old ones end when their clients have gone; nobody is turned away."""
    server = start(personality=kind, listen=TLS_LISTENER, options=(*pair.options, "--workers", "2"))
    old = set(server.workers())
    pair.replace()
    wait_for_the_new(server, pair)
    wait_until(lambda: not old & set(server.workers()), 15, "the end of the old workers")
    wait_until(lambda: len(server.workers()) == 2, 15, "as many workers as before")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights up")
@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_workers_need_no_right_to_read_the_key(
    start: Start, pair: Pair, tmp_path: Path, kind: str
) -> None:
    """The master reads it; who serves runs as nobody and could not."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/") and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    pair.home.chmod(0o700)
    rights = ("--user", "nobody", "--group", "nogroup", "--state", f"sqlite:///{tmp_path}/st/db")
    server = start(personality=kind, listen=TLS_LISTENER, options=(*pair.options, *rights))
    assert shown(server) == pair.der()
    pair.replace()
    wait_for_the_new(server, pair)


def test_a_broken_certificate_changes_nothing(start: Start, pair: Pair) -> None:
    """The old one is shown as long as the new one cannot be used; a HUP is refused."""
    server = start(personality="gevent", listen=TLS_LISTENER, options=pair.options)
    old = pair.der()
    kept = pair.cert.read_bytes()
    pair.cert.write_text("half of it")
    server.signal(signal.SIGHUP)
    server.wait_for_log("reload refused, the old configuration stays")
    assert shown(server) == old
    pair.cert.write_bytes(kept)
    pair.replace()
    wait_for_the_new(server, pair)


# -- tickets --------------------------------------------------------------------------------------


class Client:
    """A client that keeps its session."""

    def __init__(self, server: RunningServer, version: ssl.TLSVersion) -> None:
        self.server = server
        self.context = anyone(version)
        self.session: ssl.SSLSession | None = None
        self.connect().close()

    def connect(self) -> "ssl.SSLSocket":
        """Return a connection that was greeted, and keep its ticket if there was none."""
        host, port = self.server.endpoint(0)
        wire = Wire(host, port, greeted=False)
        wire.socket.settimeout(wire.timeout)
        wire.socket = self.context.wrap_socket(wire.socket, session=self.session)
        assert wire.line().startswith(b"+OK")
        self.session = self.session or wire.socket.session
        return wire.socket

    def resumed(self) -> bool:
        """Whether a connection made now begins with the ticket."""
        with self.connect() as connection:
            return bool(connection.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["fork", "prefork", "gevent"])
def test_tickets_are_good_at_all_workers(
    start: Start, pair: Pair, kind: str, version: ssl.TLSVersion
) -> None:
    """8 of 8 are resumed, by other processes than the one that gave it; not after a HUP."""
    pool = () if kind == "fork" else ("--workers", "8" if kind == "prefork" else "2")
    server = start(personality=kind, listen=TLS_LISTENER, options=(*pair.options, *pool))
    client = Client(server, version)
    open_now = [client.connect() for _ in range(8)]
    assert [connection.session_reused for connection in open_now] == [True] * 8
    for connection in open_now:
        connection.close()
    if kind != "fork":
        old = server.workers()
        for worker in old:
            os.kill(worker, signal.SIGTERM)
        wait_until(
            lambda: len(server.workers()) == len(old) and not set(old) & set(server.workers()),
            15,
            "other workers",
        )
        assert client.resumed()
    server.reload()
    wait_until(lambda: not client.resumed(), 15, "new keys after HUP")


def test_a_ticket_is_lost_with_the_certificate_it_was_for(start: Start, pair: Pair) -> None:
    """After a renewal the next client shakes hands anew and sees the new certificate."""
    server = start(personality="fork", listen=TLS_LISTENER, options=pair.options)
    client = Client(server, ssl.TLSVersion.TLSv1_3)
    assert client.resumed()
    pair.replace()
    wait_until(lambda: not client.resumed(), 15, "a full handshake")
