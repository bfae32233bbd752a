"""What makes a process a Unix daemon: pid file, background, descriptor limit, rights."""

from __future__ import annotations

import os
import stat
import sys
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netserver import native
from netserver.errors import BindError, ConfigError, PrivilegeError

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_NO_NEW_PRIVS = 38


class PidFile:
    """The file that holds the master's pid, locked for as long as the master lives.

    The lock (flock) belongs to the open file ``fd``: it survives an exec if ``fd`` is handed over,
    and a forked child gives its copy back at once, so that it ends with the master.  Acquire it
    after ``background``.
    """

    __slots__ = ("__weakref__", "_owner", "fd", "path")

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.fd: int | None = None
        self._owner = 0

    @classmethod
    def adopt(cls, path: str, fd: int) -> PidFile:
        """Return the pid file whose lock this process took before it called exec."""
        adopted = cls(path)
        os.set_inheritable(fd, False)
        adopted._hold(fd)
        return adopted

    def acquire(self) -> None:
        """Lock and write the file.

        Raises ``BindError`` when another master holds it or it cannot be written.
        """
        draft = f"{self.path}.{os.getpid()}.tmp"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with suppress(FileNotFoundError):
                os.unlink(draft)  # of a process that had our number and died over it
            fd = os.open(draft, flags, 0o644)
        except OSError as error:
            raise self._error(error) from None
        try:
            # locked and complete before anybody can see it under its name
            _lock(fd)
            os.write(fd, b"%d\n" % os.getpid())
            self._put_in_place(draft)
        except OSError as error:
            os.close(fd)
            raise self._error(error) from None
        except BindError:
            os.close(fd)
            raise
        finally:
            with suppress(OSError):
                os.unlink(draft)
        self._hold(fd)

    def _put_in_place(self, draft: str) -> None:
        while True:
            with suppress(FileExistsError):
                os.link(draft, self.path)
                return
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                old = os.open(self.path, flags)
            except FileNotFoundError:
                continue
            try:
                self._check_old(old)
                # held until the new file, locked too, has taken the name
                if _same_file(old, self.path):
                    os.replace(draft, self.path)
                    return
            finally:
                os.close(old)

    def _check_old(self, old: int) -> None:
        if not stat.S_ISREG(os.fstat(old).st_mode):
            raise BindError(f"--pid-file {self.path}: not a regular file")
        try:
            _lock(old)
        except BlockingIOError:
            pid = os.pread(old, 32, 0).partition(b"\n")[0].decode("ascii", "replace")
            raise BindError(
                f"--pid-file {self.path}: a server is running already, its pid is {pid}"
            ) from None

    def _error(self, error: OSError) -> BindError:
        reason = (error.strerror or error.__class__.__name__).lower()
        return BindError(f"--pid-file {self.path}: {reason}")

    def _hold(self, fd: int) -> None:
        self.fd = fd
        self._owner = os.getpid()
        mine = weakref.ref(self)

        def give_back() -> None:
            held = mine()
            if held is not None:
                held.close()

        os.register_at_fork(after_in_child=give_back)

    def close(self) -> None:
        """Give the lock back, or this process's share of it; the file stays."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def remove(self) -> None:
        """Remove the file if it is this process's, and give the lock back; never raises."""
        if self.fd is None:
            return
        with suppress(OSError):
            if self._owner == os.getpid() and _same_file(self.fd, self.path):
                os.unlink(self.path)
        self.close()


