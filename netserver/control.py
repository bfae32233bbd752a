"""The control socket: where it is, who may use it, and what is said on it.

One JSON object a line each way.  A request is ``{"command": NAME, ...}``; an answer has ``ok``, and
where that is false an ``error`` with its ``type`` and ``text``.  While ``more`` is true another
line follows.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import time
from contextlib import contextmanager, suppress
from socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET
from typing import TYPE_CHECKING, Any

from netserver import native
from netserver.endpoints import UNIX_PATH_LIMIT
from netserver.errors import NetServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# octets of a line, in either direction
LINE_LIMIT = 65536
# commands that change nothing: they can be asked again
_LOOKS = frozenset({"status", "who", "command-line", "penalty", "penalties"})
# seconds for which a socket that answers nobody is asked again: another process takes it over
HANDOVER = 2.0
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class ControlError(NetServerError):
    """The server cannot be asked, or says no; ``kind`` is the type of the error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def default_path(program: str, environ: Mapping[str, str], fallback: str) -> str:
    """Return where the control socket is when nobody said so.

    In the first of $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR and the directory ``fallback``.
    """
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    directory = runtime or environ.get("XDG_RUNTIME_DIR", "") or fallback
    return os.path.join(os.path.abspath(directory), f"{program}.sock")


def peer_of(connection: native.socket) -> tuple[int, int]:
    """Return the process and the user at the other end."""
    credentials = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return pid, uid


@contextmanager
def short(path: str) -> Iterator[str]:
    """Give a name of the path that fits into a socket's address, however long the path is."""
    if len(os.fsencode(path)) <= UNIX_PATH_LIMIT:
        yield path
        return
    directory, name = os.path.split(path)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        native.close(descriptor)


def connect(path: str, seconds: float = 10.0) -> native.socket:
    """Return a connection; raises ``OSError``."""
    connection = native.socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        with short(path) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection


def holder(path: str) -> int | None:
    """Return the process that listens there, None if nobody does.

    0 stands for one that cannot be named.
    """
    try:
        with connect(path, 1.0) as connection:
            return peer_of(connection)[0]
    except OSError as error:
        gone = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)
        return None if error.errno in gone else 0


class Place:
    """The name of the control socket in the file system, as the process that serves it sees it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None

    def take(self) -> native.socket:
        """Return a listener at the path; what was there is replaced in one step.

        Raises ``OSError``.
        """
        directory, name = os.path.split(self.path)
        draft = os.path.join(directory, f".{name}.{os.getpid()}")
        listener = native.socket(AF_UNIX, SOCK_STREAM)
        listener.setblocking(False)
        mask = os.umask(0o177)
        try:
            with suppress(FileNotFoundError):
                os.unlink(draft)  # of a process that had our number
            with short(draft) as place:
                listener.bind(place)
            listener.listen(16)
            found = os.lstat(draft)
            os.rename(draft, self.path)
        except BaseException:
            listener.close()
            with suppress(OSError):
                os.unlink(draft)
            raise
        finally:
            os.umask(mask)
        self._seen = (found.st_dev, found.st_ino)
        return listener

    def is_ours(self) -> bool:
        """Whether the path still names what ``take`` made."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._seen

    def is_free(self) -> bool:
        """Whether nothing is there but, at most, a socket that nobody listens at."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return True
        return stat.S_ISSOCK(found.st_mode) and holder(self.path) is None

    def leave(self) -> None:
        """Remove the path if it is still ours; never raises."""
        if self.is_ours():
            with suppress(OSError):
                os.unlink(self.path)


class Caller:
    """Asks a running server.  Raises ``ControlError`` for whatever goes wrong."""

    def __init__(self, path: str, seconds: float = 10.0) -> None:
        self._path = path
        self._seconds = seconds

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and return its answer; lists that come in pieces are joined."""
        request = json.dumps({"command": command, **arguments}).encode()
        if len(request) >= LINE_LIMIT:
            raise ControlError("too-long", "the request is too long")
        until = time.monotonic() + HANDOVER
        while True:
            try:
                return self._ask(request)
            except ControlError as error:
                # the process that answers may just have been replaced
                if error.kind != "lost" or command not in _LOOKS or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def _ask(self, request: bytes) -> dict[str, Any]:
        try:
            with self._connected() as connection:
                connection.sendall(request + b"\n")
                return _whole(connection)
        except ValueError:
            raise ControlError("protocol", f"{self._path}: this is no control socket") from None
        except OSError as error:
            raise ControlError("lost", f"{self._path}: {_why(error)}") from None

    def _connected(self) -> native.socket:
        until = time.monotonic() + HANDOVER
        while True:
            try:
                connection = connect(self._path, self._seconds)
                break
            except ConnectionRefusedError:
                if time.monotonic() < until:
                    time.sleep(0.05)
                    continue
                raise ControlError("not-running", f"{self._path}: no server is running") from None
            except FileNotFoundError:
                raise ControlError("not-running", f"{self._path}: no server is running") from None
            except OSError as error:
                kind = "refused" if error.errno in (errno.EACCES, errno.EPERM) else "lost"
                raise ControlError(kind, f"{self._path}: {_why(error)}") from None
        # what it says decides what we do with our rights
        _, uid = peer_of(connection)
        if uid not in (0, os.geteuid()):
            connection.close()
            raise ControlError("refused", f"{self._path}: it belongs to user {uid}")
        return connection


def _whole(connection: native.socket) -> dict[str, Any]:
    """Read an answer to its end.  Raises ``ControlError``, ``OSError``, ``ValueError``."""
    answer: dict[str, Any] = {}
    rest = b""
    while True:
        while (end := rest.find(b"\n")) < 0:
            data = connection.recv(LINE_LIMIT)
            if not data:
                raise ControlError("lost", "the server closed the connection")
            rest += data
            if len(rest) > 2 * LINE_LIMIT:
                raise ValueError
        line, rest = rest[:end], rest[end + 1 :]
        part = json.loads(line)
        if not isinstance(part, dict):
            raise ValueError  # noqa: TRY004 - a wrong value from outside, no wrong type of ours
        if not part.get("ok"):
            error = part.get("error", {})
            raise ControlError(str(error.get("type", "error")), str(error.get("text", "no")))
        for key, value in part.items():
            if isinstance(value, list) and isinstance(answer.get(key), list):
                answer[key] += value
            else:
                answer[key] = value
        if not part.get("more"):
            return answer


def _why(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
