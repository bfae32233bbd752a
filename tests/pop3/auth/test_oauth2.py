"""Tokens: what is accepted, and everything that must not be."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from joserfc.jwk import ECKey
from pysasl.creds.client import ClientCredentials
from pysasl.mechanism.oauth import OAuth2Mechanism

from netserver.errors import ConfigError
from pop3.auth import oauth2_keys, sasl
from pop3.auth.chain import AuthChain
from pop3.auth.names import LoginName
from pop3.auth.sasl import Challenge, Proof, Surroundings
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, TemporaryFailure
from tests.support.oauth import Authority, authorization_server

ANNA = "anna@example.com"
HOUR = 3600


@pytest.fixture(scope="module")
def running() -> Iterator[Authority]:
    """One authorization server for all."""
    with authorization_server() as authority:
        yield authority


@pytest.fixture
def authority(running: Authority) -> Authority:
    """Return it as it was at the beginning."""
    running.keys = {"one": running.keys["one"]}
    running.active.clear()
    running.asked.clear()
    running.credentials.clear()
    running.status = 200
    running.silent.clear()
    return running


@pytest.fixture(autouse=True)
def close_all() -> Iterator[None]:
    """Close what the chains of a test have open."""
    yield
    while Trusting.made:
        Trusting.made.pop().close()


class Trusting:
    """A chain that trusts a server."""

    made: ClassVar[list[AuthChain]] = []

    def __init__(self, path: Path, *also: str) -> None:
        """Make it from a parameter file."""
        self.warnings: list[str] = []
        self.chain = AuthChain.from_specs(
            [f"oauth2:{path}", *also],
            base_directory=str(path.parent),
            warn=self.warnings.append,
        )
        self.made.append(self.chain)

    def user(self, token: str, user: str = ANNA) -> str:
        """Return who logs in with a token. Raises AuthFailed, TemporaryFailure."""
        login = LoginName.parse(user.encode())
        found = self.chain.authenticate_token(login, Secret(token.encode()), direct)
        assert token not in "".join(self.warnings)
        return found.user


def direct(_pool: str, function: Any, *args: Any) -> Any:
    """Run where we are."""
    return function(*args)


def test_a_signed_token(tmp_path: Path, authority: Authority) -> None:
    """Lets its user in, asks for the keys once, and knows nobody by password."""
    trusting = Trusting(authority.write(tmp_path / "o.yaml"))
    assert [trusting.user(authority.token()) for _ in range(2)] == [ANNA, ANNA]
    assert trusting.user(authority.token(scope=None, scp=["mail"])) == ANNA
    assert trusting.user(authority.token(aud=AUDIENCE_TEXT), "anna@EXAMPLE.com") == ANNA
    assert authority.asked == ["/jwks"]
    with pytest.raises(AuthFailed):
        trusting.chain.authenticate(
            LoginName.parse(ANNA.encode()), Secret(authority.token().encode()), direct
        )


AUDIENCE_TEXT = "pop3"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": ["xpop3", 5]},
        {"aud": None},
        {"aud": {"pop3": 1}},
        {"exp": 1},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": 10**400},
        {"nbf": False},
        {"nbf": time.time() + HOUR},
        {"iat": time.time() + HOUR},
        {"scope": "mailbox openid"},
        {"scope": None},
        {"email": "joe@example.com"},
        {"email": None},
        {"email": ["anna@example.com"]},
        {"email": "anna@example.com\0"},
        {"email_verified": False},
    ],
)
def test_wrong_claims(tmp_path: Path, authority: Authority, claims: dict[str, Any]) -> None:
    """One wrong claim is enough."""
    trusting = Trusting(authority.write(tmp_path / "o.yaml"))
    with pytest.raises(AuthFailed):
        trusting.user(authority.token(**claims))


def forged(header: dict[str, Any], payload: str, signature: bytes = b"") -> str:
    """Put a token together by hand."""
    first = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{first}.{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_forged_tokens(tmp_path: Path, authority: Authority) -> None:
    """No signature, a public key as a password, another key, another text: all refused."""
    trusting = Trusting(authority.write(tmp_path / "o.yaml"))
    good = authority.token()
    _, payload, signature = good.split(".")
    public = json.dumps(authority.keys["one"].as_dict(private=False)).encode()
    stranger = Authority(1)
    wrong = [
        forged({"alg": "none", "kid": "one"}, payload),
        forged({"alg": "HS256", "kid": "one"}, payload, public[:32]),
        forged({"alg": "ES256", "kid": "../../etc/passwd"}, payload, b"x" * 64),
        forged({"alg": "ES256", "kid": "one", "crit": ["x"], "x": 1}, payload, b"x" * 64),
        forged({"alg": "RS256", "kid": "one"}, payload, b"x" * 256),
        stranger.token(),
        good[:-4] + "AAAA",
        good.replace(payload, payload[:-2] + "AA"),
        payload,
        "x",
        ".".join(["e30"] * 5),
        good + "." + signature,
    ]
    for token in wrong:
        with pytest.raises(AuthFailed):
            trusting.user(token)
    assert authority.asked == ["/jwks"]  # made-up key ids do not make us ask again and again


def test_keys_are_replaced(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key is found at most every half minute, and the last good ones outlive a failure."""
    trusting = Trusting(authority.write(tmp_path / "o.yaml"))
    trusting.user(authority.token())
    authority.keys["two"] = ECKey.generate_key("P-256", {"kid": "two"})
    with pytest.raises(AuthFailed):
        trusting.user(authority.token(kid="two"))
    monkeypatch.setattr(oauth2_keys, "REFETCH_SECONDS", 0.0)
    assert trusting.user(authority.token(kid="two")) == ANNA
    authority.status = 500
    monkeypatch.setattr(oauth2_keys, "REFRESH_SECONDS", 0.0)
    assert trusting.user(authority.token(kid="two")) == ANNA
    assert "going on with the keys" in trusting.warnings[-1]
    authority.status = 200
    del authority.keys["two"]
    trusting.user(authority.token())
    authority.keys["two"] = ECKey.generate_key("P-256", {"kid": "two"})
    stale = authority.token(kid="two")
    del authority.keys["two"]
    with pytest.raises(AuthFailed):
        trusting.user(stale)


