"""A server object that serves nobody: what pop3-ctl asks of a configuration, running or not."""

import os
from dataclasses import dataclass, replace
from typing import Any

from netserver import boot
from netserver.control import ControlError
from netserver.errors import ConfigError
from netserver.hooks import Hooks
from netserver.options import Settings, load, option
from pop3.auth.backend import Backend, Identity
from pop3.auth.chain import AuthChain
from pop3.auth.names import LoginName
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, POP3Error, TemporaryFailure
from pop3.lock import MaildropLock
from pop3.server import POP3Server
from pop3.session import Session
from pop3.settings import POP3Settings
from pop3.sources import SOURCES
from pop3.tools.ctl_find import Target

Server = POP3Server[Any]


def _directly(pool: str, function: Any, *args: Any) -> Any:
    del pool
    return function(*args)


def make(target: Target) -> Server:
    """Return a server made of the configuration, or of what a running one was started with.

    Raises ConfigError.
    """
    server_class, settings = _read(target)
    if getattr(settings, "become_user", False):  # nobody logs in here
        settings = replace(settings, become_user=False)  # type: ignore[call-arg,unused-ignore]
    server: Server = server_class(
        replace(
            settings,
            personality="single",
            workers=None,
            listen=tuple(spec for spec in settings.listen if not spec.endswith("stdin")),
            control_socket="none",
            admin_listen=None,
            log_file=None,
            log_level="error",
            log_format=None,
            background=False,
            sandbox="off",
        ),
        prog="pop3-server",
    )
    server.post_configure()
    return server


def settings_of(target: Target) -> POP3Settings:
    """Return all options of the configuration. Raises ConfigError."""
    return _read(target)[1]


def _read(target: Target) -> tuple[type[Server], POP3Settings]:
    arguments = _arguments(target)
    source = load(
        _Source, prog="pop3-server", argv=arguments, environ=os.environ, ignore_unknown=True
    ).settings.source
    server_class: type[Server] = boot.resolve(source, SOURCES, "pop3.sources")
    loaded = load(
        server_class.settings_class,
        prog="pop3-server",
        argv=arguments,
        environ=os.environ,
        defaults=server_class.default_values(),
    )
    return server_class, loaded.settings


@dataclass(frozen=True)
class _Source(Settings):
    source: str = option("maildir", help="")


def _arguments(target: Target) -> list[str]:
    """Return options of pop3-server; those of a running server bring its directory with them."""
    if target.was_named:
        return target.arguments
    try:
        known = target.ask("command-line")
    except ControlError:
        return target.arguments
    os.environ.update(known["environment"])
    if known["state_directory"]:
        os.environ["STATE_DIRECTORY"] = known["state_directory"]
    os.chdir(known["directory"])
    return list(known["arguments"])


def test_access(server: Server, address: str) -> tuple[str, bool]:
    """Return what each rule says, and whether the client may connect somewhere."""
    text = server.explain_access(address)
    return text, " may connect to " in text


def _login(server: Server, name: str) -> LoginName:
    try:
        return LoginName.parse(os.fsencode(name), strict=server.strict_login_names)
    except ValueError as error:
        raise ControlError("argument", str(error)) from None


def _backends(server: Server, login: LoginName) -> list[tuple[str, Backend]]:
    """Return the backends that decide, asked in this process with the rights it has."""
    if server.authenticates_upstream:
        return []
    chain = AuthChain.from_specs(
        server.settings.auth, base_directory=os.getcwd(), overrides=server.settings.auth_for
    )
    return [(backend.name, backend) for backend in chain.for_login(login).backends]


def test_auth(server: Server, name: str, secret: Secret) -> tuple[str, bool]:
    """Ask each backend in turn, as a login does; return what they said and whether it is right."""
    login = _login(server, name)
    lines: list[str] = []
    for kind, backend in _backends(server, login):
        try:
            found = backend.verify(login, secret, _directly)
        except AuthFailed:
            return "\n".join([*lines, f"{kind}: wrong password"]), False
        except TemporaryFailure as error:
            return "\n".join([*lines, f"{kind}: cannot tell ({error.text})"]), False
        if found is not None:
            return "\n".join([*lines, f"{kind}: right, {_shown(found)}"]), True
        lines.append(f"{kind}: does not know {login.user}")
    if not lines:
        return "the far end of this source decides, when somebody logs in", False
    return "\n".join(lines), False


def _shown(found: Identity) -> str:
    parts = [f"user {found.user}"]
    parts += [
        f"{what} {value}"
        for what, value in (("uid", found.uid), ("gid", found.gid), ("home", found.home))
        if value is not None
    ]
    return ", ".join(parts)


