"""Which certificate a listener shows."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from netserver.endpoints import ListenSpec
from netserver.errors import ConfigError
from netserver.listener_tls import TLSContexts
from netserver.settings import ServerSettings
from tests.netserver.certs import make_certificate
from tests.support.servers import ROOT

if TYPE_CHECKING:
    import ssl
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Return two certificates and their keys."""
    found: dict[str, str] = {}
    for name in ("one", "two"):
        cert, key = make_certificate(tmp_path, (f"{name}.test",))
        found |= {name: str(cert), f"{name}-key": str(key)}
    return found


def contexts(
    *listen: str, cert: tuple[str, ...] = (), key: tuple[str, ...] = (), version: str = "TLSv1.2"
) -> list[ssl.SSLContext | None]:
    """Return the context of each of these listeners."""
    settings = ServerSettings(tls_cert=cert, tls_key=key, tls_min_version=version)
    specs = [ListenSpec.parse(text) for text in listen]
    made = TLSContexts(settings, specs, ("pop3",))
    return [made.context(spec) for spec in specs]


def test_without_certificates_there_is_no_tls() -> None:
    """A plain listener has no context then, and netserver loads no ssl."""
    assert contexts("127.0.0.1:0") == [None]
    code = (
        "import sys\n"
        "from netserver.listener_tls import TLSContexts\n"
        "from netserver.settings import ServerSettings\n"
        "from netserver.endpoints import ListenSpec\n"
        "TLSContexts(ServerSettings(), [ListenSpec.parse('127.0.0.1:0')], ())\n"
        "assert 'ssl' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=ROOT)


@pytest.mark.parametrize("listen", ["tls://127.0.0.1:0", "unix:/tmp/x?tls=implicit", "tls:stdin"])
def test_a_tls_listener_needs_a_certificate(listen: str) -> None:
    """It is one line that names the listener."""
    with pytest.raises(ConfigError, match="needs a --tls-cert"):
        contexts(listen)


def test_all_listeners_share_one_context(files: dict[str, str]) -> None:
    """Plain ones too, for STLS; so a session is resumed wherever it comes back."""
    first, second = contexts(
        "127.0.0.1:0", "tls://127.0.0.1:0", cert=(files["one"],), key=(files["one-key"],)
    )
    assert first is not None
    assert first is second


def test_a_listener_may_have_its_own(files: dict[str, str]) -> None:
    """Certificate, key and oldest version may stand in its spec."""
    own = f"tls-cert={files['two']}&tls-key={files['two-key']}"
    usual, other, same, newer = contexts(
        "127.0.0.1:1",
        f"tls://127.0.0.1:2?{own}",
        f"tls://127.0.0.1:3?{own}",
        "tls://127.0.0.1:4?tls-min-version=TLSv1.3",
        cert=(files["one"],),
        key=(files["one-key"],),
    )
    assert len({usual, other, newer}) == 3
    assert other is same
    assert newer is not None
    assert newer.minimum_version.name == "TLSv1_3"
    assert usual is not None
    assert usual.minimum_version.name == "TLSv1_2"


def test_two_listeners_that_differ_in_nothing_but_the_place_of_a_key(
    files: dict[str, str],
) -> None:
    """A port that may be any is no reason to mix up two listeners' certificates."""
    own = f"tls://127.0.0.1:0?tls-cert={files['two']}&tls-key={files['two-key']}"
    usual, other = contexts("tls://127.0.0.1:0", own, cert=(files["one"],), key=(files["one-key"],))
    assert usual is not other


def test_keys_must_match_certificates(files: dict[str, str]) -> None:
    """One for each, or none at all."""
    with pytest.raises(ConfigError, match="one for each --tls-cert"):
        contexts("127.0.0.1:0", cert=(files["one"], files["two"]), key=(files["one-key"],))
    with pytest.raises(ConfigError):
        contexts("127.0.0.1:0", cert=(files["one"],), key=(files["two-key"],))


@pytest.mark.parametrize("listen", ["127.0.0.1:0?tls-min-version=SSLv3", "tls://127.0.0.1:0"])
def test_what_cannot_be_used_is_a_config_error(files: dict[str, str], listen: str) -> None:
    """A wrong version, a file that is not there: said at start and not to the first client."""
    cert = files["one"] if "?" in listen else "/nonexistent.pem"
    with pytest.raises(ConfigError):
        contexts(listen, cert=(cert,), key=(files["one-key"],))
