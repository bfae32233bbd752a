"""Users and domains with backends of their own."""

from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.auth import AuthChain, Identity, LoginName, Secret
from pop3.auth.rules import split_rule
from pop3.errors import AuthFailed
from tests.support.logins import Pools


def name(text: str) -> LoginName:
    """Parse a login name."""
    return LoginName.parse(text.encode())


@pytest.fixture
def chain(tmp_path: Path) -> AuthChain:
    """Make a chain of four files, three of them for somebody."""
    for file in ("main", "boss", "domain", "second"):
        users = ["boss", "joe", "joe@one.org", "ann@one.org", "joe@two.org"]
        text = "".join(f"{user}:{{PLAIN}}{file}\n" for user in users)
        (tmp_path / file).write_text(text + (f"only@one.org:{{PLAIN}}{file}\n" * (file == "main")))
    (tmp_path / "second").write_text("late@one.org:{PLAIN}second\n")
    return AuthChain.from_specs(
        ["passwd-file:main"],
        base_directory=str(tmp_path),
        overrides=[
            "boss=passwd-file:boss",
            "ann@one.org=passwd-file:boss",
            "*@ONE.org=passwd-file:domain,passwd-file:second",
            "joe@one.org=passwd-file:main",
        ],
    )


@pytest.mark.parametrize(
    ("login", "file"),
    [
        ("boss", "boss"),
        ("joe", "main"),
        ("joe@two.org", "main"),
        ("ann@one.org", "boss"),
        ("ann~phone@one.org", "boss"),
        ("joe@one.org", "domain"),
        ("late@one.org", "second"),
    ],
)
def test_the_first_rule_that_matches_decides(chain: AuthChain, login: str, file: str) -> None:
    """Only the backends of the first rule are asked, without one those of --auth."""
    pools = Pools()
    user = name(login).user
    for other in {"main", "boss", "domain", "second"} - {file}:
        with pytest.raises(AuthFailed):
            chain.authenticate(name(login), Secret(other.encode()), pools)
    assert chain.authenticate(name(login), Secret(file.encode()), pools) == Identity(user)


def test_nobody_falls_through_to_the_main_chain(chain: AuthChain) -> None:
    """A user of the main chain whose domain has a rule is unknown."""
    with pytest.raises(AuthFailed):
        chain.authenticate(name("only@one.org"), Secret(b"main"), Pools())
    assert chain.lookup(name("only@one.org"), Pools()) is None


def test_a_rule_is_not_evaded_by_another_spelling(chain: AuthChain) -> None:
    """A backend that finds `boss` for BOSS lets nobody past the rule for boss."""
    assert not chain.may_find(name("BOSS"), "boss")
    assert not chain.may_find(name("ann"), "ann@one.org")
    assert not chain.may_find(name("ann@one.org"), "joe@one.org")
    for login, user in (("boss", "boss"), ("JOE", "joe"), ("boss", "joe"), ("late@one.org",) * 2):
        assert chain.may_find(name(login), user)


def test_an_override_can_open_the_chain(tmp_path: Path) -> None:
    """`any` for one domain counts like `any` for all: nothing may be deletable."""
    (tmp_path / "users").write_text("")
    chain = AuthChain.from_specs(
        ["passwd-file:users"], base_directory=str(tmp_path), overrides=["*@x.org=any"]
    )
    assert chain.open_to_all


def test_commas_begin_a_backend_only_before_its_name() -> None:
    """Arguments may have commas and equal signs; plug-ins have names of their own."""
    known = {"sql", "ldap", "system"}
    text = "sql:select a,b from t where x=1,ldap:ldap://h/dc=x,dc=y,my.place:Mine:1,2,system"
    assert split_rule(f"*@x.org={text}", known) == (
        None,
        "x.org",
        [
            "sql:select a,b from t where x=1",
            "ldap:ldap://h/dc=x,dc=y",
            "my.place:Mine:1,2",
            "system",
        ],
    )


@pytest.mark.parametrize(
    "rule", ["", "joe", "joe=", "=any", "a/b=any", "*=any", "j*e=any", "*@=any", "joe~view=any"]
)
def test_patterns_that_match_nobody_are_refused(rule: str) -> None:
    """A pattern is a user, a user with a domain, or all of a domain."""
    with pytest.raises(ConfigError, match=r"\A--auth-for '"):
        split_rule(rule, {"any"})


def test_a_mistake_in_a_rule_names_the_rule(tmp_path: Path) -> None:
    """The line begins with the option and the rule."""
    (tmp_path / "users").write_text("")
    with pytest.raises(ConfigError, match=r"--auth-for 'joe=nosuch': .*no such backend"):
        AuthChain.from_specs(
            ["passwd-file:users"], base_directory=str(tmp_path), overrides=["joe=nosuch"]
        )
