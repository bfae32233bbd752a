"""SCRAM, CRAM-MD5, EXTERNAL, ANONYMOUS: the RFCs' examples, other people's clients, wrong moves."""

import base64
import hashlib
import hmac
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysasl.creds.client import ClientCredentials
from pysasl.mechanism import ServerChallenge
from pysasl.mechanism.crammd5 import CramMD5Mechanism
from scramp import ScramClient  # type: ignore[import-untyped]

from netserver.errors import ConfigError
from netserver.tls_layer import TLSInfo
from pop3.auth import sasl, stored
from pop3.auth.backend import Identity
from pop3.auth.chain import AuthChain
from pop3.auth.names import LoginName
from pop3.auth.sasl import Challenge, Exchange, Proof, Surroundings
from pop3.auth.sasl.prepare import prepare
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed
from pop3.state import secret_key
from tests.support.logins import Pools

END_POINT = b"e" * 32
UNIQUE = b"u" * 12
TLS = TLSInfo(
    "TLSv1.2", "x", None, None, ("joe@example.com",),
    {"tls-server-end-point": END_POINT, "tls-unique": UNIQUE},
)  # fmt: skip
# RFC 5802 §5 and RFC 7677 §3: user "user", password "pencil"
VECTORS = {
    b"SCRAM-SHA-1": (
        "QSXCR+Q6sek8bf92", "fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j",
        "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    b"SCRAM-SHA-256": (
        "W22ZaJ0SNY7soEsUEjb6gQ==", "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
}  # fmt: skip


def chain_of(tmp_path: Path, *lines: str) -> AuthChain:
    """Return a chain with one users file."""
    users = tmp_path / "users"
    users.write_text("".join(line + "\n" for line in lines))
    users.chmod(0o600)
    return AuthChain.from_specs([f"passwd-file:{users}"], base_directory=str(tmp_path))


def parse(name: bytes) -> LoginName | None:
    """Parse as the server does."""
    try:
        return LoginName.parse(name)
    except ValueError:
        return None


def begin(mechanism: bytes, chain: AuthChain | None, **around: Any) -> Exchange:
    """Begin an exchange that exists."""
    surroundings = Surroundings(chain, parse=parse, salt_key=b"k" * 32, **around)
    run = sasl.exchange(mechanism, surroundings)
    assert run is not None
    return run


def judged(proof: object) -> Identity:
    """Return whom a proof proves. Raises AuthFailed."""
    assert isinstance(proof, Proof)
    login = parse(proof.login)
    if login is None:
        raise AuthFailed
    return proof.identify(login)


def with_scramp(run: Exchange, user: str, password: str, **binding: Any) -> tuple[Proof, Any]:
    """Let scramp be the client up to its proof."""
    client = ScramClient([run.name.decode()], user, password, **binding)
    first = run.respond(client.get_client_first().encode())
    assert isinstance(first, Challenge)
    client.set_server_first(first.data.decode())
    proof = run.respond(client.get_client_final().encode())
    assert isinstance(proof, Proof)
    return proof, client


@pytest.mark.parametrize("mechanism", [b"SCRAM-SHA-1", b"SCRAM-SHA-256"])
def test_scram_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: bytes) -> None:
    """The conversation in the RFC is ours, octet by octet."""
    salt, mine, yours, proof, verifier = VECTORS[mechanism]
    keys = stored.derive(
        mechanism.decode(), Secret(b"pencil"), base64.b64decode(salt), iterations=4096
    )
    parts = ",".join(
        base64.b64encode(part).decode() for part in (keys.salt, keys.stored_key, keys.server_key)
    )
    chain = chain_of(tmp_path, f"user:{{{mechanism.decode()}}}4096,{parts}")
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: yours)
    run = begin(mechanism, chain)
    assert run.respond(None) == Challenge(b"")
    first = run.respond(f"n,,n=user,r={mine}".encode())
    assert first == Challenge(f"r={mine}{yours},s={salt},i=4096".encode())
    last = run.respond(f"c=biws,r={mine}{yours},p={proof}".encode())
    assert judged(last).user == "user"
    assert isinstance(last, Proof)
    assert last.last == Challenge(f"v={verifier}".encode())


