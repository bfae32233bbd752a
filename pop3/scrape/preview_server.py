"""A small web server on loopback that answers from a table; no request changes anything."""

import ipaddress
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SOL_SOCKET
from types import TracebackType
from typing import Any, Self

from netserver.errors import BindError, ConfigError

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FRAME_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""For what strangers wrote: no scripts, no loads, no origin of its own."""


@dataclass(frozen=True)
class Answer:
    """What a path gives."""

    body: bytes
    kind: str = "text/html; charset=utf-8"
    policy: str = FRAME_POLICY


def endpoint(text: str) -> tuple[str, int]:
    """Read `[HOST:]PORT`, a loopback address only. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host = "127.0.0.1"
    host = {"localhost": "127.0.0.1"}.get(host, host.removeprefix("[").removesuffix("]"))
    if not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536):  # noqa: PLR2004
        raise ConfigError(f"--serve {text}: expected PORT or HOST:PORT, 0 to 65535")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"--serve {text}: only loopback, such as 127.0.0.1:{port} or [::1]:{port}"
        )
    return host, int(port)


class PreviewServer:
    """Serves a table of paths for the length of a `with`; `show` puts another in its place."""

    def __init__(self, host: str, port: int) -> None:
        """Bind. Raises BindError."""
        self._answers: Mapping[str, Answer] = {}

        class Server(ThreadingHTTPServer):
            address_family = AF_INET6 if ":" in host else AF_INET
            daemon_threads = True
            block_on_close = False

            def server_bind(self) -> None:  # the inherited one asks the resolver for a name
                self.socket.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
                self.socket.bind(self.server_address)
                self.server_address = self.socket.getsockname()

            def handle_error(self, *_: Any) -> None:
                """Say nothing of a browser that has gone."""

        try:
            self._server = Server((host, port), _handler(self))
        except OSError as error:
            raise BindError(f"--serve {host}:{port}: {(error.strerror or '').lower()}") from None
        self.port = int(self._server.server_address[1])
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/"
        # a site that lets its own name lead here (DNS rebinding) comes with that name
        self._hosts = {f"{name}:{self.port}" for name in (shown, "localhost")}
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def show(self, answers: Mapping[str, Answer]) -> None:
        """Answer with these from now on."""
        self._answers = answers

    def answer(self, host: str, path: str) -> tuple[int, Answer]:
        """Return status and answer."""
        if host.lower() not in self._hosts:
            return 421, Answer(b"not the name of this server\n", "text/plain")
        found = self._answers.get(path.partition("?")[0])
        if found is None:
            return 404, Answer(b"no such page\n", "text/plain")
        return 200, found


def _handler(server: PreviewServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10
        server_version = "pop3-try"
        sys_version = ""

        def do_GET(self) -> None:
            status, answer = server.answer(self.headers.get("Host", ""), self.path)
            self.send_response(status)
            for name, value in (
                ("Content-Type", answer.kind),
                ("Content-Length", str(len(answer.body))),
                ("Content-Security-Policy", answer.policy),
                ("X-Content-Type-Options", "nosniff"),
                ("Referrer-Policy", "no-referrer"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
                ("Cross-Origin-Opener-Policy", "same-origin"),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_HEAD = do_GET  # noqa: N815 - the name http.server looks for

        def log_message(self, *_: Any) -> None:
            """Say nothing: the terminal is for what happens to the spec."""

    return Handler
