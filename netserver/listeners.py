"""Sockets that listen: bound here, or taken over."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from netserver import native, systemd
from netserver.endpoints import Address, ListenSpec, endpoint_of
from netserver.errors import BindError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "Address",
    "ListenSpec",
    "Listener",
    "SpareDescriptor",
    "bind",
    "handover",
    "write_address_file",
]

LOWEST_FREE_PORT = 1024


def _errnos(*names: str) -> frozenset[int]:
    # not every system has every one of them
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


# accept(2) of Linux passes on what went wrong with a client that is already gone
_CLIENT_ERRORS = _errnos(
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "ENETDOWN",
    "ENETUNREACH",
    "ENONET",
    "ENOPROTOOPT",
    "EOPNOTSUPP",
    "EPERM",
    "EPROTO",
    "ETIMEDOUT",
)
_NO_IPV6 = _errnos("EADDRNOTAVAIL", "EAFNOSUPPORT", "EPROTONOSUPPORT")


class Listener:
    """A listening socket, non-blocking, and the spec it came from.

    Under ``stdin`` the socket is the client's connection itself.
    """

    __slots__ = ("_owner", "_path", "address", "key", "options", "socket", "spec", "tls")

    def __init__(self, spec: ListenSpec, listening: socket.socket, key: str = "") -> None:
        listening.setblocking(False)
        self.spec = spec
        self.socket = listening
        self.key = key or spec.endpoint  # names this listener in a hand-over
        self.tls = spec.tls
        self.options = spec.options
        self.address = _address_text(spec, listening)
        self._path = os.path.abspath(spec.name) if spec.kind == "unix" else ""
        self._owner = (os.getpid(), _identity(self._path)) if self._path else None

    def __repr__(self) -> str:
        return f"<Listener {self.address}>"

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.socket.fileno()

    @property
    def listens(self) -> bool:
        """Whether the socket listens; under inetd it is a client's connection."""
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def accept(self) -> tuple[socket.socket, object] | None:
        """Return the next client's socket, non-blocking, and raw address; None if none waits.

        Raises ``OSError`` when this machine is the cause: EMFILE, ENFILE, ENOBUFS, ENOMEM.
        """
        server = self.socket
        try:
            # socket.accept() would make a gevent socket, and a hub with it, in a patched process
            number, raw = server._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except (BlockingIOError, ConnectionError):
            return None
        except OSError as error:
            if error.errno in _CLIENT_ERRORS:
                return None
            raise
        client = native.socket(server.family, server.type, server.proto, fileno=number)
        client.setblocking(False)
        return client, raw

    def close(self) -> None:
        """Close this process's copy of the socket."""
        self.socket.close()

    def unlink(self) -> None:
        """Remove the path of a UNIX socket if this process bound it and it is still ours."""
        if self._owner is not None and self._owner == (os.getpid(), _identity(self._path)):
            with suppress(OSError):
                os.unlink(self._path)


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    # an inode's number alone may be given out again at once; bind(2) sets the time
    return (found.st_dev, found.st_ino, found.st_mtime_ns)


def _address_text(spec: ListenSpec, listening: socket.socket) -> str:
    if spec.kind in ("unix", "stdin"):
        return spec.endpoint
    raw = listening.getsockname()
    if not isinstance(raw, tuple):
        name = raw if isinstance(raw, str) else ""
        return f"unix:{name}" if name else spec.text
    host, port = raw[:2]
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"tls://{text}" if spec.tls else text


def bind(
    specs: Sequence[ListenSpec], *, backlog: int, adopted: Mapping[str, int] | None = None
) -> list[Listener]:
    """Return a listener for each spec, in order; several where systemd passed several.

    ``adopted`` maps ``Listener.key`` (the spec's text for most) to an inherited descriptor, used
    instead of a new socket; those that no spec asks for any more are closed.  Raises
    ``ConfigError`` for a place named twice, ``BindError`` with the place and the reason; then
    nothing stays bound.
    """
    _refuse_twice(specs)
    inherited = {endpoint_of(key): number for key, number in (adopted or {}).items()}
    activated: dict[str, list[int]] | None = None
    listeners: list[Listener] = []
    try:
        for spec in specs:
            if taken := _take(spec, inherited, listeners):
                listeners += taken
                continue
            if spec.kind == "systemd" and activated is None:
                activated = systemd.listen_fds()
            listeners += _open(spec, backlog, activated or {}, listeners)
    except BaseException:
        for listener in listeners:
            listener.unlink()
            listener.close()
        raise
    for number in inherited.values():
        _let_go(number)
    return listeners


def handover(listeners: Iterable[Listener]) -> dict[str, int]:
    """Return what ``bind`` takes as ``adopted`` in the program that comes after this one."""
    return {listener.key: listener.fileno() for listener in listeners}


def _refuse_twice(specs: Sequence[ListenSpec]) -> None:
    seen: set[str] = set()
    for spec in specs:
        if spec.endpoint in seen and not (spec.kind == "tcp" and spec.port == 0):
            raise ConfigError(f"--listen {spec.text}: this place is named twice")
        seen.add(spec.endpoint)


def _key(spec: ListenSpec, listeners: Sequence[Listener]) -> str:
    """Return a name that no earlier listener has: the n-th of one endpoint ends in ``#n``."""
    earlier = sum(1 for listener in listeners if listener.spec.endpoint == spec.endpoint)
    return f"{spec.endpoint}#{earlier + 1}" if earlier else spec.endpoint


