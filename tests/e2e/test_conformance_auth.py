"""Logging in on raw octets: USER/PASS, AUTH (RFC 5034), failures (RFC 3206), who learns what."""

import base64
import re
from collections.abc import Callable

import pytest

from tests.conftest import Mailbox, Start
from tests.support.maildirs import PLAIN, make_maildir
from tests.support.servers import RunningServer
from tests.support.wire import Wire

Make = Callable[..., Mailbox]


def encoded(*parts: bytes) -> bytes:
    """Return the base64 of parts joined by NUL."""
    return base64.b64encode(b"\0".join(parts))


def challenge(wire: Wire, line: bytes) -> bytes:
    """Send a line that must be answered by a challenge; return it decoded."""
    answer = wire.command(line)
    assert answer.startswith(b"+ "), answer
    return base64.b64decode(answer[2:], validate=True)


def test_pass_without_user_is_an_error(server: RunningServer) -> None:
    """PASS needs a USER before it, and a failed PASS forgets the user."""
    with server.connect() as wire:
        wire.err(b"PASS secret")
        wire.ok(b"USER user000")
        wire.err(b"PASS wrong")
        wire.err(b"PASS secret")


def test_the_last_user_counts(mailbox: Make) -> None:
    """A second USER replaces the first."""
    box = mailbox([PLAIN])
    with box.server.connect() as wire:
        wire.ok(b"USER nobody-here")
        wire.ok(b"USER " + box.user.encode())
        wire.ok(b"PASS secret")
        assert wire.ok(b"STAT").split()[1] == b"1"


def test_known_and_unknown_users_get_the_same_words(server: RunningServer) -> None:
    """USER is always +OK, PASS fails with one text: nobody learns who exists."""
    texts = set()
    for name in (
        b"user000",
        b"nobody-here",
        b"a/../b",
        b".hidden",
        b"x" * 60,
        b"caf\xc3\xa9",
        b"%s",
    ):
        with server.connect() as wire:
            users = wire.command(b"USER " + name)
            texts.add((users, wire.err(b"PASS wrong")))
    assert len({text for _, text in texts}) == 1
    assert all(text.startswith(b"-ERR [AUTH]") for _, text in texts)
    assert len({users for users, _ in texts}) == 1


def test_passwords_keep_their_blanks(start: Start, personality: str) -> None:
    """All after "PASS " is the password, octet for octet."""
    words = {"a": "two words", "b": " leading", "c": "trailing ", "d": "  ", "e": "a  b"}
    server = start(personality=personality, users=words)
    for user, word in words.items():
        with server.session(user, word) as wire:
            wire.quit()
        with server.connect() as wire:
            wire.ok(b"USER " + user.encode())
            assert wire.err(b"PASS " + word.strip().encode() + b"x").startswith(b"-ERR [AUTH]")


def test_auth_plain_with_initial_response(mailbox: Make) -> None:
    """One line logs in; an authorization identity equal to the user is taken, another is not."""
    box = mailbox([PLAIN])
    user = box.user.encode()
    for response in (encoded(b"", user, b"secret"), encoded(user, user, b"secret")):
        with box.server.connect() as wire:
            wire.ok(b"AUTH PLAIN " + response)
            assert wire.ok(b"STAT").split()[1] == b"1"
            wire.quit()
    with box.server.connect() as wire:
        wire.err(b"AUTH PLAIN " + encoded(b"user000", user, b"secret"))
        wire.err(b"STAT")


def test_auth_plain_with_challenge(mailbox: Make) -> None:
    """Without an initial response an empty challenge asks for it; the verb has any case."""
    box = mailbox([PLAIN])
    with box.server.connect() as wire:
        assert challenge(wire, b"auth plain") == b""
        wire.ok(encoded(b"", box.user.encode(), b"secret"))
        wire.ok(b"STAT")


def test_auth_login(mailbox: Make) -> None:
    """LOGIN asks for name and password; the name may come at once."""
    box = mailbox([PLAIN])
    name, word = encoded(box.user.encode()), encoded(b"secret")
    with box.server.connect() as wire:
        challenge(wire, b"AUTH LOGIN")
        challenge(wire, name)
        wire.ok(word)
        wire.quit()
    with box.server.connect() as wire:
        challenge(wire, b"AUTH LOGIN " + name)
        wire.ok(word)
        wire.quit()


