"""What is decided and checked once, when a POP3 server starts."""

import os
from typing import TYPE_CHECKING, Any

from netserver.endpoints import ListenSpec
from netserver.errors import ConfigError
from pop3 import become_user
from pop3.auth.chain import AuthChain
from pop3.settings import PLAINTEXT_POLICIES
from pop3.source import Source

if TYPE_CHECKING:
    from pop3.server import POP3Server

_SHORTEST_TIMEOUT = 600  # seconds, RFC 1939 §3


def delete_policy(server: "POP3Server[Any]") -> str:
    """Return what QUIT does, as asked for or as the source can. Raises ConfigError."""
    able = type(server).delete_messages is not Source.delete_messages
    policies = server.delete_policies if able else frozenset[str]()
    asked = server.settings.delete
    if asked is None:
        return "expunge" if "expunge" in policies else "hide"
    if asked not in ("hide", "ignore") and asked not in policies:
        can = ", ".join(sorted({*policies, "hide", "ignore"}))
        raise ConfigError(f"--delete {asked}: this source cannot do that; there are: {can}")
    return asked


def chain(server: "POP3Server[Any]") -> AuthChain | None:
    """Make the chain of backends; None where the far end is asked. Raises ConfigError."""
    if server.authenticates_upstream:
        return None
    if not server.settings.auth:
        raise ConfigError(
            "no --auth given: nobody could log in; try --auth passwd-file:/etc/pop3-server/users"
        )
    made = AuthChain.from_specs(
        server.settings.auth,
        base_directory=os.getcwd(),
        warn=server.log.warning,
        overrides=server.settings.auth_for,
    )
    if made.open_to_all and server.delete_policy not in ("hide", "ignore"):
        raise ConfigError("--auth any: anybody could delete mail; add --delete hide or ignore")
    # in somebody's program there are no children to ask
    return made if server.embedded else made.map(server.auth_children.stand_in)


def check_options(server: "POP3Server[Any]") -> None:
    """Refuse what cannot be, warn of what is doubtful. Raises ConfigError."""
    settings = server.settings
    if settings.apop:
        if server.apop_by_chain and (server.chain is None or not server.chain.stores("PLAIN")):
            raise ConfigError("--apop: neither source nor --auth knows passwords: {PLAIN}")
        server.log.warning("--apop rests on MD5 and on passwords that are stored as they are")
    become_user.check(server)
    if settings.auth_workers < 1:
        raise ConfigError("--auth-workers: at least 1 is needed")
    for text in settings.listen:
        spec = ListenSpec.parse(text, extra_keys=server.listen_options)
        policy = spec.options.get("plaintext-auth")
        if policy not in (None, *PLAINTEXT_POLICIES):
            known = ", ".join(PLAINTEXT_POLICIES)
            raise ConfigError(f"--listen {text}: plaintext-auth is one of {known}")
        _warn_of_plain(server, spec, policy or settings.plaintext_auth)
    if 0 < settings.timeout < _SHORTEST_TIMEOUT:
        server.log.warning("--timeout is less than the 10 minutes of RFC 1939")


def _warn_of_plain(server: "POP3Server[Any]", spec: ListenSpec, policy: str) -> None:
    """Tell when nobody from another machine could log in: there is no TLS, and no other way."""
    beyond = spec.kind == "tcp" and spec.host not in ("127.0.0.1", "::1", "localhost")
    encrypted = server.settings.tls_cert or "tls-cert" in spec.options
    if beyond and not encrypted and policy != "always" and not server.settings.proxy_protocol:
        server.log.warning(
            "no password is taken from other machines: give a --tls-cert, or --plaintext-auth "
            "always, which lets it cross the network readable",
            listen=spec.text,
        )
