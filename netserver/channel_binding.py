"""What ties a login to its TLS connection: `tls-server-end-point` (RFC 5929 §4)."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PSS = bytes.fromhex("2a864886f70d01010a")
#: Object identifiers of signature algorithms (RFC 4055, RFC 5758) and of the hashes in PSS.
_HASHES = {
    bytes.fromhex(oid): name
    for oid, name in (
        ("2a864886f70d010104", "md5"),
        ("2a864886f70d010105", "sha1"),
        ("2a864886f70d01010e", "sha224"),
        ("2a864886f70d01010b", "sha256"),
        ("2a864886f70d01010c", "sha384"),
        ("2a864886f70d01010d", "sha512"),
        ("2a8648ce3d0401", "sha1"),
        ("2a8648ce3d040301", "sha224"),
        ("2a8648ce3d040302", "sha256"),
        ("2a8648ce3d040303", "sha384"),
        ("2a8648ce3d040304", "sha512"),
        ("2b0e03021a", "sha1"),
        ("608648016503040204", "sha224"),
        ("608648016503040201", "sha256"),
        ("608648016503040202", "sha384"),
        ("608648016503040203", "sha512"),
    )
}


def server_end_point(certificate: bytes) -> bytes | None:
    """Return the binding of a certificate in DER: its hash, by the hash of its own signature.

    MD5 and SHA-1 become SHA-256.  None for a signature without one hash, such as Ed25519, for
    which the RFC defines no binding.
    """
    algorithm = None
    with suppress(IndexError, StopIteration, ValueError):
        algorithm = _signature_hash(certificate)
    if algorithm is None:
        return None
    name = "sha256" if algorithm in ("md5", "sha1") else algorithm
    return hashlib.new(name, certificate).digest()


def _signature_hash(certificate: bytes) -> str | None:
    _, fields = next(elements(certificate))
    _, (_, algorithm), *_ = elements(fields)
    (_, oid), *parameters = elements(algorithm)
    if oid != _PSS:
        return _HASHES.get(oid)
    given = next(elements(parameters[0][1]), None)
    if given is None or given[0] != 0xA0:  # noqa: PLR2004 - the tag of hashAlgorithm
        return "sha1"  # the default of RFC 4055
    _, identifier = next(elements(given[1]))
    return _HASHES.get(next(elements(identifier))[1])


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each DER element (X.690) that stands in ``data``."""
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
