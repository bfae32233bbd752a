"""OAuth 2.0 access tokens: OAUTHBEARER (RFC 7628) and Google's older XOAUTH2."""

import json
import re
from typing import TYPE_CHECKING, ClassVar

from pop3.auth.sasl.exchange import Challenge, Exchange, Proof, unescaped
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed

if TYPE_CHECKING:
    from pop3.auth.backend import Identity
    from pop3.auth.names import LoginName

_TOKEN = rb"auth=bearer +(?P<token>[A-Za-z0-9._~+/-]+=*)\x01"  # RFC 6750 §2.1
_PAIR = rb"(?!auth=)[a-z]+=[^\x00\x01]*\x01"
_XOAUTH2 = re.compile(rb"user=(?P<name>[^\x00\x01]+)\x01" + _TOKEN + rb"\x01", re.IGNORECASE)
_OAUTHBEARER = re.compile(
    rb"[ny],a=(?P<name>[^,\x00\x01]+),\x01(?:%b)*%b(?:%b)*\x01" % (_PAIR, _TOKEN, _PAIR),
    re.IGNORECASE,
)


class InsufficientScope(AuthFailed):
    """The token is good, but not for mail."""


class _Bearer(Exchange):
    reveals = True
    longest = 6144  # what fits into a line
    form: ClassVar["re.Pattern[bytes]"]

    def step(self, data: bytes | None) -> Challenge | Proof | None:
        """Take name and token at once."""
        if data is None:
            return Challenge(b"")
        match = self.form.fullmatch(data)
        name = None if match is None else self.named(match["name"])
        if match is None or name is None:
            return None
        token = Secret(match["token"])

        def identify(login: "LoginName") -> "Identity":
            chain = self.around.chain
            if chain is None:
                raise AuthFailed
            return chain.authenticate_token(login, token, self.around.run_blocking)

        return Proof(name, token, identify, refusal=self._refusal)

    def named(self, name: bytes) -> bytes | None:
        """Return the name as it was meant."""
        return name

    def _refusal(self, error: AuthFailed) -> Challenge:
        lacks = isinstance(error, InsufficientScope)
        answer = self.status(lacks_scope=lacks)
        if self.around.chain is not None:
            answer |= self.around.chain.token_hints()
        return Challenge(json.dumps(answer).encode("ascii"))

    def status(self, *, lacks_scope: bool) -> dict[str, str]:
        """Return the first words of the error."""
        return {"status": "insufficient_scope" if lacks_scope else "invalid_token"}


class OAuthBearer(_Bearer):
    """OAUTHBEARER; the authorization identity must be there."""

    name = b"OAUTHBEARER"
    form = _OAUTHBEARER

    def named(self, name: bytes) -> bytes | None:
        """Undo what the GS2 header does to names."""
        return unescaped(name)


class XOAuth2(_Bearer):
    """XOAUTH2."""

    name = b"XOAUTH2"
    form = _XOAUTH2

    def status(self, *, lacks_scope: bool) -> dict[str, str]:
        """Return numbers of HTTP, as Google does."""
        return {"status": "403" if lacks_scope else "401", "schemes": "bearer"}
