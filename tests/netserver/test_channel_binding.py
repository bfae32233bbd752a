"""tls-server-end-point (RFC 5929) for certificates signed in many ways."""

import datetime as dt
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from netserver.channel_binding import server_end_point

EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def signed(key: Any, algorithm: Any, **how: Any) -> bytes:
    """Return a certificate in DER."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    return builder.sign(key, algorithm, **how).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("algorithm", [hashes.SHA224(), hashes.SHA256(), hashes.SHA384()])
@pytest.mark.parametrize("key", [EC, RSA])
@pytest.mark.parametrize("pss", [False, True])
def test_the_hash_is_that_of_the_signature(key: Any, algorithm: Any, pss: bool) -> None:
    """ECDSA, PKCS #1 and PSS."""
    if pss and key is EC:
        pytest.skip("no such signature")
    how = {}
    if pss:
        how = {"rsa_padding": padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)}
    der = signed(key, algorithm, **how)
    assert server_end_point(der) == hashlib.new(algorithm.name, der).digest()


def test_old_hashes_become_sha256() -> None:
    """A signature with SHA-1 is written over one with SHA-256: no library makes them any more."""
    der = signed(RSA, hashes.SHA256())
    old = der.replace(bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105"))
    assert old != der
    assert server_end_point(old) == hashlib.sha256(old).digest()


def test_what_has_no_binding() -> None:
    """Ed25519 signs without a hash of its own; garbage is no certificate."""
    assert server_end_point(signed(ed25519.Ed25519PrivateKey.generate(), None)) is None
    for garbage in (b"", b"\x30", b"\x30\x00", b"\x30\x03\x30\x01\x30", b"\xff" * 50):
        assert server_end_point(garbage) is None
