"""What certificate files say: names, dates, the kind of key, and what is wrong with a chain.

The standard library tells these of peers and of CAs only, hence the reading of DER (RFC 5280 §4.1).
"""

from __future__ import annotations

import binascii
import datetime as dt
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from itertools import pairwise
from typing import TYPE_CHECKING

from netserver.channel_binding import elements
from netserver.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_KEY = b"PRIVATE KEY-----"

# tags of ASN.1 (X.690)
_VERSION = 0xA0
_EXTENSIONS = 0xA3
_OCTET_STRING = 0x04
_DNS_NAME = 0x82
_IP_ADDRESS = 0x87
_UTC_TIME = 0x17

_ALT_NAMES = bytes.fromhex("0603551d11")
_COMMON_NAME = bytes.fromhex("0603550403")
_RSA = bytes.fromhex("2a864886f70d010101")
_EC = bytes.fromhex("2a8648ce3d0201")
_KINDS = {
    bytes.fromhex("2b6570"): "Ed25519",
    bytes.fromhex("2b6571"): "Ed448",
    bytes.fromhex("2a8648ce3d030107"): "EC P-256",
    bytes.fromhex("2b81040022"): "EC P-384",
    bytes.fromhex("2b81040023"): "EC P-521",
}

# where systems keep the certificates of the CAs they trust, in one file
_TRUSTED = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


_METRIC = "netserver_certificate_expiry_seconds"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate file says of its first certificate, and what is wrong with the file."""

    path: str
    names: tuple[str, ...]
    """Host names in lower case (IDNA names in ASCII) and addresses."""
    not_before: dt.datetime
    not_after: dt.datetime
    key_type: str
    """"RSA 2048", "EC P-256", "Ed25519"; "unknown"."""
    problems: tuple[str, ...]

    def days_left(self, now: dt.datetime | None = None) -> int:
        """Return the whole days until the end, negative after it."""
        return (self.not_after - (now or dt.datetime.now(dt.UTC))).days


@dataclass(frozen=True, slots=True)
class _Parts:
    """The fields of one certificate that are looked at."""

    issuer: bytes
    validity: bytes
    subject: bytes
    key: bytes
    extensions: bytes

    @classmethod
    def of(cls, der: bytes) -> _Parts:
        """Take a certificate apart; raises ``ValueError``."""
        try:
            _, certificate = next(elements(der))
            _, fields = next(elements(certificate))
            parts = list(elements(fields))
            # version (if any), serial, algorithm, issuer, validity, subject, key
            first = 3 if parts[0][0] == _VERSION else 2
            issuer, validity, subject, key = (parts[first + i][1] for i in range(4))
            extensions = b"".join(value for tag, value in parts if tag == _EXTENSIONS)
        except (IndexError, StopIteration):
            raise ValueError("no certificate") from None
        return cls(issuer, validity, subject, key, extensions)


def chain(path: str) -> list[bytes]:
    """Return the certificates of a PEM file in DER; raises ``ConfigError``."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise ConfigError(f"--tls-cert {path}: {reason}") from None
    found = []
    for match in _PEM.finditer(data):
        with suppress(binascii.Error):
            found.append(binascii.a2b_base64(match[1]))
    if not found:
        raise ConfigError(f"--tls-cert {path}: no certificate in PEM form in it")
    return found


def certificate_names(path: str) -> tuple[str, ...]:
    """Return the host names of the first certificate in a PEM file, in lower case.

    Those of the subject's alternative names, or of its common name where it has none.
    """
    names: tuple[str, ...] = ()
    with suppress(ValueError):
        names = _host_names(_Parts.of(chain(path)[0]))
    return names


def facts(path: str, key: str | None = None, now: dt.datetime | None = None) -> Facts:
    """Return what the file says; raises ``ConfigError`` if there is no certificate in it.

    Without ``key`` the file itself is looked at for one.
    """
    certificates = chain(path)
    try:
        parts = [_Parts.of(der) for der in certificates]
        not_before, not_after = _validity(parts[0])
    except (ValueError, IndexError):
        raise ConfigError(f"--tls-cert {path}: a certificate that cannot be read") from None
    at = now or dt.datetime.now(dt.UTC)
    problems = [*_of_dates(not_before, not_after, at), *_of_chain(parts), *_of_key(path, key)]
    names = (*_host_names(parts[0]), *_addresses(parts[0]))
    return Facts(path, names, not_before, not_after, _key_type(parts[0]), tuple(problems))


# -- names ----------------------------------------------------------------------------------------


def _host_names(parts: _Parts) -> tuple[str, ...]:
    names = [_ascii(name) for tag, name in _alternative_names(parts) if tag == _DNS_NAME]
    return tuple(dict.fromkeys(names or map(_ascii, _common_names(parts.subject))))


