"""One URL of an authorization server: bounded in time and size, never redirected."""

import importlib
import json
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from netserver.errors import ConfigError
from pop3.auth import directories
from pop3.auth.secret import Secret

if TYPE_CHECKING:
    import httpx

_LARGEST = 256 * 1024
_OK = 200


class Unusable(Exception):
    """A server that gives no answer, with the reason for the log."""


class Endpoint:
    """Asks; each process that serves has connections of its own, made when first needed."""

    def __init__(
        self,
        url: str,
        ca_file: str | None,
        timeout: float,
        client: tuple[str, Secret] | None = None,
    ) -> None:
        """Load the library and read the certificates; ConfigError where that fails."""
        try:
            importlib.import_module("httpx")  # only servers that need it
            importlib.import_module("httpcore")  # else httpx does when it may be out of reach
        except ImportError:
            raise ConfigError("needs: pip install 'netserver-pop3[sasl]'") from None
        self.url = url
        self._timeout = timeout
        self._who = client
        try:
            self._tls = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca_file: {ca_file}: {error.strerror or error}") from None
        self._client: httpx.Client | None = None

    def get(self) -> dict[str, Any]:
        """Fetch a JSON object. Raises Unusable."""
        return self._ask("GET", None)

    def post(self, form: Mapping[str, str | Secret]) -> dict[str, Any]:
        """Send a form, read a JSON object. Raises Unusable."""
        return self._ask("POST", form)

    def close(self) -> None:
        """Close the connections of this process."""
        if self._client is not None:
            self._client.close()

    def _ask(self, method: str, form: Mapping[str, str | Secret] | None) -> dict[str, Any]:
        import httpx  # noqa: PLC0415 - only servers that need it

        if self._client is None:
            self._client = httpx.Client(verify=self._tls, timeout=self._timeout, trust_env=False)
        until = time.monotonic() + self._timeout
        try:
            with self._client.stream(method, self.url, **self._request(form)) as response:
                data = b""
                for block in response.iter_bytes(8192):
                    data += block
                    if len(data) > _LARGEST or time.monotonic() > until:
                        raise Unusable(f"{self.url}: too much or too slow")
                status = response.status_code
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Unusable(f"{self.url}: {directories.reason(error)}") from None
        if status != _OK:
            raise Unusable(f"{self.url}: HTTP {status}")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unusable(f"{self.url}: no JSON object")
        return found

    def _request(self, form: Mapping[str, str | Secret] | None) -> dict[str, Any]:
        request: dict[str, Any] = {"headers": {"Accept": "application/json"}}
        if form is not None:
            fields = {
                key: value.reveal() if isinstance(value, Secret) else value
                for key, value in form.items()
            }
            request["content"] = urlencode(fields).encode("ascii")
            request["headers"]["Content-Type"] = "application/x-www-form-urlencoded"
        if self._who is not None:  # RFC 6749 §2.3.1: both escaped
            name, secret = self._who
            request["auth"] = (quote(name, safe=""), quote(secret.reveal(), safe=""))
        return request
