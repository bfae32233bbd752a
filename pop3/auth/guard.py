"""What stands between those who guess passwords and the login: delays, bans, who is known.

All processes share the tables, which lie in a file of the state directory: a reload, a restart and
the processes of inetd find them as they were left.
"""

import ipaddress
import mmap
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netserver.access import network_of
from netserver.errors import ConfigError
from pop3.auth import bans, penalty
from pop3.auth.acquainted import Acquainted, LoginTimes
from pop3.auth.ban_command import argv_of
from pop3.auth.bans import BanTable, network_name
from pop3.auth.penalty import PenaltyTable, network_key
from pop3.auth.table_file import shared_memory
from pop3.errors import LoginDelay

if TYPE_CHECKING:
    from netserver.connection import Connection
    from netserver.endpoints import Address
    from pop3.auth.secret import Secret
    from pop3.server import POP3Server
    from pop3.settings import POP3Settings

_SIZE = penalty.SIZE + bans.SIZE + Acquainted.SIZE
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Guard:
    """The tables, and the rules about them.

    `trusted` tells whether a connection comes from whom --trusted-file names. Its methods about
    a connection may wait for the resolver, where that file names hosts.
    """

    def __init__(
        self,
        settings: "POP3Settings",
        memory: memoryview,
        logins: memoryview | None,
        trusted: "Callable[[Connection], bool]",
    ) -> None:
        """Take the memory of the tables, and that of `LoginTimes` where --login-delay is set.

        Raises ConfigError for --penalty-exempt and --ban-command.
        """
        self._exempt = _networks(settings.penalty_exempt)
        self.penalties = PenaltyTable(
            memory[: penalty.SIZE],
            settings.auth_failure_delay,
            tuple(str(network) for network in self._exempt),
        )
        self.bans = BanTable(memory[penalty.SIZE : penalty.SIZE + bans.SIZE])
        self._acquainted = Acquainted(memory[penalty.SIZE + bans.SIZE :])
        delay = settings.login_delay
        self._logins = None if logins is None else LoginTimes(delay, logins)
        self._trusted = trusted
        self._ban_after = settings.ban_after
        self._ban_time = settings.ban_time
        self.ban_command = argv_of(settings.ban_command) if settings.ban_command else None

    # -- one client -----------------------------------------------------------------------------

    def admits(self, connection: "Connection") -> bool:
        """Tell whether this client's address is not banned."""
        if self.bans.is_empty:
            return True
        name = network_name(connection.peer.host)
        return name is None or not self.bans.has(name) or not self._key(connection)

    def due(self, connection: "Connection", user: str) -> float:
        """Return the seconds this login has to wait for failures before it.

        None for a user who has logged in from there before, unless somebody guessed since: others
        who guess at a user from elsewhere hold up only those logins that come from elsewhere.
        """
        penalties = self.penalties
        if penalties.is_calm:
            return 0.0
        key = self._address_key(connection.peer)
        due = penalties.delay_for(key, user)
        if not due or self._acquainted.has(key, user) or not self._key(connection):
            return 0.0
        return due

    def failed(self, connection: "Connection", user: str, secret: "Secret") -> float:
        """Count a failed login, ban if that makes too many; return how long the answer waits."""
        key = self._key(connection)
        if not key:
            return 0.0
        self._acquainted.remove(key, user)
        delay = self.penalties.failed(key, user, secret)
        if delay and self._ban_after:
            failures, _ = self.penalties.failures(key, user)
            if failures >= self._ban_after:
                self._ban(connection, failures)
        return delay

    def succeeded(self, connection: "Connection", user: str, account: str, *, forget: bool) -> None:
        """Know the user there from now on, note the login of the account.

        With `forget` the failures of the user, and half of the address's, are forgotten.
        """
        key = self._address_key(connection.peer)
        if key:
            if forget:
                self.penalties.succeeded(key, user)
            self._acquainted.add(key, user)
        if self._logins is not None:
            self._logins.note(account)

    def demand_delay(self, connection: "Connection", user: str) -> None:
        """Raise LoginDelay for a user who was here too short a time ago (RFC 2449 §8.1.1)."""
        if self._logins is None or not (wait := self._logins.wait(user)):
            return
        if self._key(connection):
            raise LoginDelay(f"minimum time between logins: wait {int(wait) + 1} seconds")

    def _key(self, connection: "Connection") -> bytes:
        """Return what failures are counted under; b"" for whom nothing is counted."""
        key = self._address_key(connection.peer)
        return b"" if key and self._trusted(connection) else key

    def _address_key(self, peer: "Address") -> bytes:
        if self._exempt:
            return self.penalties.address_key(peer.host)
        return peer.network_key() or network_key(peer.host)  # the first is three times as quick

    def _ban(self, connection: "Connection", failures: int) -> None:
        peer = connection.peer
        name = network_name(peer.host)
        # behind a local address stands a webmail or a proxy, with everybody
        if name is None or peer.is_loopback or self.bans.has(name):
            return
        if self.bans.add(name, self._ban_time):
            connection.log.warning(
                "banned", address=name, failures=failures, seconds=self._ban_time
            )

    # -- an operator's part ---------------------------------------------------------------------

    def ban(self, name: str, seconds: float | None = None) -> str:
        """Ban an address (IPv6: its /64) or a user; return how the ban is listed.

        Without a time for that of --ban-time. Raises ValueError.
        """
        network = network_name(name)
        if network is None and ("/" in name or ":" in name):
            raise ValueError(f"{name}: an address, an IPv6 /64 or a user can be banned")
        if network is not None and self._is_exempt(network):
            raise ValueError(f"{name} is exempt (--penalty-exempt)")
        if seconds is not None and not 0 < seconds <= bans.LONGEST:
            raise ValueError(f"a ban takes more than 0 and at most {int(bans.LONGEST)} seconds")
        listed = network or name
        if not self.bans.add(listed, seconds or self._ban_time, by_hand=True):
            raise ValueError("the table of bans is full")
        return listed

    def unban(self, name: str) -> bool:
        """End a ban and forget the failures; return whether there was a ban."""
        self.penalties.forgive(self.penalties.address_key(name), name)
        return self.bans.lift(network_name(name) or name)

    def listing(self) -> list[dict[str, object]]:
        """Return the bans in force: name, end (seconds since 1970), and whether by hand."""
        return [
            {"name": ban.name, "until": round(ban.end), "by_hand": ban.by_hand}
            for ban in self.bans.listing()
        ]

    def about(self, name: str) -> dict[str, object]:
        """Return what is held against an address or a user."""
        key = self.penalties.address_key(name)
        by_address, by_user = self.penalties.failures(key, name)
        listed = network_name(name) or name
        ends = [ban.end for ban in self.bans.listing() if ban.name == listed]
        return {
            "name": name,
            "failures": {"address": by_address, "user": by_user},
            "delay": max(self.penalties.delay_for(key, name), 0.0),
            "banned_until": round(ends[0]) if ends else None,
        }

    def control(self, command: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Answer `ban`, `unban`, `penalty` and `penalties` of the control socket; None for others.

        `name` is a user or an address, `seconds` how long a ban takes. Raises ValueError.
        """
        if command == "penalties":
            return {"bans": self.listing()}
        if command not in ("penalty", "ban", "unban"):
            return None
        name, seconds = request.get("name"), request.get("seconds")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{command}: of whom? a user or an address")
        if seconds is not None and type(seconds) not in (int, float):
            raise ValueError("seconds is a number")
        if command == "ban":
            self.ban(name, seconds)
        elif command == "unban":
            self.unban(name)
        return self.about(name)

    def _is_exempt(self, network: str) -> bool:
        host = ipaddress.ip_network(network)
        return any(one.version == host.version and host.overlaps(one) for one in self._exempt)


def prepare(server: "POP3Server[Any]", directory: Path, owner: tuple[int, int] | None) -> Guard:
    """Make the guard of a server, before it forks. Raises ConfigError."""
    settings = server.settings
    _check(settings)

    def trusted(connection: "Connection") -> bool:
        return server.trusted_by(connection.peer, connection.run_blocking) is not None

    with ExitStack() as files:

        def memory(name: str, size: int) -> memoryview:
            try:
                return files.enter_context(shared_memory(directory / name, size, owner))
            except OSError as error:
                why = f"{directory / name}: {error.strerror or error}"
                server.log.warning("failed logins will be forgotten at a restart", why=why)
                return memoryview(mmap.mmap(-1, size))

        logins = memory("logins", LoginTimes.SIZE) if settings.login_delay else None
        return Guard(settings, memory("penalties", _SIZE), logins, trusted)


def _check(settings: "POP3Settings") -> None:
    if not 0 < settings.ban_time <= bans.LONGEST:
        raise ConfigError(f"--ban-time {settings.ban_time}: 1 second to {int(bans.LONGEST)}")
    if settings.ban_after and not settings.auth_failure_delay:
        raise ConfigError("--ban-after: --auth-failure-delay 0 counts no failures")
    if settings.ban_command is not None and "inetd" in settings.personality:
        raise ConfigError("--ban-command: the personality inetd has no process to call it")


def _networks(texts: Sequence[str]) -> list[_Network]:
    networks = []
    for text in texts:
        try:
            networks.append(network_of(text))
        except ValueError as error:
            raise ConfigError(f"--penalty-exempt {text!r}: {error}") from None
    return networks
