"""How the processes that serve begin and end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from netserver.daemon import let_go_of_terminal
from netserver.errors import PrivilegeError
from netserver.hooks import Hooks
from netserver.seal import Sealed

if TYPE_CHECKING:
    from netserver.daemon import Rights
    from netserver.logs import Log
    from netserver.personalities.base import Personality
    from netserver.reach import Reach
    from netserver.settings import ServerSettings


class ChildLife(Sealed, Hooks):
    """The life of a process that serves, or works for those who do."""

    settings: ServerSettings
    log: Log
    rights: Rights
    personality: Personality

    def child_init(self) -> None:
        """Begin the life of a process that serves: rights first, then ``child_init_hook``."""
        self.unseal()
        if self.settings.background and self.personality.name != "single":
            let_go_of_terminal()
        self.rights.drop()
        self.check_rights()
        self.child_init_hook()
        self._shut_in()
        self.seal()

    def reach(self) -> Reach | None:
        """Return what serving needs of the file system and the network; None: nobody knows.

        By default nobody does: a class that tells is shut in by ``--sandbox``.
        """
        return None

    def _shut_in(self) -> None:
        if self.settings.sandbox == "off" or self.personality.name == "single":
            return
        from netserver import sandbox  # noqa: PLC0415 - ctypes, and only where it is used

        reach = self.reach()
        if reach is not None and self.settings.chroot is not None:
            reach = replace(reach, write=("/",))  # which is small there
        missing = sandbox.enter(reach)
        if missing is not None and self.settings.sandbox == "require":
            raise PrivilegeError(f"--sandbox require: {missing}")

    def check_sandbox(self) -> None:
        """Tell, once and before any fork, how far those who serve cannot be shut in.

        Raises ``PrivilegeError`` when ``--sandbox require`` asks for more.
        """
        if self.settings.sandbox == "off":
            return
        from netserver import sandbox  # noqa: PLC0415 - see _shut_in

        missing = sandbox.unavailable()
        if self.personality.name == "single":
            missing = "the personality single must be able to start programs"
        elif missing is None:
            missing = self._too_far()
        if missing is None:
            return
        if self.settings.sandbox == "require":
            raise PrivilegeError(f"--sandbox require: {missing}")
        self.log.info("--sandbox: not shut in all the way", why=missing)

    def _too_far(self) -> str | None:
        reach = self.reach()
        if reach is None:
            return "what this server class needs of the file system is not known"
        if self.settings.chroot is None and reach.has_everything:
            return "all files are in reach, as mail, users or state lie directly in /"
        return None

    def check_rights(self) -> None:
        """See whether a process with the rights of those who serve can work; call super.

        Raises ``ConfigError`` with one line.
        """

    @property
    def rights_are_given_up(self) -> bool:
        """Whether those who serve have fewer rights than the master."""
        return self.rights.uid is not None or self.rights.chroot is not None

    def child_finish(self) -> None:
        """End the life of a process that served."""
        self.child_finish_hook()
