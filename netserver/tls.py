"""TLS contexts from certificate files."""

from __future__ import annotations

import os
import ssl
from _ssl import _SSLContext
from contextlib import suppress
from typing import TYPE_CHECKING

from netserver.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"

# tags of ASN.1 (X.690) that lead to a certificate's names (RFC 5280 §4.1)
_VERSION = 0xA0
_EXTENSIONS = 0xA3
_OCTET_STRING = 0x04
_DNS_NAME = 0x82
_ALT_NAME_OID = bytes.fromhex("0603551d11")
_COMMON_NAME_OID = bytes.fromhex("0603550403")


def server_context(
    certificates: Sequence[tuple[str, str | None]],
    *,
    min_version: str = "1.2",
    alpn: Sequence[str] = (),
    client_ca: str | None = None,
    client_cert: str = "require",
    tickets: bool = True,
) -> ssl.SSLContext:
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
        contexts.append(context)
    by_name: dict[str, ssl.SSLContext] = {}
    for context, (cert, _) in zip(contexts, certificates, strict=True):
        for name in certificate_names(cert):
            by_name.setdefault(name, context)
    # gevent's SSLContext lets the callback work with its own sockets only and fails every handshake
    # over memory buffers: hence by the slot of the C type, which is the same in a plain process
    vars(_SSLContext)["sni_callback"].__set__(contexts[0], _choose(by_name))
    return contexts[0]


def _choose(
    by_name: dict[str, ssl.SSLContext],
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    def chosen(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name is None:
            return
        name = name.lower()
        connection.indicated_name = name  # type: ignore[attr-defined]
        # a wildcard stands for one label (RFC 9525 §6.3)
        context = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if context is not None and context is not connection.context:
            connection.context = context

    return chosen


def _bare_context(min_version: str, alpn: Sequence[str], *, tickets: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
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


def certificate_names(cert: str) -> tuple[str, ...]:
    """Return the host names of the first certificate in a PEM file, in lower case.

    Those of the subject's alternative names, or of its common name where it has none.  The standard
    library tells them of peers and of CAs only, hence the reading of DER here.
    """
    with open(cert, encoding="ascii", errors="replace") as file:
        text = file.read()
    begin = text.index(ssl.PEM_HEADER)
    end = text.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)
    der = ssl.PEM_cert_to_DER_cert(text[begin:end])
    names: list[str] = []
    with suppress(IndexError, StopIteration):
        _, certificate = next(_elements(der))
        _, tbs = next(_elements(certificate))
        parts = list(_elements(tbs))
        extensions = [value for tag, value in parts if tag == _EXTENSIONS]
        names = [name for value in extensions for name in _alternative_names(value)]
        if not names:
            # version (if any), serial, algorithm, issuer, validity, subject
            subject = parts[5 if parts[0][0] == _VERSION else 4]
            names = _common_names(subject[1])
    return tuple(dict.fromkeys(name.lower() for name in names))


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element that stands in ``data``."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(data[position : position + octets], "big")
            position += octets
        yield tag, data[position : position + length]
        position += length


def _alternative_names(extensions: bytes) -> Iterator[str]:
    _, sequence = next(_elements(extensions))
    for _, extension in _elements(sequence):
        if not extension.startswith(_ALT_NAME_OID):
            continue
        for tag, octets in _elements(extension):
            if tag == _OCTET_STRING:
                _, names = next(_elements(octets))
                yield from (
                    value.decode("ascii", "replace")
                    for kind, value in _elements(names)
                    if kind == _DNS_NAME
                )


def _common_names(subject: bytes) -> list[str]:
    found = []
    for _, relative in _elements(subject):
        for _, attribute in _elements(relative):
            if attribute.startswith(_COMMON_NAME_OID):
                found.append(list(_elements(attribute))[1][1].decode("ascii", "replace"))
    return found


class CertificateFiles:
    """Files as they were when this was made, to see later whether one was replaced."""

    __slots__ = ("_paths", "_seen")

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._seen = self._look()

    def _look(self) -> list[tuple[int, int, int] | None]:
        seen: list[tuple[int, int, int] | None] = []
        for path in self._paths:
            try:
                found = os.stat(path)
            except OSError:
                seen.append(None)
            else:
                seen.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return seen

    def changed(self) -> bool:
        """Whether a file is another one, or gone, or came."""
        return self._look() != self._seen