def _ascii(name: bytes) -> str:
    """Return a host name as clients ask for it; certificates may have it in Unicode."""
    text = name.decode("utf-8", "replace").lower().removesuffix(".")
    if text.isascii():
        return text
    star = "*." if text.startswith("*.") else ""
    with suppress(UnicodeError):
        return star + text.removeprefix("*.").encode("idna").decode("ascii")
    return text


def _addresses(parts: _Parts) -> Iterator[str]:
    for tag, octets in _alternative_names(parts):
        if tag == _IP_ADDRESS:
            with suppress(ValueError):
                yield str(ip_address(octets))


def _alternative_names(parts: _Parts) -> Iterator[tuple[int, bytes]]:
    with suppress(IndexError, StopIteration):
        for _, sequence in elements(parts.extensions):
            for _, extension in elements(sequence):
                if not extension.startswith(_ALT_NAMES):
                    continue
                for tag, octets in elements(extension):
                    if tag == _OCTET_STRING:
                        yield from elements(next(elements(octets))[1])


def _common_names(name: bytes) -> list[bytes]:
    found = []
    with suppress(IndexError):
        for _, relative in elements(name):
            for _, attribute in elements(relative):
                if attribute.startswith(_COMMON_NAME):
                    found.append(list(elements(attribute))[1][1])
    return found


def _called(name: bytes) -> str:
    """Return what a subject or issuer is called in a message."""
    found = _common_names(name)
    text = found[0].decode("utf-8", "replace") if found else "without a common name"
    return "".join(c if c.isprintable() else "?" for c in text)


# -- dates, key -----------------------------------------------------------------------------------


def _validity(parts: _Parts) -> tuple[dt.datetime, dt.datetime]:
    begin, end = (_time(tag, text) for tag, text in elements(parts.validity))
    return begin, end


def _time(tag: int, octets: bytes) -> dt.datetime:
    text = octets.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year, 1950 to 2049 (RFC 5280 §4.1.2.5.1)
        text = ("20" if text < "50" else "19") + text
    return dt.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC)


def _key_type(parts: _Parts) -> str:
    with suppress(ValueError, IndexError, StopIteration):
        (_, algorithm), (_, bits) = elements(parts.key)
        (_, oid), *parameters = elements(algorithm)
        if oid == _RSA:
            _, numbers = next(elements(bits[1:]))
            return f"RSA {int.from_bytes(next(elements(numbers))[1], 'big').bit_length()}"
        return _KINDS.get(parameters[0][1] if oid == _EC else oid, "unknown")
    return "unknown"


# -- problems -------------------------------------------------------------------------------------


def _of_dates(begin: dt.datetime, end: dt.datetime, now: dt.datetime) -> Iterator[str]:
    if now < begin:
        yield f"not valid before {begin:%Y-%m-%d}"
    if now > end:
        yield f"expired on {end:%Y-%m-%d}"


def _of_chain(parts: Sequence[_Parts]) -> Iterator[str]:
    """Compare who signed with who stands next; signatures are the clients' business."""
    if parts[0].issuer == parts[0].subject:
        yield "self-signed: only clients that were given this certificate trust it"
        return
    for position, (one, following) in enumerate(pairwise(parts), 1):
        if one.issuer != following.subject:
            yield (
                f"wrong order: certificate {position + 1} ({_called(following.subject)}) is not "
                f"that of the issuer of certificate {position} ({_called(one.issuer)})"
            )
            return
    last = parts[-1]
    if last.issuer == last.subject:
        return
    known = trusted_issuers()
    if last.issuer not in known and (known or len(parts) == 1):
        yield (
            f"the certificate of the issuer ({_called(last.issuer)}) is missing, and this system "
            "does not know it: an intermediate certificate is missing, or the CA is private"
        )


def _of_key(path: str, key: str | None) -> Iterator[str]:
    from netserver import tls  # noqa: PLC0415 - ssl is loaded only where used

    if key is None:
        with open(path, "rb") as file:
            if _KEY not in file.read():
                return
    try:
        tls.server_context([(path, key)])
    except ConfigError as error:
        yield str(error)


@lru_cache(maxsize=1)
def trusted_issuers() -> frozenset[bytes]:
    """Return the subjects of the CAs this system trusts; empty if nobody can tell."""
    for path in filter(os.path.exists, _TRUSTED):
        found = set()
        for der in chain(path):
            with suppress(ValueError):
                found.add(_Parts.of(der).subject)
        return frozenset(found)
    return frozenset()


# -- metric ---------------------------------------------------------------------------------------


def metrics(certificates: Iterable[Facts]) -> list[str]:
    """Return the lines that tell when each certificate ends (OpenMetrics 1.0); none for none."""
    samples = [
        f'{_METRIC}{{file="{_escaped(one.path)}",name="{_escaped("".join(one.names[:1]))}"}} '
        f"{int(one.not_after.timestamp())}"
        for one in certificates
    ]
    head = [
        f"# TYPE {_METRIC} gauge",
        f"# UNIT {_METRIC} seconds",
        f"# HELP {_METRIC} When a certificate ends, in Unix time.",
    ]
    return [*head, *samples] if samples else []


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
