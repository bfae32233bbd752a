"""A POP3 server with one class per mail source: subclass `POP3Server` and run it.

Importing this package loads none of its modules: gevent must be able to patch first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netserver.options import option
    from pop3.auth.names import LoginName
    from pop3.auth.secret import Secret
    from pop3.compose import compose
    from pop3.errors import (
        AuthFailed,
        CommandError,
        MailboxInUse,
        PermanentFailure,
        POP3Error,
        TemporaryFailure,
    )
    from pop3.message import Listing, Message
    from pop3.server import POP3Server
    from pop3.session import Session
    from pop3.settings import POP3Settings

__all__ = [
    "AuthFailed",
    "CommandError",
    "Listing",
    "LoginName",
    "MailboxInUse",
    "Message",
    "POP3Error",
    "POP3Server",
    "POP3Settings",
    "PermanentFailure",
    "Secret",
    "Session",
    "TemporaryFailure",
    "compose",
    "option",
]

_MODULES = {
    "Listing": "pop3.message",
    "LoginName": "pop3.auth.names",
    "Message": "pop3.message",
    "POP3Server": "pop3.server",
    "POP3Settings": "pop3.settings",
    "Secret": "pop3.auth.secret",
    "Session": "pop3.session",
    "compose": "pop3.compose",
    "option": "netserver.options",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "pop3.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
