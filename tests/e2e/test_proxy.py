"""Behind a load balancer: the real HAProxy, and a few of our own headers."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.netserver.certs import make_certificate
from tests.support.servers import RunningServer, run_program
from tests.support.wire import Wire

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 999 110\r\n"
CONFIG = """
global
    log stderr local0 emerg
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen mail
    bind fd@{descriptor} {tls}
    server one 127.0.0.1:{port} {send}
"""


def test_a_listed_peer_introduces_its_client(start: Start, personality: str) -> None:
    """Under every process model; the log shows who it was, and the rules are about them."""
    options = ("--proxy-protocol", "127.0.0.1", "--deny", "192.0.2.8", "--log-level", "info")
    server = start(personality=personality, options=options)
    with server.connect(greeted=False) as wire:
        wire.send(HEADER + b"QUIT\r\n")
        assert wire.line().startswith(b"+OK")
        assert wire.line().startswith(b"+OK")
    server.wait_for_log('"peer":"192.0.2.7:999"')
    with server.connect(greeted=False) as wire:
        wire.send(HEADER.replace(b"192.0.2.7", b"192.0.2.8"))
        assert wire.ended()
    with server.connect(greeted=False) as wire:
        wire.send(b"CAPA\r\nQUIT\r\n")
        assert wire.ended()
    server.wait_for_log("no PROXY header")


def test_strangers_cannot_introduce_anybody(start: Start, personality: str) -> None:
    """To those who are not listed the header is a bad command."""
    server = start(personality=personality, options=("--proxy-protocol", "192.0.2.0/24"))
    with server.connect() as wire:
        wire.send(HEADER)
        assert wire.line().startswith(b"-ERR")
        wire.send(b"QUIT\r\n")
        assert wire.line().startswith(b"+OK")
    assert "192.0.2.7" not in server.log_text()


def test_a_silent_balancer_does_not_hold_a_place(start: Start) -> None:
    """The header has to come within seconds."""
    server = start(personality="gevent", options=("--proxy-protocol", "127.0.0.1"))
    with server.connect(greeted=False, timeout=12) as wire:
        assert wire.ended()


def test_one_listener_alone(start: Start) -> None:
    """`?proxy-protocol=` is about this listener; limits per source count the true clients."""
    server = start(
        personality="gevent",
        listen=("127.0.0.1:0?proxy-protocol=127.0.0.0/8", "127.0.0.1:0"),
        options=("--max-per-source", "1"),
    )
    with server.connect(greeted=False) as one, server.connect(greeted=False) as two:
        one.send(HEADER)
        assert one.line().startswith(b"+OK")
        two.send(HEADER)
        assert two.ended()
        with server.connect(greeted=False) as other:
            other.send(HEADER.replace(b"192.0.2.7", b"192.0.2.9"))
            assert other.line().startswith(b"+OK")
        with server.connect(number=1) as direct:
            direct.quit()


def test_names_are_refused(tmp_path: Path) -> None:
    """One line, exit code 2."""
    done = run_program("pop3-server", "--proxy-protocol", "balancer.example", home=tmp_path)
    assert done.returncode == 2
    assert "--proxy-protocol" in done.stderr
    assert done.stderr.count("\n") == 1


@contextmanager
def haproxy(tmp_path: Path, server: RunningServer, send: str, tls: str = "") -> Iterator[int]:
    """Run it in front of the server; yields its port."""
    if HAPROXY is None:
        pytest.skip("haproxy is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = tmp_path / "haproxy.cfg"
        text = CONFIG.format(descriptor=listener.fileno(), port=server.port, send=send, tls=tls)
        config.write_text(text)
        errors = (tmp_path / "haproxy.log").open("wb")
        with (
            errors,
            subprocess.Popen(
                [HAPROXY, "-db", "-f", str(config)],
                pass_fds=(listener.fileno(),),
                stdout=errors,
                stderr=errors,
            ) as process,
        ):
            try:
                yield listener.getsockname()[1]
            finally:
                process.terminate()
                process.wait(10)


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
def test_behind_haproxy(start: Start, tmp_path: Path, send: str) -> None:
    """The log tells the address that the client had on the other side."""
    server = start(personality="gevent", options=("--proxy-protocol", "127.0.0.1"))
    with (
        haproxy(tmp_path, server, send) as port,
        Wire("127.0.0.1", port, source="127.0.0.77") as wire,
    ):
        client = "{}:{}".format(*wire.socket.getsockname())
        wire.login("anna")
        wire.quit()
    server.wait_for_log(f'"peer":"{client}"')


def test_tls_ends_at_haproxy(start: Start, tmp_path: Path) -> None:
    """A password may come where plain text may not: it was encrypted; STLS is not offered twice."""
    certificate, key = make_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    server = start(
        personality="gevent",
        options=(
            *("--proxy-protocol", "127.0.0.1", "--plaintext-auth", "tls"),
            *("--tls-cert", str(certificate), "--tls-key", str(key)),
        ),
    )
    trust = ssl.create_default_context(cafile=str(certificate))
    with (
        haproxy(tmp_path, server, "send-proxy-v2-ssl", f"ssl crt {both}") as port,
        Wire("127.0.0.1", port, tls=trust) as wire,
    ):
        assert b"STLS" not in wire.lines(b"CAPA")
        wire.login("anna")
        wire.quit()
    server.wait_for_log('"tls":"TLSv1.3"')
