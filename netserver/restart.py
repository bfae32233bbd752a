"""HUP: a child checks the new configuration, then the process image is replaced."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from netserver import native
from netserver.errors import ConfigError, RestartError
from netserver.listeners import bind
from netserver.pid_file import PidFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

    from netserver.endpoints import ListenSpec
    from netserver.signals import SignalQueue

VARIABLE = "NETSERVER_INHERITANCE"
# for the process that checks the configuration before a restart: see Rehearsal
REHEARSAL = "NETSERVER_REHEARSAL"


@dataclass(slots=True)
class Inheritance:
    """What one process image leaves to the next; empty at a first start."""

    listeners: dict[str, int] = field(default_factory=dict)  # name of the place → descriptor
    children: list[tuple[int, str]] = field(default_factory=list)  # pid, kind
    boards: list[int] = field(default_factory=list)  # descriptors
    pid_file: tuple[int, str] | None = None  # descriptor and path
    restarted: bool = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Inheritance:
        """Read it from the environment and remove it there, so that no child sees it."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return cls()
        try:
            left = json.loads(text)
            if left.pop("pid") != os.getpid():
                return cls()
            left["children"] = [(int(pid), str(kind)) for pid, kind in left["children"]]
            if left["pid_file"] is not None:
                left["pid_file"] = (int(left["pid_file"][0]), str(left["pid_file"][1]))
            return cls(**left, restarted=True)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RestartError(f"{VARIABLE} is not readable") from error

    def leave(self, environ: MutableMapping[str, str]) -> None:
        """Write it for the next image and let the descriptors live through the exec."""
        descriptors = [*self.listeners.values(), *self.boards]
        if self.pid_file is not None:
            descriptors.append(self.pid_file[0])
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        environ[VARIABLE] = json.dumps(
            {
                "pid": os.getpid(),
                "listeners": self.listeners,
                "children": self.children,
                "boards": self.boards,
                "pid_file": self.pid_file,
            }
        )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a process that checks a configuration knows of the server that asked for it."""

    places: list[str]  # bound now
    pid_file: str | None  # held now

    @classmethod
    def asked_for(cls, environ: Mapping[str, str]) -> Rehearsal | None:
        """Read it from the environment; None if an administrator asked."""
        text = environ.get(REHEARSAL)
        return None if text is None else cls(**json.loads(text))

    def environment(self) -> dict[str, str]:
        """Return what to add to that process's environment."""
        return {REHEARSAL: json.dumps(asdict(self))}

    def try_start(
        self, specs: Iterable[ListenSpec], pid_file: str | None, address_file: str | None
    ) -> None:
        """Bind for a moment what is not bound yet; see whether the files can be had.

        Raises ``BindError`` and ``ConfigError``.
        """
        kept = Counter(self.places)
        added = []
        for spec in specs:
            if spec.kind == "stdin":
                raise ConfigError("--personality inetd: a running server cannot become that")
            kept[spec.endpoint] -= 1
            if kept[spec.endpoint] < 0:
                added.append(spec)
        for listener in bind(added, backlog=1):
            listener.unlink()
            listener.close()
        if pid_file is not None and os.path.abspath(pid_file) != self.pid_file:
            PidFile(pid_file).check()
        if address_file is not None:
            directory = os.path.dirname(os.path.abspath(address_file))
            if not os.access(directory, os.W_OK):
                raise ConfigError(f"--address-file {address_file}: cannot write to its directory")


class CommandLine:
    """How this program was started: interpreter, arguments and directory."""

    def __init__(self) -> None:
        self.directory = os.getcwd()
        self.arguments = [sys.executable, *sys.orig_argv[1:]]
        self._output = -1

    def spawn_check(self, environ: Mapping[str, str]) -> int:
        """Start a child that checks the configuration as a new image would read it; return its pid.

        Not by fork: the master may have been patched, and a fork of it would carry that along.
        What the child complains of is in ``complaint`` when it has ended.
        """
        self._output = os.memfd_create("complaint") if hasattr(os, "memfd_create") else os.dup(2)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            return native.posix_spawn(
                self.arguments[0],
                [*self.arguments, "--check-config"],
                dict(environ),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, null, 1),
                    (os.POSIX_SPAWN_DUP2, self._output, 2),
                ],
                setsigmask=[],
            )
        finally:
            os.close(null)

    def complaint(self) -> str:
        """Return the last line that the child of ``spawn_check`` wrote, and forget it."""
        try:
            text = os.pread(self._output, 4096, 0).decode("utf-8", "replace")
        except OSError:
            text = ""  # it went to our own standard error
        os.close(self._output)
        lines = [line for line in text.split("\n") if line]
        return lines[-1] if lines else "it ended without a word"

    def exec(self, inheritance: Inheritance, signals: SignalQueue) -> None:
        """Replace this process image; returns only by ``RestartError``.

        Signals stay blocked until the new image has its handlers: one that came in between would
        end it.
        """
        signals.block()
        for number in signals.take():
            os.kill(os.getpid(), number)  # blocked as they are, they wait for the new image
        try:
            inheritance.leave(os.environ)
            os.chdir(self.directory)
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os.execv(self.arguments[0], self.arguments)  # noqa: S606 - our own command line
        except OSError as error:
            os.environ.pop(VARIABLE, None)
            signals.unblock()
            raise RestartError(f"exec failed: {error.strerror}") from error
