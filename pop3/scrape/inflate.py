"""Inflate gzip within a limit: a megabyte of it may be a gigabyte of zeros."""

import zlib

from pop3.scrape.errors import FetchError

_GZIP = 16 + zlib.MAX_WBITS


class Body:
    """Takes a body as it comes in and holds what it is when inflated, `limit` octets at most."""

    def __init__(self, encoding: str, limit: int) -> None:
        """Take the Content-Encoding. Raises FetchError for another one than gzip."""
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise FetchError(f"Content-Encoding {encoding[:40]!r} was not asked for")
        self._inflater = zlib.decompressobj(_GZIP) if "gzip" in encoding else None
        self._limit = limit
        self._parts: list[bytes] = []
        self._begun = False
        self.octets = 0

    def feed(self, data: bytes) -> None:
        """Take the next octets. Raises FetchError beyond the limit and for what is no gzip."""
        if self._inflater is None:
            self._take(data)
            return
        self._begun = self._begun or bool(data)
        while data and not self._inflater.eof:
            try:
                part = self._inflater.decompress(data, self._limit - self.octets + 1)
            except zlib.error:
                raise FetchError("the page is no gzip") from None
            self._take(part)
            data = self._inflater.unconsumed_tail
            if self._inflater.eof and self._inflater.unused_data[:2] == b"\x1f\x8b":
                data = self._inflater.unused_data  # one more member (RFC 1952 §2.2)
                self._inflater = zlib.decompressobj(_GZIP)

    def finish(self) -> bytes:
        """Return all of it. Raises FetchError if it was cut short."""
        if self._inflater is not None and self._begun and not self._inflater.eof:
            raise FetchError("the page was cut short")
        return b"".join(self._parts)

    def _take(self, part: bytes) -> None:
        self.octets += len(part)
        if self.octets > self._limit:
            raise FetchError(f"the page is larger than {self._limit} octets")
        self._parts.append(part)
