"""Users in a directory: who gets in, what a name can do to a filter or a DN, broken servers."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netserver.errors import ConfigError
from pop3.auth import AuthChain, Identity, LoginName, Secret
from pop3.auth.ldap import escaped
from pop3.auth.ldap_parameters import LDAPParameters, wants_starttls
from pop3.errors import AuthFailed, TemporaryFailure
from tests.netserver.certs import make_certificate
from tests.support.slapd import ADMIN_PASSWORD, BASE, Slapd

RIGHT, WRONG, EMPTY = Secret(b"secret"), Secret(b"guess"), Secret(b"")
PEOPLE, ACCOUNTS = f"ou=people,{BASE}", f"ou=accounts,{BASE}"
TEMPLATE = f"uid={{user}},{ACCOUNTS}"
NASTY = (
    "*",
    "a*",
    "*)(uid=*",
    "anna)(|(uid=*",
    "*))(|(objectClass=*",
    "anna)(objectClass=*",
    "anna\0",
    "\0",
    "\\2a",
    "a>=b",
    "anna,ou=people",
    "anton,ou=accounts,dc=example,dc=org",
    "anton+cn=x",
    "anton\\",
    '"anton"',
    "#anton",
    "anton;x=y",
    "<anton>",
    "' OR 1=1",
    "\ufe61",
    "\uff0a)(uid=\uff0a",
    "\U0001f600" * 9,
)

Configure = Callable[..., AuthChain]


def _directly(pool: str, function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@pytest.fixture
def warnings() -> list[str]:
    """Return what was logged."""
    return []


@pytest.fixture
def configure(tmp_path: Path, warnings: list[str]) -> Configure:
    """Return a maker of chains of one ldap backend with such a file."""

    def made(**keys: object) -> AuthChain:
        lines = [
            f"{key}: {value}\n" if isinstance(value, list) else f"{key}: '{value}'\n"
            for key, value in keys.items()
        ]
        (tmp_path / "ldap.yaml").write_text("".join(lines))
        return AuthChain.from_specs(
            ["ldap:ldap.yaml"], base_directory=str(tmp_path), warn=warnings.append
        )

    return made


@pytest.fixture
def admin(tmp_path: Path) -> dict[str, str]:
    """Return the keys with which searches are done as somebody."""
    (tmp_path / "word").write_text(ADMIN_PASSWORD + "\n")
    (tmp_path / "word").chmod(0o600)
    return {"bind_dn": f"cn=admin,{BASE}", "password_file": "word"}


@pytest.fixture(params=["anonymous", "admin", "template"])
def chain(
    request: pytest.FixtureRequest, slapd: Slapd, configure: Configure, admin: dict[str, str]
) -> AuthChain:
    """Ask slapd in each of the three ways."""
    if request.param == "anonymous":
        return configure(urls=slapd.url, base=BASE, timeout=2)
    if request.param == "admin":
        return configure(urls=slapd.socket_url, base=BASE, timeout=2, **admin)
    return configure(urls=slapd.url, bind_dn_template=TEMPLATE, timeout=2)


def log_in(chain: AuthChain, name: str, secret: Secret) -> Identity:
    """Authenticate with names that no check has seen."""
    local, at, domain = name.rpartition("@")
    login = LoginName(local, None, domain) if at else LoginName(name, None, None)
    return chain.authenticate(login, secret, _directly)


def test_the_right_password(chain: AuthChain) -> None:
    """The entry says who it is; a name in other letters, or with blanks, is the same user."""
    for name in ("anton", "ANTON", "Anton", " anton", "anton ", "\uff41nton"):
        assert log_in(chain, name, RIGHT) == Identity("anton", 1200, 1200, "/home/anton")


@pytest.mark.parametrize("name", ["anton", "nobody", "nologin"])
@pytest.mark.parametrize("secret", [WRONG, EMPTY, Secret(b"\0"), Secret(b"secret\0")])
def test_refused(chain: AuthChain, name: str, secret: Secret, warnings: list[str]) -> None:
    """A wrong password and an empty one, which slapd itself would let in, are refused alike."""
    with pytest.raises(AuthFailed, match=r"^authentication failed$"):
        log_in(chain, name, secret)
    assert warnings == []


def test_unknown(chain: AuthChain) -> None:
    """A user nobody knows, or without a password, is refused."""
    for name in ("nobody", "nologin"):
        with pytest.raises(AuthFailed):
            log_in(chain, name, RIGHT)


@pytest.mark.parametrize("name", NASTY)
def test_injection(chain: AuthChain, name: str, warnings: list[str]) -> None:
    """Whatever a name is made of, it is one value that no entry has: never a pattern or a DN."""
    for secret in (RIGHT, EMPTY):
        with pytest.raises(AuthFailed):
            log_in(chain, name, secret)
    assert warnings == []


def test_an_unknown_user_costs_a_bind(
    slapd: Slapd, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known and unknown users get the same number of binds, never one without a password."""
    import ldap3  # noqa: PLC0415 - an extra

    binds: list[tuple[str, int]] = []
    rebind = ldap3.Connection.rebind

    def counted(self: Any, user: str, password: bytes, *rest: Any, **more: Any) -> Any:
        binds.append((user, len(password)))
        return rebind(self, user, password, *rest, **more)

    monkeypatch.setattr(ldap3.Connection, "rebind", counted)
    chain = configure(urls=slapd.url, base=BASE)
    for name in ("anna", "nobody"):
        for secret in (WRONG, EMPTY):
            with pytest.raises(AuthFailed):
                log_in(chain, name, secret)
    assert [length for _, length in binds] == [5, 5]
    assert [user.count(",") for user, _ in binds] == [3, 2]


