"""What happens to one client, from its first to its last octet."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, final

from netserver import proxy
from netserver.access import (
    LOOKUP_LIMIT,
    AccessRules,
    NameCache,
    Verdict,
    confirmed_names,
    given_names,
    within_limit,
)
from netserver.access_files import AccessRuleList, RuleFile, TrustedList
from netserver.endpoints import Address
from netserver.errors import ConfigError, ConnectionLost, LineTooLong, ServerStopping
from netserver.hooks import Hooks
from netserver.listener_tls import TLSContexts

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from netserver.access_files import RunBlocking
    from netserver.certificates import Facts
    from netserver.connection import Connection
    from netserver.endpoints import ListenSpec
    from netserver.listeners import Listener
    from netserver.logs import Log
    from netserver.scoreboard import ClientTable
    from netserver.settings import ServerSettings


def _at_once(pool: str, function: Callable[..., Any], *args: Any) -> Any:
    del pool
    return function(*args)


class ClientFlow(Hooks, ABC):
    """The steps that each client goes through, with the hooks between them."""

    alpn: ClassVar[tuple[str, ...]] = ()
    """Protocols announced in TLS handshakes (RFC 7301)."""

    settings: ServerSettings
    clients: ClientTable
    log: Log

    def prepare_clients(self, specs: Sequence[ListenSpec]) -> None:
        """Make, before any fork, what all clients are measured by; raises ``ConfigError``."""
        settings = self.settings
        self._confirmed = NameCache()
        self._given = NameCache()
        self._rules = {spec.text: self._rules_of(spec) for spec in specs}
        self._access_file: RuleFile[AccessRuleList] | None = None
        if settings.access_file is not None:
            self._access_file = RuleFile(
                "--access-file", settings.access_file, AccessRuleList.parse, self.log
            )
        self._trusted_file: RuleFile[TrustedList] | None = None
        if settings.trusted_file is not None:
            self._trusted_file = RuleFile(
                "--trusted-file", settings.trusted_file, TrustedList.parse, self.log
            )
        self._tls = TLSContexts(settings, specs, self.alpn)
        self._introducers = {
            spec.text: introducers
            for spec in specs
            if (introducers := self._introducers_of(spec)) is not None
        }

    def _introducers_of(self, spec: ListenSpec) -> proxy.Introducers | None:
        own = spec.options.get("proxy-protocol")
        if own is None:
            peers = self.settings.proxy_protocol
            return proxy.Introducers(peers) if peers else None
        try:
            return proxy.Introducers(peer for peer in own.split(",") if peer)
        except ConfigError as error:
            raise ConfigError(f"--listen {spec.text}: {error}") from None

    def _rules_of(self, spec: ListenSpec) -> tuple[AccessRules, ...]:
        """Return the rules for all listeners, and those of this one, which only take away."""
        general = AccessRules(self.settings.allow, self.settings.deny)
        own = {
            key: [rule for rule in spec.options.get(key, "").split(",") if rule]
            for key in ("allow", "deny")
        }
        if not any(own.values()):
            return (general,)
        try:
            return general, AccessRules(own["allow"], own["deny"])
        except ConfigError as error:
            raise ConfigError(f"--listen {spec.text}: {error}") from None

    @final
    def run_client_connection(self, connection: Connection) -> None:
        """Serve one client from its first to its last octet; never raises."""
        try:
            self._serve_client(connection)
        except ServerStopping:
            connection.abort()  # the client must not take what it got for the whole
        except ConnectionLost as lost:
            connection.log.debug("connection lost", why=str(lost) or lost.__class__.__name__)
        except LineTooLong:
            connection.log.info("connection ended", why="a line was too long")
        except Exception:
            with suppress(Exception):
                connection.log.exception("a client's connection failed")
            connection.abort()
        finally:
            self.clients.release(connection)
            connection.close()
            try:
                self.post_client_connection_hook(connection)
            except Exception:
                connection.log.exception("post_client_connection_hook failed")

    def _serve_client(self, connection: Connection) -> None:
        self.post_accept(connection)
        self.get_client_info(connection)
        self.clients.enter(connection)
        self.post_accept_hook(connection)
        allowed = self.allow_deny(connection) and self.allow_deny_hook(connection)
        try:
            if allowed:
                self.secure(connection)
                self.process_request(connection)
            else:
                self.request_denied_hook(connection)
            connection.flush()
        finally:
            self.post_process_request_hook(connection, allowed=allowed)
            self.post_process_request(connection)

    def post_accept(self, connection: Connection) -> None:
        """Run first for each client."""

    def get_client_info(self, connection: Connection) -> None:
        """Find out who the client is: from here on ``connection.peer`` tells."""
        introducers = self._introducers.get(connection.listener.spec.text)
        if introducers is not None and introducers.has(connection.peer):
            proxy.meet(connection)

    def allow_deny(self, connection: Connection) -> bool:
        """Return whether the access rules and ``--max-per-source`` let this client in."""
        peer, run_blocking = connection.peer, connection.run_blocking
        if (
            self.settings.max_per_source
            and not self.clients.claim_source(connection)
            and self.trusted_by(peer, run_blocking) is None
        ):
            connection.log.info("refused: too many from this address")
            return False
        for _, verdict in self._verdicts(peer, connection.listener.spec.text, run_blocking):
            for rule in verdict.warnings:
                connection.log.warning("warned by an access rule", rule=rule)
            if not verdict.allowed:
                connection.log.info("refused", rule=verdict.rule)
                return False
        return True

    def refresh_files(self) -> None:
        """Look whether files of rules changed; runs in the master before it makes a child.

        Else a child would begin with what the master read when it started: a rule or a user that
        was taken away since would be back for a while.
        """
        for file in (self._access_file, self._trusted_file):
            if file is not None:
                file.rules(_at_once)

    @final
    def refresh_certificates(self) -> bool:
        """Take over certificates that were replaced; True if those who serve have the old ones."""
        return self._tls.refresh(self.log, time.monotonic())

    @final
    def certificate_facts(self) -> tuple[Facts, ...]:
        """Return what the certificates say that this process knows of, each file once."""
        return self._tls.facts()

    @final
    def trusted_by(self, peer: Address, run_blocking: RunBlocking) -> str | None:
        """Return the line of ``--trusted-file`` (``path:line: whom``) that trusts a client."""
        if self._trusted_file is None:
            return None
        return self._trusted_file.rules(run_blocking).match(
            peer, lambda: self._names(self._confirmed, confirmed_names, peer, run_blocking)
        )

    @final
    def host_names(self, peer: Address, run_blocking: RunBlocking) -> Sequence[str]:
        """Return the client's host name, if it leads back to its address; kept for a while."""
        if peer.host == "unix":
            return ()
        return self._names(self._confirmed, confirmed_names, peer, run_blocking)

    @final
    def explain_access(self, host: str, run_blocking: RunBlocking = _at_once) -> str:
        """Return what each rule would say to a client from this address, at each listener.

        ``host`` is an IP address or ``unix``; ``--max-per-source`` is left out.
        """
        peer = Address.of((host, 0), 0) if host != "unix" else Address(host, None)
        lines = []
        for listener in self._rules:
            steps = []
            for option, verdict in self._verdicts(peer, listener, run_blocking):
                steps += [f"  {option}: warns, {rule}" for rule in verdict.warnings]
                word = "goes on" if verdict.allowed else "refused"
                steps.append(f"  {option}: {word}, {verdict.rule or 'no rule matches'}")
                if not verdict.allowed:
                    break
            may = "may connect" if verdict.allowed else "may not connect"
            lines += [f"{host} {may} to {listener}", *steps]
        return "\n".join(lines)

    def _verdicts(
        self, peer: Address, listener: str, run_blocking: RunBlocking
    ) -> Iterator[tuple[str, Verdict]]:
        """Yield what each kind of rule says, in their order; the first that refuses decides."""

        def names() -> tuple[str, ...]:
            return self._names(self._confirmed, confirmed_names, peer, run_blocking)

        general, *own = self._rules[listener]
        yield "--allow, --deny", general.decide(peer, names)
        for rules in own:
            yield f"--listen {listener}", rules.decide(peer, names)
        if self._access_file is not None:
            yield "--access-file", self._access_file.rules(run_blocking).decide(peer, names)
        if self.settings.reverse_lookup != "off" and peer.host != "unix":
            yield "--reverse-lookup", self._reverse_lookup(peer, run_blocking)

    def _reverse_lookup(self, peer: Address, run_blocking: RunBlocking) -> Verdict:
        trusted_by = self.trusted_by(peer, run_blocking)
        if trusted_by is not None:
            return Verdict(allowed=True, rule=trusted_by)
        if self.settings.reverse_lookup == "double":
            names = self._names(self._confirmed, confirmed_names, peer, run_blocking)
        else:
            names = self._names(self._given, given_names, peer, run_blocking)
        if names:
            return Verdict(allowed=True, rule=names[0])
        return Verdict(allowed=False, rule=f"--reverse-lookup {self.settings.reverse_lookup}")

    @staticmethod
    def _names(
        cache: NameCache,
        lookup: Callable[[str], tuple[str, ...]],
        peer: Address,
        run_blocking: RunBlocking,
    ) -> tuple[str, ...]:
        names = cache.get(peer.host)
        if names is None:
            until = time.monotonic() + LOOKUP_LIMIT
            names = run_blocking("dns", within_limit, lookup, peer.host, until)
            cache.put(peer.host, names)
        return names

    def secure(self, connection: Connection) -> None:
        """Shake hands on a listener with implicit TLS; a refused client never gets so far."""
        if connection.listener.tls:
            context = self.tls_context(connection.listener)
            if context is not None:
                connection.start_tls(context)

    def tls_context(self, listener: Listener) -> ssl.SSLContext | None:
        """Return the context for TLS on that listener, None if it has no certificate."""
        return self._tls.context(listener.spec)

    @abstractmethod
    def process_request(self, connection: Connection) -> None:
        """Talk to the client; what this returns or raises ends the connection.

        The errors of reading and writing (``ConnectionLost`` …) need not be caught.
        """

    def post_process_request(self, connection: Connection) -> None:
        """Run after ``process_request`` and its hook, whatever happened."""
