"""Lines, command lines, PROXY headers, TLS and listen specs."""

import contextlib
import re
import ssl
from functools import cache

from netserver import proxy
from netserver.client_hello import ClientHello, HelloReader, HelloRefused
from netserver.endpoints import Address, ListenSpec
from netserver.errors import ConfigError, ConnectionLost, LineTooLong
from netserver.tls_layer import TLSLayer
from pop3 import wire
from pop3.errors import CommandError
from tests.fuzz.client import connection_of
from tests.fuzz.scratch import scratch
from tests.fuzz.target import pieces, target
from tests.netserver.certs import make_certificate

VERBS = (
    b"USER PASS APOP AUTH STLS CAPA QUIT STAT LIST RETR DELE NOOP RSET TOP UIDL UTF8 LANG".split()
)


@target("read-line", seeds=(b"\x08\x03NOOP\r\nQUIT\n", b"\x04\x01abcdefgh\r\nx\r\n\r\r\n\n"))
def read_line(data: bytes) -> None:
    """Lines are cut at LF and nowhere else, too long ones are dropped whole, however they come."""
    limit, sizes, said = data[0:1], data[1:4], data[4:]
    longest = 1 + (limit[0] if limit else 0)
    connection, _, _ = connection_of(pieces(said, sizes))
    got: list[bytes | None] = []
    with contextlib.suppress(ConnectionLost):
        while True:
            try:
                got.append(connection.read_line(longest))
            except LineTooLong:
                got.append(None)
    expected = []
    for line in said.split(b"\n")[:-1]:
        whole = line.removesuffix(b"\r")
        expected.append(whole if len(line) + 1 <= longest else None)
    assert got == expected
    assert connection.octets_in == len(said)


@target("command", seeds=(b"LIST 1", b"TOP 1 10", b"PASS a b", "LI\u017ft 1".encode()), words=VERBS)
def command(data: bytes) -> None:
    """A verb is ASCII in upper case, a number is digits, a reply is one line."""
    try:
        verb, argument = wire.parse_command(data)
    except CommandError:
        assert any(octet < 32 or octet == 127 for octet in data)
    else:
        assert verb + (b"" if argument is None else b" " + argument) == (
            data[: len(verb)].translate(UPPER) + data[len(verb) :]
        )
        assert b" " not in verb
        with contextlib.suppress(CommandError):
            number = wire.parse_number(argument or b"")
            assert (argument or b"").lstrip(b"0") == (b"%d" % number if number else b"")
            assert len(argument or b"") <= 10
    text = data.decode("utf-8", "surrogateescape")
    for reply in (wire.ok(text), wire.err(text), wire.err(text, "SYS/TEMP")):
        assert re.fullmatch(rb"(\+OK|-ERR)( [\x20-\x7e]*)?\r\n", reply)
        assert len(reply) <= 512


UPPER = bytes(octet - 32 if 97 <= octet <= 122 else octet for octet in range(256))


