"""Mechanisms that send the password: PLAIN and LOGIN."""

from pop3.auth.sasl.exchange import Challenge, Credentials, Exchange, Surroundings
from pop3.auth.secret import Secret


class Plain(Exchange):
    """PLAIN (RFC 4616), without acting for others: authzid is empty or the authcid itself."""

    name = b"PLAIN"
    reveals = True

    def step(self, data: bytes | None) -> Challenge | Credentials | None:
        """Split `[authzid] NUL authcid NUL passwd`."""
        if data is None:
            return Challenge(b"")
        parts = data.split(b"\0")
        if len(parts) != 3:  # noqa: PLR2004 - the three parts of RFC 4616
            return None
        authzid, authcid, passwd = parts
        if not authcid or not passwd or authzid not in (b"", authcid):
            return None
        return Credentials(authcid, Secret(passwd))


class Login(Exchange):
    """LOGIN, which has no RFC but old Outlooks: two questions. An initial response is the name."""

    name = b"LOGIN"
    reveals = True

    def __init__(self, around: Surroundings | None = None) -> None:
        super().__init__(around)
        self._login: bytes | None = None

    def step(self, data: bytes | None) -> Challenge | Credentials | None:
        """Ask for the name, then for the password."""
        if self._login is None:
            if data is None:
                return Challenge(b"Username:")
            if not data or b"\0" in data:
                return None
            self._login = data
            return Challenge(b"Password:")
        return Credentials(self._login, Secret(data)) if data else None