@pytest.mark.parametrize("mechanism", [b"SCRAM-SHA-1", b"SCRAM-SHA-256"])
@pytest.mark.parametrize("scheme", ["PLAIN", "SCRAM"])
@pytest.mark.parametrize("plus", [False, True])
def test_scram_as_scramp_sees_it(tmp_path: Path, mechanism: bytes, scheme: str, plus: bool) -> None:
    """An independent client is let in, and believes us; with a wrong password it is not."""
    password = "p\u00e4ss \u2168"  # SASLprep changes it
    hash_text = "{PLAIN}" + password
    if scheme == "SCRAM":
        prepared = prepare(password.encode())
        assert prepared == "p\u00e4ss IX".encode()
        hash_text = stored.hash_of(Secret(prepared), mechanism.decode(), 4096)
    chain = chain_of(tmp_path, f"jo,e=:{hash_text}")
    name = mechanism + b"-PLUS" if plus else mechanism
    binding = {"channel_binding": ("tls-server-end-point", END_POINT)} if plus else {}
    pools = Pools()
    proof, client = with_scramp(
        begin(name, chain, tls=TLS, run_blocking=pools), "jo,e=", password, **binding
    )
    assert judged(proof).user == "jo,e="
    assert proof.last is not None
    client.set_server_final(proof.last.data.decode())
    assert ("hash" in pools.asked) == (scheme == "PLAIN")
    wrong, _ = with_scramp(begin(name, chain, tls=TLS), "jo,e=", "other", **binding)
    with pytest.raises(AuthFailed):
        judged(wrong)


def test_scram_tells_nobody_who_exists(tmp_path: Path) -> None:
    """Unknown, locked and unfit users get one stable salt, the usual count, and the same work."""
    known = stored.hash_of(Secret(b"pw"), iterations=5000)
    chain = chain_of(tmp_path, f"joe:{known}", "off:!", "ann:{PLAIN}pw", f"bob:{known}")
    seen = {}
    for name in ("joe", "off", "ann", "nobody", "../x"):
        answers = []
        for _ in range(2):
            pools = Pools()
            run = begin(b"SCRAM-SHA-256", chain, run_blocking=pools)
            first = run.respond(f"n,,n={name},r=abc".encode())
            assert isinstance(first, Challenge)
            nonce, salt, count = first.data.split(b",")
            assert count == b"i=5000"
            assert len(base64.b64decode(salt[2:])) == 16
            assert pools.asked.count("hash") == 1
            answers.append(salt)
        assert answers[0] == answers[1]
        seen[name] = answers[0]
        if name in ("off", "nobody", "../x"):
            final = b"c=biws," + nonce + b",p=" + base64.b64encode(b"x" * 32)
            with pytest.raises(AuthFailed):
                judged(run.respond(final))
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize(
    ("mechanism", "flag", "bound"),
    [
        (b"SCRAM-SHA-256-PLUS", "p=tls-server-end-point", b"x" * 32),
        (b"SCRAM-SHA-256-PLUS", "p=tls-server-end-point", b""),
        (b"SCRAM-SHA-256-PLUS", "p=tls-unique", END_POINT),
        (b"SCRAM-SHA-256", "n", b"x"),
    ],
)
def test_scram_refuses_another_channel(
    tmp_path: Path, mechanism: bytes, flag: str, bound: bytes
) -> None:
    """What was bound to another connection is a failed login, whatever the password."""
    chain = chain_of(tmp_path, "joe:{PLAIN}pw")
    run = begin(mechanism, chain, tls=TLS)
    with pytest.raises(AuthFailed):
        judged(finished(run, f"{flag},,", bound))


@pytest.mark.parametrize("kind", ["tls-server-end-point", "tls-unique"])
def test_scram_takes_both_bindings(tmp_path: Path, kind: str) -> None:
    """The client chooses the type among those this connection has; equal names may act."""
    chain = chain_of(tmp_path, "joe:{PLAIN}pw")
    run = begin(b"SCRAM-SHA-1-PLUS", chain, tls=TLS)
    assert judged(finished(run, f"p={kind},a=joe,", TLS.bindings[kind])).user == "joe"


