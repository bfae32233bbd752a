"""start, stop, restart, reload and -e: what pop3-ctl does with a whole server."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress

from netserver.control import ControlError
from netserver.errors import ConfigError
from netserver.options import default_config_dirs
from pop3.tools.ctl_find import Target, is_running

_PAUSE = 0.05


def server_program() -> list[str]:
    """Return the command that runs pop3-server: the script beside our own, else the module."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "pop3-server")
    if os.path.isfile(beside):
        return [sys.executable, beside]
    return [sys.executable, "-m", "pop3.tools.server"]


def start(target: Target, seconds: float) -> str:
    """Start a server in the background; return when it serves. Raises ControlError, ConfigError."""
    pid = _is_there(target)
    if pid is not None:
        raise ControlError("running", f"a server is running already, its pid is {pid}")
    return _start(target.arguments, None, seconds)


def _is_there(target: Target) -> int | None:
    try:
        return target.pid()
    except ControlError as error:
        if error.kind == "not-running":
            return None
        raise


def _start(arguments: Sequence[str], directory: str | None, seconds: float) -> str:
    command = [*server_program(), *arguments]
    if "--background" not in arguments:
        command.append("--background")
    # no pipe: a process that keeps it open would have us wait for its end
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ControlError("slow", f"the server is not ready after {seconds:g} s") from None
        if done.returncode != 0:
            said.seek(0)
            _complain(done.returncode, said.read(65536))
    return "started"


def _complain(code: int, said: bytes) -> None:
    """Pass on what pop3-server said. Raises ConfigError, ControlError."""
    lines = [line for line in said.decode("utf-8", "replace").split("\n") if line.strip()]
    text = (lines or [f"it ended with {code}"])[-1].removeprefix("pop3-server: ")
    if code == 2:  # noqa: PLR2004 - wrong options
        raise ConfigError(text)
    raise ControlError("failed", f"the server does not start: {text}")


def stop(target: Target, seconds: float, *, graceful: bool = False) -> str:
    """Stop the server; return when it has gone. Raises ControlError."""
    pid = target.pid()
    _signal(pid, signal.SIGQUIT if graceful else signal.SIGTERM)
    until = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > until:
            raise ControlError("slow", f"process {pid} is still there after {seconds:g} s")
        time.sleep(_PAUSE)
    return "stopped"


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise ControlError("not-running", f"process {pid} has gone") from None
    except PermissionError:
        raise ControlError("refused", f"process {pid} belongs to somebody else") from None


def restart(target: Target, seconds: float) -> str:
    """Stop the server if it runs, and start it, as it was started if no -f says how."""
    arguments, directory = target.arguments, None
    if not target.was_named:
        with suppress(ControlError):
            known = target.ask("command-line")
            arguments, directory = known["arguments"], known["directory"]
    check(arguments, directory)
    if _is_there(target) is not None:
        stop(target, seconds)
    _start(arguments, directory, seconds)
    return "restarted"


def check(arguments: Sequence[str], directory: str | None = None) -> None:
    """Let pop3-server check a configuration. Raises ConfigError."""
    done = subprocess.run(  # noqa: S603 - our own program
        [*server_program(), *arguments, "--check-config"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        _complain(2, done.stderr)


def reload(target: Target, seconds: float) -> str:
    """Let the server read its configuration again. Raises ControlError, ConfigError.

    With a control socket this waits until the new one is in force.
    """
    if target.was_named:
        check(target.arguments)
    try:
        before = target.ask("status")["born"]
    except ControlError:
        _signal(target.pid(), signal.SIGHUP)
        return "told to reload; its log tells whether it did"
    target.ask("reload")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(ControlError):
            if target.ask("status")["born"] != before:
                return "reloaded"
        time.sleep(_PAUSE)
    raise ControlError("slow", "the server still has its old configuration; its log tells why")


def edit(target: Target) -> None:
    """Let the operator edit the config file, until it is good or given up.

    The file is replaced only by a good one. Raises ConfigError.
    """
    path = _file(target)
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    directory, name = os.path.split(path)
    descriptor, draft = tempfile.mkstemp(
        prefix=".", suffix=os.path.splitext(name)[1], dir=directory
    )
    os.close(descriptor)
    try:
        _keep(path, draft)
        while True:
            if subprocess.run([*editor, draft], check=False).returncode != 0:  # noqa: S603
                raise ConfigError(f"{editor[0]} failed; {path} is as it was")
            try:
                check(["--no-default-config", "--config", draft])
                break
            except ConfigError as error:
                text = str(error).replace(draft, path)
                if not sys.stdin.isatty():
                    raise ConfigError(f"{text} ({path} is as it was)") from None
                print(f"pop3-ctl: {text}", file=sys.stderr)
                if input("edit again? [Y/n] ").strip().lower().startswith("n"):
                    raise ConfigError(f"{path} is as it was") from None
        os.replace(draft, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _keep(path: str, draft: str) -> None:
    """Copy a file with its owner and mode. Raises ConfigError."""
    try:
        shutil.copy2(path, draft)
        found = os.stat(path)
        if os.geteuid() == 0:
            os.chown(draft, found.st_uid, found.st_gid)
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or '').lower()}") from None


def _file(target: Target) -> str:
    """Return the one config file there is to edit. Raises ConfigError."""
    if target.was_named:
        return os.path.realpath(target.arguments[-1])
    files = [
        os.path.join(directory, name)
        for directory in default_config_dirs("pop3-server", os.environ)
        if os.path.isdir(directory)
        for name in sorted(os.listdir(directory))
        if name.endswith((".yaml", ".toml", ".ini")) and not name.startswith(".")
    ]
    if len(files) != 1:
        raise ConfigError("-e: which file? name it by -f FILE")
    return os.path.realpath(files[0])
