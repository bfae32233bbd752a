"""NetServer: the life of a server process."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

from netserver import boot, jobs, systemd
from netserver.child_life import ChildLife
from netserver.client_flow import ClientFlow
from netserver.controlled import Controlled
from netserver.daemon import Rights, background, raise_descriptor_limit
from netserver.endpoints import ListenSpec
from netserver.errors import ConfigError, RestartError
from netserver.hooks import Hooks
from netserver.listeners import Listener, bind, write_address_file
from netserver.options import Loaded, format_config, load
from netserver.personalities import load as load_personality
from netserver.personalities.base import Personality, Stop
from netserver.personalities.side import SideChild
from netserver.pid_file import PidFile
from netserver.reload import Reload
from netserver.restart import CommandLine, Inheritance, Rehearsal
from netserver.scoreboard import ClientTable, Scoreboard
from netserver.settings import ServerSettings
from netserver.signals import SignalQueue

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from netserver.logs import Log
    from netserver.scoreboard import Row

# rows of the scoreboard beyond those for the workers wanted: children that TTIN adds, and the jobs
# child
SPARE_ROWS = 64
# a limit that low surprises even who left the default as it is
FEW_CLIENTS = 1000
# descriptors a process needs beside its clients' ones
OWN_DESCRIPTORS = 192


class NetServer(ChildLife, Reload, Controlled, ClientFlow):
    """A server; a subclass says what to do with a client in ``process_request``.

    One object serves all clients: after start-up it is sealed, and setting an attribute raises
    ``SealedError``.
    """

    settings_class: ClassVar[type[ServerSettings]] = ServerSettings
    program: ClassVar[str] = "net-server"
    """Its name in messages, in directories, and before the names of its environment variables."""
    descriptors_per_client: ClassVar[int] = 1
    """Open files that one idle client costs: how many clients a process can hold follows."""
    embedded = False
    """Whether this object serves in a program that is no server: see ``serve``."""
    listen_options: ClassVar[frozenset[str]] = frozenset()
    """Keys this server knows behind the "?" of a listen spec, beside the generic ones."""

    def __init__(
        self,
        settings: ServerSettings | None = None,
        *,
        prog: str = "net-server",
        argv: Sequence[str] = (),
        environ: MutableMapping[str, str] | None = None,
    ) -> None:
        self.prog = prog
        self._argv = argv
        self._environ = os.environ if environ is None else environ
        self._loaded: Loaded[Any] | None = None
        if settings is not None:
            self.settings = settings
        self.command_line = CommandLine()
        self.inheritance = Inheritance()
        self.signals = SignalQueue()
        self.listeners: list[Listener] = []
        self.boards: list[Scoreboard] = []
        self._ready_calls: list[Any] = []
        self._published: list[bool] = []
        self._pid_file: PidFile | None = None

    # -- the life of the process ----------------------------------------------------------------

    @classmethod
    def main(
        cls,
        *,
        prog: str | None = None,
        argv: Sequence[str] | None = None,
        environ: MutableMapping[str, str] | None = None,
    ) -> int:
        """Read the options, run, return the exit code: 0, 1 (cannot start) or 2 (bad options)."""
        name = prog or cls.program

        def start() -> int:
            if argv is None:
                boot.patch_first(name, cls.settings_class.personality)
            arguments = sys.argv[1:] if argv is None else argv
            return cls(prog=name, argv=arguments, environ=environ).run()

        return boot.guarded(name, start)

    @final
    def run(self) -> int:
        """Run from configuration to the last client; return the exit code.

        Raises ``ConfigError``, ``BindError``, ``PrivilegeError``.
        """
        self.configure_hook()
        self.configure()
        if self._loaded is not None and self._loaded.print_config:
            print(format_config(self._loaded), end="")
            return 0
        self.post_configure()
        self.post_configure_hook()
        if self._loaded is not None and self._loaded.check_config:
            self._rehearse()
            return 0
        try:
            self.pre_bind()
            self.bind()
            self.post_bind_hook()
            self.post_bind()
            self.pre_loop_hook()
            self.seal()
            self._serve_to_the_end()
        except Exception as error:
            self.unseal()
            self.fatal_hook(error)
            self.shutdown_sockets()
            self._clean_up()
            raise
        return 0

    def _serve_to_the_end(self) -> None:
        while True:
            stop = self.loop()
            self.pre_server_close_hook()
            try:
                self.server_close(stop)
            except RestartError as error:
                self.log.error("reload failed", error=str(error))  # noqa: TRY400 - it says all
            else:
                return

    @classmethod
    def default_values(cls) -> Mapping[str, object]:
        """Return values that override the defaults of the options, by option name."""
        return {}

    def configure(self) -> None:
        """Read the options, unless they were given; raises ``ConfigError``."""
        if not hasattr(self, "settings"):
            self._loaded = load(
                self.settings_class,
                prog=self.prog,
                argv=self._argv,
                environ=self._environ,
                defaults=self.default_values(),
            )
            self.settings = self._loaded.settings

    def post_configure(self) -> None:
        """Check what was asked for and make what all processes share; raises ``ConfigError``."""
        from netserver import embed, logs  # noqa: PLC0415 - structlog loads what gevent patches

        if self.embedded:
            embed.prepare(self)
            return
        settings = self.settings
        self.inheritance = Inheritance.take(self._environ)
        name = boot.choose_personality(settings.personality)
        hook = self.write_to_log_hook
        self.log: Log = logs.configure(
            level=settings.log_level,
            format=settings.log_format,
            file=settings.log_file or boot.log_of_inetd(name),
            name=self.prog,
            hook=None if type(self).write_to_log_hook is Hooks.write_to_log_hook else hook,
        )
        personality = load_personality(name)
        personality.check(settings)
        self.rights = Rights(settings.user, settings.group, settings.chroot)
        self.rights.resolve()
        self._specs = [
            ListenSpec.parse(text, extra_keys=self.listen_options) for text in settings.listen
        ]
        if name == "inetd":
            at_stdin = [spec for spec in self._specs if spec.kind == "stdin"]
            self._specs = at_stdin[:1] or [ListenSpec.parse("stdin")]
        elif any(spec.kind == "stdin" for spec in self._specs):
            raise ConfigError("--listen stdin: only the personality inetd serves it")
        self.prepare_clients(self._specs)
        self._make_boards(personality)
        self.personality: Personality = personality(self)

    def _make_boards(self, personality: type[Personality]) -> None:
        settings = self.settings
        per_user, per_pair = (
            getattr(settings, name, 0) for name in ("max_per_user", "max_per_user_source")
        )
        counted = settings.max_per_source or per_user or per_pair
        per_process = settings.max_connections if personality.concurrent else 1
        rows = max(settings.max_servers or 256, settings.workers or 0) + SPARE_ROWS
        if personality.name in ("single", "inetd"):
            rows = 1 + SPARE_ROWS
        entry = self.entry_size(personality.name)
        slots = per_process if counted or entry else 0
        self.boards[:] = [Scoreboard.create(rows, slots, entry)]
        for descriptor in self.inheritance.boards:
            with suppress(RestartError, OSError):
                self.boards.append(Scoreboard.attach(descriptor))
        self.clients = ClientTable(self.boards, settings.max_per_source, per_user, per_pair)

    def pre_bind(self) -> None:
        """Go to the background if asked, and take the pid file."""
        settings = self.settings
        if self.inheritance.restarted:
            self.restart_open_hook()
        elif settings.background:
            if settings.log_file is None:
                self.log.warning("--background: nothing will be logged without --log-file")
            self._ready_calls.append(background())
        self._pid_file = PidFile.follow(settings.pid_file, self.inheritance.pid_file)
        self.find_control(self.personality.name)

    def _rehearse(self) -> None:
        """See that what comes after the check of the options would work too.

        A restart cannot be taken back, so a running server asks for more than an administrator,
        who may look at a configuration before its place is free.  Raises what a start would raise.
        """
        settings = self.settings
        rehearsal = Rehearsal.asked_for(self._environ)
        if rehearsal is not None:
            rehearsal.try_start(self._specs, settings.pid_file, settings.address_file)
        if settings.sandbox == "require":
            self.check_sandbox()
        self.rights.drop()
        self.check_rights()

    def bind(self) -> None:
        """Bind the listeners, or take over those of the image before; raises ``BindError``."""
        self.listeners = bind(
            self._specs,
            backlog=self.settings.listen_backlog,
            adopted=self.inheritance.listeners,
        )

    def post_bind(self) -> None:
        """Raise the limit of open files and take over the signals."""
        self.most_clients = self.settings.max_connections
        if self.personality.concurrent:
            wanted = self.most_clients * self.descriptors_per_client + OWN_DESCRIPTORS
            room = raise_descriptor_limit(wanted) - OWN_DESCRIPTORS
            self.most_clients = max(1, min(self.most_clients, room // self.descriptors_per_client))
        lowered = self.most_clients < self.settings.max_connections
        if lowered and (self._was_given("max_connections") or self.most_clients < FEW_CLIENTS):
            self.log.warning(
                "--max-connections is lowered: the limit of open files allows no more",
                max_connections=self.most_clients,
            )
        self.check_sandbox()
        self.signals.install()

    def _was_given(self, option: str) -> bool:
        return self._loaded is None or self._loaded.origins[option].kind != "default"

    def loop(self) -> Stop:
        """Serve until a signal says stop."""
        return self.personality.serve(self.listeners)

    @final
    def publish(self) -> None:
        """Write the bound addresses where they were asked for."""
        self._published.append(True)
        if self.settings.address_file is not None:
            write_address_file(self.settings.address_file, self.listeners)

    @final
    def ready(self) -> None:
        """Tell the world that clients are served now; called once by the personality."""
        if not self._published:
            self.publish()
        addresses = ", ".join(listener.address for listener in self.listeners)
        self.log.info(
            "ready",
            listen=addresses,
            personality=self.personality.name,
            restarted=self.inheritance.restarted,
        )
        systemd.notify(READY=1, MAINPID=os.getpid(), STATUS=f"serving {addresses}")
        while self._ready_calls:
            self._ready_calls.pop()()

    def server_close(self, stop: Stop) -> None:
        """End the process, or replace its image for HUP; raises ``RestartError``."""
        if stop is Stop.HUP:
            self._exec_again()
        systemd.notify(STOPPING=1)
        self.shutdown_sockets()
        self._clean_up()
        self.log.info("stopped", how=stop.value)
        self.signals.block()  # one more of them must not turn a clean end into a death by signal

    def shutdown_sockets(self) -> None:
        """Close the listeners and remove the paths of UNIX sockets."""
        for listener in self.listeners:
            listener.unlink()
            listener.close()

    def _clean_up(self) -> None:
        if self._pid_file is not None:
            self._pid_file.remove()

    def reopen_logs(self) -> None:
        """Open the log file again, after it was moved away (USR1)."""
        from netserver import logs  # noqa: PLC0415 - see post_configure

        if not logs.reopen():
            self.log.warning("the log file cannot be opened again; the old one stays")

    # -- within another program -----------------------------------------------------------------

    @final
    def serve(self, reader: object, writer: object, peer: str | None = None) -> None:
        """Serve one client on two handles, in place of ``run``; return when it has gone.

        Each is a descriptor's number, a socket or a binary file object; they stay open. ``peer`` is
        the client's IP address or "unix"; None: what a socket tells, else 127.0.0.1. Nothing is
        changed in the program: no signals, no rights, no processes. May be called again, and from
        several threads. Raises ``ConfigError`` (the first time), ``ValueError`` for the peer.
        """
        from netserver import embed  # noqa: PLC0415 - see post_configure

        embed.serve(self, reader, writer, peer)

    @final
    def close(self) -> None:
        """Give back what ``serve`` keeps open between two clients."""
        if self.embedded:
            self.child_finish()
        self.signals.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- other children -----------------------------------------------------------------------

    def side_children(self) -> list[SideChild]:
        """Return the children there are to be beside those that serve; call super."""
        overridden = type(self).run_dequeue is not Hooks.run_dequeue
        if overridden and self.settings.check_for_dequeue > 0:
            return [SideChild("jobs", self._run_jobs), *self.admin_children()]
        return self.admin_children()

    def _run_jobs(self, row: Row) -> None:
        self.child_init()
        try:
            jobs.run(self, row, self.run_dequeue, self.settings.check_for_dequeue)
        finally:
            self.child_finish()
