"""Who may connect: rules on addresses, and on names that were confirmed."""

from __future__ import annotations

import re
import time
from _socket import getaddrinfo, getnameinfo  # never patched: this runs in pool threads too
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import NI_NAMEREQD, SOCK_STREAM
from typing import TYPE_CHECKING

from netserver import native
from netserver.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from netserver.endpoints import Address

    Network = IPv4Network | IPv6Network
    IPAddress = IPv4Address | IPv6Address

# seconds that all lookups about one client may take together
LOOKUP_LIMIT = 5.0
# seconds for which a client without a name is not asked about again: a resolver may have failed
NAMELESS_SECONDS = 30.0

# a v4-mapped network has this many bits in front of its IPv4 part
_MAPPED_BITS = 96

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
# the last label has a letter: "10.1" is a mistyped address and no name
_NAME = re.compile(rf"\.?({_LABEL}\.)*(?=[^.]*[a-z]){_LABEL}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a client may connect, and the rule that said so; None where none matched.

    ``warnings`` are the rules that only want a word in the log.
    """

    allowed: bool
    rule: str | None
    warnings: tuple[str, ...] = ()


_WELCOME = Verdict(allowed=True, rule=None)
_STRANGER = Verdict(allowed=False, rule=None)


class _Rules:
    """One list of rules, sorted by what they look at."""

    __slots__ = ("names", "networks", "unix")

    def __init__(self, what: str, rules: Iterable[str]) -> None:
        self.networks: list[tuple[Network, str]] = []
        self.names: list[str] = []
        self.unix = False
        for rule in rules:
            plain = rule.strip().lower()
            if plain == "unix":
                self.unix = True
            elif is_host_name(plain):
                self.names.append(plain)
            else:
                try:
                    self.networks.append((network_of(plain), rule))
                except ValueError as error:
                    raise ConfigError(f"{what} {rule!r}: {error}") from None

    def __bool__(self) -> bool:
        return self.unix or bool(self.names) or bool(self.networks)

    def match_address(self, ip: IPAddress) -> str | None:
        for network, rule in self.networks:
            if ip in network:
                return rule
        return None

    def match_names(self, names: Sequence[str]) -> str | None:
        for rule in self.names:
            if matches_name(rule, names):
                return rule
        return None


def network_of(text: str) -> Network:
    """Return the network that an address or a CIDR names, IPv4 in IPv6 as IPv4.

    Raises ``ValueError``.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"no address, network or host name ({error})") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def ip_of(address: Address) -> IPAddress | None:
    """Return the address that rules are about, None for peers that have none."""
    try:
        ip = ip_address(address.host)
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def is_host_name(text: str) -> bool:
    """Whether a lower-case text is a host name, or a ``.domain`` that stands for all below it."""
    return _NAME.fullmatch(text) is not None


def matches_name(rule: str, names: Sequence[str]) -> bool:
    """Whether one of a client's names is the one of a rule, or lies below its ``.domain``."""
    for name in names:
        plain = name.rstrip(".").lower()
        if plain == rule or (rule[0] == "." and plain.endswith(rule)):
            return True
    return False


class AccessRules:
    """Rules made of CIDR networks, addresses, host names, ``.domain`` suffixes and ``unix``.

    Deny wins over allow.  Where anything is allowed, all else is refused.  UNIX peers match only
    the rule ``unix``.  Raises ``ConfigError`` that names a bad rule.
    """

    __slots__ = ("_allow", "_deny", "needs_names")

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._allow = _Rules("--allow", allow)
        self._deny = _Rules("--deny", deny)
        self.needs_names = bool(self._allow.names or self._deny.names)

    def decide(self, address: Address, names: Callable[[], Sequence[str]]) -> Verdict:
        """Return the verdict on ``address``; ``names`` is called only if a rule on names is asked.

        A client without confirmed names matches no such rule: allow by names, deny by addresses.
        """
        if not self._allow and not self._deny:
            return _WELCOME
        if address.host == "unix":
            return self._decide_unix()
        ip = ip_of(address)
        return _STRANGER if ip is None else self._decide_ip(ip, names)

    def _decide_ip(self, ip: IPAddress, names: Callable[[], Sequence[str]]) -> Verdict:
        allow, deny = self._allow, self._deny
        refused_by = deny.match_address(ip)
        allowed_by = allow.match_address(ip)
        welcome = allowed_by is not None or not allow
        # a lookup may take seconds: only where its answer can change the verdict
        if refused_by is None and (allow.names if not welcome else deny.names):
            known = names()
            refused_by = deny.match_names(known)
            allowed_by = allowed_by or allow.match_names(known)
        if refused_by is not None:
            return Verdict(allowed=False, rule=refused_by)
        if allowed_by is not None:
            return Verdict(allowed=True, rule=allowed_by)
        return _WELCOME if welcome else _STRANGER

    def _decide_unix(self) -> Verdict:
        if self._deny.unix:
            return Verdict(allowed=False, rule="unix")
        if self._allow.unix:
            return Verdict(allowed=True, rule="unix")
        return _STRANGER if self._allow else _WELCOME


