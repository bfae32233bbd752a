"""The chain lets in who proves it, says one thing to everybody else, and takes as long for it."""

import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest

from netserver.errors import ConfigError, NetServerError
from pop3.auth import AuthChain, Backend, Identity, LoginName, Secret, chain, schemes
from pop3.auth.backend import Setup
from pop3.auth.passwd_file import RunBlocking
from pop3.errors import AuthFailed, TemporaryFailure

SHA = "{SHA}B/PcQHeAKywePq/ztWiCWf9lImE="  # pass wörd
SLOW = (
    "$6$rounds=1000$saltsalt$"
    "COk9WGwRxFX7iGffLTT4mtAqyxAFq9jLIAKSnAy8z8ABbwQo/QEzLr9QGE7cf8xjoUIaR0Gilt8GNDTD33y4i1"
)
RIGHT, WRONG = Secret("pass wörd".encode()), Secret(b"guess")


class Make(Protocol):
    """Makes a chain of users files with these texts."""

    def __call__(self, *texts: str, warn: Callable[[str], object] = print) -> AuthChain:
        """Write the files and make the chain."""


class Pools:
    """A `run_blocking` that runs in place and keeps which pool was asked for what."""

    def __init__(self) -> None:
        self.hashes: list[object] = []

    def __call__(self, pool: str, function: Callable[..., Any], *args: object) -> object:
        """Run the function."""
        if pool == "hash":
            self.hashes.append(args[0])
        return function(*args)


@pytest.fixture
def pools() -> Pools:
    """Make pools."""
    return Pools()


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a chain of users files with these texts."""

    def make(*texts: str, warn: Callable[[str], object] = print) -> AuthChain:
        specs = []
        for number, text in enumerate(texts):
            (tmp_path / f"users{number}").write_text(text)
            specs.append(f"passwd-file:users{number}")
        return AuthChain.from_specs(specs, base_directory=str(tmp_path), warn=warn)

    return make


def name(text: str) -> LoginName:
    """Parse a login name."""
    return LoginName.parse(text.encode())


def test_right_password_gives_the_identity(make: Make, pools: Pools) -> None:
    """The identity is what the users file says; a view does not change it."""
    auth = make(f"joe@x.org:{SHA}:1000:100::/home/joe\nann:{SLOW}\n")
    expected = Identity("joe@x.org", 1000, 100, "/home/joe")
    assert auth.authenticate(name("joe@X.org"), RIGHT, pools) == expected
    assert auth.authenticate(name("joe~phone@x.org"), RIGHT, pools) == expected
    assert pools.hashes == []
    assert auth.authenticate(name("ann"), RIGHT, pools) == Identity("ann")
    assert pools.hashes == [SLOW]
    assert not auth.open_to_all


@pytest.mark.parametrize("login", ["joe", "ann", "ann@x.org", "nobody", "locked", "JOE@x.org"])
@pytest.mark.parametrize("secret", [WRONG, Secret(b""), Secret(b"a\0b"), Secret(b"x" * 2000)])
def test_everybody_else_is_refused_alike(
    make: Make, pools: Pools, login: str, secret: Secret
) -> None:
    """Wrong, empty and odd passwords and unknown and locked users get the one error."""
    auth = make(f"joe@x.org:{SHA}\nann:{SLOW}\nlocked:!\n")
    with pytest.raises(AuthFailed) as caught:
        auth.authenticate(name(login), secret, pools)
    assert caught.value.text == AuthFailed().text
    assert caught.value.code == "AUTH"


def test_user_without_domain_is_no_user_with_one(make: Make, pools: Pools) -> None:
    """The names `joe` and `joe@x.org` are two users."""
    auth = make(f"joe:{SHA}\n")
    with pytest.raises(AuthFailed):
        auth.authenticate(name("joe@x.org"), RIGHT, pools)


def test_locked_user_is_refused_with_any_password(make: Make, pools: Pools) -> None:
    """No password opens a locked user."""
    auth = make("joe:!\nann:\n")
    for login in ("joe", "ann"):
        with pytest.raises(AuthFailed):
            auth.authenticate(name(login), RIGHT, pools)


def test_unknown_user_costs_what_a_known_one_costs(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is one hash of the same shape whether user or password is wrong."""
    auth = make(f"joe:{SLOW}\nann:{SLOW}\nlocked:!\ncheap:{SHA}\n")
    work = {}
    for login in ("joe", "nobody", "locked", "nobody@else.org"):
        verified: list[str | None] = []
        verify = schemes.verify
        monkeypatch.setattr(
            schemes,
            "verify",
            lambda text, secret, verify=verify, seen=verified: (
                seen.append(schemes.check(text)),
                verify(text, secret),
            )[1],
        )
        pools = Pools()
        with pytest.raises(AuthFailed):
            auth.authenticate(name(login), WRONG, pools)
        work[login] = (verified, len(pools.hashes))
        monkeypatch.undo()
    assert set(map(repr, work.values())) == {repr((["SHA512-CRYPT$6$rounds=1000$"], 1))}


