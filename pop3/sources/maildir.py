"""Serve maildirs: one file per message in new/ and cur/, delivered by other programs at any time.

Mail is never rewritten, and neither lock nor index lies in it. A message is known by its file name
up to ":", as the maildir format has it, so others may move and flag it during a session.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, ClassVar

from netserver.options import option
from netserver.reach import Reach
from pop3.errors import TemporaryFailure
from pop3.message import UNKNOWN, Listing, Message
from pop3.paths import fixed_part, path_pattern
from pop3.server import POP3Server
from pop3.session import Session
from pop3.settings import POP3Settings
from pop3.sources import maildir_qmail
from pop3.sources.maildir_box import MaildirBox, MessageGone
from pop3.sources.maildir_index import MaildirIndex, amend, index_path, load, save
from pop3.sources.maildir_scan import FOLDERS, is_current, refresh, stated_size
from pop3.wire import BLOCK

_SMALL = 200  # messages of an index that is kept in memory
_REMEMBERED = 1000  # indexes kept, of about 2 KiB each
_known: dict[bytes, MaildirIndex] = {}  # by the maildir's path
_warned: set[str] = set()  # index directories that could not be written


@dataclass(frozen=True)
class MaildirSettings(POP3Settings):
    """The options of the maildir source."""

    maildir: str = option(
        "~/Maildir",
        kind=path_pattern,
        metavar="PATTERN",
        group="mail",
        help="where a user's mail is; ~ or {home} is the home directory, and {user} {localpart} "
        "{domain} {initial} are filled in",
    )
    maildir_from_qmail: bool = option(
        False,
        group="mail",
        help="where ~/.qmail names a maildir, mail is there instead of in --maildir",
    )
    trust_maildir_sizes: bool = option(
        False,
        group="mail",
        help="believe W= in file names instead of reading a message once for its exact size",
    )


class POP3Maildir(POP3Server[MaildirBox]):
    """A POP3 server for maildirs."""

    settings: MaildirSettings
    settings_class = MaildirSettings
    delete_policies: ClassVar[frozenset[str]] = frozenset({"expunge", "trash"})
    uidl_presets: ClassVar[frozenset[str]] = frozenset(
        {"maildir-name", "dovecot", "courier", "cyrus"}
    )

    def maildrop_name(self, session: Session[MaildirBox]) -> str:
        """Name the maildrop by its place: two login names may lead to one maildir."""
        return f"maildir{self._place(session)}"

    def mailbox_path(self, session: Session[MaildirBox]) -> Path:
        """Return the path of the maildir."""
        return self._place(session)

    def uidl_directory(self, session: Session[MaildirBox]) -> Path | None:
        """Return the maildir: Dovecot and Courier keep their lists in it."""
        return self._place(session)

    def mail_reach(self) -> Reach | None:
        """Return the mail root, unless it is another for each user."""
        pattern = self.settings.maildir
        if self.settings.maildir_from_qmail or "{home}" in pattern or pattern.startswith("~"):
            return None
        return Reach(write=(str(fixed_part(self.settings.maildir)),))

    def open_box(self, session: Session[MaildirBox]) -> MaildirBox:
        """Name the user's maildir; whether it is there shows when it is listed."""
        return MaildirBox(os.fspath(self._place(session)))

    def list_messages(self, session: Session[MaildirBox]) -> Listing:
        """List new/ and cur/ in the order of arrival, with exact sizes."""
        box = session.box
        with _store(session, box):
            index = _known.get(box.root)
            if index is None or not self._is_usable(index, box):
                index = load(self._index_path(box))
                if index is None or not self._is_usable(index, box):
                    index = self._refresh(session, box, index)
                _remember(box, index)
        box.show(index)
        return Listing(box.uids, box.sizes, trusted=True)

    def read_message(self, session: Session[MaildirBox], message: Message) -> BinaryIO:
        """Open one message, under the name it has now.

        Raises TemporaryFailure if it is gone, or is not as long as LIST said.
        """
        box = session.box
        position = box.position(message.uid.encode("ascii"))
        with _store(session, box):
            try:
                if box.sizes[position] > BLOCK:  # it may have to be counted again: that takes time
                    stream, octets = session.connection.run_blocking(
                        "disk", box.open_long, position
                    )
                else:
                    stream, octets = box.open(position)
            except MessageGone:
                raise TemporaryFailure(
                    "message is gone; it was removed by another program"
                ) from None
        if octets != box.sizes[position]:
            try:
                self._correct(session, position, octets)
            except TemporaryFailure:
                stream.close()
                raise
        return stream

    def delete_messages(self, session: Session[MaildirBox], messages: Sequence[Message]) -> None:
        """Unlink the files, or move them to the trash folder; on disk when this returns."""
        box = session.box
        positions = [box.position(message.uid.encode("ascii")) for message in messages]
        trash = self.delete_policy == "trash"
        with _store(session, box):
            failures = session.connection.run_blocking(
                "disk", partial(box.delete, positions, trash=trash)
            )
        if failures:
            reasons = sorted({str(error) for error in failures})
            session.log.error("messages not deleted", count=len(failures), reasons=reasons[:3])
            raise TemporaryFailure(f"{len(failures)} of {len(messages)} messages not deleted")

    def close_box(self, session: Session[MaildirBox]) -> None:
        """Close what stayed open to read messages."""
        session.box.close()

    def _place(self, session: Session[MaildirBox]) -> Path:
        """Return where the user's maildir is."""
        if self.settings.maildir_from_qmail:
            if session.box_is_open:  # the file may say something else by now
                return Path(os.fsdecode(session.box.root))
            if (named := maildir_qmail.maildir_of(session)) is not None:
                return named
        return self.path(self.settings.maildir, session)

    def _index_path(self, box: MaildirBox) -> str:
        return index_path(f"{self.state_directory}/index", box.root)

    def _is_usable(self, index: MaildirIndex, box: MaildirBox) -> bool:
        """Tell whether an index holds the list as it is now."""
        doubted = index.believed and not self.settings.trust_maildir_sizes
        return not doubted and is_current(index, box.root)

    def _refresh(
        self, session: Session[MaildirBox], box: MaildirBox, old: MaildirIndex | None
    ) -> MaildirIndex:
        """Scan the maildir and save what was found, if it is new."""
        trust = self.settings.trust_maildir_sizes
        scan = partial(refresh, box.root, old or MaildirIndex(), trust_names=trust)
        index = session.connection.run_blocking("disk", scan)
        if index.skipped:
            session.log.warning(
                "messages not readable", count=len(index.skipped), first=index.skipped[0]
            )
        if not any(os.path.lexists(box.root + b"/" + folder) for folder in FOLDERS):
            self._check_mail_root(session, box, had_mail=bool(old and old.uids))
        elif index != (old or MaildirIndex()):
            self._save(session, index, self._index_path(box))
        return index

    def _check_mail_root(
        self, session: Session[MaildirBox], box: MaildirBox, *, had_mail: bool
    ) -> None:
        """Tell a user without a mailbox from a file system that is not mounted.

        The mail root must be there, no link on the way may point nowhere, and a maildir that had
        mail does not lose new/ and cur/ and stay itself.
        """
        found = os.fsdecode(box.root)
        while not os.path.lexists(found):
            found = os.path.dirname(found)
        emptied = had_mail and os.fsencode(found) == box.root
        root = fixed_part(self.settings.maildir, session.home)
        if emptied or not os.path.isdir(found) or not os.path.isdir(root):
            session.log.error("mail store is not there", root=str(root), found=found)
            raise TemporaryFailure("mail store is not there")

    def _correct(self, session: Session[MaildirBox], position: int, octets: int) -> None:
        """Put a size right for the next login: one from a name is sent as it is, others are not."""
        box = session.box
        uid, said = box.uids[position], box.sizes[position]
        _known.pop(box.root, None)
        session.log.warning("size was wrong", uid=uid.decode("ascii"), said=said, found=octets)
        stated = self.settings.trust_maildir_sizes and stated_size(uid) == said
        believed = stated and octets != UNKNOWN
        try:
            amend(self._index_path(box), uid, octets if believed else None)
        except OSError as error:
            _warn_once(session, self._index_path(box), error)
        if not believed:
            raise TemporaryFailure("message was changed by another program; log in again")

    def _save(self, session: Session[MaildirBox], index: MaildirIndex, path: str) -> None:
        try:
            save(index, path)
        except OSError as error:
            _warn_once(session, path, error)


def _remember(box: MaildirBox, index: MaildirIndex) -> None:
    """Keep a small index: checking it against the directories costs less than reading it."""
    _known.pop(box.root, None)
    if len(index) <= _SMALL:
        _known[box.root] = index
        if len(_known) > _REMEMBERED:
            del _known[next(iter(_known))]


@contextmanager
def _store(session: Session[MaildirBox], box: MaildirBox) -> Iterator[None]:
    """Turn an error of the file system into an answer that tells a stranger nothing."""
    try:
        yield
    except OSError as error:
        session.log.error(  # noqa: TRY400 - a store's error needs no traceback
            "mail store failed", path=os.fsdecode(box.root), error=str(error)
        )
        raise TemporaryFailure("mail store cannot be read") from error


def _warn_once(session: Session[MaildirBox], path: str, error: OSError) -> None:
    """Say once that the index cannot be written: that costs time and nothing else."""
    directory = os.path.dirname(path)
    if directory not in _warned:
        _warned.add(directory)
        session.log.warning("index not writable", path=path, error=str(error))
