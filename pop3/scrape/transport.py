"""How requests leave: through httpx, to checked addresses only, none after the time is over."""

import functools
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import certifi
import httpcore
import httpx

from pop3.scrape.addresses import AddressPolicy, CheckedBackend

_MOST_CONNECTIONS = 32


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return the context for all https of this process."""
    # made once in each process that needs it: reading the certificates takes 20 ms
    context = ssl.create_default_context(cafile=certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class CheckedTransport(httpx.HTTPTransport):
    """httpx's own transport over a `CheckedBackend`; HTTP/1.1, no proxies.

    `left` returns the seconds that any single read or write may still take.
    """

    def __init__(self, policy: AddressPolicy, left: Callable[[], float]) -> None:
        """Make the pool of connections; nothing is opened yet."""
        self._backend = _TimedBackend(policy, left)
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls_context(),
            max_connections=_MOST_CONNECTIONS,
            max_keepalive_connections=_MOST_CONNECTIONS,
            keepalive_expiry=15.0,
            network_backend=self._backend,
        )

    def shut(self) -> None:
        """End all that is under way; from any thread."""
        self._backend.shut()


class _TimedBackend(CheckedBackend):
    def __init__(self, policy: AddressPolicy, left: Callable[[], float]) -> None:
        super().__init__(policy)
        self._left = left

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _TimedStream(super().connect_tcp(*args, **kwargs), self._left)


class _TimedStream(httpcore.NetworkStream):
    """A stream without reads that begin after the end: headers may come an octet at a time."""

    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[], float]) -> None:
        self._stream = stream
        self._left = left

    def _limit(self, timeout: float | None, late: type[Exception]) -> float:
        left = self._left()
        if left <= 0:
            raise late("the time is over")
        return left if timeout is None else min(left, timeout)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._limit(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._limit(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        limit = self._limit(timeout, httpcore.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, limit), self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def lower_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return header fields with names in lower case; of equal ones the last."""
    return {name.lower(): value for name, value in pairs}
