"""What makes a server one that can be asked and told things while it runs."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netserver import entries
from netserver.errors import BindError, ConfigError
from netserver.hooks import Hooks
from netserver.options import environment_prefix
from netserver.personalities.side import SideChild

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from netserver.logs import Log
    from netserver.options import Loaded
    from netserver.personalities.base import Personality
    from netserver.restart import Inheritance
    from netserver.scoreboard import Row
    from netserver.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Control:
    """Where a server is controlled, and since when this process image runs (seconds of 1970)."""

    path: str | None = None
    born: float = 0.0


class Controlled(Hooks):
    """The server's side of ``--control-socket`` and ``--admin-listen``."""

    settings: ServerSettings
    prog: str
    log: Log
    inheritance: Inheritance
    control: Control = Control()
    _argv: Sequence[str]
    _environ: MutableMapping[str, str]
    _loaded: Loaded[Any] | None
    personality: Personality

    @property
    def arguments(self) -> Sequence[str]:
        """What the server was started with."""
        return self._argv

    @property
    def environment_prefix(self) -> str:
        """What the names of environment variables that are options begin with."""
        return environment_prefix(self.prog)

    def control_directory(self) -> str | None:
        """Return where the control socket is when no other place was given; None: nowhere.

        By default a server has none unless it is asked for.
        """
        return None

    def control_path(self) -> str | None:
        """Return the path of the control socket, None if there is to be none."""
        asked = self.settings.control_socket
        if asked is not None:
            return None if asked == "none" else os.path.abspath(asked)
        # one that is embedded in a program makes no processes unasked
        fallback = None if self._loaded is None else self.control_directory()
        if fallback is None:
            return None
        from netserver import control  # noqa: PLC0415 - only where it is used

        return control.default_path(self.prog, self._environ, fallback)

    def entry_size(self, personality: str) -> int:
        """Return the octets kept of each client; raises ``ConfigError`` for what cannot be."""
        if personality != "inetd":
            return entries.SIZE if self.control_path() is not None else 0
        if self.settings.control_socket not in (None, "none"):
            raise ConfigError("--control-socket: the personality inetd has none")
        if self.settings.admin_listen is not None:
            raise ConfigError("--admin-listen: the personality inetd has none")
        return 0

    def find_control(self, personality: str) -> None:
        """Find a place for the control socket, before any child is made.

        Raises ``BindError`` when the one that was asked for cannot be had. One that nobody asked
        for is done without, and so is any other by a server that is running already.
        """
        path = self.control_path() if personality != "inetd" else None
        if path is not None and not self.inheritance.restarted:
            problem = _problem(path)
            if problem is not None:
                if self.settings.control_socket is not None:
                    raise BindError(f"--control-socket {path}: {problem}")
                self.log.warning(
                    "no control socket; give this server another one by --control-socket",
                    path=path,
                    why=problem,
                )
                path = None
        self.control = Control(path, time.time())

    def admin_children(self) -> list[SideChild]:
        """Return the child that answers, where there is something to answer on."""
        if self.control.path is None and self.settings.admin_listen is None:
            return []
        return [SideChild("admin", self._answer)]

    def _answer(self, row: Row) -> None:
        from netserver import admin  # noqa: PLC0415 - only in that child

        admin.run(self, row, self.control.path)  # type: ignore[arg-type] # every server is one


def _problem(path: str) -> str | None:
    """Return why there can be no control socket at that path, None if there can."""
    from netserver.control import Place  # noqa: PLC0415 - only where it is used

    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return "there is no such directory"
    if not os.access(directory, os.W_OK | os.X_OK):
        return "its directory is not writable"
    if Place(path).is_free():
        return None
    return "a server has it already" if _is_socket(path) else "there is something else"


def _is_socket(path: str) -> bool:
    return stat.S_ISSOCK(os.lstat(path).st_mode)