def given_names(host: str) -> tuple[str, ...]:
    """Return the name that the owner of an address gave it, or nothing.

    It proves nothing.  Blocks for as long as the resolver takes: ask through ``within_limit``.
    """
    try:
        name, _ = getnameinfo((host, 0), NI_NAMEREQD)
    except (OSError, ValueError):
        return ()
    return () if _is_address(name) else (name,)


def confirmed_names(host: str) -> tuple[str, ...]:
    """Return the name of an address if that name leads back to it, else nothing.

    Whoever owns an address can give it any name; only the forward lookup proves it.  Blocks for as
    long as the resolver takes: ask through ``within_limit``.
    """
    try:
        wanted = ip_address(host)
        for name in given_names(host):
            for _, _, _, _, found in getaddrinfo(name, None, 0, SOCK_STREAM):
                if ip_address(str(found[0]).partition("%")[0]) == wanted:
                    return (name.rstrip(".").lower(),)
    except (OSError, ValueError):
        pass
    return ()


# Threads of the system, not gevent's: a hub must not come to be where lookups are made.
# one entry for each lookup that may be under way, those that nobody waits for any more included
_ROOM = [None] * 64


def within_limit(
    lookup: Callable[[str], tuple[str, ...]], host: str, until: float
) -> tuple[str, ...]:
    """Return the answer of a lookup about ``host``, or no names if there is none in time.

    ``until`` is monotonic: the time spent in the queue of a pool counts.

    The system's resolver can be neither interrupted nor limited, so it runs in a thread, which is
    left alone when the time is over; where too many of those are left, nothing is asked.
    """
    left = until - time.monotonic()
    if left <= 0:
        return ()
    answers: list[tuple[str, ...]] = []
    done = native.allocate_lock()
    done.acquire()

    def ask() -> None:
        try:
            answers.append(lookup(host))
        finally:
            _ROOM.append(None)
            done.release()

    try:
        _ROOM.pop()
    except IndexError:
        return ()
    try:
        native.start_new_thread(ask, ())
    except RuntimeError:  # no more threads for this user
        _ROOM.append(None)
        return ()
    done.acquire(timeout=left)
    return answers[0] if answers else ()


def _is_address(name: str) -> bool:
    # a PTR record may well say "127.0.0.1"
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class NameCache:
    """The names of the last ``size`` addresses, each kept for ``seconds``.

    That there are none is kept too, but not for long.
    """

    __slots__ = ("_kept", "_seconds", "_size")

    def __init__(self, size: int = 1024, seconds: float = 300.0) -> None:
        self._size = size
        self._seconds = seconds
        self._kept: dict[str, tuple[float, tuple[str, ...]]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, host: str) -> tuple[str, ...] | None:
        """Return what ``put`` was told of ``host``, None if nothing or too long ago."""
        end, names = self._kept.get(host, (0.0, ()))
        return names if time.monotonic() < end else None

    def put(self, host: str, names: tuple[str, ...]) -> None:
        """Remember ``names``; the oldest entry makes room."""
        self._kept.pop(host, None)
        while len(self._kept) >= self._size:
            del self._kept[next(iter(self._kept))]
        seconds = self._seconds if names else min(self._seconds, NAMELESS_SECONDS)
        self._kept[host] = (time.monotonic() + seconds, names)
