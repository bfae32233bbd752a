"""The PROXY header: who is believed, and what is not a header."""

import socket
import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netserver import proxy
from netserver.endpoints import UNIX, Address
from netserver.errors import ConfigError, ConnectionLost
from netserver.proxy import LONGEST, Introducers
from tests.netserver.pairs import Pair

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
AFTER = b"NOOP\r\n"


def second(command: int, family: int, addresses: bytes, *tlvs: tuple[int, bytes]) -> bytes:
    """Return a header of version 2."""
    rest = addresses + b"".join(struct.pack("!BH", kind, len(v)) + v for kind, v in tlvs)
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(rest)) + rest


V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 999, 110)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 999, 110)
)
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7") * 2 + struct.pack("!HH", 999, 110)
TLS = (0x20, struct.pack("!BI", 1, 0) + b"\x21\0\x07TLSv1.3\x23\0\x16TLS_AES_256_GCM_SHA384")
NAME = (0x02, b"mail.example")
V2 = second(1, 0x11, V4)
GOOD = {
    b"PROXY TCP4 192.0.2.7 198.51.100.1 999 110\r\n": "192.0.2.7:999",
    b"PROXY TCP6 2001:db8::7 2001:db8::1 999 110\r\n": "[2001:db8::7]:999",
    V2: "192.0.2.7:999",
    second(1, 0x21, V6): "[2001:db8::7]:999",
    second(1, 0x21, MAPPED): "192.0.2.7:999",
    second(1, 0x11, V4, (0x04, b"\0" * 50), NAME): "192.0.2.7:999",
    # the balancer's own connection, and one it knows nothing of: our own peer stays
    b"PROXY UNKNOWN\r\n": "unix",
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n": "unix",
    second(0, 0x00, b""): "unix",
    second(0, 0x11, V4): "unix",
    second(1, 0x00, b"whatever it is"): "unix",
    second(1, 0x31, b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")): "unix",
}
BAD = [
    b"CAPA\r\nQUIT\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 999\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 999 70000\r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.1 999 110\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 999 110\r\n",
    b"PROXY TCP9 192.0.2.7 198.51.100.1 999 110\r\n",
    b"proxy TCP4 192.0.2.7 198.51.100.1 999 110\r\n",
    b"PROXY " + b"x" * 120 + b"\r\n",
    SIGNATURE + b"\x11\x11\0\x0c" + V4,
    SIGNATURE + b"\x22\x11\0\x0c" + V4,
    SIGNATURE + b"\x21\x11\0\x04" + V4[:4],
    second(1, 0x11, V4, (0x04, b"\0" * LONGEST)),
    V2[:20],
    b"PROXY TCP4 192.0.2.7",
    b"",
]


@pytest.fixture
def meet() -> Iterator[Callable[..., Pair]]:
    """Return what lets a connection begin with such octets, in such pieces."""
    made: list[Pair] = []

    def begin(octets: bytes, size: int = 10_000) -> Pair:
        pair = Pair([octets[at : at + size] for at in range(0, len(octets), size)])
        made.append(pair)
        pair.connection._server_log = _NoLog  # type: ignore[assignment]
        proxy.meet(pair.connection)
        return pair

    yield begin
    for pair in made:
        pair.close()


_NoLog: Any = SimpleNamespace(bind=lambda **_: _NoLog, warning=lambda *_, **__: None)


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("header", GOOD)
def test_it_says_who_the_client_is(meet: Callable[..., Pair], header: bytes, size: int) -> None:
    """In pieces or together with the client's first words, of which none is lost."""
    pair = meet(header + AFTER, size)
    assert str(pair.connection.peer) == GOOD[header]
    assert pair.connection.read_line() == b"NOOP"
    assert pair.connection.tls is None


def test_tls_up_to_the_balancer_counts(meet: Callable[..., Pair]) -> None:
    """What it said of the handshake is what the connection tells of itself."""
    tls = meet(second(1, 0x11, V4, TLS, NAME) + AFTER).connection.tls
    assert tls is not None
    assert (tls.version, tls.cipher) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    assert tls.server_name == "mail.example"
    assert meet(second(1, 0x11, V4, (0x20, struct.pack("!BI", 0, 0)))).connection.tls is None
    assert meet(second(0, 0x00, b"", TLS)).connection.tls is None


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_ends_the_connection(
    meet: Callable[..., Pair], header: bytes, size: int
) -> None:
    """A listed peer that does not introduce its client is not served."""
    with pytest.raises(ConnectionLost, match="no PROXY header"):
        meet(header, size)


@given(st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21", V2]), st.binary())
def test_anything_is_a_header_or_ends_the_connection(start: bytes, rest: bytes) -> None:
    """No other error comes out of it, whatever the library makes of the octets."""
    pair = Pair([start + rest] if start + rest else [])
    pair.connection._server_log = _NoLog
    try:
        proxy.meet(pair.connection)
    except ConnectionLost:
        pass
    finally:
        pair.close()


def test_who_may_introduce() -> None:
    """Networks and addresses, IPv4 in IPv6 as IPv4, and UNIX sockets; nobody by default."""
    listed = Introducers(["192.0.2.0/24", "2001:db8::1", "unix"])
    for host in ("192.0.2.9", "::ffff:192.0.2.9", "2001:db8::1"):
        assert listed.has(Address(host, 1))
    assert listed.has(UNIX)
    for host in ("192.0.3.9", "127.0.0.1", "2001:db8::2"):
        assert not listed.has(Address(host, 1))
    assert not Introducers([]).has(UNIX)


@pytest.mark.parametrize("peer", ["balancer.example", "192.0.2.0/33", "192.0.2.1/24"])
def test_bad_lists_are_refused(peer: str) -> None:
    """A name is no proof of who speaks."""
    with pytest.raises(ConfigError, match="--proxy-protocol"):
        Introducers([peer])
