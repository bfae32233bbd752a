"""The system as it is without gevent's patches, for the process that holds the listeners.

A patched `select`, `sleep` or socket makes a hub in the process that calls it, and a hub must not
exist where workers are forked. Where nothing is patched these are the plain functions.
"""

import _thread
import os
import select as _select
import signal as _signal
import socket as _socket
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = [
    "allocate_lock",
    "close",
    "fork",
    "getaddrinfo",
    "monotonic",
    "poll",
    "posix_spawn",
    "read",
    "select",
    "set_handler",
    "sleep",
    "socket",
    "socketpair",
    "start_new_thread",
    "waitpid",
    "write",
]


def _original(module: ModuleType, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(module, name, None)  # not every system has fork
    return monkey.get_original(module.__name__, name)


if TYPE_CHECKING:
    from _thread import allocate_lock, start_new_thread
    from os import close, fork, posix_spawn, read, waitpid, write
    from select import poll, select
    from signal import signal as set_handler
    from socket import getaddrinfo, socket
    from time import monotonic, sleep
else:
    # gevent's close first looks for watchers on the descriptor: dear, and files have none
    close = _original(os, "close")
    fork = _original(os, "fork")
    posix_spawn = _original(os, "posix_spawn")
    waitpid = _original(os, "waitpid")
    read = os.read
    write = os.write
    poll = _original(_select, "poll")
    select = _original(_select, "select")
    getaddrinfo = _original(_socket, "getaddrinfo")
    start_new_thread = _original(_thread, "start_new_thread")
    allocate_lock = _original(_thread, "allocate_lock")
    socket = _original(_socket, "socket")
    # gevent's signal.signal keeps SIGCHLD for its own child watchers: no handler would ever run
    set_handler = _original(_signal, "signal")
    sleep = _original(time, "sleep")
    monotonic = time.monotonic


def socketpair() -> tuple[socket, socket]:
    """Return two connected AF_UNIX stream sockets, not inherited over exec.

    The library's own function looks up its socket class when called and would find the patched
    one. For the same reason do not call `accept` on a native socket in a patched process.
    """
    near, far = _socket._socket.socketpair()  # type: ignore[attr-defined]  # noqa: SLF001
    return socket(fileno=near.detach()), socket(fileno=far.detach())
