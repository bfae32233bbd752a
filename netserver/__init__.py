"""A server framework in the manner of Perl's Net::Server: subclass `NetServer` and run it.

Importing this package loads none of its modules: gevent must be able to patch first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netserver.connection import Connection
    from netserver.errors import (
        BindError,
        ConfigError,
        ConnectionLost,
        IdleTimeout,
        LineTooLong,
        NetServerError,
        PrivilegeError,
        RestartError,
        SealedError,
        ServerStopping,
    )
    from netserver.hooks import Hooks
    from netserver.options import Settings, option
    from netserver.server import NetServer
    from netserver.settings import ServerSettings

    __version__: str

__all__ = [
    "BindError",
    "ConfigError",
    "Connection",
    "ConnectionLost",
    "Hooks",
    "IdleTimeout",
    "LineTooLong",
    "NetServer",
    "NetServerError",
    "PrivilegeError",
    "RestartError",
    "SealedError",
    "ServerSettings",
    "ServerStopping",
    "Settings",
    "__version__",
    "option",
]

_MODULES = {
    "Connection": "connection",
    "Hooks": "hooks",
    "NetServer": "server",
    "ServerSettings": "settings",
    "Settings": "options",
    "option": "options",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name == "__version__":
        value: Any = _version()
    elif name in __all__:
        value = getattr(import_module(f"netserver.{_MODULES.get(name, 'errors')}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - loads socket

    try:
        return version("netserver-pop3")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"