def _session(login: LoginName, found: Identity) -> Session[Any]:
    """Return what sources need to know whose mail it is; there is no connection."""
    session: Session[Any] = Session(None)  # type: ignore[arg-type]
    session.user, session.home, session.uid = found.user, found.home, found.uid
    session.login = login.as_user(found.user)
    return session


def _who_is(server: Server, login: LoginName) -> tuple[list[str], Identity | None]:
    lines: list[str] = []
    for kind, backend in _backends(server, login):
        try:
            found = backend.lookup(login, _directly)
        except TemporaryFailure as error:
            lines.append(f"{kind}: cannot tell ({error.text})")
            continue
        if found is not None:
            return [*lines, f"{kind}: {_shown(found)}"], found
        lines.append(f"{kind}: does not know {login.user}")
    if server.authenticates_upstream:
        return ["the far end of this source decides who may log in"], Identity(login.user)
    return lines, None


def why(server: Server, name: str, penalty: dict[str, Any] | None) -> tuple[str, bool]:
    """Return all that decides about a user's login and maildrop, and whether it should work."""
    login = _login(server, name)
    lines, found = _who_is(server, login)
    if penalty is not None:
        lines.append(f"penalty: {penalty['failures']['user']} failed logins lately, ")
        lines[-1] += f"the next one waits {penalty['delay']:g} s"
        if penalty.get("banned_until"):
            return "\n".join([*lines, "banned; see bans and unban"]), False
    if found is None:
        return "\n".join([*lines, "nobody knows this user: [AUTH]"]), False
    if not server.valid_user(found.user):
        return "\n".join([*lines, "this source cannot serve that name: [AUTH]"]), False
    server.rights.drop()
    session = _session(login, found)
    try:
        good = _mailbox(server, session, lines)
        good = _lock(server, session, lines) and good
        if server.hides(session):
            hidden = server.state.hidden(server.maildrop_name(session), session.view or "")
            lines.append(f"hidden: {len(hidden)} messages")
    except POP3Error as error:
        return "\n".join([*lines, f"maildrop: {error.text}"]), False
    return "\n".join(lines), good


def _mailbox(server: Server, session: Session[Any], lines: list[str]) -> bool:
    path = server.mailbox_path(session)
    if path is None:
        return True
    try:
        found = os.stat(path)
    except FileNotFoundError:
        lines.append(f"mailbox: {path} is not there: an empty maildrop")
        return True
    except OSError as error:
        lines.append(f"mailbox: {path}: {(error.strerror or '').lower()}")
        return False
    rights = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
    good = os.access(path, rights)
    lines.append(
        f"mailbox: {path}, mode {found.st_mode & 0o7777:04o}, owner {found.st_uid}:{found.st_gid}, "
        + ("usable" if good else "not usable")
        + f" by {os.geteuid()}"
    )
    return good


def _lock(server: Server, session: Session[Any], lines: list[str]) -> bool:
    path = server.lock_path(session)
    if path is None or not path.exists():
        lines.append("lock: free")
        return True
    lock = MaildropLock(path)
    if lock.acquire():
        lock.release()
        lines.append("lock: free")
        return True
    holders = ", ".join(map(str, lock_holders(str(path)))) or "somebody"
    lines.append(f"lock: held by process {holders}; see who and kick")
    return False


def lock_holders(path: str) -> list[int]:
    """Return the processes that hold a lock (flock) on a file, as far as the kernel tells."""
    found = os.stat(path)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as rows:
            fields = [row.split() for row in rows]
    except OSError:
        return []
    return [int(row[4]) for row in fields if row[1] == "FLOCK" and row[5] == place]


def recover(server: Server, name: str) -> str:
    """Finish what was interrupted in a user's maildrop. Raises ControlError."""
    login = _login(server, name)
    lines, found = _who_is(server, login)
    if found is None:
        raise ControlError("nobody", f"{name}: {lines[-1] if lines else 'unknown'}")
    server.rights.drop()
    session = _session(login, found)
    free: list[str] = []
    try:
        if not _lock(server, session, free):
            raise ControlError("in-use", f"{found.user}: {free[0]}")
        return server.recover_maildrop(session)
    except POP3Error as error:
        raise ControlError("failed", f"{found.user}: {error.text}") from None
    except OSError as error:
        raise ControlError("failed", f"{found.user}: {error}") from None


def run_jobs(server: Server) -> str:
    """Do the periodic work once, with the rights of those who serve. Raises ConfigError."""
    if type(server).run_dequeue is Hooks.run_dequeue:
        return f"{type(server).__name__} has no periodic work"
    server.child_init()
    try:
        server.run_dequeue()
    except ConfigError:
        raise
    except Exception as error:
        server.log.exception("periodic work failed")
        raise ControlError("failed", f"periodic work failed: {type(error).__name__}") from None
    finally:
        server.child_finish()
    return "done"