@target(
    "proxy-header",
    seeds=(
        b"\0\0PROXY TCP4 192.0.2.1 198.51.100.1 4711 110\r\nUSER x\r\n",
        b"\5\1PROXY TCP6 2001:db8::1 2001:db8::2 4711 110\r\n",
        b"\0\0PROXY UNKNOWN\r\n",
        b"\0\0\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\1\x12\x67\0\x6eNOOP\r\n",
        b"\0\0\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\2\0\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + bytes(36) + b"x\r\n",
        b"\0\0\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x28\xc0\0\2\1\xc6\x33\x64\1\x12\x67\0\x6e"
        b"\x20\0\x19\1\0\0\0\0\x21\0\7TLSv1.3\x23\0\4abcd\x22\0\0" + bytes(9),
        b"\0\0\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + b"/a".ljust(216, b"\0"),
    ),
    words=(b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n", b"\x21\x11", b"\x21\x21", b"\x20", b"\1\0\2h2"),
)
def proxy_header(data: bytes) -> None:
    """A header is taken whole or nobody is served; what follows it is the client's."""
    sizes, said = data[:2], data[2:]
    whole = _met(said, b"")
    assert whole == _met(said, sizes)


def _met(said: bytes, sizes: bytes) -> tuple[str, object, bytes] | None:
    connection, near, _ = connection_of(pieces(said, sizes))
    try:
        proxy.meet(connection)
    except ConnectionLost:
        assert not near.sent
        return None
    rest = connection._in
    while block := near.recv(65536):
        rest += block
    assert said.endswith(rest)
    return str(connection.peer), connection.tls, rest


HELLO_WORDS = (b"\x16\x03\x01", b"\x01\x00", b"\x00\x00", b"\x00\x10", b"\x04pop3", b"\x02h2")


@cache
def _server_context() -> ssl.SSLContext:
    directory = scratch("tls")
    certificate, key = make_certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@cache
def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _hello(name: str | None) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = _client_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@target(
    "client-hello",
    seeds=(
        b"\0\0" + _hello("mail.example.org"),
        b"\7\1" + _hello(None),
        b"\0\0\x16\x03\x01\0\4\1\0\0\0",
        b"\0\0\x80\x2e\1\0\2",
    ),
    words=HELLO_WORDS,
    longest=2048,
)
def client_hello(data: bytes) -> None:
    """What a client wants is the same however its records come."""
    sizes, said = data[:2], data[2:]
    whole = _read_hello([said])
    split = _read_hello(pieces(said, sizes))
    assert whole == split
    if isinstance(whole, ClientHello) and whole.server_name is not None:
        assert whole.server_name.isascii()
        assert "\0" not in whole.server_name


def _read_hello(chunks: list[bytes]) -> ClientHello | str | None:
    reader = HelloReader()
    try:
        for chunk in chunks:
            found = reader.feed(chunk)
            if found is not None:
                return found
    except HelloRefused:
        return "refused"
    return None


@target(
    "tls",
    seeds=(
        b"\0\0\0" + _hello("mail.example.org"),
        b"\1\0\0\x17\x03\x03\0\5hello",
        b"\1\2\1\x15\x03\x03\0\2\1\0",
        b"\0\1\1\x16\x03\x01",
    ),
    words=HELLO_WORDS,
    longest=2048,
)
def tls(data: bytes) -> None:
    """Garbage instead of a handshake, or after it, ends the connection and nothing else."""
    mode, sizes, said = data[:1], data[1:3], data[3:]
    layer = TLSLayer(_server_context())
    with contextlib.suppress(ConnectionLost):
        if mode and mode[0] & 1:
            _shake_hands(layer)
        done = bool(mode and mode[0] & 1)
        for chunk in (*pieces(said, sizes), b""):
            layer.feed(chunk)
            done = done or layer.handshake()
            if done:
                while layer.decrypt():
                    pass
    assert len(layer.pull()) < 65536


def _shake_hands(layer: TLSLayer) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = _client_context().wrap_bio(incoming, outgoing)
    for _ in range(4):
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        if said := outgoing.read():
            layer.feed(said)
        if layer.handshake():
            return
        incoming.write(layer.pull())


@target(
    "listen",
    seeds=(
        b"127.0.0.1:110",
        b"[::1]:995",
        b"tls://*:995?tls-min-version=1.2&allow=10.0.0.0/8",
        b"unix:/run/pop3.sock",
        b"fd:3",
        b"systemd:pop3",
        b"tls:stdin",
    ),
    words=(b"tls://", b"unix:", b"?tls=implicit", b"&deny=", b"[::ffff:1.2.3.4]:", b"fd:"),
)
def listen(data: bytes) -> None:
    """A spec is understood or refused in one line."""
    text = data.decode("utf-8", "replace")
    try:
        spec = ListenSpec.parse(text)
    except ConfigError as error:
        assert str(error).startswith("--listen ")
        return
    assert spec.kind in ("tcp", "unix", "systemd", "fd", "stdin")
    assert 0 <= spec.port <= 65535
    assert ListenSpec.parse(spec.text) == spec
    assert str(Address(spec.host, spec.port))