def test_unknown_user_costs_the_dearest_backend(make: Make, pools: Pools) -> None:
    """With several backends, an unknown user costs one hash of the most expensive one."""
    auth = make(f"joe:{SHA}\n", f"ann:{SLOW}\n", f"bob:{SHA}\n")
    with pytest.raises(AuthFailed):
        auth.authenticate(name("nobody"), WRONG, pools)
    assert len(pools.hashes) == 1
    assert schemes.check(str(pools.hashes[0])) == schemes.check(SLOW)


def test_first_backend_that_knows_the_user_decides(make: Make, pools: Pools) -> None:
    """A password of a later backend does not help a user of an earlier one."""
    auth = make("joe:{PLAIN}first\n", f"joe:{SHA}\nann:{SHA}:7\n")
    assert auth.authenticate(name("joe"), Secret(b"first"), pools) == Identity("joe")
    with pytest.raises(AuthFailed):
        auth.authenticate(name("joe"), RIGHT, pools)
    assert auth.authenticate(name("ann"), RIGHT, pools) == Identity("ann", 7)


def test_right_password_of_a_slow_hash_is_remembered(make: Make, pools: Pools) -> None:
    """Only what was right is remembered: wrong passwords always cost the hash."""
    auth = make(f"joe:{SLOW}\nann:{SLOW}\n")
    for _ in range(3):
        auth.authenticate(name("joe"), RIGHT, pools)
    assert len(pools.hashes) == 1
    for _ in range(3):
        with pytest.raises(AuthFailed):
            auth.authenticate(name("joe"), WRONG, pools)
    assert len(pools.hashes) == 4
    auth.authenticate(name("ann"), RIGHT, pools)
    assert len(pools.hashes) == 5


def test_lookup_needs_no_password(make: Make, pools: Pools) -> None:
    """The operator's question finds users, locked ones too, and does no hashing."""
    auth = make(f"joe:{SLOW}:5\nlocked:!\n")
    assert auth.lookup(name("joe"), pools) == Identity("joe", 5)
    assert auth.lookup(name("locked"), pools) == Identity("locked")
    assert auth.lookup(name("nobody"), pools) is None
    assert pools.hashes == []


def test_any_lets_everybody_in(tmp_path: Path, pools: Pools) -> None:
    """The open backend takes any password, and the chain says that it is open."""
    auth = AuthChain.from_specs(["any"], base_directory=str(tmp_path))
    assert auth.open_to_all
    assert auth.authenticate(name("x@y.org"), Secret(b""), pools) == Identity("x@y.org")
    assert auth.lookup(name("x"), pools) == Identity("x")


def test_users_of_a_file_before_any_keep_their_passwords(tmp_path: Path, pools: Pools) -> None:
    """Before an open backend, a users file still guards its own users."""
    (tmp_path / "users").write_text(f"joe:{SHA}\n")
    auth = AuthChain.from_specs(["passwd-file:users", "any"], base_directory=str(tmp_path))
    with pytest.raises(AuthFailed):
        auth.authenticate(name("joe"), WRONG, pools)
    assert auth.authenticate(name("ann"), WRONG, pools) == Identity("ann")


