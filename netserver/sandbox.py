"""What a serving process cannot do any more, whatever a client makes it run.

By Landlock (Linux 5.13 and later): files outside of its reach, programs, TCP connections, signals
to and debugging of processes outside.  It binds the calling thread and those made later, so a
process enters before its first thread; and there is no way out, so one that may have to replace its
image (`single`) stays outside.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from netserver import native

try:
    import resource
except ImportError:  # not on every system; and a worker may be unable to load it
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable

    from netserver.reach import Reach

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every processor
_VERSION = 1  # flag of _CREATE: tell the version
_PATH_BENEATH = 1
_NO_NEW_PRIVS = 38

# linux/landlock.h: what can be done with files
_EXECUTE = 1 << 0
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_CHANGE_TREE = sum(1 << bit for bit in (4, 5, 7, 8))  # remove and make directories and files
_SPECIAL = sum(1 << bit for bit in (6, 9, 10, 11, 12))  # devices, sockets, FIFOs, links
_REFER, _TRUNCATE, _DEVICE = 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE
_BIND, _CONNECT = 1, 2
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2

_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _CHANGE_TREE | _REFER | _TRUNCATE

#: What Python and the C library read while they run: modules, name resolution, zones, certificates.
_SYSTEM = ("/etc", "/usr", "/lib", "/lib64", "/run/systemd/resolve")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def enter(reach: Reach | None) -> str | None:
    """Shut this thread, and all it will make, in; returns what is missing, None if nothing is.

    Without a reach files and connections stay as they are.  What does not exist yet is out of
    reach.
    """
    missing = unavailable()
    if missing is not None:
        return missing
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, 0, _VERSION)
    _no_core_file()
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    attributes = _Ruleset(*_handled(version, reach))
    size = ctypes.sizeof(_Ruleset) if version >= 6 else 16 if version >= 4 else 8  # noqa: PLR2004
    if not (attributes.files or attributes.network or attributes.scope):
        return f"Landlock {version} of this kernel is too old"
    ruleset = libc.syscall(_CREATE, ctypes.byref(attributes), size, 0)
    if ruleset < 0:
        return f"no Landlock: {os.strerror(ctypes.get_errno())}"
    try:
        if reach is not None:
            _allow(libc, ruleset, attributes.files, _READ, (*_SYSTEM, *_interpreter(), *reach.read))
            _allow(libc, ruleset, attributes.files, _WRITE, (*_DEVICES, *reach.write))
        if libc.syscall(_RESTRICT, ruleset, 0) != 0:
            return f"no Landlock: {os.strerror(ctypes.get_errno())}"
    finally:
        native.close(ruleset)
    return None


def unavailable() -> str | None:
    """Return why this system cannot shut anything in, None if it can."""
    if not sys.platform.startswith("linux"):
        return "this system has no Landlock"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_CREATE, None, 0, _VERSION) < 1:
        return f"no Landlock: {os.strerror(ctypes.get_errno())}"
    return None


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scope", ctypes.c_uint64),
    )
    files: int
    network: int
    scope: int


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _handled(version: int, reach: Reach | None) -> tuple[int, int, int]:
    """Return what is forbidden unless a rule allows it, as far as this kernel can."""
    files = network = scope = 0
    if reach is not None:
        files = _EXECUTE | _READ | _WRITE_FILE | _CHANGE_TREE | _SPECIAL
        # before version 2 files cannot move between directories at all, which a source may need
        if version >= 2:  # noqa: PLR2004
            files |= _REFER
        if version >= 3:  # noqa: PLR2004
            files |= _TRUNCATE
        if version >= 5:  # noqa: PLR2004
            files |= _DEVICE
        if version >= 4:  # noqa: PLR2004
            network = _BIND | (0 if reach.network else _CONNECT)
    if version >= 6:  # noqa: PLR2004
        scope = _SIGNALS | _ABSTRACT_SOCKETS
    return files, network, scope


def _allow(
    libc: ctypes.CDLL, ruleset: int, handled: int, rights: int, paths: Iterable[str]
) -> None:
    for path in dict.fromkeys(paths):
        with suppress(OSError):
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                of_kind = rights if os.path.isdir(path) else rights & _OF_FILES
                rule = _PathBeneath(of_kind & handled, parent)
                libc.syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
            finally:
                native.close(parent)


def _interpreter() -> list[str]:
    """Return where modules may still have to be loaded from.

    Python that was started in "/", as services are, may have that on its path: all there is.
    """
    modules = [path for path in sys.path if os.path.isabs(path) and os.path.realpath(path) != "/"]
    return [sys.prefix, sys.base_prefix, *modules]


def _no_core_file() -> None:
    """Let there be no core file, which would hold passwords."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
