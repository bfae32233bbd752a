"""Mechanisms without a secret: EXTERNAL (RFC 4422 appendix A) and ANONYMOUS (RFC 4505)."""

from typing import TYPE_CHECKING

from pop3.auth.sasl.exchange import Challenge, Exchange, Proof
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed

if TYPE_CHECKING:
    from pop3.auth.backend import Identity
    from pop3.auth.names import LoginName

_LONGEST_TRACE = 255  # letters, RFC 4505 §2


class External(Exchange):
    """EXTERNAL: the client's certificate says who it is; a backend must know that user."""

    name = b"EXTERNAL"

    def step(self, data: bytes | None) -> Challenge | Proof | None:
        """Take the authorization identity; empty is the one name in the certificate."""
        if data is None:
            return Challenge(b"")
        if b"\0" in data:
            return None
        tls, parse = self.around.tls, self.around.parse
        names = (
            [] if tls is None else [name.encode("utf-8", "replace") for name in tls.client_names]
        )
        if not data and len(names) != 1:
            return None
        asked = data or names[0]

        def identify(login: "LoginName") -> "Identity":
            certified = {one.user for name in names if (one := parse(name)) is not None}
            chain = self.around.chain
            if chain is None or login.user not in certified:
                raise AuthFailed
            found = chain.stored(login, self.around.run_blocking)
            if found is None or found.locked:
                raise AuthFailed
            return found.identity

        return Proof(asked, Secret(data), identify)


class Anonymous(Exchange):
    """ANONYMOUS: the user "anonymous", where `--auth any` would let everybody in anyway."""

    name = b"ANONYMOUS"
    longest = 4 * _LONGEST_TRACE

    def step(self, data: bytes | None) -> Challenge | Proof | None:
        """Take the trace (a mail address or any word), and forget it."""
        if data is None:
            return Challenge(b"")
        try:
            trace = data.decode("utf-8")
        except UnicodeDecodeError:
            return None
        if len(trace) > _LONGEST_TRACE or "\0" in trace:
            return None

        def identify(login: "LoginName") -> "Identity":
            found = None
            if self.around.chain is not None:
                found = self.around.chain.anybody(login, self.around.run_blocking)
            if found is None:
                raise AuthFailed
            return found

        return Proof(b"anonymous", Secret(data), identify)
