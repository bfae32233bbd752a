"""Dialogues over files, and calls of the source, as the tests of Mail::POP3 had them; written anew.

A dialogue has what the client says (C:) and the whole answer (S:), octet by octet but for CRLF. Its
head says in which mailbox, with which options, and what is in the mailbox afterwards.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from netserver import embed
from pop3.message import Listing
from pop3.session import Session
from pop3.sources.mbox import MboxSettings, POP3Mbox
from tests.pop3.fakes import FakeConnection
from tests.support.servers import write_users

HERE = Path(__file__).parent
DIALOGUES = sorted(HERE.glob("*.dialogue"))


class Dialogue(NamedTuple):
    """One file, read."""

    options: dict[str, str]
    said: bytes
    expected: bytes


def read(path: Path) -> Dialogue:
    """Take a file apart; nothing but the three kinds of lines may stand in it."""
    options: dict[str, str] = {}
    lines: dict[bytes, list[bytes]] = {b"C:": [], b"S:": []}
    title, *rest = path.read_bytes().splitlines()
    assert title.startswith(b"# ")
    for line in rest:
        if line.startswith(b"# "):
            key, _, value = line[2:].decode("ascii").partition(": ")
            options[key] = value
        else:
            lines[line[:2]].append(line[3:])
    return Dialogue(options, b"\n".join(lines[b"C:"]) + b"\n", b"\r\n".join(lines[b"S:"]))


def server_of(directory: Path, mail: Path, **options: Any) -> POP3Mbox:
    """Return a server for that box alone."""
    users = write_users(directory / "users", {"anna": "secret"})
    settings = MboxSettings(
        mbox=str(mail),
        auth=(f"passwd-file:{users}",),
        state=f"sqlite:///{directory}/state/state.sqlite",
        auth_failure_delay=0.0,
        log_file=str(directory / "log"),
        **options,
    )
    return POP3Mbox(settings)


def answers(path: Path, directory: Path) -> tuple[bytes, bytes]:
    """Hold a dialogue over two files; return all that was answered, and the mailbox left."""
    dialogue = read(path)
    options = dict(dialogue.options)
    options.pop("left")
    mail = directory / "box"
    shutil.copyfile(HERE / options.pop("mail"), mail)
    asked, answered = directory / "in", directory / "out"
    asked.write_bytes(dialogue.said)
    with (
        server_of(directory, mail, **options) as server,
        asked.open("rb") as reader,
        answered.open("wb") as writer,
    ):
        server.serve(reader, writer, peer="127.0.0.1")
    return answered.read_bytes(), mail.read_bytes()


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: str(path.stem))
def test_dialogue(path: Path, tmp_path: Path) -> None:
    """The answers are these and no others, and so is the mailbox afterwards."""
    answered, left = answers(path, tmp_path)
    expected = read(path)
    assert answered.split(b"\r\n") == [*expected.expected.split(b"\r\n"), b""]
    assert left == (HERE / expected.options["left"]).read_bytes()


class Calls:
    """A session on the source, without a dialogue: the folder calls of Mail::POP3."""

    def __init__(self, server: POP3Mbox) -> None:
        embed.begin(server)
        connection: Any = FakeConnection(b"")
        self.server = server
        self.session: Session[Any] = Session(connection)
        self.session.user = "anna"
        self.session.box = server.open_box(self.session)
        self.listing = Listing.of(server.list_messages(self.session))

    def retrieve(self, number: int) -> bytes:
        """Return a message as it is stored."""
        message = self.listing.message(number - 1)
        with self.server.read_message(self.session, message) as stream:
            return stream.read()

    def flush_delete(self, *numbers: int) -> None:
        """Delete for good."""
        messages = [self.listing.message(number - 1) for number in numbers]
        self.server.delete_messages(self.session, messages)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Calls]:
    """Open a copy of the inbox."""
    shutil.copyfile(HERE / "inbox.mbox", tmp_path / "box")
    with server_of(tmp_path, tmp_path / "box") as server:
        calls = Calls(server)
        yield calls
        server.close_box(calls.session)


def test_folder_messages_and_octets(folder: Calls) -> None:
    """`messages` and `octets`: how many there are, and as long as they are sent."""
    assert len(folder.listing) == 4
    stored = [folder.retrieve(number) for number in range(1, 5)]
    assert list(folder.listing.sizes) == [len(text.replace(b"\n", b"\r\n")) for text in stored]


def test_folder_retrieve(folder: Calls) -> None:
    """`retrieve`: the message without its "From " line and without the blank line behind it."""
    assert folder.retrieve(4) == b"Subject: no body\n"
    assert folder.retrieve(1).startswith(b"From: anna@example.org\n")
    assert folder.retrieve(2).endswith(b"\n.\n..\n.dot\nnot.a.dot\n>From the start of a line\n")


def test_folder_uidl_list(folder: Calls) -> None:
    """`uidl_list`: another id for each, the same ones at the next opening."""
    uids = list(folder.listing.uids)
    assert len(set(uids)) == 4
    assert list(Calls(folder.server).listing.uids) == uids


def test_folder_flush_delete(folder: Calls, tmp_path: Path) -> None:
    """`flush_delete`: what was marked is gone, the "From " lines of the others are as before."""
    folder.flush_delete(2, 4)
    assert (tmp_path / "box").read_bytes() == (HERE / "inbox-1-3.mbox").read_bytes()


def test_folder_lock(folder: Calls, tmp_path: Path) -> None:
    """`lock_acquire`, `lock_release`: nothing of a lock is left beside the box."""
    folder.flush_delete(1)
    assert not (tmp_path / "box.lock").exists()


if __name__ == "__main__":  # write the answers of today into the dialogues: look at the difference
    import sys
    import tempfile

    for one in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as room:
            replies, _ = answers(one, Path(room))
        kept = [line for line in one.read_bytes().splitlines() if not line.startswith(b"S:")]
        new = [b"S: " + line for line in replies.removesuffix(b"\r\n").split(b"\r\n")]
        one.write_bytes(b"\n".join([*kept, *new, b""]))