def test_several_entries(slapd: Slapd, configure: Configure, warnings: list[str]) -> None:
    """Two entries of one name are nobody's, and are logged."""
    chain = configure(urls=slapd.url, base=BASE)
    with pytest.raises(TemporaryFailure):
        log_in(chain, "twice", RIGHT)
    assert warnings == ["auth ldap: more than one entry for 'twice'"]


def test_the_name(slapd: Slapd, configure: Configure, warnings: list[str]) -> None:
    """The canonical name comes from what was compared, or from the attribute that is given."""
    mail = configure(urls=slapd.url, base=BASE, filter="(mail={user})")
    assert log_in(mail, "Anna@example.org", RIGHT).user == "anna@example.org"
    local = configure(urls=slapd.url, base=BASE, filter="(uid={localpart})")
    assert log_in(local, "ANNA@example.net", RIGHT).user == "anna@example.net"
    given = configure(urls=slapd.url, base=BASE, filter="(mail={user})", user_attribute="uid")
    assert log_in(given, "anna@example.org", RIGHT).user == "anna"
    missing = configure(urls=slapd.url, base=BASE, user_attribute="street")
    with pytest.raises(TemporaryFailure):
        log_in(missing, "anna", RIGHT)
    assert "street: 0 values" in warnings[0]


def test_scope(slapd: Slapd, configure: Configure) -> None:
    """One level below the base is not the level after it."""
    chain = configure(urls=slapd.url, base=BASE, scope="one")
    with pytest.raises(AuthFailed):
        log_in(chain, "anna", RIGHT)
    assert log_in(configure(urls=slapd.url, base=PEOPLE, scope="one"), "anna", RIGHT)


def test_a_url_alone(slapd: Slapd, tmp_path: Path) -> None:
    """`ldap:URL` takes base, scope and filter from the URL (RFC 4516)."""
    spec = f"ldap:{slapd.url}/{PEOPLE.replace(',', '%2C')}??one?(mail={{user}})"
    chain = AuthChain.from_specs([spec], base_directory=str(tmp_path))
    assert log_in(chain, "bert@example.org", RIGHT).user == "bert@example.org"


def test_lookup(chain: AuthChain) -> None:
    """Who it is can be asked without a password."""
    found = chain.lookup(LoginName("anton", None, None), _directly)
    assert found == Identity("anton", 1200, 1200, "/home/anton")
    assert chain.lookup(LoginName("nobody", None, None), _directly) is None


def test_restart(slapd: Slapd, chain: AuthChain, warnings: list[str]) -> None:
    """Down means temporary; when it is back, logins work again."""
    log_in(chain, "anton", RIGHT)
    slapd.stop()
    try:
        for secret in (RIGHT, WRONG):
            with pytest.raises(TemporaryFailure):
                log_in(chain, "anton", secret)
        assert len(warnings) == 2
    finally:
        slapd.start()
    assert log_in(chain, "anton", RIGHT).uid == 1200


def test_down_at_start(configure: Configure, warnings: list[str]) -> None:
    """A directory that is down when the server starts is a warning."""
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        configure(urls=f"ldap://127.0.0.1:{bound.getsockname()[1]}", base=BASE)
    assert "cannot be reached" in warnings[0]


def accepted(listener: socket.socket) -> Iterator[None]:
    """Take the connections that wait."""
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            yield


