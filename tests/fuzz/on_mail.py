"""Messages on their way to the wire."""

import itertools

from pop3 import wire
from tests.fuzz.target import pieces, target
from tests.support.maildirs import NASTY, stuff_dots, top, undo_dots, with_crlf


@target(
    "encode",
    seeds=tuple(b"\2\1\7" + message for message in NASTY.values() if len(message) < 1000),
    words=(b"\r\n.\r\n", b"\n.", b"\r", b"\n\n", b"\r\n\r\n", b"."),
)
def encode(data: bytes) -> None:
    """RETR, TOP and the sizes are what a naive reading of RFC 1939 says, however blocks are cut."""
    lines, sizes, stored = data[:1], data[1:3], data[3:]
    blocks = pieces(stored, sizes)
    plain = with_crlf(stored)
    sent = stuff_dots(plain)
    assert wire.crlf(stored) == plain
    assert wire.encode(stored) == sent
    assert wire.sent_size(stored) == wire.stream_size(blocks) == len(plain)
    assert undo_dots(sent) == plain
    encoder = wire.Encoder()
    assert b"".join([encoder.feed(block) for block in blocks]) + encoder.finish() == sent
    assert encoder.octets == len(plain)
    count = lines[0] % 16 if lines else 0
    cut = wire.Encoder()
    begun = [cut.feed(block) for block in wire.top(iter(blocks), count)]
    assert b"".join(begun) + cut.finish() == stuff_dots(top(stored, count))
    for whole in itertools.islice(wire.top(iter([stored]), count), 1):
        assert stored.startswith(whole)
