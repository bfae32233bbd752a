"""What the backends that ask a server share: their parameter file, and what they say of a user."""

import os
import re
import stat
from _socket import AF_UNIX, SOCK_STREAM
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

from netserver import config_files, native
from netserver.declarations import Origin, Settings, one_line, options_of, quoted
from netserver.errors import ConfigError
from pop3.auth.backend import Identity
from pop3.auth.names import LoginName
from pop3.auth.secret import Secret

S = TypeVar("S", bound=Settings)

_NUMBER = re.compile(r"[0-9]{1,10}")
_MAX_ID = 2**32 - 2  # the last one means "no change" to chown and setuid
_LONGEST_REASON = 200
_KNOCK_SECONDS = 3.0


def load(parameters: type[S], path: str) -> S:
    """Read a parameter file by the options its class declares. Raises ConfigError with the line."""
    with config_files.open_config(path) as stream:
        entries = config_files.read(stream, path)
    known = {config_files.same_key(one.key): one for one in options_of(parameters)}
    values: dict[str, Any] = {}
    for entry in entries:
        one = known.get(config_files.same_key(entry.key))
        if one is None:
            names = ", ".join(option.name for option in known.values())
            raise ConfigError(
                f"{path}:{entry.line}: no key {quoted(entry.key)}; there are: {names}"
            )
        values[one.name] = one.read(entry.value, Origin("file", path, entry.line))
    return parameters(**values)


def password(
    file: str | None, variable: str | None, directory: str, warn: Callable[[str], object]
) -> Secret | None:
    """Return the password in a file (its first line) or in an environment variable.

    A relative path begins at `directory`. Raises ConfigError.
    """
    if file is not None and variable is not None:
        raise ConfigError("password_file and password_env: only one of them can be given")
    if variable is not None:
        if not os.environ.get(variable):
            raise ConfigError(f"password_env: {variable} is not set")
        return Secret(os.environb[variable.encode()])
    if file is None:
        return None
    path = os.path.join(directory, os.path.expanduser(file))
    with config_files.open_config(path) as stream:
        if os.fstat(stream.fileno()).st_mode & stat.S_IROTH:
            warn(f"{path}: everybody can read it, and it holds a password")
        found = Secret(stream.readline(4096).rstrip(b"\r\n"))
    if found.equals(b""):
        raise ConfigError(f"{path}: the first line is empty; it must be the password")
    return found


def identity(
    login: LoginName,
    user: object = None,
    uid: object = None,
    gid: object = None,
    home: object = None,
) -> Identity:
    """Return who this is by what a server said; None and "" mean that it said nothing.

    Raises ValueError for what cannot be true.
    """
    name = login.user
    if user not in (None, ""):
        name = _text(user, "user")
        try:
            parsed = LoginName.parse(name.encode())
        except ValueError as error:
            raise ValueError(f"user: {error}") from None
        if parsed.view is not None:
            raise ValueError("user: has a view")
        name = parsed.user
    place = None if home in (None, "") else _text(home, "home")
    if place is not None and (place[0] != "/" or "\0" in place):
        raise ValueError("home is not an absolute path")
    return Identity(name, _id(uid, "uid"), _id(gid, "gid"), place)


def _text(value: object, what: str) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise ValueError(f"{what} is not UTF-8") from None
    if not isinstance(value, str):
        raise ValueError(f"{what} is no text")  # noqa: TRY004 - one kind of error for wrong data
    return value


def _id(value: object, what: str) -> int | None:
    if value in (None, ""):
        return None
    text = str(value) if type(value) is int else _text(value, what)
    if not _NUMBER.fullmatch(text) or int(text) > _MAX_ID:
        raise ValueError(f"{what} is not a number from 0 to {_MAX_ID}")
    return int(text)


def reason(error: BaseException) -> str:
    """Return the kind of an error and the first line of its text, for a log."""
    lines = str(error).strip().splitlines()
    text = one_line(lines[0])[:_LONGEST_REASON] if lines else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def why_unreachable(host: str, port: int) -> str | None:
    """Return why nothing can connect there now, None if it can; a `host` with a slash is a socket.

    For the process that makes the others, so by unpatched sockets. Names of hosts are looked up.
    """
    try:
        family: int = AF_UNIX
        address: Any = host
        if not host.startswith("/"):
            family, _, _, _, address = native.getaddrinfo(host, port, 0, SOCK_STREAM)[0]
        with closing(native.socket(family, SOCK_STREAM)) as knocking:
            knocking.settimeout(_KNOCK_SECONDS)
            knocking.connect(address)
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return None