def test_several_servers(slapd: Slapd, configure: Configure, warnings: list[str]) -> None:
    """Servers are asked in order; one that hung is asked last for a while."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        dead = f"ldap://127.0.0.1:{hole.getsockname()[1]}"
        chain = configure(urls=[dead, slapd.url], base=BASE, timeout=0.3)
        assert log_in(chain, "anna", RIGHT).user == "anna"
        hole.settimeout(0)
        assert len(list(accepted(hole))) == 2  # once at start, and by the login
        assert log_in(chain, "anna", RIGHT).user == "anna"
        assert not list(accepted(hole))
    assert warnings == []


def test_a_held_server(slapd: Slapd, configure: Configure, warnings: list[str]) -> None:
    """A server that takes connections and says nothing is given up in time."""
    chain = configure(urls=slapd.url, base=BASE, timeout=0.3)
    slapd.hold()
    try:
        with pytest.raises(TemporaryFailure):
            log_in(chain, "anna", RIGHT)
    finally:
        slapd.go_on()
    assert "timed out" in warnings[0]


def test_tls(slapd: Slapd, configure: Configure, tmp_path: Path, warnings: list[str]) -> None:
    """StartTLS and ldaps, with a certificate that is trusted; any other one is refused."""
    for urls, more in ((slapd.url, {"starttls": "yes"}), (slapd.tls_url, {})):
        chain = configure(urls=urls, base=BASE, ca_file=slapd.ca, **more)
        assert log_in(chain, "anna", RIGHT).user == "anna"
    other, _ = make_certificate(tmp_path, ("other",))
    for urls in (slapd.url, slapd.tls_url):
        chain = configure(urls=urls, base=BASE, ca_file=other, starttls="yes")
        with pytest.raises(TemporaryFailure):
            log_in(chain, "anna", RIGHT)
        assert "certificate verify failed" in warnings.pop()
        chain = configure(urls=urls, base=BASE, verify="no", starttls="yes")
        assert log_in(chain, "anna", RIGHT).user == "anna"


def test_the_name_in_the_certificate(
    slapd: Slapd, configure: Configure, warnings: list[str]
) -> None:
    """A trusted certificate for another host is refused."""
    url = slapd.tls_url.replace("localhost", "127.0.0.1")
    chain = configure(urls=url, base=BASE, ca_file=slapd.ca)
    with pytest.raises(TemporaryFailure):
        log_in(chain, "anna", RIGHT)
    assert "mismatch" in warnings[0]


def test_starttls_is_due_elsewhere() -> None:
    """Without a word about it, passwords go only to this machine without TLS."""
    given = LDAPParameters()
    assert wants_starttls(given, "ldap://ldap.example.com")
    assert not wants_starttls(given, "ldap://localhost:3890")
    assert not wants_starttls(given, "ldaps://ldap.example.com")
    assert not wants_starttls(LDAPParameters(starttls=False), "ldap://ldap.example.com")


def test_a_wrong_service_password(
    slapd: Slapd, configure: Configure, tmp_path: Path, warnings: list[str], admin: dict[str, str]
) -> None:
    """When the server refuses us, nobody's password is wrong for that."""
    (tmp_path / "word").write_text("no longer\n")
    chain = configure(urls=slapd.url, base=BASE, **admin)
    with pytest.raises(TemporaryFailure):
        log_in(chain, "anna", RIGHT)
    assert "invalidCredentials" in warnings[0]
    assert "no longer" not in warnings[0]


def test_a_wrong_base(slapd: Slapd, configure: Configure, warnings: list[str]) -> None:
    """A base that does not exist is the operator's mistake, not the user's."""
    chain = configure(urls=slapd.url, base=f"ou=nowhere,{BASE}")
    with pytest.raises(TemporaryFailure):
        log_in(chain, "anna", RIGHT)
    assert "noSuchObject" in warnings[0]


def test_escaped() -> None:
    """Letters of any script stay, all else in ASCII is written as its octet."""
    assert escaped("Müller.x-1_@org") == "Müller.x-1_@org"
    assert escaped("*)(\\\0>= ,+\"<;#/'") == (r"\2a\29\28\5c\00\3e\3d\20\2c\2b\22\3c\3b\23\2f\27")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "urls: is missing"),
        ("urls: ldap://h", "base: is missing"),
        ("urls: http://h\nbase: x", "http://h: not ldap"),
        ("urls: [ldap://h, 'ldap://u:hunter@h']\nbase: x", "not ldap"),
        ("urls: ldap://h:0\nbase: x", "not ldap"),
        ("urls: ldap://h\nbase: x\nfilter: '(uid=x)'", "filter: names nobody"),
        ("urls: ldap://h\nbase: x\nfilter: '(uid={name})'", "filter: no {name}"),
        ("urls: ldap://h\nbase: x\nfilter: '(uid={user}'", "filter: "),
        ("urls: ldap://h\nbind_dn_template: 'uid=x,dc=y'", "bind_dn_template: names nobody"),
        ("urls: ldap://h\nbase: x\nbind_dn: cn=me", "bind_dn: goes with"),
        ("urls: ldap://h\nbase: x\nscope: deep", "ldap.yaml:3: scope"),
        ("urls: ldap://h\nbase: x\nca_file: nowhere", "ca_file: .*nowhere"),
        ("urls: ldap://h\nbase: x\ntimeout: 0", "timeout: must be"),
        ("uris: ldap://h", "ldap.yaml:1: no key"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, why: str) -> None:
    """Each mistake is one line that begins with the option."""
    (tmp_path / "ldap.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError, match=why) as caught:
        AuthChain.from_specs(["ldap:ldap.yaml"], base_directory=str(tmp_path))
    assert str(caught.value).startswith("--auth ldap: ")
    assert "\n" not in str(caught.value)
