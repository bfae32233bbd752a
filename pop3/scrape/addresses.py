"""Which addresses a fetch may reach, and a network backend that reaches only these.

A name is resolved once; what was checked is what is connected to, so that no second answer of a
name server can lead elsewhere. Names stay in Host, SNI and the check of certificates.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import httpcore

from pop3.scrape.errors import AddressRefused

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PORTS = frozenset({80, 443, 8080, 8443})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_CONNECT_SECONDS = 10.0
_MOST_ADDRESSES = 4  # of one name that are tried


class AddressPolicy:
    """Public unicast addresses, on ports of the web; and what is named in addition.

    `allowed` are networks that are reached although they are private; `ports` are ports beyond 80,
    443, 8080 and 8443.
    """

    def __init__(self, allowed: Iterable[Network] = (), ports: Iterable[int] = ()) -> None:
        """Take what is allowed beyond the public web."""
        self._allowed = tuple(allowed)
        self._ports = PORTS | frozenset(ports)

    def addresses(self, host: str, port: int) -> list[str]:
        """Resolve a name and return the addresses to try, all of them allowed.

        One that is not allowed makes the whole name refused: AddressRefused. It is raised also for
        a name that does not exist.
        """
        if port not in self._ports:
            raise AddressRefused(f"port {port} is none of the web's")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise AddressRefused(f"no address for {host[:100]!r}") from None
        addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
        for address in addresses:
            if not self.allows(ipaddress.ip_address(address)):
                raise AddressRefused(f"{host[:100]!r} leads to {address}, which is not public")
        return addresses[:_MOST_ADDRESSES]

    def allows(self, address: IPAddress) -> bool:
        """Tell whether an address may be reached."""
        inner = _inside(address)
        if any(inner in network for network in self._allowed):
            return True
        return _is_public(inner)


def _inside(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (
        address.sixtofour is not None or address.teredo is not None or address.is_site_local
    ):
        return False  # they carry an IPv4 address to who knows where
    refused = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    return address.is_global and not refused


class CheckedBackend(httpcore.NetworkBackend):
    """Connects as httpcore does, to addresses the policy has allowed; `shut` ends all at once."""

    def __init__(self, policy: AddressPolicy) -> None:
        """Take the policy."""
        self._policy = policy
        self._backend = httpcore.SyncBackend()
        self._streams: set[httpcore.NetworkStream] = set()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        """Resolve, check, connect. Raises AddressRefused and what httpcore raises."""
        failed: Exception | None = None
        limit = min(timeout or _CONNECT_SECONDS, _CONNECT_SECONDS)
        for address in self._policy.addresses(host, port):
            try:
                stream = self._backend.connect_tcp(
                    address, port, limit, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
                continue
            self._streams.add(stream)
            return stream
        raise failed or AddressRefused(f"no address for {host[:100]!r}")

    def shut(self) -> None:
        """Wake whoever reads or writes: nothing more will come. From any thread."""
        for stream in list(self._streams):
            found = stream.get_extra_info("socket")
            try:
                found.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
