"""TLS contexts: which certificate is shown, and what is said about wrong files."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from netserver.errors import ConfigError, ConnectionLost
from netserver.tls import server_context
from netserver.tls_layer import TLSInfo, TLSLayer
from tests.netserver.certs import make_certificate


def shake_hands(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    name: str | None = None,
    session: ssl.SSLSession | None = None,
) -> tuple[TLSInfo, ssl.SSLObject]:
    """Let both sides talk over memory until they agree; return what each got."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = TLSLayer(server)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    done: set[object] = set()
    for _ in range(10):
        try:
            theirs.do_handshake()
            done.add(theirs)
        except ssl.SSLWantReadError:
            pass
        try:
            if data := to_server.read():
                ours.feed(data)
            if ours.handshake():
                done.add(ours)
        except ConnectionLost:
            to_client.write(ours.pull())
            theirs.do_handshake()  # an alert: the client's error tells most
            raise
        to_client.write(ours.pull())
        if len(done) == 2:
            to_client.write(ours.encrypt(b"+OK\r\n"))
            assert theirs.read(10) == b"+OK\r\n"
            return ours.info(), theirs
    raise AssertionError("no end of the handshake")


def client_context(*trusted: Path) -> ssl.SSLContext:
    """Return a client that believes only these certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in trusted:
        context.load_verify_locations(path)
    return context


def anyone() -> ssl.SSLContext:
    """Return a client that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def context_of(*paths: tuple[Path, Path | None], **options: str) -> ssl.SSLContext:
    """Return a server context of these pairs of files."""
    pairs = [(str(cert), None if key is None else str(key)) for cert, key in paths]
    return server_context(pairs, **options)  # type: ignore[arg-type]


def shown(_: TLSInfo, theirs: ssl.SSLObject) -> bytes:
    """Return the certificate that the client got."""
    got = theirs.getpeercert(binary_form=True)
    assert got is not None
    return got


def der(path: Path) -> bytes:
    """Return a certificate file's content as it is sent."""
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def test_a_client_that_checks_the_name_is_content(tmp_path: Path) -> None:
    """A certificate made for localhost serves a verifying client by TLS 1.3."""
    pair = make_certificate(tmp_path)
    ours, theirs = shake_hands(context_of(pair), client_context(pair[0]), "localhost")
    assert theirs.version() == "TLSv1.3"
    assert ours.server_name == "localhost"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("a.example", "a.example"),
        ("also-a.example", "a.example"),
        ("B.Example", "b.example"),
        ("pop.c.example", "_.c.example"),
        ("deep.pop.c.example", "a.example"),
        ("c.example", "a.example"),
        ("unknown.example", "a.example"),
        (None, "a.example"),
    ],
)
def test_the_certificate_follows_the_name_asked_for(
    tmp_path: Path, asked: str | None, expected: str
) -> None:
    """SNI chooses by alternative names, a wildcard stands for one label, the first is default."""
    server = context_of(
        make_certificate(tmp_path, ("a.example", "also-a.example")),
        make_certificate(tmp_path, ("b.example",)),
        make_certificate(tmp_path, ("*.c.example",)),
    )
    assert shown(*shake_hands(server, anyone(), asked)) == der(tmp_path / f"{expected}.crt")


def test_key_may_stand_in_the_certificate_file(tmp_path: Path) -> None:
    """One file with both is enough."""
    cert, key = make_certificate(tmp_path)
    cert.write_text(key.read_text() + cert.read_text())
    shake_hands(context_of((cert, None)), anyone())


def test_old_versions_are_refused(tmp_path: Path) -> None:
    """TLS 1.2 is the least by default, 1.3 when asked for."""
    pair = make_certificate(tmp_path)
    client = anyone()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    _, theirs = shake_hands(context_of(pair), client)
    assert theirs.version() == "TLSv1.2"
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL"):
        shake_hands(context_of(pair, min_version="TLSv1.3"), client)


def test_renegotiation_and_compression_are_off(tmp_path: Path) -> None:
    """The context says so."""
    options = context_of(make_certificate(tmp_path)).options
    assert options & ssl.OP_NO_RENEGOTIATION
    assert options & ssl.OP_NO_COMPRESSION


def test_sessions_are_resumed_but_not_where_clients_have_certificates(tmp_path: Path) -> None:
    """A ticket spares the second handshake's certificate; with a client CA there is none."""
    pair = make_certificate(tmp_path)
    server, client = context_of(pair), anyone()
    _, first = shake_hands(server, client)
    _, second = shake_hands(server, client, session=first.session)
    assert second.session_reused
    closed = context_of(pair, client_ca=str(pair[0]), client_cert="optional")
    _, third = shake_hands(closed, client)
    assert third.session is None or not third.session.has_ticket


