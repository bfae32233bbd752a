"""The PROXY protocol, versions 1 and 2: a load balancer says who its client is.

Only listed peers are believed, and those must introduce each client before its first octet.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from netserver.access import AccessRules
from netserver.endpoints import Address
from netserver.errors import ConfigError, ConnectionLost, LineTooLong

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxyprotocol.result import ProxyResult
    from proxyprotocol.tlv import ProxyProtocolTLV

    from netserver.connection import Connection

# seconds for the whole header: a load balancer sends it with its first packet
PATIENCE = 5.0
# octets of a header of version 2; addresses and what is said of TLS fit many times over
LONGEST = 2048
# octets of a line of version 1, its end included
LONGEST_LINE = 107


class Introducers:
    """The peers that ``--proxy-protocol`` lists: addresses, networks or ``unix``."""

    def __init__(self, peers: Iterable[str]) -> None:
        """Take the list; raises ``ConfigError`` for a bad peer, or without the library."""
        listed = list(peers)
        self._rules: AccessRules | None = None
        if not listed:
            return
        try:
            self._rules = AccessRules(listed)
        except ConfigError as error:
            text = str(error).replace("--allow", "--proxy-protocol", 1)
            raise ConfigError(text) from None
        if self._rules.needs_names:
            raise ConfigError("--proxy-protocol: takes addresses, networks or unix, no host names")
        try:
            import proxyprotocol.detect  # noqa: F401, PLC0415 - only where it is asked for
        except ImportError:
            raise ConfigError(
                "--proxy-protocol needs: pip install 'netserver-pop3[proxy]'"
            ) from None

    def has(self, peer: Address) -> bool:
        """Whether this peer introduces clients."""
        return self._rules is not None and self._rules.decide(peer, tuple).allowed


def meet(connection: Connection) -> None:
    """Read the header and take from it who the client is, and what the balancer said of its TLS.

    Without one that can be read: raises ``ConnectionLost``, and nobody is served.  A connection of
    the balancer's own (LOCAL, for its checks) and one it knows nothing of stay as they are.
    """
    from proxyprotocol.result import is_ipv4, is_ipv6  # noqa: PLC0415 - see Introducers

    connection.limit_phase(PATIENCE)
    try:
        introduction = _read(connection)
    except (ValueError, struct.error, LineTooLong, ConnectionLost) as error:
        connection.log.warning("refused: no PROXY header from a peer that has to send one")
        raise ConnectionLost("no PROXY header") from error
    finally:
        connection.limit_phase(None)
    tlv = introduction.tlv
    if introduction.proxied and tlv and tlv.ssl.has_ssl:
        _believe_tls(connection, tlv)
    if is_ipv4(introduction) or is_ipv6(introduction):
        ip, port = introduction.source
        mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
        connection.peer = Address(str(mapped or ip), port)


def _read(connection: Connection) -> ProxyResult:
    from proxyprotocol import ProxyProtocolIncompleteError  # noqa: PLC0415 - see Introducers
    from proxyprotocol.detect import ProxyProtocolDetect  # noqa: PLC0415 - same

    header = b""
    while True:
        try:
            return ProxyProtocolDetect().unpack(header)
        except ProxyProtocolIncompleteError as incomplete:
            wanted = incomplete.want_read.want_bytes
        if wanted is None:
            header += connection.read_line(LONGEST_LINE - len(header)) + b"\r\n"
        elif len(header) + wanted > LONGEST:
            raise ValueError("the header is too long")
        else:
            header += connection.read_octets(wanted)


def _believe_tls(connection: Connection, tlv: ProxyProtocolTLV) -> None:
    """Let the connection count as encrypted: it is, up to the balancer."""
    from netserver.tls_layer import TLSInfo  # noqa: PLC0415 - ssl is loaded only where used

    version, cipher, name = "unknown", "unknown", None
    with suppress(UnicodeDecodeError):
        version, cipher = tlv.ssl.version or version, tlv.ssl.cipher or cipher
        name = tlv.authority
    alpn = None if tlv.alpn is None else tlv.alpn.decode("ascii", "replace")
    connection.tls = TLSInfo(version, cipher, name, alpn)
