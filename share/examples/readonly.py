"""The same greeting for everybody: the three methods a source needs."""

import sys
from collections.abc import Iterable
from io import BytesIO
from typing import BinaryIO

from pop3 import Message, POP3Server, Session

WELCOME = b"From: postmaster@localhost\nSubject: welcome\n\nYour mailbox works.\n"


class POP3Welcome(POP3Server[None]):
    """One message; who deletes it does not see it again."""

    def open_box(self, session: Session[None]) -> None:
        """Open nothing: there is one message for all."""

    def list_messages(self, session: Session[None]) -> Iterable[Message]:  # noqa: ARG002
        """List the one message; its id never changes, since its text never does."""
        return [Message(uid="welcome-1")]

    def read_message(self, session: Session[None], message: Message) -> BinaryIO:  # noqa: ARG002
        """Open it; any line ends will do."""
        return BytesIO(WELCOME)


if __name__ == "__main__":
    sys.exit(POP3Welcome.main())
