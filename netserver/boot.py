"""Stage one of every program: find the process model, patch, then import and run the server.

gevent must patch before anything else takes names out of socket, ssl, threading or time, that is
before nearly every import. So only the options that decide are read here, by the same readers as
all options later; then comes the patch if it is wanted, and only then the server class is imported.
"""

import os
import stat
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from netserver.errors import BindError, ConfigError, PrivilegeError, RestartError
from netserver.options import Settings, load, one_line, option, quoted
from netserver.settings import personality_list


@dataclass(frozen=True)
class _Personality(Settings):
    personality: str = option("single", kind=personality_list, help="")


@dataclass(frozen=True)
class _PersonalityAndSource(_Personality):
    source: str = option("", help="")


def main(
    *,
    prog: str,
    default: str,
    sources: Mapping[str, str] | None = None,
    group: str | None = None,
    personality: str = "single",
    argv: Sequence[str] | None = None,
    environ: MutableMapping[str, str] | None = None,
) -> int:
    """Run a server and return its exit code: 0, 1 (cannot bind or drop rights), 2 (wrong options).

    With `sources`, a table from name to "module:Class", the class is what --source names: there, in
    the entry point group `group`, or as "module:Class". Without it the class is the first argument,
    if that is no flag. `default` is the name or class if none is given, `personality` the process
    model.
    """
    _fill_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    environment = os.environ if environ is None else environ
    return guarded(
        prog, lambda: _run(prog, default, sources, group, personality, arguments, environment)
    )


def _fill_standard_streams() -> None:
    """Put /dev/null where standard streams are closed: what is opened next would become them."""
    closed = []
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
            closed.append(number)
    if sys.stdout is None or 1 in closed:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for the life of the process
    if sys.stderr is None or 2 in closed:  # noqa: PLR2004 - the number of standard error
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - same


def guarded(prog: str, run: Callable[[], int]) -> int:
    """Call `run` and return its exit code; what a user can mend is one line and 1 or 2."""
    try:
        return run()
    except ConfigError as error:
        _complain(prog, error)
        return 2
    except (BindError, PrivilegeError, RestartError) as error:
        _complain(prog, error)
        return 1


def _run(  # noqa: PLR0917 - what main was given, in its order
    prog: str,
    default: str,
    sources: Mapping[str, str] | None,
    group: str | None,
    personality: str,
    argv: list[str],
    environ: MutableMapping[str, str],
) -> int:
    if sources is None:
        target = argv.pop(0) if argv and not argv[0].startswith("-") else default
        chosen: _Personality = load(
            _Personality,
            prog=prog,
            argv=argv,
            environ=environ,
            defaults={"personality": personality},
            ignore_unknown=True,
        ).settings
        where = "class"
    else:
        loaded = load(
            _PersonalityAndSource,
            prog=prog,
            argv=argv,
            environ=environ,
            defaults={"personality": personality, "source": default},
            ignore_unknown=True,
        )
        chosen, target = loaded.settings, loaded.settings.source
        where = loaded.origins["source"].blame("source")
    prepare(choose_personality(chosen.personality))
    server_class = resolve(target, sources or {}, group, where=where)
    return int(server_class.main(prog=prog, argv=argv, environ=environ))


def choose_personality(names: str) -> str:
    """Return the first of a comma-separated list that can run here; raises ConfigError."""
    problem = ""
    for name in personality_list(names).split(","):
        problem = _why_not(name)
        if not problem:
            return name
    if "," in names:
        raise ConfigError(f"personality: none of {names} can run here ({problem})")
    raise ConfigError(f"personality: {names} cannot run here ({problem})")


def _why_not(name: str) -> str:
    if name in ("fork", "prefork", "gevent") and not hasattr(os, "fork"):
        return "this system has no fork"
    if name == "gevent":
        try:
            import gevent.monkey  # noqa: F401, PLC0415 - only where it is asked for
        except ImportError as error:
            return one_line(f"gevent: {error}")
    return ""


def prepare(personality: str) -> None:
    """Patch the standard library if this personality needs it and nobody has."""
    if personality == "gevent":
        from gevent import monkey  # noqa: PLC0415 - only where it is asked for

        if not monkey.is_module_patched("socket"):
            # Not subprocess: the master would wait in a hub for a SIGCHLD that it has blocked, and
            # libraries start programs when they are imported. Workers patch it for themselves.
            monkey.patch_all(subprocess=False)
            import gevent.subprocess  # noqa: F401, PLC0415 - a worker in a jail could not load it


