"""Make inputs without a fuzzing engine: no coverage guides it, but it needs nothing installed."""

import random
from collections.abc import Iterator, Sequence
from typing import Final

_ODD: Final = (b"\0", b"\r", b"\n", b"\r\n", b" ", b"\xff", b"\x80", b"\x7f", "\u0661".encode())


def inputs(
    corpus: Sequence[bytes], words: Sequence[bytes], longest: int, seed: int
) -> Iterator[bytes]:
    """Yield inputs without end: kept ones changed in a few places, and now and then noise."""
    source = random.Random(seed)
    words = (*words, *_ODD)
    while True:
        if not corpus or source.random() < 0.05:
            yield source.randbytes(source.randrange(longest + 1))
            continue
        data = bytearray(source.choice(corpus))
        for _ in range(source.choice((1, 1, 2, 3, 5, 8))):
            _change(data, words, corpus, source)
        yield bytes(data[:longest])


def _change(
    data: bytearray, words: Sequence[bytes], corpus: Sequence[bytes], source: random.Random
) -> None:
    at = source.randrange(len(data) + 1)
    kind = source.randrange(8)
    if kind == 0:
        data[at:at] = source.choice(words)
    elif kind == 1:
        data[at : at + source.choice((1, 1, 2, 4, 16))] = b""
    elif kind == 2:
        data[at:at] = source.randbytes(source.choice((1, 1, 2, 4, 16)))
    elif kind == 3 and at < len(data):
        data[at] ^= 1 << source.randrange(8)
    elif kind == 4 and at < len(data):
        data[at] = source.randrange(256)
    elif kind == 5:
        other = source.choice(corpus)
        begin = source.randrange(len(other) + 1)
        data[at:at] = other[begin : begin + source.randrange(1, 64)]
    elif kind == 6:
        size = source.choice((1, 2, 8, 64))
        data[at:at] = data[at : at + size] * source.choice((1, 2, 10))
    else:
        del data[at:]
