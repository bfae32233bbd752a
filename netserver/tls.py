"""TLS contexts from certificate files."""

from __future__ import annotations

import ssl
from types import MappingProxyType
from typing import TYPE_CHECKING

from netserver.certificates import certificate_names, chain
from netserver.channel_binding import server_end_point
from netserver.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# with forward secrecy and authenticated encryption; all that speak TLS 1.2 well know one of them
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"


class ServerContext(ssl.SSLContext):
    """A context that knows of others, for clients that ask for another name.

    The choice is made before the handshake (see ``tls_layer``) and not in a callback of it: there a
    name that is not ASCII would write to standard error, and gevent's callback takes its own
    sockets only.
    """

    alpn: frozenset[bytes] = frozenset()
    end_point: bytes | None = None
    """The channel binding of its certificate (RFC 5929 §4)."""
    by_name: Mapping[str, ServerContext] = MappingProxyType({})

    def for_name(self, name: str | None) -> ServerContext:
        """Return the context of a host name in lower case; this one if there is no other."""
        if name is None:
            return self
        # a wildcard stands for one label (RFC 9525 §6.3)
        wildcard = "*." + name.partition(".")[2]
        return self.by_name.get(name) or self.by_name.get(wildcard) or self


def server_context(
    certificates: Sequence[tuple[str, str | None]],
    *,
    min_version: str = "1.2",
    alpn: Sequence[str] = (),
    client_ca: str | None = None,
    client_cert: str = "require",
    tickets: bool = True,
) -> ServerContext:
    """Return a context that shows the certificate a client asks for, the first to all others.

    ``certificates`` are pairs of PEM files; without a key file the key is in the certificate's.
    ``min_version`` is "1.2" or "1.3".  With ``client_ca`` clients must show a certificate signed by
    it, or may (``client_cert`` "optional"); there are no tickets then, since one would carry a
    client's identity to another realm.  Raises ``ConfigError`` naming the file.
    """
    if not certificates:
        raise ConfigError("--tls-cert: TLS is asked for, but no certificate is given")
    contexts = []
    for cert, key in certificates:
        context = _bare_context(min_version, alpn, tickets=tickets and client_ca is None)
        if client_ca is not None:
            _ask_for_client(context, client_ca, client_cert)
        _load(context, cert, key)
        context.end_point = server_end_point(chain(cert)[0])
        contexts.append(context)
    by_name: dict[str, ServerContext] = {}
    for context, (cert, _) in zip(contexts, certificates, strict=True):
        for name in certificate_names(cert):
            by_name.setdefault(name, context)
    contexts[0].by_name = by_name
    return contexts[0]


def _bare_context(min_version: str, alpn: Sequence[str], *, tickets: bool) -> ServerContext:
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.minimum_version = _VERSIONS[min_version.lower().removeprefix("tlsv")]
    except KeyError:
        known = " and ".join(_VERSIONS)
        raise ConfigError(f"--tls-min-version {min_version}: known are {known}") from None
    # two are sent by default; a mail client comes back with one
    context.num_tickets = 1 if tickets else 0
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    if alpn:
        context.set_alpn_protocols(list(alpn))
        context.alpn = frozenset(name.encode("ascii") for name in alpn)
    return context


def _ask_for_client(context: ssl.SSLContext, client_ca: str, client_cert: str) -> None:
    modes = {"require": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL}
    if client_cert not in modes:
        raise ConfigError(f"--tls-client-cert {client_cert}: known are require and optional")
    context.verify_mode = modes[client_cert]
    _read_pem("--tls-client-ca", client_ca, _CERTIFICATE)
    try:
        context.load_verify_locations(client_ca)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"--tls-client-ca {client_ca}: {_reason(error)}") from None


def _load(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    _read_pem("--tls-cert", cert, _CERTIFICATE)
    option, key_file = ("--tls-cert", cert) if key is None else ("--tls-key", key)
    _read_pem(option, key_file, _KEY)
    asked = []

    def password() -> bytes:
        # without this OpenSSL would ask on the terminal
        asked.append(key_file)
        return b""

    try:
        context.load_cert_chain(cert, key, password)
    except (ssl.SSLError, OSError) as error:
        if asked:
            raise ConfigError(
                f"{option} {key_file}: the key is encrypted; a server needs one without passphrase"
            ) from None
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{option} {key_file}: the key does not belong to {cert}") from None
        raise ConfigError(f"--tls-cert {cert}: {_reason(error)}") from None


def _read_pem(option: str, path: str, mark: bytes) -> None:
    """See that the file is there and holds what it should: OpenSSL's own errors name neither."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise ConfigError(f"{option} {path}: {reason}") from None
    if mark not in data:
        what = "private key" if mark is _KEY else "certificate"
        raise ConfigError(f"{option} {path}: no {what} in PEM form in it")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error.__class__.__name__).lower().replace("_", " ")
