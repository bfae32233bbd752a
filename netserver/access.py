"""Who may connect: rules on addresses, and on names that were confirmed."""

from __future__ import annotations

import re
import time
from _socket import getaddrinfo, getnameinfo  # never patched: this runs in pool threads too
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import NI_NAMEREQD, SOCK_STREAM
from typing import TYPE_CHECKING

from netserver.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from netserver.endpoints import Address

    Network = IPv4Network | IPv6Network

# a v4-mapped network has this many bits in front of its IPv4 part
_MAPPED_BITS = 96

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
# the last label has a letter: "10.1" is a mistyped address and no name
_NAME = re.compile(rf"\.?({_LABEL}\.)*(?=[^.]*[a-z]){_LABEL}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a client may connect, and the rule that said so; None where none matched."""

    allowed: bool
    rule: str | None


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
            elif _NAME.fullmatch(plain):
                self.names.append(plain)
            else:
                self.networks.append((_network(what, rule, plain), rule))

    def __bool__(self) -> bool:
        return self.unix or bool(self.names) or bool(self.networks)

    def match_address(self, ip: IPv4Address | IPv6Address) -> str | None:
        for network, rule in self.networks:
            if ip in network:
                return rule
        return None

    def match_names(self, names: Sequence[str]) -> str | None:
        for rule in self.names:
            for name in names:
                plain = name.rstrip(".").lower()
                if plain == rule or (rule[0] == "." and plain.endswith(rule)):
                    return rule
        return None


def _network(what: str, rule: str, plain: str) -> Network:
    try:
        network = ip_network(plain)
    except ValueError as error:
        raise ConfigError(f"{what} {rule!r}: no address, network or host name ({error})") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


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
        try:
            ip = ip_address(address.host)
        except ValueError:
            return _STRANGER
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return self._decide_ip(ip, names)

    def _decide_ip(
        self, ip: IPv4Address | IPv6Address, names: Callable[[], Sequence[str]]
    ) -> Verdict:
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


def confirmed_names(host: str) -> tuple[str, ...]:
    """Return the name of an address if that name leads back to it, else nothing.

    Whoever owns an address can give it any name; only the forward lookup proves it.  Blocks for as
    long as the resolver takes: run it in a pool.
    """
    try:
        name, _ = getnameinfo((host, 0), NI_NAMEREQD)
        if _is_address(name):
            return ()
        wanted = ip_address(host)
        for _, _, _, _, found in getaddrinfo(name, None, 0, SOCK_STREAM):
            if ip_address(str(found[0]).partition("%")[0]) == wanted:
                return (name.rstrip(".").lower(),)
    except (OSError, ValueError):
        pass
    return ()


def _is_address(name: str) -> bool:
    # a PTR record may well say "127.0.0.1"
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class NameCache:
    """The names of the last ``size`` addresses, each kept for ``seconds``; no names count too."""

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
        self._kept[host] = (time.monotonic() + self._seconds, names)
