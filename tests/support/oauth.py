"""An authorization server on loopback: keys, introspection, and tokens of any quality."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import ECKey

ISSUER, AUDIENCE = "https://id.example", "pop3"


class Authority:
    """Knows its keys and tokens, and what it was asked."""

    def __init__(self, port: int) -> None:
        """Make the first key."""
        self.url = f"http://127.0.0.1:{port}"
        self.keys = {"one": ECKey.generate_key("P-256", {"kid": "one"})}
        self.active: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        self.status = 200
        self.silent = threading.Event()

    def token(self, *, kid: str = "one", alg: str = "ES256", **claims: Any) -> str:
        """Return a signed token for anna@example.com; claims of None are left out."""
        now = int(time.time())
        said = {
            "iss": ISSUER, "aud": [AUDIENCE, "other"], "email": "anna@example.com",
            "scope": "openid mail", "iat": now, "nbf": now, "exp": now + 600,
        } | claims  # fmt: skip
        kept = {key: value for key, value in said.items() if value is not None}
        return jwt.encode({"alg": alg, "kid": kid}, kept, self.keys[kid], algorithms=[alg])

    def write(self, path: Path, *lines: str, jwks: bool = True) -> Path:
        """Write a parameter file that trusts this server."""
        where = f"jwks_url: {self.url}/jwks" if jwks else f"introspection_url: {self.url}/ask"
        text = [where, f"issuer: {ISSUER}", f"audience: {AUDIENCE}", "scope: mail", *lines]
        path.write_text("\n".join(text) + "\n")
        return path


class _Handler(BaseHTTPRequestHandler):
    authority: Authority

    def _answer(self, found: object) -> None:
        here = self.authority
        here.asked.append(self.path)
        here.credentials.append(self.headers.get("Authorization"))
        if here.silent.is_set():
            time.sleep(1)
        data = json.dumps(found).encode()
        self.send_response(here.status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Location", f"{here.url}/jwks")
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked may have given up
            self.wfile.write(data)

    def do_GET(self) -> None:
        """Show the public keys."""
        keys = self.authority.keys.values()
        self._answer({"keys": [key.as_dict(private=False, use="sig") for key in keys]})

    def do_POST(self) -> None:
        """Tell about a token."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._answer(self.authority.active.get(form["token"][0], {"active": False}))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def authorization_server() -> Iterator[Authority]:
    """Run one."""

    class Handler(_Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.authority = authority = Authority(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield authority
        finally:
            server.shutdown()
            thread.join(10)
