"""Which certificate a listener shows."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from netserver.endpoints import ListenSpec
from netserver.errors import ConfigError
from netserver.listener_tls import TLSContexts
from netserver.settings import ServerSettings
from tests.netserver.certs import make_certificate
from tests.support.servers import ROOT

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
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


# -- renewal --------------------------------------------------------------------------------------


class Notes:
    """A log that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self.said.append((level, event, fields))


class Renewal:
    """Contexts of one pair of files that are looked at once a second."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.home = home
        self.cert, self.key = make_certificate(home, ("pop.test",), days=90)
        settings = ServerSettings(tls_cert=(str(self.cert),), tls_key=(str(self.key),), **options)
        self.spec = ListenSpec.parse("tls://127.0.0.1:0")
        self.contexts = TLSContexts(settings, [self.spec], ("pop3",))
        self.log = Notes()
        self.now = 1000.0

    def look(self, times: int = 1) -> list[bool]:
        """Return what so many looks say."""
        found = []
        for _ in range(times):
            self.now += 1
            found.append(self.contexts.refresh(self.log, self.now))  # type: ignore[arg-type]
        return found

    def fresh(self, days: int = 90) -> tuple[bytes, bytes]:
        """Return another certificate and its key."""
        elsewhere = self.home / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        cert, key = make_certificate(elsewhere, ("pop.test",), days=days)
        return cert.read_bytes(), key.read_bytes()

    def events(self) -> list[str]:
        """Return what was logged."""
        return [event for _, event, _ in self.log.said]

    def context(self) -> ssl.SSLContext | None:
        """Return what is in force."""
        return self.contexts.context(self.spec)


@pytest.fixture
def renewal(tmp_path: Path) -> Renewal:
    """Return a pair that may be replaced."""
    return Renewal(tmp_path)


def test_a_replaced_pair_is_taken_over_when_it_stands_still(renewal: Renewal) -> None:
    """Once, at the second look that sees the same."""
    before = renewal.context()
    assert renewal.look(3) == [False, False, False]
    cert, key = renewal.fresh()
    renewal.cert.write_bytes(cert)
    renewal.key.write_bytes(key)
    assert renewal.look(4) == [False, True, False, False]
    assert renewal.context() is not before
    assert renewal.events() == ["new certificates are shown from now on"]


def test_half_a_pair_waits_for_the_other_half(renewal: Renewal) -> None:
    """Without a word, if it does not take long."""
    before = renewal.context()
    cert, key = renewal.fresh()
    renewal.cert.write_bytes(cert)
    assert renewal.look(6) == [False] * 6
    assert renewal.context() is before
    renewal.key.write_bytes(key)
    assert renewal.look(2) == [False, True]
    assert renewal.events() == ["new certificates are shown from now on"]


def test_a_broken_pair_keeps_the_old_one_and_is_told_once(renewal: Renewal) -> None:
    """In one line that says which file and why; a good one then takes its place."""
    before = renewal.context()
    renewal.cert.write_text("half a cert")
    assert not any(renewal.look(30))
    assert renewal.context() is before
    ((level, event, fields),) = renewal.log.said
    assert (level, event) == ("error", "new certificates cannot be used, the old ones stay")
    assert fields["why"].startswith(f"--tls-cert {renewal.cert}: no certificate in PEM form")
    cert, key = renewal.fresh()
    renewal.cert.write_bytes(cert)
    renewal.key.write_bytes(key)
    assert renewal.look(2) == [False, True]


def test_links_are_followed_as_certbot_moves_them(tmp_path: Path) -> None:
    """The path stays, what it leads to is another file."""
    one, two = tmp_path / "one", tmp_path / "two"
    for place in (one, two):
        place.mkdir()
        make_certificate(place, ("pop.test",), days=90)
    live = tmp_path / "live"
    live.symlink_to(one)
    cert, key = str(live / "pop.test.crt"), str(live / "pop.test.key")
    contexts = TLSContexts(
        ServerSettings(tls_cert=(cert,), tls_key=(key,)), [ListenSpec.parse("127.0.0.1:0")], ()
    )
    log: Any = Notes()
    assert not contexts.refresh(log, 1.0)
    (tmp_path / "new").symlink_to(two)
    (tmp_path / "new").rename(live)
    assert [contexts.refresh(log, now) for now in (2.0, 3.0, 4.0)] == [False, True, False]


def test_files_that_went_away_are_as_they_were(renewal: Renewal) -> None:
    """Who gave rights up may not even see them."""
    before = renewal.context()
    renewal.key.unlink()
    assert not any(renewal.look(30))
    assert (renewal.context(), renewal.events()) == (before, [])


def test_who_ends_soon_is_told_once_a_day(tmp_path: Path) -> None:
    """At start, then daily, and again when a certificate came that ends soon as well."""
    renewal = Renewal(tmp_path, tls_expiry_warning=100)
    renewal.look(5)
    ((level, event, fields),) = renewal.log.said
    assert (level, event, fields["days"]) == ("warning", "a certificate ends soon", 89)
    assert fields["file"] == str(renewal.cert)
    renewal.now += 86400
    renewal.look(5)
    assert renewal.events() == ["a certificate ends soon"] * 2
    quiet = Renewal(tmp_path, tls_expiry_warning=0)
    quiet.look(2)
    assert quiet.events() == []


def test_facts_are_those_in_force(renewal: Renewal) -> None:
    """Not those of files that cannot be used."""
    (before,) = renewal.contexts.facts()
    assert before.names[0] == "pop.test"
    cert, key = renewal.fresh(days=50)
    renewal.cert.write_bytes(cert)
    renewal.look(3)
    assert renewal.contexts.facts() == (before,)
    renewal.key.write_bytes(key)
    renewal.look(3)
    assert renewal.contexts.facts()[0].days_left() == 49
