"""SASL exchanges: PLAIN and LOGIN, which there are, and nothing but AuthFailed for garbage."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netserver.errors import ConfigError
from pop3.auth import sasl
from pop3.auth.sasl import Challenge, Credentials, Exchange, Proof
from pop3.errors import AuthFailed


def start(mechanism: bytes) -> Exchange:
    """Begin an exchange that exists."""
    run = sasl.exchange(mechanism)
    assert run is not None
    return run


@pytest.mark.parametrize("authzid", [b"", b"joe"])
def test_plain_gives_credentials(authzid: bytes) -> None:
    """An initial response with no other authorization identity is enough."""
    result = start(b"plain").respond(authzid + b"\0joe\0p w")
    assert isinstance(result, Credentials)
    assert result.login == b"joe"
    assert result.secret.equals(b"p w")
    assert "p w" not in repr(result)


def test_plain_asks_when_there_is_no_initial_response() -> None:
    """Without an initial response comes an empty challenge, once."""
    run = start(b"PLAIN")
    assert run.respond(None) == Challenge(b"")
    result = run.respond(b"\0joe\0pw")
    assert isinstance(result, Credentials)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"joe",
        b"joe\0pw",
        b"\0\0pw",
        b"\0joe\0",
        b"\0joe\0p\0w",
        b"admin\0joe\0pw",
        b"\0joe\0" + b"x" * 800,
    ],
)
def test_plain_refuses_and_ends(response: bytes) -> None:
    """What is no PLAIN response fails, and the exchange stays failed."""
    run = start(b"PLAIN")
    with pytest.raises(AuthFailed):
        run.respond(response)
    with pytest.raises(AuthFailed):
        run.respond(b"\0joe\0pw")


@pytest.mark.parametrize("initial", [False, True])
def test_login_asks_two_questions(initial: bool) -> None:
    """LOGIN asks for name and password; an initial response is the name."""
    run = start(b"LOGIN")
    if not initial:
        assert run.respond(None) == Challenge(b"Username:")
    assert run.respond(b"joe") == Challenge(b"Password:")
    result = run.respond(b"pw")
    assert isinstance(result, Credentials)
    assert (result.login, result.secret.reveal()) == (b"joe", b"pw")
    with pytest.raises(AuthFailed):
        run.respond(b"pw")


@pytest.mark.parametrize(
    "responses", [[b""], [b"j\0e"], [b"joe", b""], [None, None], [b"joe", None]]
)
def test_login_refuses(responses: list[bytes | None]) -> None:
    """Empty answers, a NUL in the name and silence where an answer is due fail."""
    run = start(b"LOGIN")
    for response in responses[:-1]:
        run.respond(response)
    with pytest.raises(AuthFailed):
        run.respond(responses[-1])


@pytest.mark.parametrize("name", [b"", b"DIGEST-MD5", b"PLAIN ", b"PLAIN\0", "pla\u0131n".encode()])
def test_exchange_unknown_mechanism(name: bytes) -> None:
    """A mechanism that is not here is no exchange."""
    assert sasl.exchange(name) is None


def test_mechanisms_reads_the_option() -> None:
    """Names in any case, with commas or blanks, keep their order and come once."""
    assert set(sasl.AVAILABLE) - set(sasl.mechanisms(None)) == {b"CRAM-MD5"}
    assert sasl.mechanisms("login, plain LOGIN") == (b"LOGIN", b"PLAIN")
    assert sasl.mechanisms("none") == sasl.mechanisms("") == ()


@pytest.mark.parametrize(
    "value", ["DIGEST-MD5", "plain,none", "PLA\u0131N", "plain;login", "\ud800"]
)
def test_mechanisms_unknown_is_a_config_error(value: str) -> None:
    """A name that is not here is named in one line with those that are."""
    with pytest.raises(ConfigError, match=r"^--sasl: .*PLAIN, LOGIN, ANONYMOUS$"):
        sasl.mechanisms(value)


def test_decode_is_strict() -> None:
    """Base64 has one spelling; "=" is the empty response."""
    assert sasl.decode(b"AGpvZQBwdw==") == b"\0joe\0pw"
    assert sasl.decode(b"=") == sasl.decode(b"") == b""
    assert sasl.encode(Challenge(b"Username:")) == b"VXNlcm5hbWU6"
    for wrong in (
        b"*",
        b"AGpvZQBwdw",
        b"AGpvZQBwdx==",
        b"AGp vZQBwdw==",
        b"AGpvZQBwdw==\n",
        b"\xff",
    ):
        with pytest.raises(AuthFailed):
            sasl.decode(wrong)


@given(line=st.one_of(st.binary(), st.text().map(lambda t: base64.b64encode(t.encode()))))
def test_decode_raises_only_auth_failed(line: bytes) -> None:
    """Any line decodes or fails, and what decodes encodes to the same line."""
    try:
        octets = sasl.decode(line)
    except AuthFailed:
        return
    assert line in (b"=", base64.b64encode(octets))


@given(
    mechanism=st.sampled_from(sasl.AVAILABLE),
    responses=st.lists(
        st.one_of(st.none(), st.binary(max_size=40), st.text("\0a").map(str.encode))
    ),
)
def test_exchange_ends_by_credentials_or_auth_failed(
    mechanism: bytes, responses: list[bytes | None]
) -> None:
    """Any sequence of responses gives challenges, then at most one result, then failures."""
    run = start(mechanism)
    ended = False
    for response in responses:
        try:
            result = run.respond(response)
        except AuthFailed:
            ended = True
            continue
        assert not ended
        ended = isinstance(result, Credentials | Proof)
