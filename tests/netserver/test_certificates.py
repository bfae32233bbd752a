"""What is known of certificate files: names, dates, keys, chains."""

from __future__ import annotations

import base64
import datetime as dt
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from netserver import certificates
from netserver.certificates import certificate_names, facts, metrics
from netserver.errors import ConfigError
from tests.netserver.certs import make_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
BEGIN, END = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
DAY = dt.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class CA:
    """Somebody who signs."""

    def __init__(self, name: str, signer: CA | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        by = signer or self
        self.certificate = by.sign(self.name, self.key)

    def sign(
        self,
        subject: x509.Name,
        key: Key,
        names: tuple[str, ...] = (),
        until: dt.datetime = NOW + 30 * DAY,
    ) -> bytes:
        """Return a certificate in PEM."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(until)
        )
        if names:
            general = [x509.DNSName(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def named(name: str) -> x509.Name:
    """Return a subject."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


@pytest.fixture(scope="module")
def root() -> CA:
    """Return a CA that signs itself."""
    return CA("Root of Tests")


@pytest.fixture(scope="module")
def between(root: CA) -> CA:
    """Return an intermediate CA."""
    return CA("Between", root)


@pytest.fixture
def trust(root: CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this system trust the root, and nobody else."""
    path = tmp_path / "trusted.pem"
    path.write_bytes(root.certificate)
    monkeypatch.setattr(certificates, "_TRUSTED", (str(path),))
    certificates.trusted_issuers.cache_clear()
    yield
    certificates.trusted_issuers.cache_clear()


def leaf(signer: CA, name: str = "pop.example") -> tuple[bytes, bytes]:
    """Return a certificate and its key in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return signer.sign(named(name), key, (name,)), private


def problems(path: Path, *parts: bytes) -> list[str]:
    """Return what is wrong with a file of these certificates."""
    path.write_bytes(b"".join(parts))
    return list(facts(str(path), now=NOW).problems)


def test_names_come_from_the_common_name_where_there_are_no_others(tmp_path: Path) -> None:
    """An old certificate without alternative names is found by its common name."""
    cert, _ = make_certificate(tmp_path, ("old.example",), alternative_names=False)
    assert certificate_names(str(cert)) == ("old.example",)


def test_names_are_those_of_the_first_certificate_expired_or_not(tmp_path: Path) -> None:
    """A chain's further certificates do not count, and an expired one still has its names."""
    cert, _ = make_certificate(tmp_path, ("Old.example", "x.example", "x.example"), days=-3)
    issuer, _ = make_certificate(tmp_path, ("issuer.example",))
    cert.write_text("some text first\n" + cert.read_text() + issuer.read_text())
    assert certificate_names(str(cert)) == ("old.example", "x.example")
    assert facts(str(cert)).names == ("old.example", "x.example", "127.0.0.1")


def test_names_in_unicode_are_those_that_clients_ask_for(root: CA, tmp_path: Path) -> None:
    """A common name in UTF-8 is found by its A-label (RFC 5891)."""
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "c.pem"
    for name, expected in (
        ("Müller.example", "xn--mller-kva.example"),
        ("*.Bücher.example", "*.xn--bcher-kva.example"),
    ):
        path.write_bytes(root.sign(named(name), key))
        assert certificate_names(str(path)) == (expected,)


def test_dates_and_days(tmp_path: Path, root: CA) -> None:
    """In whole days until the end, before and after it, and in both forms of the time."""
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "c.pem"
    for until in (NOW + 30 * DAY, dt.datetime(2051, 6, 7, 8, 9, 10, tzinfo=dt.UTC)):
        path.write_bytes(root.sign(named("a"), key, until=until))
        found = facts(str(path), now=NOW)
        assert (found.not_before, found.not_after) == (NOW - DAY, until)
    assert found.days_left(until - 3 * DAY) == 3
    assert found.days_left(until - DAY / 2) == 0
    assert found.days_left(until + DAY / 2) == -1


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (rsa.generate_private_key(65537, 2048), "RSA 2048"),
        (ec.generate_private_key(ec.SECP384R1()), "EC P-384"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
        (ec.generate_private_key(ec.BrainpoolP256R1()), "unknown"),
    ],
)
def test_the_kind_of_key(tmp_path: Path, root: CA, key: Key, expected: str) -> None:
    """With its size or curve."""
    path = tmp_path / "c.pem"
    path.write_bytes(root.sign(named("a"), key))
    assert facts(str(path), now=NOW).key_type == expected


@pytest.mark.usefixtures("trust")
def test_a_whole_chain_has_no_problems(tmp_path: Path, root: CA, between: CA) -> None:
    """With or without the root, and directly from it."""
    path = tmp_path / "c.pem"
    cert, key = leaf(between)
    assert problems(path, cert, between.certificate) == []
    assert problems(path, key, cert, between.certificate, root.certificate) == []
    assert problems(path, leaf(root)[0]) == []


@pytest.mark.usefixtures("trust")
def test_what_is_wrong_with_a_chain(tmp_path: Path, root: CA, between: CA) -> None:
    """Each mistake is one sentence that names who is meant."""
    path = tmp_path / "c.pem"
    cert, _ = leaf(between)
    assert problems(path, root.certificate)[0].startswith("self-signed")
    (missing,) = problems(path, cert)
    assert missing.startswith("the certificate of the issuer (Between) is missing")
    (order,) = problems(path, cert, root.certificate, between.certificate)
    assert order.startswith("wrong order: certificate 2 (Root of Tests)")
    assert problems(path, cert, CA("Other").certificate)[0].startswith("wrong order")


def test_expired_and_not_yet_valid(tmp_path: Path, root: CA) -> None:
    """Both are told with the day."""
    path = tmp_path / "c.pem"
    path.write_bytes(root.certificate)
    assert "expired on 2030-02-01" in facts(str(path), now=NOW + 31 * DAY).problems
    assert "not valid before 2030-01-01" in facts(str(path), now=NOW - 2 * DAY).problems


def test_the_key_is_tried(tmp_path: Path, root: CA) -> None:
    """A key of another certificate, in its own file or in the same one."""
    cert, key = leaf(root)
    path, own, other = tmp_path / "c.pem", tmp_path / "own.pem", tmp_path / "other.pem"
    path.write_bytes(cert)
    own.write_bytes(key)
    other.write_bytes(leaf(root)[1])
    right = facts(str(path), str(own), now=NOW).problems
    wrong = facts(str(path), str(other), now=NOW).problems
    assert set(wrong) - set(right) == {f"--tls-key {other}: the key does not belong to {path}"}
    assert any("does not belong" in one for one in problems(path, cert, other.read_bytes()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_is_one_line(tmp_path: Path, text: str) -> None:
    """It names the file."""
    path = tmp_path / "c.pem"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^--tls-cert .*c\.pem: [^\n]*$"):
        facts(str(path))
    with pytest.raises(ConfigError, match="no such file"):
        facts(str(tmp_path / "gone"))


def test_any_damage_is_a_config_error(tmp_path: Path, root: CA) -> None:
    """Whatever octet of a certificate is changed or cut off, nothing else comes of it."""
    cert, _ = leaf(root)
    path = tmp_path / "c.pem"
    path.write_bytes(cert)
    der = certificates.chain(str(path))[0]
    for position in range(0, len(der), 3):
        for damaged in (der[:position], der[:position] + b"\xff" + der[position + 1 :]):
            armour = base64.encodebytes(damaged)
            path.write_bytes(BEGIN + armour + END)
            with suppress(ConfigError):
                facts(str(path))


def test_the_metric_names_file_and_end(tmp_path: Path, root: CA) -> None:
    """One line for each, in the form of OpenMetrics; none at all where there is no TLS."""
    path = tmp_path / 'odd"name.pem'
    path.write_bytes(leaf(root)[0])
    found = metrics([facts(str(path), now=NOW)])
    end = int((NOW + 30 * DAY).timestamp())
    assert found[0] == "# TYPE netserver_certificate_expiry_seconds gauge"
    assert found[-1] == (
        f'netserver_certificate_expiry_seconds{{file="{tmp_path}/odd\\"name.pem",'
        f'name="pop.example"}} {end}'
    )
    assert metrics([]) == []
