"""Errors a client may see: only their texts ever leave the machine (RFC 2449 §8, RFC 3206)."""

from typing import ClassVar


class POP3Error(Exception):
    """A refusal with a text for the client: printable ASCII, without the response code."""

    code: ClassVar[str | None] = None

    def __init__(self, text: str) -> None:
        """Take the text after "-ERR [CODE] "."""
        super().__init__(text)
        self.text = text


class CommandError(POP3Error):
    """Bad syntax, wrong state or no such message; counts towards the limit of bad commands."""


class AuthFailed(POP3Error):
    """The login was refused; one text for every cause, so that nothing can be learnt from it."""

    code = "AUTH"

    def __init__(self, text: str = "authentication failed") -> None:
        """Keep the one text unless a mechanism needs another."""
        super().__init__(text)


class MailboxInUse(POP3Error):
    """Another session holds the maildrop."""

    code = "IN-USE"


class LoginDelay(POP3Error):
    """The user was here too short a time ago (--login-delay)."""

    code = "LOGIN-DELAY"


class TemporaryFailure(POP3Error):
    """Something here is broken for now; trying later may help."""

    code = "SYS/TEMP"


class PermanentFailure(POP3Error):
    """Something here is broken until somebody mends it."""

    code = "SYS/PERM"