@pytest.mark.parametrize(
    ("specs", "what"),
    [
        ([], "no backend given"),
        ([""], "no such backend"),
        (["nosuch:secret-argument"], "'nosuch': no such backend; there are: any, "),
        (["any:thing"], "any: takes no argument"),
        (["passwd-file"], "needs a path"),
        (["passwd-file:"], "needs a path"),
        (["passwd-file:missing"], "missing: No such file"),
        (["any", "passwd-file:broken"], "broken:2: unknown scheme {X}"),
    ],
)
def test_wrong_specs_are_config_errors(tmp_path: Path, specs: list[str], what: str) -> None:
    """A wrong spec or file is one line that says what is wrong, without the argument's secrets."""
    (tmp_path / "broken").write_text("\njoe:{X}y\n")
    with pytest.raises(ConfigError) as caught:
        AuthChain.from_specs(specs, base_directory=str(tmp_path))
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret-argument" not in str(caught.value)


class Fussy(Backend):
    """A backend of somebody else's."""

    name = "fussy"

    def __init__(self, argument: str, setup: Setup) -> None:
        self.error = AuthFailed(argument) if argument else TemporaryFailure("down")
        self.refused = 0

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Know nobody."""
        return None

    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Fail for joe."""
        if login.user == "joe":
            raise self.error
        return None

    def dummy_cost(self) -> float:
        """Be the dearest."""
        return 1e9

    def refuse(self, secret: Secret, run_blocking: RunBlocking) -> None:
        """Count."""
        self.refused += 1


@pytest.fixture
def fussy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the backend as an installed package would."""
    module = types.ModuleType("fussy_backend")
    vars(module)["Fussy"] = Fussy
    monkeypatch.setitem(sys.modules, "fussy_backend", module)
    monkeypatch.setitem(chain.BACKENDS, "fussy", "fussy_backend:Fussy")


def test_backends_can_be_added(fussy: None, pools: Pools) -> None:
    """A name in the table is loaded when a spec asks for it; what it raises comes through alike."""
    auth = AuthChain.from_specs(["fussy:own text"], base_directory="/")
    with pytest.raises(AuthFailed) as caught:
        auth.authenticate(name("joe"), WRONG, pools)
    assert caught.value.text == AuthFailed().text
    with pytest.raises(AuthFailed):
        auth.authenticate(name("ann"), WRONG, pools)
    assert vars(auth.backends[0])["refused"] == 1
    auth = AuthChain.from_specs(["fussy", "any"], base_directory="/")
    with pytest.raises(TemporaryFailure):
        auth.authenticate(name("joe"), WRONG, pools)


@pytest.mark.parametrize("text", [f"joe:{SHA}\n", f"joe:{SLOW}\n"])
def test_broken_hashing_is_temporary_and_shows_nothing(
    make: Make, pools: Pools, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """If a library fails, the login fails for now; its error has no password in it."""
    warnings: list[str] = []
    auth = make(text, warn=warnings.append)

    def broken(hash_text: str, secret: Secret) -> NoReturn:
        raise MemoryError(secret)

    monkeypatch.setattr(schemes, "verify", broken)
    with pytest.raises(TemporaryFailure) as caught:
        auth.authenticate(name("joe"), RIGHT, pools)
    shown = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    assert "pass w" not in shown
    assert len(warnings) == 1
    assert "MemoryError" in warnings[0]
    assert "pass w" not in warnings[0]


def test_waiting_errors_come_through(make: Make) -> None:
    """What ends a wait, such as a stopping server, is not mistaken for a wrong password."""
    auth = make(f"joe:{SLOW}\n")

    def stopping(pool: str, function: Callable[..., Any], *args: object) -> NoReturn:
        raise NetServerError("stopping")

    with pytest.raises(NetServerError):
        auth.authenticate(name("joe"), RIGHT, stopping)


def test_changed_hash_is_asked_at_once(
    make: Make, pools: Pools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a password change the old one is refused although it was remembered."""
    auth = make(f"joe:{SLOW}\n")
    auth.authenticate(name("joe"), RIGHT, pools)
    other = schemes.dummy_like(SLOW)
    (tmp_path / "users0").write_text(f"joe:{other}\n")
    vars(auth.backends[0])["_file"]._looks.next = 0.0
    with pytest.raises(AuthFailed):
        auth.authenticate(name("joe"), RIGHT, pools)
    assert pools.hashes == [SLOW, other]