def test_introspection(tmp_path: Path, authority: Authority) -> None:
    """Active tokens are remembered for a short time, others are asked about each time."""
    (tmp_path / "secret").write_text("s p:ace\n")
    (tmp_path / "secret").chmod(0o600)
    lines = ("client_id: me", "client_secret_file: secret", "user_claim: username")
    trusting = Trusting(authority.write(tmp_path / "o.yaml", *lines, jwks=False))
    good = {"active": True, "username": ANNA, "aud": "pop3", "scope": "mail"}
    authority.active["opaque"] = good
    assert [trusting.user("opaque") for _ in range(2)] == [ANNA, ANNA]
    assert authority.asked == ["/ask"]
    basic = base64.b64encode(b"me:s%20p%3Aace").decode()
    assert authority.credentials == [f"Basic {basic}"]
    authority.active |= {
        "off": good | {"active": False},
        "word": good | {"active": "true"},
        "old": good | {"exp": 1},
        "issuer": good | {"iss": "https://evil.example"},
        "aud": good | {"aud": "x"},
        "scope": good | {"scope": "x"},
    }
    for token in ("off", "word", "old", "issuer", "aud", "scope", "unknown", "unknown"):
        with pytest.raises(AuthFailed):
            trusting.user(token)
    with pytest.raises(AuthFailed):  # what is remembered is remembered for its user
        trusting.user("opaque", "joe@example.com")
    assert len(authority.asked) == 10


@pytest.mark.parametrize("jwks", [True, False])
def test_a_server_that_fails_is_a_temporary_failure(
    tmp_path: Path, authority: Authority, jwks: bool
) -> None:
    """Errors, redirects and silence are no answer about the token; the log says why."""
    for status, silent, timeout in ((500, False, 5), (302, False, 5), (200, True, 0.2)):
        trusting = Trusting(authority.write(tmp_path / "o.yaml", f"timeout: {timeout}", jwks=jwks))
        authority.status = status
        if silent:
            authority.silent.set()
        with pytest.raises(TemporaryFailure):
            trusting.user(authority.token())
        assert authority.url in trusting.warnings[0]


