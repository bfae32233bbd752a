"""Which TLS context belongs to which listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netserver.errors import ConfigError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from netserver.endpoints import ListenSpec
    from netserver.settings import ServerSettings


class TLSContexts:
    """One context for each set of certificates, made before the fork: resumption needs shared keys.

    Raises ``ConfigError`` for certificates that cannot be used, and for a TLS listener without any.
    """

    def __init__(
        self, settings: ServerSettings, specs: Sequence[ListenSpec], alpn: Sequence[str]
    ) -> None:
        self._settings = settings
        self._alpn = alpn
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
        if settings.tls_key and len(settings.tls_key) != len(settings.tls_cert):
            raise ConfigError("--tls-key: give one for each --tls-cert, in the same order")
        self._by_listener = {spec.text: self._make(spec) for spec in specs}

    def context(self, spec: ListenSpec) -> ssl.SSLContext | None:
        """Return the context of a listener, None if there is no certificate for it."""
        return self._by_listener.get(spec.text)

    def _make(self, spec: ListenSpec) -> ssl.SSLContext | None:
        settings = self._settings
        certificates: tuple[tuple[str, str | None], ...]
        if "tls-cert" in spec.options:
            certificates = ((spec.options["tls-cert"], spec.options.get("tls-key")),)
        else:
            keys = settings.tls_key or (None,) * len(settings.tls_cert)
            certificates = tuple(zip(settings.tls_cert, keys, strict=True))
        if not certificates:
            if spec.tls:
                raise ConfigError(f"--listen {spec.text}: needs a --tls-cert")
            return None
        version = spec.options.get("tls-min-version", settings.tls_min_version)
        key = (certificates, version)
        if key not in self._contexts:
            from netserver import tls, tls_layer  # noqa: F401, PLC0415 - ssl is loaded only where used

            self._contexts[key] = tls.server_context(
                certificates, min_version=version, alpn=self._alpn
            )
        return self._contexts[key]