def _take(
    spec: ListenSpec, inherited: dict[str, int], listeners: Sequence[Listener]
) -> list[Listener]:
    taken: list[Listener] = []
    while (key := _key(spec, [*listeners, *taken])) in inherited:
        taken.append(Listener(spec, _adopt(spec, inherited.pop(key)), key))
        if spec.kind != "systemd":
            break
    return taken


def _open(
    spec: ListenSpec,
    backlog: int,
    activated: Mapping[str, list[int]],
    listeners: Sequence[Listener],
) -> list[Listener]:
    if spec.kind == "systemd":
        numbers = activated.get(spec.name, [])
        if not numbers:
            passed = ", ".join(activated) or "none"
            raise BindError(f"{spec.text}: systemd passed no socket of this name, but {passed}")
        opened: list[Listener] = []
        for number in numbers:
            key = _key(spec, [*listeners, *opened])
            opened.append(Listener(spec, _adopt(spec, number), key))
        return opened
    if spec.kind == "fd":
        listening = _adopt(spec, int(spec.name))
    elif spec.kind == "stdin":
        listening = _adopt(spec, 0)
    else:
        try:
            listening = _bind_unix(spec) if spec.kind == "unix" else _bind_tcp(spec)
            listening.listen(backlog)
        except OSError as error:
            raise _bind_error(spec, error) from None
    return [Listener(spec, listening, _key(spec, listeners))]


def _bind_error(spec: ListenSpec, error: OSError) -> BindError:
    reason = error.strerror or str(error) or error.__class__.__name__
    reason = reason[:1].lower() + reason[1:]
    if isinstance(error, PermissionError) and 0 < spec.port < LOWEST_FREE_PORT:
        reason += "; ports below 1024 need root or systemd socket activation"
    return BindError(f"{spec.endpoint}: {reason}")


def _adopt(spec: ListenSpec, number: int) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise BindError(f"{spec.text}: descriptor {number} is no socket")
        adopted = native.socket(fileno=number)
        listens = adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise _bind_error(spec, error) from None
    if spec.kind == "stdin" or listens:
        adopted.set_inheritable(False)
        return adopted
    adopted.detach()
    raise BindError(f"{spec.text}: the socket on descriptor {number} does not listen")


def _let_go(number: int) -> None:
    """Close a socket that the new configuration no longer has, and remove its path."""
    with suppress(OSError), native.socket(fileno=number) as left:
        if left.family == getattr(socket, "AF_UNIX", None):
            os.unlink(left.getsockname())


def _bind_tcp(spec: ListenSpec) -> socket.socket:
    if spec.host == "*":
        try:
            return _bound(socket.AF_INET6, ("::", spec.port), dual=True)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
        return _bound(socket.AF_INET, ("0.0.0.0", spec.port))  # noqa: S104 - it was asked for
    if ":" in spec.host:
        host, _, scope = spec.host.partition("%")
        index = socket.if_nametoindex(scope) if scope else 0
        return _bound(socket.AF_INET6, (host, spec.port, 0, index))
    # bind(2)'s wrapper resolves names itself; getaddrinfo of a patched process would make a hub
    try:
        return _bound(socket.AF_INET, (spec.host, spec.port))
    except socket.gaierror:
        return _bound(socket.AF_INET6, (spec.host, spec.port))


def _bound(
    family: int, address: tuple[str, int] | tuple[str, int, int, int], *, dual: bool = False
) -> socket.socket:
    bound = native.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would let a second server take the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _bind_unix(spec: ListenSpec) -> socket.socket:
    """Bind ``spec.name`` with mode 0660; a socket file that nobody serves is replaced."""
    path = os.path.abspath(spec.name)
    _clear_stale(spec, path)
    bound = native.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # by umask and not by chmod: the path must not be open to all for a moment
    mask = os.umask(0o117)
    try:
        bound.bind(path)
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(mask)
    return bound


def _clear_stale(spec: ListenSpec, path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"{spec.endpoint}: the path exists and is no socket")
    with native.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its backlog is full: very much alive
    raise BindError(f"{spec.endpoint}: a running server listens there")


def write_address_file(path: str, listeners: Sequence[Listener]) -> None:
    """Write the bound addresses, one a line, whole by rename.  Raises ``ConfigError``."""
    text = "".join(f"{listener.address}\n" for listener in listeners)
    draft = f"{path}.{os.getpid()}.tmp"
    try:
        with suppress(FileNotFoundError):
            os.unlink(draft)  # of a process that had our number and died over it
        with open(draft, "x", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(draft)
        raise ConfigError(f"--address-file {path}: {error.strerror}") from None


class SpareDescriptor:
    """A descriptor kept for the moment when there is none left.

    Without it a client that cannot be accepted stays in the queue, and the listener stays readable:
    the server would spin.
    """

    __slots__ = ("_spare",)

    def __init__(self) -> None:
        self._spare: int | None = None
        self._reopen()

    def _reopen(self) -> None:
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def shed(self, listener: Listener) -> bool:
        """Accept one client and close it at once; False if that could not be done either."""
        self.close()
        try:
            accepted = listener.accept()
            if accepted is not None:
                accepted[0].close()
        except OSError:
            accepted = None
        self._reopen()
        return accepted is not None

    def close(self) -> None:
        """Give the descriptor back."""
        if self._spare is not None:
            native.close(self._spare)  # gevent's close would free it later
            self._spare = None