def test_other_backends_say_who_it_is(tmp_path: Path, authority: Authority) -> None:
    """The users file adds uid and home, and a user locked there stays out."""
    users = tmp_path / "users"
    users.write_text(f"{ANNA}:{{PLAIN}}x:5000:::/srv\njoe@example.com:!\n")
    users.chmod(0o600)
    path = authority.write(tmp_path / "o.yaml")
    trusting = Trusting(path, f"passwd-file:{users}")
    login = LoginName.parse(ANNA.encode())
    found = trusting.chain.authenticate_token(login, Secret(authority.token().encode()), direct)
    assert (found.uid, found.home) == (5000, "/srv")
    with pytest.raises(AuthFailed):
        trusting.user(authority.token(email="joe@example.com"), "joe@example.com")


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("", "jwks_url or introspection_url: one of them is needed"),
        ("jwks_url: http://id.example/jwks", "jwks_url: http only on this machine"),
        ("jwks_url: ftp://id.example/jwks", "jwks_url: not https://"),
        ("jwks_url: https://u:hush@id.example/", "jwks_url: not https://"),
        ("jwks_url: https://id.example/", "needs issuer and audience"),
        ("introspection_url: https://id.example/", "needs audience or scope"),
        (
            "scope: mail\nintrospection_url: https://a/\nalgorithms: HS256",
            "algorithms: HS256; there are: RS256",
        ),
        (
            "scope: mail\nintrospection_url: https://a/\nalgorithms: none",
            "algorithms: none; there are",
        ),
        ("scope: mail\nintrospection_url: https://a/\nclient_id: x", "client_id: goes with"),
        ("scope: mail\nintrospection_url: https://a/\nca_file: gone", "ca_file: "),
        ("nonsense: 1", 'no key "nonsense"'),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, lines: str, what: str) -> None:
    """Each is one line that names the key, and shows no secret."""
    path = tmp_path / "o.yaml"
    path.write_text(lines + "\n")
    with pytest.raises(ConfigError, match=r"^--auth oauth2: ") as caught:
        Trusting(path)
    assert what in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_both_mechanisms(tmp_path: Path, authority: Authority) -> None:
    """RFC 7628 §4 and pysasl's XOAUTH2 carry name and token; a refusal has a JSON of its own."""
    path = authority.write(tmp_path / "o.yaml", "openid_configuration: https://id.example/c")
    chain = Trusting(path).chain
    assert not chain.takes_passwords
    assert sasl.offered(sasl.mechanisms(None), chain, None, plaintext=True, asked=False) == (
        b"OAUTHBEARER", b"XOAUTH2",
    )  # fmt: skip
    token = authority.token()
    bearer = f"n,a={ANNA},\x01host=h\x01port=110\x01auth=Bearer {token}\x01\x01".encode()
    credentials = ClientCredentials(ANNA, token)
    google = OAuth2Mechanism().client_attempt(credentials, []).response
    lacking = authority.token(scope="x")
    for name, response in ((b"OAUTHBEARER", bearer), (b"XOAUTH2", google)):
        assert proven(name, response, chain) == ANNA
        refused = proven(name, response.replace(token.encode(), b"x.y.z"), chain)
        scoped = proven(name, response.replace(token.encode(), lacking.encode()), chain)
        assert isinstance(refused, dict)
        assert isinstance(scoped, dict)
        assert refused["scope"] == "mail"
        assert refused["openid-configuration"] == "https://id.example/c"
        statuses = {"invalid_token", "insufficient_scope"}
        expected = statuses if name == b"OAUTHBEARER" else {"401", "403"}
        assert {refused["status"], scoped["status"]} == expected


def proven(name: bytes, response: bytes, chain: AuthChain) -> str | dict[str, str]:
    """Return whom a mechanism lets in, or what it tells who is refused."""
    run = sasl.exchange(name, Surroundings(chain))
    assert run is not None
    assert run.respond(None) == Challenge(b"")
    proof = run.respond(response)
    assert isinstance(proof, Proof)
    assert repr(proof.attempt) == "<secret>"
    try:
        return proof.identify(LoginName.parse(proof.login)).user
    except AuthFailed as error:
        assert proof.refusal is not None
        found: dict[str, str] = json.loads(proof.refusal(error).data)
        return found


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"n,,\x01auth=Bearer x\x01\x01",
        b"p=tls-unique,a=a,\x01auth=Bearer x\x01\x01",
        b"n,a=a,\x01auth=Basic x\x01\x01",
        b"n,a=a,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
        b"n,a=a,\x01auth=Bearer x y\x01\x01",
        b"n,a=a=20,\x01auth=Bearer x\x01\x01",
        b"n,a=a,\x01auth=Bearer x\x01",
        b"n,a=a,\x01\x01",
        b"user=\x01auth=Bearer x\x01\x01",
        b"n,a=a,\x01auth=Bearer " + b"x" * 7000 + b"\x01\x01",
    ],
)
def test_malformed_responses(response: bytes) -> None:
    """They end the exchange."""
    for name in (b"OAUTHBEARER", b"XOAUTH2"):
        run = sasl.exchange(name)
        assert run is not None
        with pytest.raises(AuthFailed):
            run.respond(response)
