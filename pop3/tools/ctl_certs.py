"""What is to be known of the certificates of a configuration."""

import re
import ssl
import tempfile
import time
from typing import Any

from netserver.endpoints import ListenSpec
from pop3.settings import POP3Settings

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SOON = 14  # days


def configured(settings: POP3Settings) -> list[tuple[str, str]]:
    """Return the certificate files, each with its key's, those of listeners too."""
    keys = settings.tls_key or settings.tls_cert
    pairs = list(zip(settings.tls_cert, keys, strict=False))
    for text in settings.listen:
        own = ListenSpec.parse(text, extra_keys=frozenset({"plaintext-auth"})).options
        if "tls-cert" in own:
            pairs.append((own["tls-cert"], own.get("tls-key", own["tls-cert"])))
    return list(dict.fromkeys(pairs))


def examine(certificate: str, key: str) -> dict[str, Any]:
    """Return names, days until the end, and what is wrong."""
    found: dict[str, Any] = {"file": certificate, "names": [], "days": None, "problems": []}
    problems: list[str] = found["problems"]
    try:
        with open(certificate, encoding="ascii", errors="replace") as file:
            chain = [_decode(block) for block in _BLOCK.findall(file.read())]
    except OSError as error:
        problems.append((error.strerror or "cannot be read").lower())
        return found
    except (ssl.SSLError, ValueError):
        problems.append("a certificate in it cannot be read")
        return found
    if not chain:
        problems.append("no certificate in it")
        return found
    found["names"] = _names(chain[0])
    found["days"] = int(_days_left(chain[0], "notAfter") // 1)
    problems += _problems_of(chain)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        problems.append(f"its key {key} does not fit: {getattr(error, 'reason', None) or error}")
    return found


def _days_left(certificate: dict[str, Any], which: str) -> float:
    return (ssl.cert_time_to_seconds(certificate[which]) - time.time()) / 86400


def _problems_of(chain: list[dict[str, Any]]) -> list[str]:
    problems = []
    for number, one in enumerate(chain, 1):
        left = _days_left(one, "notAfter")
        which = "" if number == 1 else f"certificate {number} of the chain "
        if left < 0:
            problems.append(f"{which}has expired")
        elif left < _SOON:
            problems.append(f"{which}expires in {int(left)} days")
        if _days_left(one, "notBefore") > 0:
            problems.append(f"{which}is not valid yet")
        if number < len(chain) and one["issuer"] != chain[number]["subject"]:
            problems.append(f"certificate {number} was not issued by the one behind it")
    if len(chain) == 1 and chain[0]["issuer"] != chain[0]["subject"]:
        problems.append("no intermediate certificate behind it: most clients need it")
    return problems


def _decode(block: str) -> dict[str, Any]:
    # the library decodes files only
    with tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".pem") as file:
        file.write(block + "\n")
        file.flush()
        return ssl._ssl._test_decode_cert(file.name)  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001


def _names(certificate: dict[str, Any]) -> list[str]:
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    if names:
        return names
    return [
        value
        for part in certificate.get("subject", ())
        for name, value in part
        if name == "commonName"
    ]


def as_text(found: list[dict[str, Any]]) -> str:
    """Return it for people, a line each and one for each problem."""
    lines = []
    for one in found:
        days = "" if one["days"] is None else f", {one['days']} days left"
        lines.append(f"{one['file']}: {', '.join(one['names']) or 'no name'}{days}")
        lines += [f"  {problem}" for problem in one["problems"]]
    return "\n".join(lines) or "no certificate is configured"