def _lock(fd: int) -> None:
    import fcntl  # noqa: PLC0415 - not on every system

    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def background() -> Callable[[], None]:
    """Go on in a child of its own session; return what it calls when it is ready to serve.

    The program that was started ends with 0 then, or with the child's exit code if that ends
    before.  Until the call the standard streams stay, so that errors at start are seen; then they
    become /dev/null.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    if pid := native.fork():
        os.close(writer)  # or its end would never come
        os._exit(_exit_code(pid))
    os.setsid()
    # the session's leader ends, so that no terminal can become the daemon's
    if pid := native.fork():
        os.close(writer)
        is_ready = os.read(reader, 1) != b""
        os._exit(0 if is_ready else _exit_code(pid))
    os.close(reader)

    def ready() -> None:
        let_go_of_terminal()
        with suppress(BrokenPipeError):
            os.write(writer, b"1")
        os.close(writer)

    return ready


def let_go_of_terminal() -> None:
    """Make the standard streams /dev/null: whoever waits for their end must not wait for us."""
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if null > 2:  # noqa: PLR2004 - the last of the standard streams
        os.close(null)


def _exit_code(pid: int) -> int:
    _, status = native.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 1


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the soft limit of open files towards ``wanted``; return how many may be open now."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited:
        return max(wanted, soft)
    if wanted <= soft:
        return soft
    target = wanted if hard == unlimited else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (OSError, ValueError):
        return soft
    return target


@dataclass(slots=True)
class Rights:
    """Whom a process becomes before it serves strangers; by name or by number."""

    user: str | None = None
    group: str | None = None
    chroot: str | None = None
    uid: int | None = field(default=None, init=False)
    gid: int | None = field(default=None, init=False)
    groups: list[int] = field(default_factory=list, init=False)

    def resolve(self) -> None:
        """Look up the user and the group.

        Raises ``ConfigError`` if one is unknown, or if this process is not allowed to become them.
        """
        if self.user is None and self.group is None and self.chroot is None:
            return
        self._resolve_user()
        self._resolve_group()
        if os.geteuid() != 0:
            self._refuse_without_root()
        if self.chroot is not None and not os.path.isdir(self.chroot):
            raise ConfigError(f"--chroot {self.chroot}: no such directory")

    def _resolve_user(self) -> None:
        import pwd  # noqa: PLC0415 - not on every system

        if self.user is None:
            return
        try:
            entry = pwd.getpwnam(self.user)
        except KeyError:
            if not self.user.isascii() or not self.user.isdecimal():
                raise ConfigError(f"--user {self.user}: there is no such user") from None
            self.uid = int(self.user)
            try:
                entry = pwd.getpwuid(self.uid)
            except (KeyError, OverflowError):
                if self.group is None:
                    raise ConfigError(
                        f"--user {self.user}: no entry for this number; give --group too"
                    ) from None
                return
        self.uid, self.gid = entry.pw_uid, entry.pw_gid
        self.groups = os.getgrouplist(entry.pw_name, entry.pw_gid)

    def _resolve_group(self) -> None:
        import grp  # noqa: PLC0415 - not on every system

        if self.group is None:
            return
        primary = self.gid
        try:
            self.gid = grp.getgrnam(self.group).gr_gid
        except KeyError:
            if not self.group.isascii() or not self.group.isdecimal():
                raise ConfigError(f"--group {self.group}: there is no such group") from None
            self.gid = int(self.group)
        self.groups = [self.gid, *(g for g in self.groups if g not in (self.gid, primary))]

    def _refuse_without_root(self) -> None:
        if self.chroot is not None:
            raise ConfigError(f"--chroot {self.chroot}: only root can do that")
        if self.uid not in (None, os.geteuid()):
            raise ConfigError(f"--user {self.user}: only root can become another user")
        if self.group is not None and self.gid != os.getegid():
            raise ConfigError(f"--group {self.group}: only root can change to another group")

    def drop(self) -> None:
        """Become what ``resolve`` found, for good; does nothing if that is what this process is.

        Order: chroot, groups, gid, uid, proof that there is no way back, no_new_privs, umask 077.
        Raises ``PrivilegeError`` when anything of it fails; the process must then end.
        """
        if self.gid is None and self.chroot is None:
            return
        if os.geteuid() != 0:
            return
        forbid_new_privileges = _no_new_privs()  # found while the libraries are still in reach
        try:
            if self.chroot is not None:
                os.chroot(self.chroot)
                os.chdir("/")
            if self.gid is not None:
                os.setgroups(self.groups)
                os.setresgid(self.gid, self.gid, self.gid)
            if self.uid is not None:
                os.setresuid(self.uid, self.uid, self.uid)
        except (OSError, OverflowError) as error:
            raise PrivilegeError(f"could not become {self}: {error}") from None
        if self.uid:
            self._prove()
            forbid_new_privileges()
        os.umask(0o077)

    def _prove(self) -> None:
        if os.getresuid() != (self.uid,) * 3 or os.getresgid() != (self.gid,) * 3:
            raise PrivilegeError(f"could not become {self}: the kernel says otherwise")
        if set(os.getgroups()) - {self.gid} != set(self.groups) - {self.gid}:
            raise PrivilegeError(f"could not become {self}: other groups are left")
        ways_back: list[Callable[[int], None]] = [os.setuid, os.seteuid]
        if self.gid != 0:
            ways_back += [os.setgid, os.setegid]
        for way_back in ways_back:
            try:
                way_back(0)
            except PermissionError:
                continue
            raise PrivilegeError(f"became {self}, but could become root again")

    def __str__(self) -> str:
        parts = {"user": self.user, "group": self.group, "chroot": self.chroot}
        return ", ".join(f"{key} {value}" for key, value in parts.items() if value is not None)


def _no_new_privs() -> Callable[[], None]:
    """Return what forbids this process, and all it starts, to gain rights by exec (prctl(2))."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    import ctypes  # noqa: PLC0415 - only here

    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def forbid() -> None:
        if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise PrivilegeError(f"could not set no_new_privs: {reason}")

    return forbid
