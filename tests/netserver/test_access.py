"""Who may connect: addresses, names, and names that lie."""

from collections.abc import Callable, Sequence

import pytest

from netserver import access
from netserver.access import AccessRules, NameCache, confirmed_names
from netserver.endpoints import UNIX, UNKNOWN, Address
from netserver.errors import ConfigError


def never() -> Sequence[str]:
    """Fail: no lookup was needed here."""
    raise AssertionError("names were asked for without need")


def named(*names: str) -> Callable[[], Sequence[str]]:
    """Return a lookup with this answer."""
    return lambda: names


def verdict(rules: AccessRules, host: str, names: Callable[[], Sequence[str]] = never) -> bool:
    """Return whether `host` may connect."""
    return rules.decide(Address(host, 4711), names).allowed


def test_without_rules_all_are_welcome() -> None:
    """Nobody is asked for a name, and no rule is given as the reason."""
    rules = AccessRules()
    assert not rules.needs_names
    assert rules.decide(Address("192.0.2.1", 1), never) == access.Verdict(allowed=True, rule=None)
    assert rules.decide(UNIX, never).allowed


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.10"),
        ("10.1.0.0/16", "10.1.255.1", "10.100.0.1"),
        ("0.0.0.0/0", "255.1.2.3", "2001:db8::1"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("::1", "::1", "::2"),
        ("192.0.2.0/24", "::ffff:192.0.2.7", "::ffff:192.0.3.7"),
        ("::ffff:192.0.2.0/120", "192.0.2.7", "192.0.3.7"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
        (" 192.0.2.0/24 ", "192.0.2.9", "192.0.1.9"),
    ],
)
def test_networks_match_by_prefix(rule: str, inside: str, outside: str) -> None:
    """Allowed is what lies in the network, the rest is refused; denied the other way round."""
    assert verdict(AccessRules(allow=[rule]), inside)
    assert not verdict(AccessRules(allow=[rule]), outside)
    assert not verdict(AccessRules(deny=[rule]), inside)
    assert verdict(AccessRules(deny=[rule]), outside)


def test_deny_wins_and_the_rule_is_told() -> None:
    """A host denied inside an allowed network stays out, and the verdict says by which rule."""
    rules = AccessRules(allow=["192.0.2.0/24"], deny=["192.0.2.66"])
    assert rules.decide(Address("192.0.2.66", 1), never) == access.Verdict(False, "192.0.2.66")
    assert rules.decide(Address("192.0.2.67", 1), never) == access.Verdict(True, "192.0.2.0/24")
    assert rules.decide(Address("192.0.9.67", 1), never) == access.Verdict(False, None)


