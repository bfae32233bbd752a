"""Inflate gzip within a limit: a megabyte of it may be a gigabyte of zeros."""

import zlib

from pop3.scrape.errors import FetchError

_GZIP = 16 + zlib.MAX_WBITS
_MEMBER = b"\x1f\x8b"


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
        self._held = b""  # half of what a member begins with
        self._over = False  # behind the last member is something else
        self.octets = 0

    def feed(self, data: bytes) -> None:
        """Take the next octets. Raises FetchError beyond the limit and for what is no gzip."""
        if self._inflater is None:
            self._take(data)
            return
        self._begun = self._begun or bool(data)
        data, self._held = self._held + data, b""
        while data and not self._over:
            if self._inflater.eof:  # one more member (RFC 1952 §2.2), or what is to be ignored
                if data == _MEMBER[:1]:
                    self._held = data
                    return
                self._over = not data.startswith(_MEMBER)
                if self._over:
                    return
                self._inflater = zlib.decompressobj(_GZIP)
            try:
                part = self._inflater.decompress(data, self._limit - self.octets + 1)
            except zlib.error:
                raise FetchError("the page is no gzip") from None
            self._take(part)
            data = self._inflater.unused_data or self._inflater.unconsumed_tail

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
