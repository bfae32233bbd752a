"""User lists of virtual domains: which list counts, who is in it, and what changes it."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from netserver import file_contents
from netserver.errors import ConfigError
from pop3.auth import AuthChain, Identity, LoginName, Secret
from pop3.auth.names import Origin
from pop3.errors import AuthFailed, TemporaryFailure
from tests.support.logins import RIGHT, SHA512, Pools
from tests.support.logins import hashes as hashes  # noqa: PLC0414 - a fixture

PATTERN = "userlist:lists/{initial}/{domain}/userlist"


def name(text: str, server_name: str | None = None, hosts: Sequence[str] = ()) -> LoginName:
    """Parse a login name that comes from such a place."""
    return replace(LoginName.parse(text.encode()), origin=Origin(server_name, lambda: hosts))


def write(home: Path, domain: str, text: str) -> Path:
    """Write the list of a domain."""
    path = home / "lists" / domain[0] / domain / "userlist"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    # an older time: what was changed just now is read again anyway
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make the lists of two domains."""
    write(tmp_path, "one.org", f"joe:{SHA512}:5000:\nann:!:5001:\nfull@one.org:{SHA512}:5002:\n")
    write(tmp_path, "two.org", f"joe:{{PLAIN}}other:6000:\nbob:{SHA512}::\n")
    return tmp_path


def made(home: Path, spec: str, warnings: list[str] | None = None) -> AuthChain:
    """Make the chain."""
    warn = ([] if warnings is None else warnings).append
    return AuthChain.from_specs([spec], base_directory=str(home), warn=warn)


def check(chain: AuthChain, login: LoginName, password: bytes = RIGHT) -> Identity:
    """Log in."""
    return chain.authenticate(login, Secret(password), Pools())


def test_the_domain_of_the_login_name_chooses_the_list(home: Path) -> None:
    """Two users of one name in two domains are two users, with uids of their own."""
    chain = made(home, PATTERN)
    assert check(chain, name("joe@one.org")) == Identity("joe@one.org", 5000)
    assert check(chain, name("joe@TWO.org"), b"other") == Identity("joe@two.org", 6000)
    assert check(chain, name("full@one.org")) == Identity("full@one.org", 5002)
    assert chain.lookup(name("ann@one.org"), Pools()) == Identity("ann@one.org", 5001)
    for login in ("joe@two.org", "ann@one.org", "bob@one.org", "joe", "joe@three.org"):
        with pytest.raises(AuthFailed):
            check(chain, name(login))


@pytest.mark.parametrize("way", ["tls", "client"])
def test_the_place_a_login_comes_from_chooses_the_list(home: Path, way: str) -> None:
    """A bare name belongs to the domain of the handshake or host, one with a domain to that one."""

    def come(text: str, domain: str) -> LoginName:
        return name(text, domain) if way == "tls" else name(text, hosts=[domain])

    chain = made(home, f"{PATTERN}?domain={way}")
    found = check(chain, come("joe~phone", "One.Org."))
    assert found.user == "joe@one.org"
    assert name("joe~phone").as_user(found.user).full == "joe~phone@one.org"
    assert check(chain, come("joe@one.org", "one.org")).user == "joe@one.org"
    for login in (come("joe@two.org", "one.org"), come("joe", "two.org"), name("joe")):
        with pytest.raises(AuthFailed):
            check(chain, login)


@pytest.mark.parametrize(
    "domain", ["../one.org", "..", ".", "o/../one.org", "", "a" * 300, "*", "one.org\0", "\udcff"]
)
def test_names_from_the_network_lead_nowhere_else(home: Path, domain: str) -> None:
    """What is no domain finds no list, however it is written."""
    shutil.copy(home / "lists/o/one.org/userlist", home / "lists/userlist")
    chain = made(home, f"{PATTERN}?domain=tls")
    with pytest.raises(AuthFailed):
        check(chain, name("joe", domain))


def test_unknown_users_and_domains_cost_what_a_wrong_password_costs(
    home: Path, hashes: list[str | None]
) -> None:
    """One hash of the same shape, whatever is unknown."""
    chain = made(home, PATTERN)
    for login in ("joe@one.org", "nobody@one.org", "ann@one.org", "joe@three.org", "joe"):
        hashes.clear()
        with pytest.raises(AuthFailed):
            check(chain, name(login), b"guess")
        assert hashes == ["SHA512-CRYPT$6$rounds=1000$"], login


