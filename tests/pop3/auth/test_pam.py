"""What PAM answers, and what becomes of it; the real PAM is asked in tests/e2e."""

import importlib.util
from types import SimpleNamespace

import pytest

from netserver.errors import ConfigError
from pop3.auth import AuthChain, Identity, LoginName, Secret, pam, schemes
from pop3.auth.backend import Setup
from pop3.auth.pam import PAM
from pop3.errors import AuthFailed, TemporaryFailure
from tests.support.logins import RIGHT, SHA512, Pools
from tests.support.logins import hashes as hashes  # noqa: PLC0414 - a fixture

JOE = LoginName("joe", None, None)


class Library:
    """Stands for python-pam: answers with one code, and keeps what it was asked."""

    def __init__(self, code: int | Exception) -> None:
        self.code = code
        self.reason = "why"
        self.asked: list[object] = []

    def authenticate(self, *asked: object, **how: object) -> bool:
        """Answer."""
        if isinstance(self.code, Exception):
            raise self.code
        self.asked = [*asked, how]
        return self.code == 0


def answering(
    monkeypatch: pytest.MonkeyPatch, code: int | Exception, warnings: list[str] | None = None
) -> tuple[AuthChain, Library]:
    """Make a chain whose library answers so."""
    library = Library(code)
    made = SimpleNamespace(PamAuthenticator=lambda: library)
    monkeypatch.setattr(pam, "_library", lambda: made)
    monkeypatch.setattr(pam, "identity_in_passwd", lambda _: Identity("joe", 7, 8, "/home/joe"))
    warn = ([] if warnings is None else warnings).append
    backend = PAM("mail", Setup(warn=warn))
    backend._dummy = schemes.dummy_like(SHA512)
    return AuthChain([backend]), library


def test_success_gives_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """PAM is asked for this service, with the octets that came, and changes no credentials."""
    chain, library = answering(monkeypatch, 0)
    expected = Identity("joe", 7, 8, "/home/joe")
    assert chain.authenticate(JOE, Secret(RIGHT), Pools()) == expected
    how = {"encoding": "latin-1", "resetcreds": False}
    assert library.asked == [b"joe", RIGHT, "mail", how]


@pytest.mark.parametrize("code", [6, 7, 8, 11, 12, 13, 14, 16, 27])
def test_refusals_are_one(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Wrong passwords and expired accounts get the one answer."""
    chain, _ = answering(monkeypatch, code)
    with pytest.raises(AuthFailed):
        chain.authenticate(JOE, Secret(b"guess"), Pools())


def test_an_unknown_user_costs_a_hash(
    monkeypatch: pytest.MonkeyPatch, hashes: list[str | None]
) -> None:
    """The pam_unix module computes none for a user it does not know, so we do."""
    chain, _ = answering(monkeypatch, 10)
    with pytest.raises(AuthFailed):
        chain.authenticate(JOE, Secret(b"guess"), Pools())
    assert hashes == ["SHA512-CRYPT$6$rounds=1000$"]


@pytest.mark.parametrize("code", [1, 3, 4, 9, 26, 28, ValueError("octets of the password")])
def test_a_broken_pam_is_a_temporary_failure(
    monkeypatch: pytest.MonkeyPatch, code: int | Exception
) -> None:
    """Nobody is told that the password is wrong; the log says why, and nothing else."""
    warnings: list[str] = []
    chain, _ = answering(monkeypatch, code, warnings)
    with pytest.raises(TemporaryFailure):
        chain.authenticate(JOE, Secret(RIGHT), Pools())
    why = "ValueError" if isinstance(code, Exception) else "why"
    assert warnings == [f"auth pam: service mail: {why}"]


@pytest.mark.parametrize("password", [b"", b"a\0b", b"x" * 512])
def test_odd_passwords_never_reach_pam(monkeypatch: pytest.MonkeyPatch, password: bytes) -> None:
    """An empty one would pass a service with nullok."""
    chain, library = answering(monkeypatch, 0)
    with pytest.raises(AuthFailed):
        chain.authenticate(JOE, Secret(password), Pools())
    assert library.asked == []


def test_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with the right password."""
    chain, _ = answering(monkeypatch, 0)
    with pytest.raises(AuthFailed):
        chain.authenticate(LoginName("root", None, None), Secret(RIGHT), Pools())


@pytest.mark.parametrize("service", ["../login", "a/b", "A b", "-x"])
def test_a_service_is_a_file_in_pam_d(service: str) -> None:
    """Anything else is a mistake."""
    with pytest.raises(ConfigError, match="--auth pam: SERVICE"):
        PAM(service, Setup())


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"--auth pam: needs: pip install 'netserver-pop3\[pam\]'"
    ):
        AuthChain([PAM("", Setup())]).check()
