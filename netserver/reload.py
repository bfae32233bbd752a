"""HUP, from the server's side: check the new configuration, hand everything over, begin anew."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, final

from netserver import systemd
from netserver.hooks import Hooks
from netserver.listeners import handover
from netserver.restart import Inheritance, Rehearsal

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from netserver.listeners import Listener
    from netserver.logs import Log
    from netserver.personalities.base import Personality
    from netserver.pid_file import PidFile
    from netserver.restart import CommandLine
    from netserver.scoreboard import Scoreboard
    from netserver.settings import ServerSettings
    from netserver.signals import SignalQueue


class Reload(Hooks):
    """What a server does when it is told to read its configuration again."""

    settings: ServerSettings
    log: Log
    listeners: list[Listener]
    boards: list[Scoreboard]
    personality: Personality
    command_line: CommandLine
    signals: SignalQueue
    _environ: MutableMapping[str, str]
    _pid_file: PidFile | None

    @final
    def spawn_config_check(self) -> int:
        """Start a process that checks the configuration; return its pid."""
        rehearsal = Rehearsal(
            [listener.spec.endpoint for listener in self.listeners],
            None if self._pid_file is None else self._pid_file.path,
        )
        return self.command_line.spawn_check({**self._environ, **rehearsal.environment()})

    @final
    def reload_refused(self) -> None:
        """Log why that process found the configuration bad."""
        self.log.error(
            "reload refused, the old configuration stays", why=self.command_line.complaint()
        )
        systemd.notify(STATUS="the new configuration is bad; the old one is in force")

    @final
    def config_is_good(self) -> bool:
        """Whether a new process image would start; takes as long as a start does."""
        if self.settings.chroot is not None:
            self.log.error("reload refused: this process cannot leave its chroot")
            return False
        try:
            pid = self.spawn_config_check()
            _, status = os.waitpid(pid, 0)
        except OSError as error:
            self.log.exception("reload refused", error=error.strerror)
            return False
        if status != 0:
            self.reload_refused()
        return status == 0

    def _exec_again(self) -> None:
        systemd.notify(RELOADING=1)
        self.restart_close_hook()
        children = self.personality.children.bequest()
        self.log.info("reload: replacing the process image", children=len(children))
        inheritance = Inheritance(
            listeners=handover(self.listeners),
            children=children,
            boards=[board.descriptor for board in self.boards if board.descriptor >= 0],
            pid_file=None if self._pid_file is None else self._pid_file.bequest(),
        )
        self.command_line.exec(inheritance, self.signals)
