"""Ask a site for each page once while a spec is worked on: what was answered is answered again."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx

from pop3.scrape.fetch import Fetcher, Step
from pop3.scrape.spec import Spec
from pop3.scrape.transport import CheckedTransport

SECONDS = 600.0
"""How long an answer is good."""
_MOST_OCTETS = 64 * 1024 * 1024


@dataclass(frozen=True)
class _Answer:
    until: float
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Memory:
    """Answers of a site, kept from one look at it to the next."""

    def __init__(self) -> None:
        """Begin with none."""
        self._answers: dict[tuple[str, str, bytes], _Answer] = {}
        self._octets = 0

    def session(self, spec: Spec, observe: Callable[[Step], None]) -> Fetcher:
        """Open a session that asks the site only for what is not remembered."""
        transport = _Remembering(self, spec)
        fetcher = Fetcher(
            replace(spec.limits, delay=0.0),  # only the requests that leave are held back
            spec.policy,
            robots=spec.robots,
            observe=observe,
            transport=transport,
        )
        transport.left = fetcher.left
        return fetcher

    def find(self, request: httpx.Request) -> _Answer | None:
        """Return what was answered lately."""
        answer = self._answers.get(_key(request))
        return None if answer is None or answer.until < time.monotonic() else answer

    def keep(self, request: httpx.Request, response: httpx.Response, body: bytes) -> None:
        """Keep an answer that came whole, unless the site had trouble."""
        if response.status_code >= 500 or self._octets + len(body) > _MOST_OCTETS:  # noqa: PLR2004
            return
        self._octets += len(body)
        self._answers[_key(request)] = _Answer(
            time.monotonic() + SECONDS, response.status_code, response.headers.raw, body
        )


def _key(request: httpx.Request) -> tuple[str, str, bytes]:
    return request.method, str(request.url), request.read()


class _Remembering(httpx.BaseTransport):
    """Asks the memory, then the site."""

    def __init__(self, memory: Memory, spec: Spec) -> None:
        self.left: Callable[[], float] = lambda: 0.0
        self._memory = memory
        self._delay = spec.limits.delay
        self._next = 0.0
        self._guard = threading.Lock()
        self._site = CheckedTransport(spec.policy, lambda: self.left())  # noqa: PLW0108 - set later

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._memory.find(request)
        if answer is not None:
            stream = httpx.ByteStream(answer.body)
            return httpx.Response(answer.status, headers=answer.headers, stream=stream)
        with self._guard:
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + self._delay
        response = self._site.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        if response.has_redirect_location:  # nobody reads the body of one
            self._memory.keep(request, response, b"")
        response.stream = _Kept(response.stream, self._memory, request, response)
        return response

    def close(self) -> None:
        self._site.close()


class _Kept(httpx.SyncByteStream):
    """A body that is kept when it has come to its end; one that breaks off is not."""

    def __init__(
        self,
        stream: httpx.SyncByteStream,
        memory: Memory,
        request: httpx.Request,
        response: httpx.Response,
    ) -> None:
        self._stream = stream
        self._memory = memory
        self._request = request
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        parts = []
        for part in self._stream:
            parts.append(part)
            yield part
        self._memory.keep(self._request, self._response, b"".join(parts))

    def close(self) -> None:
        self._stream.close()
