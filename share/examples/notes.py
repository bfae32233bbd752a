"""Serve each user's directory of text files as mail."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pop3 import Message, POP3Server, POP3Settings, Session, compose, option


@dataclass(frozen=True)
class NotesSettings(POP3Settings):
    """Adds `--notes`."""

    notes: str = option("~/notes/{user}", help="directory of .txt files")


class POP3Notes(POP3Server[Path]):
    """A file is a message; deleting the message deletes the file."""

    settings_class = NotesSettings
    settings: NotesSettings

    def open_box(self, session: Session[Path]) -> Path:
        """Find the user's directory: the pattern is filled in, safe against traversal."""
        return self.path(self.settings.notes, session)

    def list_messages(self, session: Session[Path]) -> Iterable[Message]:
        """Name the files in order; the server finds their sizes."""
        return [Message(uid=note.name) for note in sorted(session.box.glob("*.txt"))]

    def read_message(self, session: Session[Path], message: Message) -> BinaryIO:
        """Make a mail message of a file."""
        note = session.box / message.uid
        return compose(
            subject=note.stem,
            sender="notes@localhost",
            date=note.stat().st_mtime,
            text=note.read_text(),
        )

    def delete_messages(self, session: Session[Path], messages: Sequence[Message]) -> None:
        """Delete files; one that is gone already is fine."""
        for message in messages:
            (session.box / message.uid).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(POP3Notes.main())
