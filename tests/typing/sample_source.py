"""A source as a user writes it: a type checker must follow every type in it."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from pop3 import (
    AuthFailed,
    Listing,
    Message,
    POP3Server,
    POP3Settings,
    Session,
    TemporaryFailure,
    compose,
    option,
)


@dataclass(frozen=True)
class TopicSettings(POP3Settings):
    """One option of its own."""

    topics: int = option(3, metavar="N", help="how many topics there are")


@dataclass
class Topics:
    """What one login holds."""

    names: dict[str, str]


class POP3Topics(POP3Server[Topics]):
    """Uses all that a source may use."""

    settings_class = TopicSettings
    settings: TopicSettings
    authenticates_upstream = True
    delete_policies = frozenset({"expunge", "trash"})

    def open_box(self, session: Session[Topics]) -> Topics:
        """See the secret, the name and its parts."""
        if session.secret is None or not session.secret.equals(b"open"):
            raise AuthFailed
        if session.login is not None and session.login.domain == "closed.example":
            raise TemporaryFailure("closed for now")
        session.log.info("opened", user=session.user.lower())
        directory = self.path("/srv/{domain}/{localpart}", session)
        return Topics({f"t{n}": directory.name for n in range(self.settings.topics)})

    def list_messages(self, session: Session[Topics]) -> Listing:
        """Return columns."""
        uids = [name.encode() for name in session.box.names]
        return Listing(uids=uids, sizes=array("q", [100] * len(uids)), trusted=True)

    def read_message(self, session: Session[Topics], message: Message) -> BinaryIO:
        """Return a stream."""
        text = session.box.names[message.uid]
        if message.size is not None and message.size > 1000:
            return BytesIO(text.encode())
        return compose(subject=text, sender="a@b.c", date=0, text=text)

    def delete_messages(self, session: Session[Topics], messages: Sequence[Message]) -> None:
        """Run something that waits."""
        for message in messages:
            session.connection.run_blocking("disk", session.box.names.pop, message.uid)

    def close_box(self, session: Session[Topics]) -> None:
        """Close nothing."""
        session.box.names.clear()
