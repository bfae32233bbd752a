"""What happens to one client, from its first to its last octet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, final

from netserver.access import AccessRules, NameCache, confirmed_names
from netserver.errors import ConfigError, ConnectionLost, LineTooLong, ServerStopping
from netserver.hooks import Hooks
from netserver.listener_tls import TLSContexts

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from netserver.connection import Connection
    from netserver.endpoints import ListenSpec
    from netserver.listeners import Listener
    from netserver.scoreboard import ClientTable
    from netserver.settings import ServerSettings


class ClientFlow(Hooks, ABC):
    """The steps that each client goes through, with the hooks between them."""

    alpn: ClassVar[tuple[str, ...]] = ()
    """Protocols announced in TLS handshakes (RFC 7301)."""

    settings: ServerSettings
    clients: ClientTable

    def prepare_clients(self, specs: Sequence[ListenSpec]) -> None:
        """Make, before any fork, what all clients are measured by; raises ``ConfigError``."""
        self._names = NameCache()
        self._rules = {spec.text: self._rules_of(spec) for spec in specs}
        self._tls = TLSContexts(self.settings, specs, self.alpn)

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

    def allow_deny(self, connection: Connection) -> bool:
        """Return whether the access rules and ``--max-per-source`` let this client in."""
        if self.settings.max_per_source and not self.clients.claim_source(connection):
            connection.log.info("refused: too many from this address")
            return False
        for rules in self._rules[connection.listener.spec.text]:
            verdict = rules.decide(connection.peer, lambda: self._names_of(connection))
            if not verdict.allowed:
                connection.log.info("refused", rule=verdict.rule)
                return False
        return True

    def _names_of(self, connection: Connection) -> tuple[str, ...]:
        host = connection.peer.host
        names = self._names.get(host)
        if names is None:
            names = connection.run_blocking("dns", confirmed_names, host)
            self._names.put(host, names)
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
