"""Find the size of a message that its source does not know; keep it while it is sent."""

from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from pop3 import wire

IN_MEMORY = 1024 * 1024
"""Octets of a message held in memory; a longer one goes to a temporary file without a name."""


def measure(message: BinaryIO) -> int:
    """Read a message to its end and return its octets as sent; closes it."""
    return wire.stream_size(wire.read_blocks(message))


def hold(blocks: Iterable[bytes]) -> tuple[int, BinaryIO]:
    """Take a whole message; returns its octets as sent and a copy to read, which the caller closes.

    Raises what reading raises, so that a source which breaks off is found out before the first
    octet of the reply.
    """
    copy = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - handed to the caller
    try:
        size = wire.stream_size(_copying(blocks, copy))
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return size, cast("BinaryIO", copy)


def _copying(blocks: Iterable[bytes], copy: "SpooledTemporaryFile[bytes]") -> Iterator[bytes]:
    for block in blocks:
        copy.write(block)
        yield block
