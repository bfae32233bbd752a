"""Sizes that a source does not know."""

from collections.abc import Iterator
from io import BytesIO

import pytest

from pop3 import spool, wire

MESSAGES = [b"", b"a", b"a\n.b\r\nc", b"x\r" * 10, b"line\n" * 400_000]


@pytest.mark.parametrize("message", MESSAGES)
def test_measure_is_the_sent_size(message: bytes) -> None:
    """It is what RETR will send, and the message is closed."""
    stream = BytesIO(message)
    assert spool.measure(stream) == len(wire.crlf(message))
    assert stream.closed


@pytest.mark.parametrize("message", MESSAGES)
def test_hold_keeps_the_message(message: bytes) -> None:
    """The copy is the message, longer than memory may be or not."""
    size, copy = spool.hold([message[:7], message[7:]])
    with copy:
        assert size == wire.sent_size(message)
        assert copy.read() == message


def test_hold_tells_what_reading_raises() -> None:
    """A source that breaks off is found out before anything is sent."""

    def breaking() -> Iterator[bytes]:
        yield b"begin"
        raise TimeoutError("far end is gone")

    with pytest.raises(TimeoutError):
        spool.hold(breaking())
