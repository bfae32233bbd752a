"""Messages opened and deleted while other programs work on the same maildir."""

import errno
import io
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pop3.message import UNKNOWN
from pop3.sources import maildir_box
from pop3.sources.maildir_box import MaildirBox, MessageGone
from pop3.sources.maildir_index import MaildirIndex
from pop3.sources.maildir_scan import refresh
from pop3.wire import BLOCK, crlf

BODY = b"Subject: hello\n\nworld\n"
LARGE = b"a line of text\n" * (BLOCK // 10)


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    """Return a maildir with a message in new/ and two in cur/, one of them with an odd name."""
    root = tmp_path / "Maildir"
    for folder in ("tmp", "new", "cur"):
        (root / folder).mkdir(parents=True)
    (root / "new/1.a").write_bytes(BODY)
    (root / "cur/2.b:2,S").write_bytes(BODY + b"more\n")
    (root / "cur/3 c:2,").write_bytes(b"")
    return root


def opened(root: Path) -> MaildirBox:
    """Return the box of a session that has just listed the maildir."""
    box = MaildirBox(str(root))
    box.show(refresh(box.root, MaildirIndex()))
    return box


def content(box: MaildirBox, position: int) -> bytes:
    """Read a message as stored."""
    with box.open(position)[0] as stream:
        return stream.read()


def descriptors() -> set[str]:
    """Return the open descriptors of this process."""
    return set(os.listdir("/proc/self/fd"))


# -- reading ------------------------------------------------------------------------------------


def test_open_returns_each_message_and_its_size(maildir: Path) -> None:
    """Small messages come from memory, and nothing stays open."""
    box = opened(maildir)
    before = descriptors()
    for position, expected in enumerate((BODY, BODY + b"more\n", b"")):
        stream, octets = box.open(position)
        assert isinstance(stream, io.BytesIO)
        assert (stream.read(), octets) == (expected, len(crlf(expected)))
    box.close()
    assert descriptors() == before


def test_open_returns_a_large_message_as_a_file(maildir: Path) -> None:
    """Above one block the file itself is returned, at its start, unbuffered."""
    (maildir / "new/4.d").write_bytes(LARGE)
    box = opened(maildir)
    before = descriptors()
    stream, octets = box.open(3)
    with stream:
        assert isinstance(stream, io.FileIO)
        assert octets == len(crlf(LARGE))
        assert stream.readall() == LARGE
        assert len(descriptors() - before) == 2  # the message and its folder
    box.close()
    assert descriptors() == before


def test_large_message_is_counted_again_only_if_it_is_another(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stamp of a settled file spares a second reading; any change of the file does not."""
    file = maildir / "new/4.d"
    file.write_bytes(LARGE)
    before = time.time_ns()
    os.utime(file, ns=(0, before - 60 * 10**9))
    box = opened(maildir)
    monkeypatch.setattr(maildir_box, "stream_size", lambda _: 4711)
    sizes = []
    for age in (60, 50):
        os.utime(file, ns=(0, before - age * 10**9))
        stream, octets = box.open(3)
        stream.close()
        sizes.append(octets)
    assert sizes == [len(crlf(LARGE)), 4711]


def test_position_is_found_in_small_and_large_boxes() -> None:
    """By search or by table, the same answer."""
    for count in (3, 200):
        box = MaildirBox("/nowhere")
        uids = [b"%d.x" % number for number in range(count)]
        box.show(MaildirIndex(uids=uids))
        assert [box.position(uid) for uid in uids] == list(range(count))


def test_renamed_message_is_found_again(maildir: Path) -> None:
    """A mail reader moves and flags; the session goes on, with one scan for all of it."""
    box = opened(maildir)
    (maildir / "new/1.a").rename(maildir / "cur/1.a:2,S")
    (maildir / "cur/2.b:2,S").rename(maildir / "cur/2.b:2,RS")
    (maildir / "cur/3 c:2,").rename(maildir / "new/3 c")
    assert [content(box, position) for position in range(3)] == [BODY, BODY + b"more\n", b""]


def test_removed_message_is_gone(maildir: Path) -> None:
    """What another program removed is reported, and the others are still there."""
    box = opened(maildir)
    (maildir / "new/1.a").unlink()
    for _ in range(2):
        with pytest.raises(MessageGone):
            box.open(0)
    assert content(box, 1) == BODY + b"more\n"


def test_stale_handle_is_looked_up_again(maildir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS says ESTALE where a local disk says ENOENT, or opens the new file."""
    box = opened(maildir)
    real = os.open
    failures = iter([OSError(errno.ESTALE, "Stale file handle")])

    def stale(path: bytes, flags: int, **options: int) -> int:
        if path == b"1.a" and (failure := next(failures, None)):
            raise failure
        return real(path, flags, **options)

    monkeypatch.setattr(os, "open", stale)
    assert content(box, 0) == BODY


def test_delivery_during_a_session_changes_nothing(maildir: Path) -> None:
    """New mail is for the next login."""
    box = opened(maildir)
    (maildir / "new/0.first").write_bytes(b"new\n")
    assert content(box, 0) == BODY
    assert len(box.uids) == 3


@pytest.mark.parametrize(
    "become",
    [
        lambda file: file.mkdir(),
        os.mkfifo,
        lambda file: file.symlink_to("/etc/passwd"),
    ],
    ids=["directory", "fifo", "link"],
)
def test_what_is_no_regular_file_is_never_read(
    maildir: Path, become: Callable[[Path], None]
) -> None:
    """Something put in a message's place after the listing is neither followed nor waited for."""
    box = opened(maildir)
    (maildir / "new/1.a").unlink()
    become(maildir / "new/1.a")
    before = descriptors()
    with pytest.raises((MessageGone, OSError)):
        box.open(0)
    box.close()
    assert descriptors() == before


def test_folder_replaced_by_a_link_is_not_followed(maildir: Path, tmp_path: Path) -> None:
    """cur/ swapped for a link to another user's mail gives an error."""
    box = opened(maildir)
    (maildir / "cur").rename(tmp_path / "other")
    (maildir / "cur").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        box.open(1)


def test_other_content_shows_in_the_size(maildir: Path) -> None:
    """The same name, the inode used again, the same second: the size is counted when read."""
    box = opened(maildir)
    file = maildir / "new/1.a"
    was = file.stat()
    file.unlink()
    file.write_bytes(b"Subject: other\r\n\r\nX\r\n".ljust(len(BODY), b"x"))
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    stream, octets = box.open(0)
    assert octets == len(crlf(stream.read())) != box.sizes[0]


def test_large_content_written_in_place_shows_in_the_size(maildir: Path) -> None:
    """The same file, length and nearly the same time: the stamp of a fresh file is not believed."""
    file = maildir / "new/4.d"
    file.write_bytes(LARGE)
    box = opened(maildir)
    file.write_bytes(LARGE.replace(b"\n", b" "))
    stream, octets = box.open(3)
    with stream:
        assert octets == len(LARGE) + 2


def test_message_that_is_being_written_has_no_size(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is longer than it was a moment ago is not taken for whole."""
    box = opened(maildir)
    stated = os.fstat

    def grows(descriptor: int) -> os.stat_result:
        result = stated(descriptor)
        with (maildir / "new/1.a").open("ab") as file:
            file.write(b"more\n")
        return result

    monkeypatch.setattr(os, "fstat", grows)
    assert box.open(0)[1] == UNKNOWN


# -- deleting -----------------------------------------------------------------------------------


def files(root: Path) -> list[str]:
    """Return all files of a maildir."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_delete_unlinks_just_these_messages(maildir: Path) -> None:
    """Only what is asked for goes, and nothing stays open."""
    box = opened(maildir)
    before = descriptors()
    assert box.delete([0, 2]) == []
    assert files(maildir) == ["cur/2.b:2,S"]
    box.close()
    assert descriptors() == before


def test_delete_finds_renamed_messages_and_passes_over_gone_ones(maildir: Path) -> None:
    """The present name counts; what is gone already is deleted."""
    box = opened(maildir)
    (maildir / "new/1.a").rename(maildir / "cur/1.a:2,S")
    (maildir / "cur/2.b:2,S").unlink()
    assert box.delete([0, 1, 2]) == []
    assert files(maildir) == []


def test_delete_of_many_gone_messages_scans_once(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clients that delete the same thousand messages do not make a million look-ups."""
    box = opened(maildir)
    for name in files(maildir):
        (maildir / name).unlink()
    scans: list[object] = []
    locate = maildir_box.locate
    monkeypatch.setattr(
        maildir_box, "locate", lambda folders: scans.append(folders) or locate(folders)
    )
    assert box.delete([0, 1, 2]) == []
    assert len(scans) == 1


def test_delete_leaves_mail_delivered_meanwhile(maildir: Path) -> None:
    """All messages of the session are deleted, and the new one stays."""
    box = opened(maildir)
    (maildir / "new/9.new").write_bytes(BODY)
    assert box.delete([0, 1, 2]) == []
    assert files(maildir) == ["new/9.new"]


def test_delete_reports_what_it_could_not_and_does_the_rest(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failure does not keep the other messages, and none is hidden."""
    box = opened(maildir)
    unlink = os.unlink

    def failing(name: bytes, *, dir_fd: int) -> None:
        if name == b"1.a":
            raise PermissionError(13, "Permission denied")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", failing)
    assert [type(error) for error in box.delete([0, 1])] == [PermissionError]
    assert files(maildir) == ["cur/3 c:2,", "new/1.a"]


def test_message_that_is_renamed_all_the_time_is_not_called_deleted(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that is there but never found is a failure, not a deletion."""
    box = opened(maildir)

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "unlink", missing)
    assert len(box.delete([0])) == 1


def test_delete_syncs_the_directories_it_changed(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to QUIT must outlive a power failure; an untouched directory costs nothing."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    opened(maildir).delete([0])
    assert synced == [(maildir / "new").stat().st_ino]


def test_failing_sync_is_an_error(maildir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk does not take it, QUIT must not say that it did."""
    box = opened(maildir)

    def failing(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        box.delete([0])


def test_trash_keeps_the_mail_in_a_folder_made_for_it(maildir: Path) -> None:
    """A Maildir++ folder for its owner only; names keep their flags."""
    box = opened(maildir)
    assert box.delete([0, 1], trash=True) == []
    assert files(maildir) == [
        ".Trash/cur/1.a:2,",
        ".Trash/cur/2.b:2,S",
        ".Trash/maildirfolder",
        "cur/3 c:2,",
    ]
    assert (maildir / ".Trash/cur/1.a:2,").read_bytes() == BODY
    assert (maildir / ".Trash/tmp").is_dir()
    assert (maildir / ".Trash/new").is_dir()
    assert stat.S_IMODE((maildir / ".Trash").stat().st_mode) == 0o700


def test_trash_never_overwrites(maildir: Path) -> None:
    """A message of that name in the trash stays beside the new one."""
    (maildir / ".Trash/cur").mkdir(parents=True)
    (maildir / ".Trash/cur/1.a:2,").write_bytes(b"older\n")
    assert opened(maildir).delete([0], trash=True) == []
    kept = [file.read_bytes() for file in sorted((maildir / ".Trash/cur").iterdir())]
    assert sorted(kept) == sorted([b"older\n", BODY])


def test_trash_that_is_a_link_is_refused(maildir: Path, tmp_path: Path) -> None:
    """Mail is not moved to where a link points."""
    (tmp_path / "elsewhere/cur").mkdir(parents=True)
    (maildir / ".Trash").symlink_to(tmp_path / "elsewhere")
    before = files(maildir)
    with pytest.raises(OSError):
        opened(maildir).delete([0], trash=True)
    assert files(maildir) == before


def test_few_boxes_keep_their_folders_open(tmp_path: Path) -> None:
    """However many sessions read, a process holds the folders of the last 64 only."""
    for left in list(maildir_box._reading.values()):
        left.close()
    boxes = []
    before = descriptors()
    for number in range(80):
        folder = tmp_path / str(number)
        for name in ("new", "cur", "tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "new/1.a").write_bytes(b"x\n")
        boxes.append(opened(folder))
        boxes[-1].open(0)[0].close()
    assert len(descriptors() - before) == 64
    assert boxes[0].open(0)[0].read() == b"x\n"
    for box in boxes:
        box.close()
    assert descriptors() == before


def test_folder_made_anew_is_found(maildir: Path) -> None:
    """A folder that a restore replaced during the session is opened again."""
    box = opened(maildir)
    box.open(0)[0].close()
    (maildir / "new").rename(maildir / "old")
    shutil.copytree(maildir / "old", maildir / "new")
    shutil.rmtree(maildir / "old")
    stream, _ = box.open(0)
    assert stream.read() == (maildir / "new/1.a").read_bytes()
    box.close()
