"""Giving up rights for good, in real processes."""

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from netserver.daemon import Rights
from netserver.errors import ConfigError, PrivilegeError

ROOT = Path(__file__).parents[2]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_no_rights_asked_for_is_nothing_to_do() -> None:
    """Without options nothing changes, for whoever it runs."""
    rights = Rights()
    rights.resolve()
    rights.drop()
    assert os.getuid() == os.geteuid()


@pytest.mark.parametrize(
    ("rights", "why"),
    [
        (Rights(user="no-such-user"), "--user no-such-user: there is no such user"),
        (Rights(user="-1"), "--user -1: there is no such user"),
        (Rights(user="\u0661"), "--user \u0661: there is no such user"),
        (Rights(user="54321"), "--user 54321: no entry for this number; give --group too"),
        (Rights(group="no-such-group"), "--group no-such-group: there is no such group"),
        (Rights(chroot="/no/such"), "--chroot /no/such: "),
    ],
)
def test_wrong_rights_are_named(rights: Rights, why: str) -> None:
    """Before anything is bound, in one line with the option."""
    with pytest.raises(ConfigError) as caught:
        rights.resolve()
    assert str(caught.value).startswith(why)


@pytest.mark.root
@needs_root
def test_names_and_numbers_mean_the_same() -> None:
    """A user by number has the groups of its name; a number without entry needs a group."""
    nobody = pwd.getpwnam("nobody")
    by_name, by_number = Rights(user="nobody"), Rights(user=str(nobody.pw_uid))
    by_name.resolve()
    by_number.resolve()
    assert (by_name.uid, by_name.gid) == (nobody.pw_uid, nobody.pw_gid)
    assert (by_number.uid, by_number.gid) == (nobody.pw_uid, nobody.pw_gid)
    assert by_name.groups == by_number.groups == os.getgrouplist("nobody", nobody.pw_gid)
    bare = Rights(user="54321", group="daemon")
    bare.resolve()
    daemon_gid = grp.getgrnam("daemon").gr_gid
    assert (bare.uid, bare.gid, bare.groups) == (54321, daemon_gid, [daemon_gid])


DROP = """
import os, sys
from netserver.daemon import Rights
os.setgroups([0, 4, 6])
rights = Rights(*[value or None for value in sys.argv[1:4]])
rights.resolve()
status = os.open("/proc/self/status", os.O_RDONLY)
rights.drop()
lines = os.pread(status, 100000, 0).decode().split("\\n")
status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
for key in ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "NoNewPrivs", "Umask"):
    print(key, status[key].strip().replace("\\t", " "))
print(os.getcwd(), os.listdir("/") if sys.argv[3] else "")
for way_back in (os.setuid, os.setgid, os.seteuid, os.setegid):
    try:
        way_back(0)
        print("came back")
    except PermissionError:
        pass
"""


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("group", ["", "daemon"])
def test_dropped_rights_are_gone_for_good(group: str) -> None:
    """User, group, groups and capabilities as asked, no new ones, umask 077, no way back."""
    nobody = pwd.getpwnam("nobody")
    gid = grp.getgrnam(group).gr_gid if group else nobody.pw_gid
    done = run(DROP, "nobody", group, "")
    assert done.stdout.split("\n")[:7] == [
        "Uid " + " ".join([str(nobody.pw_uid)] * 4),
        "Gid " + " ".join([str(gid)] * 4),
        f"Groups {gid}",
        "CapPrm 0000000000000000",
        "CapEff 0000000000000000",
        "NoNewPrivs 1",
        "Umask 0077",
    ], done.stderr
    assert "came back" not in done.stdout


@pytest.mark.root
@needs_root
def test_chroot_comes_first(tmp_path: Path) -> None:
    """The new root is all that is seen, and the working directory lies in it."""
    (tmp_path / "mail").mkdir()
    tmp_path.chmod(0o755)
    done = run(DROP, "nobody", "", tmp_path)
    assert "/ ['mail']\n" in done.stdout, done.stderr
    assert "NoNewPrivs 1" in done.stdout


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("broken", ["setgroups", "setresgid", "setresuid"])
def test_a_drop_that_did_nothing_is_noticed(broken: str) -> None:
    """If one of the calls should not work, the process does not go on with rights."""
    program = f"""
import os
from netserver.daemon import Rights
from netserver.errors import PrivilegeError
os.setgroups([0, 4, 6])
rights = Rights("nobody")
rights.resolve()
os.{broken} = lambda *_: None
try:
    rights.drop()
except PrivilegeError as error:
    print(error)
"""
    done = run(program)
    assert done.stdout.startswith("could not become user nobody: "), done.stderr


@pytest.mark.root
@needs_root
def test_a_drop_the_kernel_refuses_is_an_error(tmp_path: Path) -> None:
    """A chroot that went away between resolve and drop."""
    path = tmp_path / "jail"
    path.mkdir()
    rights = Rights("nobody", None, str(path))
    rights.resolve()
    path.rmdir()
    with pytest.raises(PrivilegeError, match=r"user nobody, chroot .*jail: .*No such file"):
        rights.drop()
    assert os.geteuid() == 0


@pytest.mark.root
@needs_root
def test_only_root_can_become_somebody_else() -> None:
    """Another user, group or root directory needs root; oneself is no change."""
    program = """
import grp, os, pwd  # the interpreter may lie where only root can read
from netserver.daemon import Rights
from netserver.errors import ConfigError
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
for rights in (Rights("daemon"), Rights(None, "daemon"), Rights(None, None, "/tmp")):
    try:
        rights.resolve()
    except ConfigError as error:
        print(error)
same = Rights("65534")
same.resolve()
same.drop()
print(os.umask(0) != 0o077)
"""
    assert run(program).stdout.split("\n") == [
        "--user daemon: only root can become another user",
        "--group daemon: only root can change to another group",
        "--chroot /tmp: only root can do that",
        "True",
        "",
    ]
