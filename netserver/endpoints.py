"""The values that name a place on the network: addresses and listen specs."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netserver.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

# what may stand behind the "?" of a spec; a server class may know more
OPTION_KEYS = frozenset(
    {"allow", "deny", "proxy-protocol", "tls", "tls-cert", "tls-key", "tls-min-version"}
)
# sun_path of Linux has 108 octets, the last one is NUL
UNIX_PATH_LIMIT = 107

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """One end of a connection: an IP address without scope and a port, or "unix" and None."""

    host: str
    port: int | None

    @classmethod
    def of(cls, raw: object, family: int) -> Address:
        """Make one of what ``accept`` or ``getsockname`` gave; IPv4 in IPv6 is shown as IPv4."""
        if not isinstance(raw, tuple):
            return UNIX if family == getattr(socket, "AF_UNIX", None) else UNKNOWN
        host: str = raw[0]
        if ":" in host:
            host = host.partition("%")[0]
            if host.startswith("::ffff:") and "." in host:
                host = host[7:]
        return cls(host, raw[1])

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is said cannot leave this machine; true for UNIX sockets too."""
        return self.host.startswith("127.") or self.host in ("::1", "unix")

    def network_key(self) -> bytes:
        """Return what limits per source count by: 4 octets of IPv4, a /64 of IPv6, b"" for UNIX."""
        if self.port is None:
            return b""
        if ":" in self.host:
            return socket.inet_pton(socket.AF_INET6, self.host)[:8]
        return socket.inet_aton(self.host)


UNIX = Address("unix", None)
UNKNOWN = Address("unknown", None)


@dataclass(frozen=True, slots=True)
class ListenSpec:
    """One ``--listen``: what to bind or to take over, and the options of this listener alone.

    ``kind`` is "tcp", "unix", "systemd", "fd" or "stdin"; ``name`` is the path, the systemd name or
    the descriptor's number, ``host`` and ``port`` are those of "tcp".
    """

    text: str
    kind: str
    host: str = ""
    port: int = 0
    name: str = ""
    tls: bool = False
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, text: str, *, extra_keys: AbstractSet[str] = frozenset()) -> ListenSpec:
        """Read ``HOST:PORT``, ``[::1]:PORT``, ``*:PORT``, ``tls://…``, ``unix:PATH``, ….

        The other forms are ``systemd:NAME``, ``fd:N``, ``stdin`` and ``tls:stdin``; each may end in
        ``?key=value&key=value``.  Raises ``ConfigError``.
        """
        place, mark, query = text.partition("?")
        options = _parse_options(text, query, OPTION_KEYS | extra_keys) if mark else {}
        tls = _implicit_tls(text, options)
        if place.startswith("tls://"):
            host, port = _parse_host_port(text, place[6:])
            return cls(text, "tcp", host=host, port=port, tls=True, options=options)
        if place in ("stdin", "tls:stdin"):
            return cls(text, "stdin", tls=tls or place == "tls:stdin", options=options)
        kind, colon, name = place.partition(":")
        if colon and kind in ("unix", "systemd", "fd"):
            _check_name(text, kind, name)
            return cls(text, kind, name=name, tls=tls, options=options)
        host, port = _parse_host_port(text, place)
        return cls(text, "tcp", host=host, port=port, tls=tls, options=options)

    @property
    def endpoint(self) -> str:
        """The place alone, without options and TLS: what can be bound only once."""
        return endpoint_of(self.text)


def endpoint_of(text: str) -> str:
    """Return the place in a spec's text, without options and TLS."""
    return text.partition("?")[0].removeprefix("tls://").removeprefix("tls:")


def _wrong(text: str, why: str) -> ConfigError:
    return ConfigError(f"--listen {text}: {why}")


def _parse_options(text: str, query: str, keys: AbstractSet[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in query.split("&"):
        key, equals, value = item.partition("=")
        if key not in keys:
            raise _wrong(text, f"unknown option {key!r}; known are {', '.join(sorted(keys))}")
        if not equals or not value:
            raise _wrong(text, f"option {key} has no value")
        if key in options:
            raise _wrong(text, f"option {key} stands twice")
        options[key] = value
    return options


def _implicit_tls(text: str, options: Mapping[str, str]) -> bool:
    value = options.get("tls")
    if value not in (None, "implicit"):
        raise _wrong(text, f"tls={value}: the only value is implicit")
    return value is not None


def _check_name(text: str, kind: str, name: str) -> None:
    if not name or "\0" in name:
        raise _wrong(text, f"nothing usable stands after {kind}:")
    if kind == "fd" and not _NUMBER.fullmatch(name):
        raise _wrong(text, f"{name!r} is no descriptor number")
    if kind == "unix" and len(os.fsencode(os.path.abspath(name))) > UNIX_PATH_LIMIT:
        raise _wrong(text, f"the path is longer than {UNIX_PATH_LIMIT} octets")


def _parse_host_port(text: str, place: str) -> tuple[str, int]:
    host, colon, digits = place.rpartition(":")
    if not colon:
        raise _wrong(text, "no port; the form is HOST:PORT, [::1]:PORT, *:PORT or unix:PATH")
    if not _PORT.fullmatch(digits) or int(digits) > 65535:  # noqa: PLR2004 - the highest port
        raise _wrong(text, f"{digits!r} is no port number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _wrong(text, f"{host!r} is no IPv6 address") from None
    elif ":" in host:
        raise _wrong(text, "an IPv6 address stands in brackets: [::1]:PORT")
    elif host != "*":
        _check_ipv4_or_name(text, host)
    return host, int(digits)


def _check_ipv4_or_name(text: str, host: str) -> None:
    if not _HOST.fullmatch(host):
        raise _wrong(text, f"{host!r} is no host; * stands for all addresses")
    if not host.strip("0123456789."):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise _wrong(text, f"{host!r} is no IPv4 address") from None