def test_names_match_whole_or_by_suffix() -> None:
    """`.example.org` is every host below it and not the domain; a name is just that host."""
    rules = AccessRules(allow=["Pop.Example.NET", ".example.org"])
    assert rules.needs_names
    for name, allowed in [
        ("pop.example.net", True),
        ("POP.example.net.", True),
        ("x.pop.example.net", False),
        ("a.example.org", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("a.example.org.evil.test", False),
    ]:
        assert verdict(rules, "192.0.2.1", named(name)) is allowed, name
    assert not verdict(rules, "192.0.2.1", named())


def test_names_are_asked_for_only_if_they_can_change_the_verdict() -> None:
    """An address rule that decides spares the lookup."""
    allow = AccessRules(allow=["192.0.2.0/24", ".example.org"])
    assert verdict(allow, "192.0.2.1", never)
    deny = AccessRules(allow=["192.0.2.0/24"], deny=["203.0.113.1", ".evil.test"])
    assert not verdict(deny, "203.0.113.1", never)
    assert not verdict(deny, "198.51.100.1", never)
    assert not verdict(deny, "192.0.2.1", named("host.evil.test"))
    assert verdict(deny, "192.0.2.1", named("host.good.test"))
    both = AccessRules(allow=[".example.org"], deny=["bad.example.org"])
    assert not verdict(both, "192.0.2.1", named("bad.example.org"))
    assert verdict(both, "192.0.2.1", named("good.example.org"))


def test_unix_peers_match_only_their_own_rule() -> None:
    """They are refused by any other allow list, and no network means them."""
    assert AccessRules(deny=["0.0.0.0/0", "::/0", ".example"]).decide(UNIX, never).allowed
    assert not AccessRules(allow=["0.0.0.0/0", "::/0"]).decide(UNIX, never).allowed
    assert AccessRules(allow=["127.0.0.1", "unix"]).decide(UNIX, never).rule == "unix"
    assert not AccessRules(deny=["unix"]).decide(UNIX, never).allowed
    assert not verdict(AccessRules(allow=["unix"]), "127.0.0.1")


def test_an_unknown_peer_is_refused_where_there_are_rules() -> None:
    """A client whose address could not be read is no one's friend."""
    assert AccessRules().decide(UNKNOWN, never).allowed
    assert not AccessRules(deny=["192.0.2.1"]).decide(UNKNOWN, never).allowed


@pytest.mark.parametrize(
    "rule",
    ["", "10.1", "10.0.0.0/33", "10.0.0.1/8", "300.1.1.1", "::g", "a b", "-x.org", "*.org", "x..y"],
)
def test_bad_rule_is_named(rule: str) -> None:
    """A mistyped address must not turn into a name that never matches."""
    with pytest.raises(ConfigError, match="no address, network or host name") as caught:
        AccessRules(allow=[rule])
    assert str(caught.value).startswith(f"--allow {rule!r}: ")
    with pytest.raises(ConfigError, match=r"^--deny "):
        AccessRules(deny=[rule])


class FakeResolver:
    """A resolver with two tables."""

    def __init__(self, names: dict[str, str], addresses: dict[str, list[str]]) -> None:
        self.names = names
        self.addresses = addresses

    def getnameinfo(self, place: tuple[str, int], _flags: int) -> tuple[str, str]:
        """Look up a PTR record."""
        if place[0] not in self.names:
            raise OSError("no name")
        return self.names[place[0]], "0"

    def getaddrinfo(self, name: str, *_: object) -> list[tuple[int, int, int, str, tuple[str]]]:
        """Look up A and AAAA records."""
        return [(0, 0, 0, "", (address,)) for address in self.addresses.get(name, [])]


def test_only_a_confirmed_name_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PTR record that its name does not confirm, or that is an address, is no name."""
    resolver = FakeResolver(
        {
            "192.0.2.1": "Good.Example.org.",
            "192.0.2.2": "good.example.org.",
            "192.0.2.3": "127.0.0.1",
            "2001:db8::1": "six.example.org",
        },
        {
            "Good.Example.org.": ["2001:db8::9", "192.0.2.1"],
            "good.example.org.": ["192.0.2.1"],
            "127.0.0.1": ["127.0.0.1"],
            "six.example.org": ["2001:db8:0::1%eth0"],
        },
    )
    monkeypatch.setattr(access, "getnameinfo", resolver.getnameinfo)
    monkeypatch.setattr(access, "getaddrinfo", resolver.getaddrinfo)
    assert confirmed_names("192.0.2.1") == ("good.example.org",)
    assert confirmed_names("192.0.2.2") == ()
    assert confirmed_names("192.0.2.3") == ()
    assert confirmed_names("192.0.2.4") == ()
    assert confirmed_names("2001:db8::1") == ("six.example.org",)


def test_the_real_resolver_knows_loopback() -> None:
    """127.0.0.1 has a name by /etc/hosts, and nothing that is no address raises."""
    assert confirmed_names("127.0.0.1") in (("localhost",), ("localhost.localdomain",))
    assert confirmed_names("no address") == ()


def test_cache_is_bounded_and_forgets() -> None:
    """The oldest makes room, an answer of no names is kept too, and all end with their time."""
    cache = NameCache(size=2, seconds=1000)
    cache.put("192.0.2.1", ("a.example",))
    cache.put("192.0.2.2", ())
    cache.put("192.0.2.1", ("b.example",))
    cache.put("192.0.2.3", ("c.example",))
    assert len(cache) == 2
    assert cache.get("192.0.2.1") == ("b.example",)
    assert cache.get("192.0.2.2") is None
    assert cache.get("192.0.2.3") == ("c.example",)
    short = NameCache(seconds=0)
    short.put("192.0.2.2", ())
    assert short.get("192.0.2.2") is None
    assert NameCache().get("192.0.2.2") is None