def finished(run: Exchange, gs2: str, bound: bytes) -> Any:
    """Do the client's part for joe with password "pw"."""
    algorithm = "sha1" if b"SHA-1" in run.name else "sha256"
    bare = b"n=joe,r=abc"
    first = run.respond(gs2.encode() + bare)
    assert isinstance(first, Challenge)
    nonce, salt, count = (part[2:] for part in first.data.split(b","))
    salted = hashlib.pbkdf2_hmac(algorithm, b"pw", base64.b64decode(salt), int(count))
    key = hmac.digest(salted, b"Client Key", algorithm)
    unproven = b"c=" + base64.b64encode(gs2.encode() + bound) + b",r=" + nonce
    message = bare + b"," + first.data + b"," + unproven
    signature = hmac.digest(hashlib.new(algorithm, key).digest(), message, algorithm)
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    return run.respond(unproven + b",p=" + base64.b64encode(proof))


@pytest.mark.parametrize(
    ("mechanism", "first"),
    [
        (b"SCRAM-SHA-1", b"y,,n=joe,r=abc"),  # somebody cut -PLUS out of our list
        (b"SCRAM-SHA-1", b"p=tls-server-end-point,,n=joe,r=abc"),
        (b"SCRAM-SHA-1-PLUS", b"n,,n=joe,r=abc"),
        (b"SCRAM-SHA-1-PLUS", b"p=tls-exporter,,n=joe,r=abc"),
        (b"SCRAM-SHA-1", b"n,a=ann,n=joe,r=abc"),
        (b"SCRAM-SHA-1", b"n,,m=x,n=joe,r=abc"),
        (b"SCRAM-SHA-1", b"n,,n=,r=abc"),
        (b"SCRAM-SHA-1", b"n,,n=j=20,r=abc"),
        (b"SCRAM-SHA-1", b"n,,n=j\0e,r=abc"),
        (b"SCRAM-SHA-1", b"n,,n=joe,r=a b"),
        (b"SCRAM-SHA-1", b"n,,n=\xff,r=abc"),
        (b"SCRAM-SHA-1", b"n,,n=joe,r=abc\n"),
        (b"SCRAM-SHA-1", b""),
        (b"SCRAM-SHA-1", b"n,,n=joe,r=" + b"x" * 3000),
    ],
)
def test_scram_refuses_at_once(tmp_path: Path, mechanism: bytes, first: bytes) -> None:
    """Downgrades, other identities, unknown extensions and garbage end the exchange."""
    run = begin(mechanism, chain_of(tmp_path, "joe:{PLAIN}pw"), tls=TLS, offered=sasl.AVAILABLE)
    for _ in range(2):
        with pytest.raises(AuthFailed):
            run.respond(first)


def test_scram_takes_y_where_no_binding_was_offered(tmp_path: Path) -> None:
    """A client that can bind says so, and that is no downgrade."""
    run = begin(b"SCRAM-SHA-1", chain_of(tmp_path, "joe:{PLAIN}pw"), offered=(b"SCRAM-SHA-1",))
    assert judged(finished(run, "y,,", b"")).user == "joe"