def test_lists_come_change_and_go(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new domain is found when a login asks, a changed list read, one removed is forgotten."""
    monkeypatch.setattr(file_contents, "CHECK_INTERVAL", 0.0)
    chain = made(home, PATTERN)
    path = write(home, "new.org", f"joe:{SHA512}:7:\n")
    assert check(chain, name("joe@new.org")) == Identity("joe@new.org", 7)
    write(home, "new.org", f"joe:{SHA512}:70:\n")
    assert check(chain, name("joe@new.org")) == Identity("joe@new.org", 70)
    path.unlink()
    with pytest.raises(AuthFailed):
        check(chain, name("joe@new.org"))
    write(home, "new.org", f"joe:{SHA512}:8:\n")
    assert check(chain, name("joe@new.org")) == Identity("joe@new.org", 8)


def test_lists_out_of_reach_stay_in_force(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none of the lists can be seen any more, as in a jail, what was read at start counts."""
    monkeypatch.setattr(file_contents, "CHECK_INTERVAL", 0.0)
    chain = made(home, PATTERN)
    (home / "lists").rename(home / "elsewhere")
    assert check(chain, name("joe@one.org")).uid == 5000


def test_a_broken_list_stops_its_own_domain_only(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new list with a mistake is a warning and a temporary failure; an old one stays in force."""
    monkeypatch.setattr(file_contents, "CHECK_INTERVAL", 0.0)
    warnings: list[str] = []
    chain = made(home, PATTERN, warnings)
    write(home, "bad.org", "joe\n")
    for _ in range(3):
        with pytest.raises(TemporaryFailure):
            check(chain, name("joe@bad.org"))
    assert sum("bad.org/userlist:1: not user:hash" in warning for warning in warnings) == 1
    write(home, "bad.org", f"joe:{SHA512}:9:\n")
    assert check(chain, name("joe@bad.org")).uid == 9
    write(home, "one.org", "joe\n")
    assert check(chain, name("joe@one.org")).uid == 5000


def test_one_central_list(home: Path) -> None:
    """A path without fields is one list, and names are as they stand in it."""
    (home / "central").write_text(f"joe:{SHA512}:5000:\nann@x.org:{SHA512}::\n")
    chain = made(home, "kind-6:central")
    assert check(chain, name("joe")) == Identity("joe", 5000)
    assert check(chain, name("ann@x.org")) == Identity("ann@x.org")
    with pytest.raises(AuthFailed):
        check(chain, name("joe@x.org"))


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("userlist", "needs a path"),
        ("userlist:x?domain=dns", "after the ? stands domain=login|tls|client"),
        ("userlist:x?", "after the ? stands domain=login|tls|client"),
        ("userlist:lists/{user}", "only {domain} and {initial}"),
        ("userlist:lists/{initial}", "{initial} without {domain}"),
        ("userlist:nowhere/{domain}", "nowhere: no such directory"),
        ("userlist:missing", "missing: No such file"),
        ("userlist:lists/{domain", "a brace has no partner"),
    ],
)
def test_mistakes_stop_the_start(home: Path, spec: str, what: str) -> None:
    """One line that names the option."""
    with pytest.raises(ConfigError) as caught:
        made(home, spec)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_list_stops_the_start(home: Path) -> None:
    """With its file and line."""
    write(home, "two.org", "joe:{X}y\n")
    with pytest.raises(ConfigError, match=r"--auth userlist: .*two.org/userlist:1: unknown scheme"):
        made(home, PATTERN)


def test_a_locked_user_stays_out_whatever_proves_the_name(home: Path) -> None:
    """A certificate or a token is no way around the "!" of a list."""
    chain = made(home, PATTERN)
    for user, locked in (("ann", True), ("joe", False)):
        found = chain.stored(name(f"{user}@one.org"), Pools())
        assert found is not None
        assert (found.identity.user, found.locked) == (f"{user}@one.org", locked)
    assert chain.stored(name("nobody@one.org"), Pools()) is None
