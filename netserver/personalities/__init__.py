"""The process models, loaded by name when one is chosen."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from netserver.errors import ConfigError

if TYPE_CHECKING:
    from netserver.personalities.base import Personality

PERSONALITIES = {
    "single": "netserver.personalities.single:Single",
    "inetd": "netserver.personalities.inetd:Inetd",
    "fork": "netserver.personalities.fork:Fork",
    "prefork": "netserver.personalities.prefork:Prefork",
    "gevent": "netserver.personalities.gevent_workers:GeventWorkers",
}


def load(name: str) -> type[Personality]:
    """Return the class of that name; raises ``ConfigError`` for an unknown one."""
    if name not in PERSONALITIES:
        known = ", ".join(PERSONALITIES)
        raise ConfigError(f"--personality: there is no {name!r}; choose one of {known}")
    module, _, attribute = PERSONALITIES[name].partition(":")
    personality: type[Personality] = getattr(import_module(module), attribute)
    return personality