def test_cram_vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2195 §2, and pysasl as client; a wrong digest and users without a secret fail alike."""
    chain = chain_of(tmp_path, "tim:{PLAIN}tanstaaftanstaaf", "off:!", "x:$1$saltsalt$" + "." * 22)
    stamp = b"<1896.697170952@postoffice.reston.mci.net>"
    monkeypatch.setattr("pop3.auth.sasl.cram.timestamp", lambda: stamp)
    digest = b"b913a602c7eda7a495b4e6e7334d3890"
    assert cram(chain, b"tim " + digest) == "tim"
    said = CramMD5Mechanism().client_attempt(
        ClientCredentials("tim", "tanstaaftanstaaf"), [ServerChallenge(stamp)]
    )
    assert cram(chain, said.response) == "tim"
    for name in (b"nobody", b"off", b"x", b"../x"):
        with pytest.raises(AuthFailed):
            cram(chain, name + b" " + digest)
    for response in (b"", b"tim", b"tim " + digest.upper(), b"t\0m " + digest, b" " + digest):
        with pytest.raises(AuthFailed):
            cram(chain, response)
    with pytest.raises(AuthFailed):  # the server is first
        begin(b"CRAM-MD5", chain).respond(b"tim " + digest)


def cram(chain: AuthChain, response: bytes) -> str:
    """Run CRAM-MD5; return the user."""
    run = begin(b"CRAM-MD5", chain)
    assert isinstance(run.respond(None), Challenge)
    return judged(run.respond(response)).user


@pytest.mark.parametrize(
    ("names", "asked", "user"),
    [
        (("joe@example.com",), b"", "joe@example.com"),
        (("joe@example.com",), b"joe@EXAMPLE.com", "joe@example.com"),
        (("joe@example.com", "ann"), b"ann", "ann"),
        (("joe@example.com", "ann"), b"", None),
        (("ann",), b"joe@example.com", None),
        (("off",), b"", None),
        (("stranger",), b"", None),
        (("a/../b",), b"", None),
        (("ann",), b"ann\0", None),
        ((), b"ann", None),
        ((), b"", None),
    ],
)
def test_external(tmp_path: Path, names: tuple[str, ...], asked: bytes, user: str | None) -> None:
    """Only a certified name that a backend knows, and has not locked, gets in."""
    chain = chain_of(tmp_path, "joe@example.com:{PLAIN}x", "ann:{PLAIN}y", "off:!")
    run = begin(b"EXTERNAL", chain, tls=TLSInfo("TLSv1.3", "x", None, None, names))
    assert run.respond(None) == Challenge(b"")
    if user is None:
        with pytest.raises(AuthFailed):
            judged(run.respond(asked))
    else:
        assert judged(run.respond(asked)).user == user


def test_anonymous(tmp_path: Path) -> None:
    """It is for `any`; where another backend knows the name it is no way around the password."""
    anyone = AuthChain.from_specs(["any"], base_directory="/")
    assert judged(begin(b"ANONYMOUS", anyone).respond(b"sirhc")).user == "anonymous"
    taken = chain_of(tmp_path, "anonymous:{PLAIN}x")
    both = AuthChain([*taken.backends, *anyone.backends])
    for chain in (taken, both):
        with pytest.raises(AuthFailed):
            judged(begin(b"ANONYMOUS", chain).respond(b""))
    for trace in (b"\xff", b"x" * 256, b"a\0"):
        with pytest.raises(AuthFailed):
            begin(b"ANONYMOUS", anyone).respond(trace)


def offered(chain: AuthChain | None, **options: Any) -> set[bytes]:
    """Return what is offered."""
    tls, asked = options.get("tls"), options.get("asked")
    names = sasl.mechanisms(asked)
    plaintext = options.get("plaintext", True)
    return set(sasl.offered(names, chain, tls, plaintext=plaintext, asked=asked is not None))


def test_what_is_offered_is_what_works(tmp_path: Path) -> None:
    """By backends, TLS and policy; SCRAM unasked only where all users can do it."""
    passwords, scram = {b"PLAIN", b"LOGIN"}, {b"SCRAM-SHA-1", b"SCRAM-SHA-256"}
    plus = {name + b"-PLUS" for name in scram}
    plain = chain_of(tmp_path, "joe:{PLAIN}x", "off:!")
    assert offered(plain) == passwords | scram
    assert offered(plain, plaintext=False) == scram
    assert offered(plain, tls=TLS) == passwords | scram | plus | {b"EXTERNAL"}
    assert offered(plain, asked="cram-md5,plain") == {b"CRAM-MD5", b"PLAIN"}
    keys = stored.hash_of(Secret(b"pw"))
    assert offered(chain_of(tmp_path, f"joe:{keys}")) == passwords | {b"SCRAM-SHA-256"}
    mixed = chain_of(tmp_path, f"joe:{keys}", "ann:$1$saltsalt$" + "." * 22)
    assert offered(mixed) == passwords
    assert offered(mixed, asked="scram-sha-256,scram-sha-1,cram-md5") == {b"SCRAM-SHA-256"}
    anyone = AuthChain.from_specs(["any"], base_directory="/")
    assert offered(anyone) == passwords | {b"ANONYMOUS"}
    assert offered(None, tls=TLS) == passwords
    for asked, why in (
        ("cram-md5", r"^--sasl CRAM-MD5: needs users with \{PLAIN\}$"),
        ("anonymous", "needs --auth any"),
        ("xoauth2", "needs --auth oauth2:FILE"),
        ("scram-sha-1", r"needs users with \{SCRAM-SHA-1\} or \{PLAIN\}"),
    ):
        with pytest.raises(ConfigError, match=why):
            sasl.check(asked, mixed)


@pytest.mark.parametrize(
    ("octets", "prepared"),
    [
        (b"user", b"user"),
        ("I\u00adX".encode(), b"IX"),
        ("\u00aa".encode(), b"a"),
        ("\u2168".encode(), b"IX"),
        ("a\u00a0b".encode(), b"a b"),
        (b"\x07", None),
        ("\u06271".encode(), None),
        ("\u0221".encode(), None),
        (b"", None),
        ("\u00ad".encode(), None),
        (b"\xff", None),
    ],
)
def test_saslprep(octets: bytes, prepared: bytes | None) -> None:
    """The examples of RFC 4013 §3, and what has no prepared form."""
    assert prepare(octets) == prepared


@given(
    mechanism=st.sampled_from([name for name in sasl.AVAILABLE if name != b"PLAIN"]),
    responses=st.lists(
        st.one_of(
            st.none(),
            st.binary(max_size=60),
            st.from_regex(rb"[nyp](=tls-unique)?,(a=joe)?,n=joe,r=[a-z]{1,9}", fullmatch=True),
            st.from_regex(rb"c=biws,r=[a-zA-Z0-9_-]{9,40},p=[A-Za-z0-9+/]{27}=", fullmatch=True),
            st.from_regex(rb"n,a=joe,\x01auth=Bearer [a-z]+\x01\x01", fullmatch=True),
        ),
        max_size=4,
    ),
)
def test_any_responses_end_in_one_verdict(mechanism: bytes, responses: list[bytes | None]) -> None:
    """Challenges, then at most one result, then failures; a proof of garbage proves nothing."""
    chain = AuthChain.from_specs(["any"], base_directory="/")
    run = begin(mechanism, chain, tls=TLSInfo("TLSv1.2", "x", None, None, (), TLS.bindings))
    ended = False
    for response in responses:
        try:
            result = run.respond(response)
        except AuthFailed:
            ended = True
            continue
        assert not ended
        ended = not isinstance(result, Challenge)
        if isinstance(result, Proof) and mechanism != b"ANONYMOUS":
            with pytest.raises(AuthFailed):
                judged(result)


def test_the_tool_makes_hashes_that_work(tmp_path: Path) -> None:
    """A password on standard input becomes a line that SCRAM and PLAIN both take."""
    done = subprocess.run(
        [sys.executable, "-m", "pop3.tools.password_hash", "--iterations", "4096"],
        input=b"p w\n",
        capture_output=True,
        timeout=30,
        check=True,
    )
    chain = chain_of(tmp_path, "joe:" + done.stdout.decode().strip())
    proof, _ = with_scramp(begin(b"SCRAM-SHA-256", chain), "joe", "p w")
    assert judged(proof).user == "joe"
    login = LoginName.parse(b"joe")
    assert chain.authenticate(login, Secret(b"p w"), Pools()).user == "joe"


def test_fake_salts_outlive_a_restart(tmp_path: Path) -> None:
    """The key they are made from is kept beside the state, for its owner only."""
    path = tmp_path / "salts"
    keys = {secret_key(path) for _ in range(2)}
    assert len(keys) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"^--state: .*broken"):
        secret_key(path)
