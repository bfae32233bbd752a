"""What every process model is, and all it may know of the server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netserver.connection import Connection
    from netserver.listeners import Listener
    from netserver.logs import Log
    from netserver.personalities.children import ChildTable
    from netserver.personalities.side import SideChild
    from netserver.restart import Inheritance
    from netserver.scoreboard import ClientTable, Scoreboard
    from netserver.settings import ServerSettings
    from netserver.signals import SignalQueue


T = TypeVar("T")


class Stop(Enum):
    """Why a personality returned."""

    DONE = "done"  # nothing left to serve (inetd)
    TERM = "term"
    QUIT = "quit"
    HUP = "hup"  # the process image is to be replaced


class ServerCore(Protocol):
    """All that a personality may know of the server."""

    settings: ServerSettings
    signals: SignalQueue
    log: Log
    clients: ClientTable
    boards: list[Scoreboard]
    inheritance: Inheritance
    most_clients: int  # of one concurrent process

    @property
    def rights_are_given_up(self) -> bool:
        """Whether those who serve have fewer rights than the master."""

    def run_client_connection(self, connection: Connection) -> None:
        """Serve one client from its first to its last octet; never raises."""

    def publish(self) -> None:
        """Write the bound addresses where they were asked for; ``ready`` does it if nobody did."""

    def ready(self) -> None:
        """Tell the world that clients are served now."""

    def can_read_hook(self, listener: Listener) -> bool:
        """Whether to leave this accept to others."""

    def refresh_files(self) -> None:
        """Look whether files changed that a child begins with."""

    def refresh_certificates(self) -> bool:
        """Take over certificates that were replaced; True if those who serve have the old ones."""

    def pre_fork_hook(self) -> None:
        """Run in the master before each fork."""

    def register_child(self, pid: int, kind: str) -> None:
        """Run in the master after each fork."""

    def run_n_children_hook(self, count: int) -> None:
        """Run in the master when ``count`` workers are about to be made."""

    def idle_loop_hook(self) -> None:
        """Run in the master at each turn of its loop."""

    def child_init(self) -> None:
        """Begin a child's life: rights, then ``child_init_hook``."""

    def child_finish(self) -> None:
        """End a child's life."""

    def delete_child_hook(self, pid: int) -> None:
        """Run in the master when a child of ours has ended."""

    def other_child_died_hook(self, pid: int) -> None:
        """Run in the master when a child that is none of ours has ended."""

    def post_child_cleanup_hook(self) -> None:
        """Run in the master when all children have ended."""

    def side_children(self) -> list[SideChild]:
        """Which children there are beside those that serve clients."""

    def config_is_good(self) -> bool:
        """Whether a new process image would start; takes as long as a start does."""

    def spawn_config_check(self) -> int:
        """Start a process that checks the configuration; return its pid."""

    def reload_refused(self) -> None:
        """Log why that process found the configuration bad."""

    def reopen_logs(self) -> None:
        """Open the log files again (USR1)."""


def contained(log: Log, hook: Callable[..., T], *args: object) -> T | None:
    """Call a hook of the user's; its error is logged and ends nothing."""
    try:
        return hook(*args)
    except Exception:
        log.exception("a hook failed", hook=getattr(hook, "__name__", "?"))
        return None


class Personality(ABC):
    """A process model: takes connections from the listeners and hands each to the server."""

    name: ClassVar[str]
    concurrent: ClassVar[bool]  # many connections in one process
    per_connection_process: ClassVar[bool]  # a login may change the process's user
    children: ChildTable

    def __init__(self, server: ServerCore) -> None:
        self.server = server

    @classmethod
    def check(cls, settings: ServerSettings) -> None:
        """Refuse what cannot work; raises ``ConfigError`` with one line."""
        del settings

    @abstractmethod
    def serve(self, listeners: Sequence[Listener]) -> Stop:
        """Serve until there is a reason to stop, and return it."""
