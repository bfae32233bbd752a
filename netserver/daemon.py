"""What makes a process a Unix daemon: background, descriptor limit, rights."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netserver import native
from netserver.errors import ConfigError, PrivilegeError

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_NO_NEW_PRIVS = 38


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
