"""The first message of a TLS client: what is read of it, however it is cut, and what is refused."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest

from netserver.client_hello import LIMIT, ClientHello, HelloReader, HelloRefused, alert_record


def hello(name: str | None = "Mail.Example", *protocols: str) -> bytes:
    """Return what Python's own client says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(message: bytes, size: int) -> bytes:
    """Return the message in handshake records of that size."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(one).to_bytes(2, "big") + one for one in pieces)


def alert_of(octets: bytes) -> int:
    """Return the alert that refuses these octets."""
    with pytest.raises(HelloRefused) as caught:
        HelloReader().feed(octets)
    return caught.value.alert


@pytest.mark.parametrize("chunk", [1, 3, 7, 100, 5000])
@pytest.mark.parametrize("record", [1, 5, 100, 16384])
def test_any_cut_and_any_records_say_the_same(chunk: int, record: int) -> None:
    """A ClientHello is read as soon as it is whole, and all its octets are kept for OpenSSL."""
    whole = in_records(hello("Mail.Example", "http/1.1", "pop3")[5:], record)
    reader = HelloReader()
    answers = [reader.feed(whole[at : at + chunk]) for at in range(0, len(whole), chunk)]
    assert answers[-1] == ClientHello("mail.example", (b"http/1.1", b"pop3"))
    assert set(answers[:-1]) <= {None}
    assert reader.records == whole


def test_a_client_may_say_nothing_of_either() -> None:
    """Neither a name nor protocols."""
    assert HelloReader().feed(hello(None)) == ClientHello(None, ())


def test_a_name_that_is_not_ascii_is_refused() -> None:
    """It would be an error inside OpenSSL's callback, printed for all to see."""
    octets = hello("abcdefgh.example").replace(b"abcdefgh", b"\xff\xfe\xfdabcde")
    assert alert_of(octets) == 47
    assert alert_of(hello("abcdefgh.example").replace(b"abcdefgh", b"abc\0efgh")) == 47


@pytest.mark.parametrize(
    "octets",
    [b"U", b"GET / HTTP/1.1\r\n", b"\x16\x02", b"\x80\x2e\x01\x03\x01", b"\x17\x03\x03\x00\x01a"],
)
def test_what_is_not_tls_is_refused_at_once(octets: bytes) -> None:
    """Also the SSL 2 form of a ClientHello, and data before any handshake."""
    assert alert_of(octets) == 10


def test_another_handshake_message_is_refused() -> None:
    """A Finished, say, from the first octet of it."""
    assert alert_of(in_records(b"\x14", 1)) == 10


@pytest.mark.parametrize("size", [0, 16385, 65535])
def test_records_of_a_wrong_size_are_refused(size: int) -> None:
    """Before any of their octets came."""
    assert alert_of(b"\x16\x03\x01" + size.to_bytes(2, "big")) == 50


def test_a_message_without_end_is_refused() -> None:
    """By the length it claims, and by what really came in small records."""
    assert alert_of(in_records(b"\x01\x00\xff\xff", 4)) == 47
    small = in_records(b"\x01\x00\x3f\x00" + bytes(16000), 1)
    reader = HelloReader()
    assert reader.feed(small[:LIMIT]) is None
    with pytest.raises(HelloRefused, match="too long"):
        reader.feed(small[LIMIT : LIMIT + 8192])


def test_every_truncation_inside_is_an_alert_and_no_error() -> None:
    """Lengths that lead out of the message are refused, whichever they are."""
    message = hello("mail.example", "pop3")[5:]
    for size in range(len(message) - 4):
        cut = b"\x01" + size.to_bytes(3, "big") + message[4 : 4 + size]
        with suppress(HelloRefused):
            assert isinstance(HelloReader().feed(in_records(cut, 16384)), ClientHello)


def test_any_one_octet_changed_is_an_alert_or_a_hello() -> None:
    """Nothing else may come out of a damaged message."""
    message = bytearray(hello("mail.example", "pop3"))
    for position in range(len(message)):
        for value in (0, 1, 127, 255):
            damaged = bytes((*message[:position], value, *message[position + 1 :]))
            with suppress(HelloRefused):
                assert isinstance(HelloReader().feed(damaged), ClientHello | None)


def test_an_alert_is_a_record() -> None:
    """Fatal, and of TLS 1.2's form."""
    assert alert_record(120) == b"\x15\x03\x03\x00\x02\x02\x78"