def test_a_ticket_is_no_good_elsewhere(tmp_path: Path) -> None:
    """Not at another listener, not under another name of the same one (CVE-2025-23419)."""
    one, other = (make_certificate(tmp_path, (name,)) for name in ("a.example", "b.example"))
    listener, second = context_of(one, other), context_of(one)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = anyone()
        client.maximum_version = version
        _, first = shake_hands(listener, client, "a.example")
        session = first.session
        for server, name, expected in (
            (listener, "a.example", True),
            (listener, "b.example", False),
            (second, "a.example", False),
        ):
            _, again = shake_hands(server, client, name, session)
            assert again.session_reused is expected


def test_client_certificate_is_required_where_a_ca_is_given(tmp_path: Path) -> None:
    """Without one there is no connection, unless it is optional."""
    pair = make_certificate(tmp_path)
    required = context_of(pair, client_ca=str(pair[0]))
    client = anyone()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"PEER_DID_NOT_RETURN|HANDSHAKE_FAILURE"):
        shake_hands(required, client)
    shake_hands(context_of(pair, client_ca=str(pair[0]), client_cert="optional"), client)


def test_application_protocol_is_agreed_on(tmp_path: Path) -> None:
    """ALPN takes the server's word, also from a certificate chosen by name."""
    pairs = [make_certificate(tmp_path, (name,)) for name in ("a.example", "b.example")]
    server = server_context([(str(c), str(k)) for c, k in pairs], alpn=["pop3"])
    client = anyone()
    client.set_alpn_protocols(["http/1.1", "pop3"])
    ours, _ = shake_hands(server, client, "b.example")
    assert ours.alpn == "pop3"


def test_who_speaks_other_protocols_only_is_refused(tmp_path: Path) -> None:
    """By the alert of RFC 7301 §3.2; who says nothing of protocols is welcome."""
    cert, key = make_certificate(tmp_path)
    server = server_context([(str(cert), str(key))], alpn=["pop3"])
    client = anyone()
    client.set_alpn_protocols(["h2", "http/1.1"])
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        shake_hands(server, client)
    ours, _ = shake_hands(server, anyone())
    assert ours.alpn is None
    shake_hands(context_of((cert, key)), client)  # a server without a word of its own


def test_ciphers_have_forward_secrecy_and_authenticate(tmp_path: Path) -> None:
    """All of them; TLS 1.3 has no others."""
    context = context_of(make_certificate(tmp_path))
    for cipher in context.get_ciphers():
        assert cipher["aead"], cipher["name"]
        assert cipher["kea"] in {"kx-ecdhe", "kx-any"}, cipher["name"]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    """Each mistake gives one line with the option, the file and what is wrong with it."""
    cert, key = make_certificate(tmp_path)
    _, other_key = make_certificate(tmp_path, ("other.example",))
    _, locked = make_certificate(tmp_path, ("locked.example",), passphrase=b"tiger")
    gone, junk = tmp_path / "gone.pem", tmp_path / "junk.pem"
    junk.write_text("nothing\n")
    broken = tmp_path / "broken.pem"
    broken.write_text(cert.read_text().replace("M", "N", 5))
    for pair, expected in [
        ((gone, key), f"--tls-cert {gone}: no such file or directory"),
        ((cert, gone), f"--tls-key {gone}: no such file or directory"),
        ((tmp_path, key), f"--tls-cert {tmp_path}: is a directory"),
        ((junk, key), f"--tls-cert {junk}: no certificate in PEM form in it"),
        ((cert, cert), f"--tls-key {cert}: no private key in PEM form in it"),
        ((cert, None), f"--tls-cert {cert}: no private key in PEM form in it"),
        ((cert, other_key), f"--tls-key {other_key}: the key does not belong to {cert}"),
        ((cert, locked), f"--tls-key {locked}: the key is encrypted"),
        ((broken, key), f"--tls-cert {broken}: "),
    ]:
        with pytest.raises(ConfigError) as caught:
            context_of(pair)
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)


def test_wrong_options_are_named(tmp_path: Path) -> None:
    """An unknown version, client mode or CA file, and no certificate at all."""
    pair = make_certificate(tmp_path)
    with pytest.raises(ConfigError, match=r"--tls-min-version 1\.1: known are 1\.2 and 1\.3"):
        context_of(pair, min_version="1.1")
    with pytest.raises(ConfigError, match="--tls-client-cert maybe"):
        context_of(pair, client_ca=str(pair[0]), client_cert="maybe")
    with pytest.raises(ConfigError, match=r"--tls-client-ca .*gone: no such file"):
        context_of(pair, client_ca=str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="no certificate is given"):
        server_context([])


def test_name_choice_works_in_a_patched_process(tmp_path: Path) -> None:
    """The callback works with the SSLContext of gevent too."""
    for name in ("a.example", "b.example"):
        make_certificate(tmp_path, (name,))
    program = """
import sys
from gevent import monkey
monkey.patch_all()
from pathlib import Path
from tests.netserver import test_tls as t
here = Path(sys.argv[1])
pairs = [(here / f"{name}.example.crt", here / f"{name}.example.key") for name in "ab"]
got = t.shown(*t.shake_hands(t.context_of(*pairs), t.anyone(), "b.example"))
assert got == t.der(pairs[1][0])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
