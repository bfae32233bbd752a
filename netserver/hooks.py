"""Every hook of Net::Server, empty, by its own name.

A method called ``x_hook`` does nothing here: override it freely, never call ``super``.  A method
called ``x`` is a step of ``NetServer``: override with care and call ``super``.  Hooks about a
client get its connection, since there is no "present client" on the server.
"""

# every method here exists to be overridden

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from netserver.connection import Connection
    from netserver.listeners import Listener


class Hooks:
    """What a server may want to do at each point of its life."""

    # -- start ----------------------------------------------------------------------------------

    def configure_hook(self) -> None:
        """Run first of all, before any option is read."""

    def post_configure_hook(self) -> None:
        """Run when the options are read and checked; may raise ``ConfigError``."""

    def post_bind_hook(self) -> None:
        """Run when the listeners are bound, with the rights the process was started with."""

    def pre_loop_hook(self) -> None:
        """Run last before clients are served; from then on the server object is sealed."""

    # -- one client -----------------------------------------------------------------------------

    def can_read_hook(self, listener: Listener) -> bool:
        """Return True to leave a client in the queue for now; runs where clients are accepted."""
        del listener
        return False

    def post_accept_hook(self, connection: Connection) -> None:
        """Run when a client is there, before it is known whether it may be served."""
        del connection

    def allow_deny_hook(self, connection: Connection) -> bool:
        """Return whether this client may be served; asked after the access rules have said yes."""
        del connection
        return True

    def request_denied_hook(self, connection: Connection) -> None:
        """Run for a client that may not be served; what is written here is sent."""
        del connection

    def post_process_request_hook(self, connection: Connection, *, allowed: bool) -> None:
        """Run after ``process_request``, or instead of it; the connection may be lost by now."""
        del connection, allowed

    def post_client_connection_hook(self, connection: Connection) -> None:
        """Run when the connection is closed."""
        del connection

    # -- the master -----------------------------------------------------------------------------

    def pre_fork_hook(self) -> None:
        """Run in the master before each fork."""

    def register_child(self, pid: int, kind: str) -> None:
        """Run in the master after each fork; ``kind`` is "worker", "client" or "jobs"."""
        del pid, kind

    def run_n_children_hook(self, count: int) -> None:
        """Run in the master when ``count`` workers are about to be made."""
        del count

    def idle_loop_hook(self) -> None:
        """Run in the master at each turn of its loop, at least once a second; must not block."""

    def delete_child_hook(self, pid: int) -> None:
        """Run in the master when one of its children has ended."""
        del pid

    def other_child_died_hook(self, pid: int) -> None:
        """Run in the master when a process has ended that it did not make."""
        del pid

    def post_child_cleanup_hook(self) -> None:
        """Run in the master when all children have ended."""

    # -- a child --------------------------------------------------------------------------------

    def child_init_hook(self) -> None:
        """Run in each serving process before its first client: open what belongs to a process.

        The seal is lifted here: attributes may be set.
        """

    def child_finish_hook(self) -> None:
        """Run in each serving process after its last client."""

    def run_dequeue(self) -> None:
        """Do periodic work, in a child of its own, each ``--check-for-dequeue`` seconds.

        That child exists only where this is overridden.
        """

    def control_hook(self, command: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Obey a command of the control socket that every server does not have; None: nor has this.

        Runs in the admin child, with the rights of the master; must not block. What is returned
        goes to whoever asked, as JSON.  Raises ``ValueError`` when something about it is wrong.
        """
        del command, request
        return None

    # -- the end --------------------------------------------------------------------------------

    def pre_server_close_hook(self) -> None:
        """Run in the master when no more clients are served."""

    def restart_close_hook(self) -> None:
        """Run at HUP in the old process image, before it is replaced."""

    def restart_open_hook(self) -> None:
        """Run at HUP in the new process image, before it takes the listeners over."""

    def write_to_log_hook(self, level: str, event: MutableMapping[str, Any]) -> None:
        """Run for each event that is logged, before it is written; may change its fields.

        ``event["event"]`` is its text.  Secrets are hidden after this.  Runs in every process.
        """
        del level, event

    def fatal_hook(self, error: Exception) -> None:
        """Run when the server ends because of an error."""
        del error
