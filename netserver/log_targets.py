"""Where log lines go: files, syslog, the journal.  Nothing here locks, buffers or raises later."""

from __future__ import annotations

import os
import socket
import time
from abc import ABC, abstractmethod
from typing import ClassVar

from netserver import native
from netserver.errors import ConfigError

SYSLOG_SOCKET = "/dev/log"
JOURNAL_SOCKET = "/run/systemd/journal/socket"
FACILITY_MAIL = 2
# octets of one datagram: what syslog daemons take without configuration
LONGEST_SYSLOG = 8192

_SEVERITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
# strftime would follow the locale
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class Target(ABC):
    """Takes rendered events; has a method for each level, as structlog wants it."""

    __slots__ = ("dropped", "lost")

    def __init__(self) -> None:
        self.dropped = 0  # events that could not be written, since the start
        self.lost = 0  # the same, since the last that could

    @abstractmethod
    def write(self, level: str, data: bytes) -> None:
        """Write one event, or count it as dropped."""

    def debug(self, data: bytes) -> None:
        """Write an event of this level; so do the following."""
        self.write("debug", data)

    def info(self, data: bytes) -> None:  # noqa: D102
        self.write("info", data)

    def warning(self, data: bytes) -> None:  # noqa: D102
        self.write("warning", data)

    def error(self, data: bytes) -> None:  # noqa: D102
        self.write("error", data)

    def critical(self, data: bytes) -> None:  # noqa: D102
        self.write("critical", data)

    def reopen(self) -> bool:
        """Open the file of this name anew; False if the old one had to stay."""
        return True

    def _drop(self) -> None:
        self.dropped += 1
        self.lost += 1


class FileTarget(Target):
    """A file to append to, or standard error; each event is one ``write``."""

    __slots__ = ("_fd", "_path", "_torn")

    def __init__(self, path: str | None) -> None:
        super().__init__()
        self._path = None if path is None else os.path.abspath(path)
        self._torn = False
        try:
            self._fd = 2 if self._path is None else _open(self._path)
        except OSError as error:
            reason = (error.strerror or error.__class__.__name__).lower()
            raise ConfigError(f"--log-file {path}: {reason}") from None

    def write(self, level: str, data: bytes) -> None:  # noqa: ARG002 - it is in the line
        """Append one line."""
        if self._torn:
            data = b"\n" + data
        try:
            written = os.write(self._fd, data)
        except OSError:
            self._drop()
            return
        if written == len(data):
            self._torn = False
            self.lost = 0
        else:  # the disk is full: what follows must not stand on the same line
            self._torn = True
            self._drop()

    def reopen(self) -> bool:
        """Open the file of this name anew, under the old descriptor's number."""
        if self._path is None:
            return True
        try:
            fresh = _open(self._path)
        except OSError:
            return False
        _take_over(self._fd, fresh)
        return True


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
    return os.open(path, flags, 0o640)


class _DatagramTarget(Target):
    """A local socket that takes one datagram per event."""

    __slots__ = ("_fd", "_name")

    path: ClassVar[str]
    option: ClassVar[str]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        try:
            self._fd = _connect(self.path)
        except OSError as error:
            reason = (error.strerror or error.__class__.__name__).lower()
            raise ConfigError(f"--log-file {self.option}: {self.path}: {reason}") from None

    def _send(self, datagram: bytes) -> None:
        try:
            os.write(self._fd, datagram)
        except BlockingIOError:
            self._drop()
            return
        except OSError:  # perhaps the daemon was restarted, and its socket is a new one
            if not self.reopen() or not self._send_again(datagram):
                self._drop()
                return
        self.lost = 0

    def _send_again(self, datagram: bytes) -> bool:
        try:
            os.write(self._fd, datagram)
        except OSError:
            return False
        return True

    def reopen(self) -> bool:
        """Connect anew, under the old descriptor's number."""
        try:
            fresh = _connect(self.path)
        except OSError:
            return False
        _take_over(self._fd, fresh)
        return True


def _connect(path: str) -> int:
    with native.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connected:
        connected.setblocking(False)
        connected.connect(path)
        return connected.detach()


def _take_over(old: int, fresh: int) -> None:
    # the number must never be free in between: it could become a client's socket
    os.dup2(fresh, old, inheritable=False)
    os.close(fresh)


class SyslogTarget(_DatagramTarget):
    """The local syslog daemon, facility mail (RFC 3164 §4.1, as /dev/log has it: without host)."""

    __slots__ = ()

    path = SYSLOG_SOCKET
    option = "syslog"

    def write(self, level: str, data: bytes) -> None:
        """Send one message."""
        now = time.localtime()
        priority = FACILITY_MAIL * 8 + _SEVERITIES[level]
        date = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d}"
        clock = f"{now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d}"
        head = f"<{priority}>{date} {clock} {self._name}[{os.getpid()}]: "
        self._send((head.encode("utf-8", "backslashreplace") + data.rstrip())[:LONGEST_SYSLOG])


class JournalTarget(_DatagramTarget):
    """The systemd journal, by its native protocol: every field can be searched for."""

    __slots__ = ()

    path = JOURNAL_SOCKET
    option = "journald"

    def write(self, level: str, data: bytes) -> None:
        """Send one entry."""
        head = (
            f"PRIORITY={_SEVERITIES[level]}\nSYSLOG_FACILITY={FACILITY_MAIL}\n"
            f"SYSLOG_IDENTIFIER={self._name}\n"
        )
        self._send(head.encode("utf-8", "backslashreplace") + data)
