"""One session per maildrop, in one process and in many."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3 import lock
from pop3.lock import MaildropLock, lock_name

HOLDER = """
import sys
from pop3.lock import MaildropLock
held = MaildropLock(sys.argv[1])
print(held.acquire(), flush=True)
sys.stdin.read()
"""


def test_only_one_has_it(tmp_path: Path) -> None:
    """Two objects of one process exclude each other, as two gevent clients must."""
    first, second = MaildropLock(tmp_path / "a"), MaildropLock(tmp_path / "a")
    assert first.acquire()
    assert not second.acquire()
    second.release()  # not its own: must not let a third one in
    assert not MaildropLock(tmp_path / "a").acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_other_maildrops_are_free(tmp_path: Path) -> None:
    """A lock is for one maildrop."""
    first, second = MaildropLock(tmp_path / "a"), MaildropLock(tmp_path / "b")
    assert first.acquire()
    assert second.acquire()
    first.release()
    second.release()


def test_another_process_is_kept_out_until_it_dies(tmp_path: Path) -> None:
    """The kernel gives the lock back when a process is killed: no stale locks."""
    path = tmp_path / "a"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        mine = MaildropLock(path)
        assert not mine.acquire()
        holder.kill()
        holder.wait(10)
        assert mine.acquire()
        mine.release()


def test_the_file_stays_private_and_is_not_inherited(tmp_path: Path) -> None:
    """It is for the owner only, and a program started meanwhile does not keep it."""
    held = MaildropLock(tmp_path / "a")
    assert held.acquire()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(held._descriptor)
    held.release()
    assert (tmp_path / "a").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link in place of the lock file is an error, its target stays as it was."""
    (tmp_path / "a").symlink_to(tmp_path / "target")
    held = MaildropLock(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        held.acquire()
    assert not (tmp_path / "target").exists()
    (tmp_path / "a").unlink()
    assert held.acquire()  # the failure left no trace in the table
    held.release()


def test_the_table_alone_is_enough_for_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no flock, sessions of one process still exclude each other."""
    monkeypatch.setattr(lock, "fcntl", None)
    first, second = MaildropLock(tmp_path / "a"), MaildropLock(tmp_path / "a")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


@given(st.text(max_size=300), st.text(max_size=300))
def test_lock_names_are_plain_and_different(one: str, other: str) -> None:
    """A name is one path component without a leading dot, and no two maildrops share it."""
    name = lock_name(f"Source/{one}")
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith(".")
    assert len(name) <= 255
    assert name.isascii()
    assert (name == lock_name(f"Source/{other}")) == (one == other)


def test_lock_name_hides_a_leading_dot() -> None:
    """Not even a source that names its maildrop so gets a hidden file or a parent directory."""
    assert lock_name("..") == "%2E."


def test_who_has_no_lock_gives_up_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the table of the process is all there is, only the holder can empty its place."""
    monkeypatch.setattr("pop3.lock.fcntl", None)
    holder, other = MaildropLock(tmp_path / "x"), MaildropLock(tmp_path / "x")
    assert holder.acquire()
    assert not other.acquire()
    other.release()
    assert not other.acquire()
    holder.release()