def test_wrong_sasl_password_is_the_same_error(mailbox: Make) -> None:
    """AUTH fails with the words of PASS."""
    box = mailbox()
    user = box.user.encode()
    with box.server.connect() as wire:
        wire.ok(b"USER " + user)
        expected = wire.err(b"PASS wrong")
        assert wire.err(b"AUTH PLAIN " + encoded(b"", user, b"wrong")) == expected
        assert wire.err(b"AUTH PLAIN " + encoded(b"", b"nobody", b"x")) == expected


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN"])
def test_star_cancels(mailbox: Make, mechanism: bytes) -> None:
    """A star ends an exchange with -ERR; the session goes on."""
    box = mailbox()
    with box.server.connect() as wire:
        challenge(wire, b"AUTH " + mechanism)
        wire.err(b"*")
        wire.login(box.user)


@pytest.mark.parametrize(
    "response",
    [
        b"!!!!",
        b"AHVzZXIwMDAAc2VjcmV0=",
        b"AHVz\tZXI",
        b"AA",
        b"A===",
        b"=",
        b"AHVzZXI= AAAA",
        b"\xff",
    ],
)
def test_bad_base64_ends_one_exchange(mailbox: Make, response: bytes) -> None:
    """Strict base64: junk is -ERR, as initial response and as answer, and nothing else breaks."""
    box = mailbox()
    with box.server.connect() as wire:
        wire.err(b"AUTH PLAIN " + response)
        if response != b"=":
            challenge(wire, b"AUTH PLAIN")
            wire.err(response)
        wire.login(box.user)


def test_equals_sign_is_an_empty_initial_response(mailbox: Make) -> None:
    """RFC 5034: "=" means empty, which PLAIN refuses at once, without a challenge."""
    box = mailbox()
    with box.server.connect() as wire:
        assert wire.command(b"AUTH PLAIN =").startswith(b"-ERR")
        wire.login(box.user)


def test_bare_auth_lists_mechanisms(server: RunningServer) -> None:
    """Old Outlook asks AUTH alone; the list is that of CAPA."""
    with server.connect() as wire:
        said = next(line for line in wire.lines(b"CAPA") if line.startswith(b"SASL "))
        assert set(wire.lines(b"AUTH")) == set(said.split()[1:])
        assert {b"PLAIN"} <= set(said.split()[1:])


@pytest.mark.parametrize("name", [b"FOO", b"GSSAPI", b"PLAINX", b"plain\xc4\xb1", b"-", b" PLAIN"])
def test_unknown_mechanisms_are_refused(mailbox: Make, name: bytes) -> None:
    """A mechanism that is not offered is -ERR, without a challenge."""
    box = mailbox()
    with box.server.connect() as wire:
        wire.err(b"AUTH " + name)
        wire.login(box.user)


def test_a_command_inside_an_exchange_is_not_executed(mailbox: Make) -> None:
    """A line within AUTH is an answer, never a command."""
    box = mailbox([PLAIN])
    with box.server.connect() as wire:
        challenge(wire, b"AUTH PLAIN")
        wire.err(b"CAPA")
        wire.lines(b"CAPA")


def test_responses_may_be_longer_than_commands(mailbox: Make) -> None:
    """RFC 5034 lines reach beyond 255 octets; a long wrong password is just wrong."""
    box = mailbox()
    long = encoded(b"", box.user.encode(), b"x" * 400)
    with box.server.connect() as wire:
        challenge(wire, b"AUTH PLAIN")
        assert wire.err(long).startswith(b"-ERR [AUTH]")
        wire.login(box.user)


def test_apop_is_off(server: RunningServer) -> None:
    """No time stamp in the greeting and no APOP unless asked for."""
    with server.connect() as wire:
        assert not re.search(rb"<[^>]*@[^>]*>", wire.greeting)
        wire.err(b"APOP user000 c4c9334bac560ecc979e58001b3e22fb")


def test_no_password_reaches_the_log(start: Start, personality: str) -> None:
    """Neither right nor wrong passwords, in clear or base64, are logged at any level."""
    word, wrong = "c0rrect-h0rse", "wr0ng-battery"
    server = start(personality=personality, users={"anna": word}, options=("--log-level", "debug"))
    make_maildir(server.maildir(), [PLAIN])
    with server.connect() as wire:
        wire.ok(b"USER anna")
        wire.err(b"PASS " + wrong.encode())
        wire.err(b"AUTH PLAIN " + encoded(b"", b"anna", wrong.encode()))
        wire.ok(b"AUTH PLAIN " + encoded(b"", b"anna", word.encode()))
        wire.quit()
    server.stop()
    text = server.log_text()
    assert "anna" in text
    for secret in (word, wrong):
        assert secret not in text
        assert encoded(b"", b"anna", secret.encode()).decode() not in text
