"""What a source of mail writes, and what it may write; the rest is the server's."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar, Generic, final

from netserver.reach import Reach
from pop3 import paths
from pop3.errors import PermanentFailure
from pop3.lock import lock_file
from pop3.message import Listing, Message
from pop3.session import BoxT, Session


class Source(ABC, Generic[BoxT]):
    """Where the mail is: the part of a POP3Server that differs from source to source."""

    state_directory: Path
    delete_policy: str

    authenticates_upstream: ClassVar[bool] = False
    """True: `open_box` checks `session.secret` and raises AuthFailed; nobody else is asked."""

    strict_login_names: ClassVar[bool] = True
    """False: the local part of a name may be any text without controls (search terms)."""

    delete_policies: ClassVar[frozenset[str]] = frozenset({"expunge"})
    """What `delete_messages` can do: "expunge", "trash"; `self.delete_policy` says what to do."""

    keeps_mail: ClassVar[bool] = False
    """True: the mail is in the state, which those who serve must be able to write."""

    uidl_presets: ClassVar[frozenset[str]] = frozenset()
    """What --uidl can be for this source, besides the presets that need headers only."""

    @abstractmethod
    def open_box(self, session: Session[BoxT]) -> BoxT:
        """Open the user's mail; what is returned becomes `session.box`.

        Called once per login, with the maildrop locked and the user authenticated (but see
        `authenticates_upstream`). May raise POP3Error, OSError.
        """

    @abstractmethod
    def list_messages(self, session: Session[BoxT]) -> Iterable[Message] | Listing:
        """Return all messages in the order of their numbers: once per login, after `open_box`.

        A Listing spares an object for each message. A uid is never given to another message.
        """

    @abstractmethod
    def read_message(self, session: Session[BoxT], message: Message) -> BinaryIO:
        """Open one message, with any line ends; the server closes it.

        Raises FileNotFoundError for one that is gone; any OSError or POP3Error becomes an -ERR.
        """

    def delete_messages(self, session: Session[BoxT], messages: Sequence[Message]) -> None:
        """Delete, durably: called on QUIT, at most once per login, with at least one message.

        Raises TemporaryFailure ("2 of 3 messages not deleted") or PermanentFailure if it could not
        delete all; the client gets that text. A message that is gone already counts as deleted.
        """
        del session, messages
        raise PermanentFailure("this mailbox is read-only")

    def close_box(self, session: Session[BoxT]) -> None:
        """Close the user's mail: called once if `open_box` returned, however the session ends."""

    def read_top(self, session: Session[BoxT], message: Message, lines: int) -> BinaryIO:
        """Open a message of which only the header and some lines of the body are needed."""
        del lines
        return self.read_message(session, message)

    def apop_secret(self, session: Session[BoxT]) -> str | None:
        """Return the password of `session.user` for APOP, None if there is none."""
        del session
        return None

    def valid_user(self, user: str) -> bool:
        """Refuse names that this source cannot serve, right password or not."""
        del user
        return True

    def maildrop_name(self, session: Session[BoxT]) -> str:
        """Name the maildrop, for its lock and in the state: one name where users share one."""
        return f"{type(self).__name__}/{session.user}"

    def uidl_directory(self, session: Session[BoxT]) -> Path | None:
        """Return where another server has left its list of ids; None: in the messages' headers."""
        del session
        return None

    def read_envelope(self, session: Session[BoxT], message: Message) -> bytes:
        """Return the "From " line before a message, for --uidl qpopper; b"" if there is none."""
        del session, message
        return b""

    def lock_path(self, session: Session[BoxT]) -> Path | None:
        """Name the lock file of the maildrop; None: any number of sessions at once."""
        return lock_file(self.state_directory, self.maildrop_name(session))

    @final
    def path(self, pattern: str, session: Session[BoxT]) -> Path:
        """Fill the user into a pattern such as "~/notes/{user}"; safe against traversal.

        Raises PermanentFailure when the name or the home directory does not allow that.
        """
        domain = None if session.login is None else session.login.domain
        return paths.fill(pattern, user=session.user, domain=domain, home=session.home)

    def delete_policy_for(self, session: Session[BoxT]) -> str:
        """Return what QUIT does with what this session has deleted."""
        del session
        return self.delete_policy

    # -- for the operator ----------------------------------------------------------------------

    def mail_reach(self) -> Reach | None:
        """Return what this source needs of the file system and the network; None: nobody knows.

        A class that tells is shut in by `--sandbox`.
        """
        return None

    def mailbox_path(self, session: Session[BoxT]) -> Path | None:
        """Return where the user's mail lies, for the operator; None where there is no such place.

        Of the session only the user is known, as in `recover_maildrop`. Raises POP3Error.
        """
        del session
        return None

    def recover_maildrop(self, session: Session[BoxT]) -> str:
        """Finish what a crash has interrupted in a maildrop; tell the operator what was done.

        Raises POP3Error, OSError.
        """
        del session
        return "nothing to recover: this source leaves nothing half done"