def patch_worker() -> None:
    """Patch what a worker of gevent needs beyond what its master may have."""
    from gevent import monkey  # noqa: PLC0415 - only where it is asked for

    if not monkey.is_module_patched("subprocess"):
        monkey.patch_subprocess()


def patch_first(prog: str, personality: str) -> None:
    """Start a script anew, patched, if it would run under gevent; returns if there is no need.

    The script has imported its server class, and with it what must be patched before; gevent's own
    runner patches and then runs the script.  `personality` is the default.  Raises ConfigError.
    """
    chosen = load(
        _Personality,
        prog=prog,
        argv=sys.argv[1:],
        environ=os.environ,
        defaults={"personality": personality},
        ignore_unknown=True,
    ).settings
    if choose_personality(chosen.personality) != "gevent" or sys.argv[0] not in sys.orig_argv:
        return
    from gevent import monkey  # noqa: PLC0415 - only where it is asked for

    if not monkey.is_module_patched("socket"):
        at = sys.orig_argv.index(sys.argv[0])
        before, script = sys.orig_argv[1:at], sys.orig_argv[at:]
        os.execv(  # noqa: S606 - our own command line
            sys.executable,
            [sys.executable, *before, "-m", "gevent.monkey", "--no-subprocess", *script],
        )


def resolve(
    name: str, sources: Mapping[str, str], group: str | None = None, *, where: str = "source"
) -> Any:
    """Return the server class that a name or "module:Class" stands for; raises ConfigError."""
    where = f"{where}: {quoted(name)}"
    target = sources.get(name, name)
    if ":" in name:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
    elif name not in sources:
        entry_points = _entry_points(group) if group else {}
        if name not in entry_points:
            known = ", ".join(sorted({*sources, *entry_points, "module:Class"}))
            raise ConfigError(f"{where} is unknown (known are {known})")
        target = entry_points[name]
    module_name, _, class_name = target.partition(":")
    found = getattr(_import(module_name, where), class_name, None)
    if found is None:
        raise ConfigError(f"{where}: {module_name} has no {class_name or 'class of no name'}")
    from netserver.server import NetServer  # noqa: PLC0415 - not before the patch

    if not isinstance(found, type) or not issubclass(found, NetServer):
        raise ConfigError(f"{where}: {class_name} is not a subclass of NetServer")
    missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
    if missing:
        raise ConfigError(f"{where}: {class_name} does not define {missing}")
    return found


def _entry_points(group: str) -> dict[str, str]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - loads socket and threading

    return {one.name: one.value for one in entry_points(group=group)}


def _import(module_name: str, where: str) -> Any:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if f"{module_name}.".startswith(f"{missing}."):
            raise ConfigError(f"{where}: there is no module {quoted(module_name)}") from None
        raise ConfigError(
            f"{where}: {module_name} needs {quoted(missing)}, not installed"
        ) from None
    except Exception as error:  # noqa: BLE001 - a user's module may do anything when imported
        at = _last_line(error)
        text = one_line(f"{module_name}: {type(error).__name__}: {error}{at}")
        raise ConfigError(f"{where}: cannot import {text}") from None


def _last_line(error: BaseException) -> str:
    """Return where an error came from, as " (file:line)"; a syntax error says so itself."""
    step = error.__traceback__
    if step is None or isinstance(error, SyntaxError):
        return ""
    while step.tb_next:
        step = step.tb_next
    return f" ({step.tb_frame.f_code.co_filename}:{step.tb_lineno})"


def _complain(prog: str, error: Exception) -> None:
    line = f"{prog}: {one_line(str(error))}"
    if _stderr_is_the_client():
        import syslog  # noqa: PLC0415 - only under inetd

        syslog.syslog(syslog.LOG_DAEMON | syslog.LOG_ERR, line)
    else:
        print(line, file=sys.stderr)


def _stderr_is_the_client() -> bool:
    """Under inetd descriptors 0 to 2 are one socket, and a client must not read of our files."""
    try:
        stdin, stderr, null = os.fstat(0), os.fstat(2), os.stat(os.devnull)
    except OSError:
        return False
    if not stat.S_ISSOCK(stdin.st_mode):
        return False
    # where it was closed it is /dev/null by now, and a line there would be lost
    return os.path.samestat(stdin, stderr) or os.path.samestat(null, stderr)


def log_of_inetd(personality: str) -> str | None:
    """Return where to log when nobody said so: not to the client that inetd made stderr."""
    if personality != "inetd" or not _stderr_is_the_client():
        return None
    return "syslog" if os.path.exists("/dev/log") else os.devnull
