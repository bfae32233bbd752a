"""Users of the machine: passwd and shadow in the forms that really occur."""

import os
import pwd
import time
from types import SimpleNamespace

import pytest

from netserver.errors import ConfigError
from pop3.auth import AuthChain, Identity, LoginName, Secret, schemes, system
from pop3.auth.backend import Setup
from pop3.auth.system import System
from pop3.errors import AuthFailed, TemporaryFailure
from tests.support.logins import MD5, RIGHT, SHA512, YESCRYPT, Pools
from tests.support.logins import hashes as hashes  # noqa: PLC0414 - a fixture

TODAY = int(time.time() // 86400)


def entry(hash_text: str = SHA512, **changes: int) -> tuple[str, bool]:
    """Return what _shadow makes of such an entry."""
    days = {"last_change": TODAY - 10, "maximum": 99999, "inactive": -1, "expire": -1, **changes}
    return hash_text, system._in_force(SimpleNamespace(**days), TODAY)  # type: ignore[arg-type]


SHADOW: dict[str, tuple[str, bool] | int | None] = {
    "joe": entry(),
    "yes": entry(YESCRYPT),
    "md5": entry(MD5),
    "locked": entry(f"!{SHA512}"),
    "star": entry("*"),
    "empty": entry(""),
    "strange": entry("$99$what"),
    "expired": entry(expire=TODAY),
    "tomorrow": entry(expire=TODAY + 1),
    "stale": entry(maximum=9),
    "forced": entry(last_change=0),
    "nolimit": entry(last_change=-1, maximum=-1),
    "toor": entry(),
    "old": None,
}


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> AuthChain:
    """Make the backend of a machine with these users."""

    def getpwnam(name: str) -> pwd.struct_passwd:
        if name not in SHADOW:
            raise KeyError(name)
        password = SHA512 if name == "old" else "x"
        uid = 0 if name == "toor" else 1000
        return pwd.struct_passwd((name, password, uid, 100, "", f"/home/{name}", "/bin/false"))

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(system, "_shadow", SHADOW.get)
    monkeypatch.setattr(system, "common_dummy", lambda: schemes.dummy_like(SHA512))
    chain = AuthChain([System("", Setup())])
    chain.check()
    return chain


def name(text: str) -> LoginName:
    """Parse a login name."""
    return LoginName.parse(text.encode())


@pytest.mark.parametrize("user", ["joe", "yes", "md5", "tomorrow", "nolimit", "old"])
def test_right_password_gives_uid_gid_and_home(chain: AuthChain, user: str) -> None:
    """Each kind of hash, in shadow or still in passwd, opens the account."""
    found = chain.authenticate(name(user), Secret(RIGHT), Pools())
    assert found == Identity(user, 1000, 100, f"/home/{user}")
    assert chain.lookup(name(user), Pools()) == found
    with pytest.raises(AuthFailed):
        chain.authenticate(name(user), Secret(b"guess"), Pools())


@pytest.mark.parametrize(
    "user",
    ["locked", "star", "empty", "strange", "expired", "stale", "forced", "toor", "nobody", "joe@x"],
)
def test_who_may_not_log_in_costs_what_others_cost(
    chain: AuthChain, user: str, hashes: list[str | None]
) -> None:
    """One hash of the common shape for a locked, expired or unknown user, root, and a wrong one."""
    for login, password in ((user, RIGHT), (user, b""), ("joe", b"guess")):
        hashes.clear()
        pools = Pools()
        with pytest.raises(AuthFailed):
            chain.authenticate(name(login), Secret(password), pools)
        assert hashes == ["SHA512-CRYPT$6$rounds=1000$"]
        assert pools.asked == ["disk", "hash"]


def test_an_unreadable_shadow_is_no_refusal(
    chain: AuthChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told that the password is wrong when nobody can know."""
    monkeypatch.setattr(system, "_shadow", lambda _: 13)
    with pytest.raises(TemporaryFailure):
        chain.authenticate(name("joe"), Secret(RIGHT), Pools())


def test_an_argument_is_a_mistake() -> None:
    """It names the option."""
    with pytest.raises(ConfigError, match="--auth system: takes no argument"):
        System("x", Setup())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads shadow")
def test_the_real_shadow_file_is_read() -> None:
    """Root has an entry, and a name without one has none."""
    found = system._shadow("root")
    assert isinstance(found, tuple)
    assert system._shadow("np3-nobody-here") is None
    assert system.common_dummy()
