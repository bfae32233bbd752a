"""Which TLS context belongs to which listener, and how replaced certificates take their place."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netserver.errors import ConfigError
from netserver.file_contents import Signature, signature_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from netserver.certificates import Facts
    from netserver.endpoints import ListenSpec
    from netserver.logs import Log
    from netserver.settings import ServerSettings

# seconds that new files may be of no use without a word: they are replaced one after the other
PATIENCE = 10.0
# seconds between two warnings of a certificate that ends soon
DAY = 86400.0

_Seen = tuple[Signature | None, ...]


@dataclass(slots=True)
class _Found:
    """New files that are not in force yet."""

    seen: _Seen
    since: float
    error: str | None = None
    tried: bool = False
    told: bool = False


class TLSContexts:
    """One context for each set of certificates, made before the fork: resumption needs shared keys.

    Raises ``ConfigError`` for certificates that cannot be used, and for a TLS listener without any.
    """

    def __init__(
        self, settings: ServerSettings, specs: Sequence[ListenSpec], alpn: Sequence[str]
    ) -> None:
        self._settings = settings
        self._alpn = alpn
        self._specs = specs
        self._found: _Found | None = None
        self._next_warning = 0.0
        if settings.tls_key and len(settings.tls_key) != len(settings.tls_cert):
            raise ConfigError("--tls-key: give one for each --tls-cert, in the same order")
        self._paths = sorted({path for spec in specs for path in self._files_of(spec)})
        self._in_force: _Seen = (None,) * len(self._paths)
        self._in_force = self._look()
        self._make_all()

    def _make_all(self) -> None:
        """Read the files; raises ``ConfigError``, and all is as it was."""
        made: dict[tuple[object, ...], ssl.SSLContext] = {}
        by_listener = {spec.text: self._make(spec, made) for spec in self._specs}
        self._facts = self._read_facts()  # now: who serves may have no right to read them
        self._by_listener = by_listener

    def context(self, spec: ListenSpec) -> ssl.SSLContext | None:
        """Return the context of a listener, None if there is no certificate for it."""
        return self._by_listener.get(spec.text)

    # -- renewal --------------------------------------------------------------------------------

    def refresh(self, log: Log, now: float) -> bool:
        """Take over files that were replaced; True if so, for those who serve know the old ones.

        Runs at each turn, in a process that may read the keys.  Files that cannot be used change
        nothing: while they are replaced one after the other they may not fit together.
        """
        if not self._paths:
            return False
        self._warn(log, now)
        seen = self._look()
        if seen == self._in_force:
            self._found = None
            return False
        if self._found is None or self._found.seen != seen:
            self._found = _Found(seen, now)  # the next look shows whether it is all
            return False
        if not self._found.tried:
            return self._take_over(self._found, log)
        if not self._found.told and now - self._found.since >= PATIENCE:
            self._found.told = True
            log.error("new certificates cannot be used, the old ones stay", why=self._found.error)
        return False

    def _take_over(self, found: _Found, log: Log) -> bool:
        found.tried = True
        try:
            self._make_all()
        except ConfigError as error:
            found.error = str(error)
            return False
        self._in_force, self._found = found.seen, None
        self._next_warning = 0.0
        log.info("new certificates are shown from now on", certificates=len(self._facts))
        return True

    def _look(self) -> _Seen:
        seen = list(self._in_force)
        for position, path in enumerate(self._paths):
            # one that is gone, or out of reach for who gave rights up, is as it was
            with suppress(OSError):
                seen[position] = signature_of(os.stat(path))
        return tuple(seen)

    def facts(self) -> tuple[Facts, ...]:
        """Return what the certificates in force say, each file once."""
        return self._facts

    def _read_facts(self) -> tuple[Facts, ...]:
        found = []
        pairs = dict.fromkeys(pair for spec in self._specs for pair in self._pairs(spec))
        for cert, _ in pairs:
            from netserver import certificates  # noqa: PLC0415 - only where there are any

            with suppress(ConfigError):
                found.append(certificates.facts(cert))
        return tuple(found)

    def _warn(self, log: Log, now: float) -> None:
        """Tell once a day which certificates end soon."""
        days = self._settings.tls_expiry_warning
        if not days or now < self._next_warning:
            return
        self._next_warning = now + DAY
        for one in self._facts:
            left = one.days_left()
            if left < days:
                end = one.not_after.isoformat()
                log.warning("a certificate ends soon", file=one.path, days=left, end=end)

    # -- contexts -------------------------------------------------------------------------------

    def _pairs(self, spec: ListenSpec) -> tuple[tuple[str, str | None], ...]:
        """Return the certificates of a listener with their keys."""
        if "tls-cert" in spec.options:
            return ((spec.options["tls-cert"], spec.options.get("tls-key")),)
        settings = self._settings
        keys = settings.tls_key or (None,) * len(settings.tls_cert)
        return tuple(zip(settings.tls_cert, keys, strict=True))

    def _files_of(self, spec: ListenSpec) -> set[str]:
        pairs = self._pairs(spec)
        files = {path for pair in pairs for path in pair if path is not None}
        if files and self._settings.tls_client_ca is not None:
            files.add(self._settings.tls_client_ca)
        return files

    def _make(
        self, spec: ListenSpec, made: dict[tuple[object, ...], ssl.SSLContext]
    ) -> ssl.SSLContext | None:
        settings = self._settings
        certificates = self._pairs(spec)
        if not certificates:
            if spec.tls:
                raise ConfigError(f"--listen {spec.text}: needs a --tls-cert")
            return None
        version = spec.options.get("tls-min-version", settings.tls_min_version)
        key = (certificates, version)
        if key not in made:
            from netserver import tls, tls_layer  # noqa: F401, PLC0415 - ssl is loaded only where used

            made[key] = tls.server_context(
                certificates,
                min_version=version,
                alpn=self._alpn,
                client_ca=settings.tls_client_ca,
                client_cert=settings.tls_client_cert,
            )
        return made[key]
