"""Give the messages of a login the ids that --uidl asks for, and see that they keep them."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from netserver.errors import ConfigError
from pop3 import wire
from pop3.errors import TemporaryFailure
from pop3.journal import Entries, Journal
from pop3.message import LONGEST_UID, Listing, hashed
from pop3.uidl import foreign, headers, presets
from pop3.uidl.presets import Known, Preset

if TYPE_CHECKING:
    from pathlib import Path

    from pop3.server import POP3Server
    from pop3.session import Session

_VALID = re.compile(rb"[\x21-\x7e]{1,70}")
_BLOCK = 16 * 1024
_INTERNAL = b""  # found in place of an id: the message is no mail and is not shown
_NO_MAIL = b" "  # begins what is written down for it; programs write it anew, so there are several
_AT_ONCE = 64  # headers read before others have a turn


class ForeignIds:
    """The ids of --uidl for all maildrops of one server."""

    def __init__(self, server: "POP3Server[Any]", wanted: tuple[Preset, ...]) -> None:
        """Take what was asked for. Raises ConfigError if the source cannot serve it."""
        able = presets.OF_HEADERS | {presets.IMPORTED} | server.uidl_presets
        for one in wanted:
            if one.name not in able:
                known = ", ".join(sorted({presets.DEFAULT, *able}))
                raise ConfigError(
                    f"--uidl {one.name}: this source cannot do that; there are: {known}"
                )
        self._presets = wanted
        self._journal = Journal(server.state, server.state_directory)

    def announce(
        self, server: "POP3Server[Any]", session: "Session[Any]", listing: Listing
    ) -> Listing:
        """Return the listing with other ids, each written down before it is shown.

        Raises TemporaryFailure when they cannot be known: wrong ids would do harm for good.
        """
        run_blocking = session.connection.run_blocking
        maildrop = server.maildrop_name(session)
        names = [listing.name(index) for index in range(len(listing))]
        keys = _keys(names, listing)
        entries = run_blocking("disk", self._journal.read, maildrop)
        new = [index for index, key in enumerate(keys) if key not in entries.uids]
        if new:
            stamp, found = self._find(server, session, listing, new, entries)
            given = _given(listing, keys, new, found, entries)
            run_blocking("disk", self._journal.write, maildrop, given, stamp)
            entries.uids.update(given)
        run_blocking("disk", self._journal.note_gone, maildrop, entries, keys)
        announced = [entries.uids[key].encode("ascii") for key in keys]
        shown = Listing(announced, listing.sizes, names=names, trusted=True)
        no_mail = {uid for uid in announced if uid.startswith(_NO_MAIL)}
        return shown.without(no_mail) if no_mail else shown

    def _find(
        self,
        server: "POP3Server[Any]",
        session: "Session[Any]",
        listing: Listing,
        new: list[int],
        entries: Entries,
    ) -> tuple[str, dict[int, bytes]]:
        """Return the stamp of the id file, and the ids of new messages that a preset knows."""
        directory = server.uidl_directory(session)
        stamp = entries.stamp
        found: dict[int, bytes] = {}
        for preset in self._presets:
            left = [index for index in new if index not in found]
            path = None if directory is None else foreign.id_file(preset, directory)
            if path is not None and directory is not None:
                stamp = self._stamp(session, path)
                if stamp != entries.stamp:  # else all that it tells is written down
                    ids = self._read_file(session, preset, directory)
                    found.update(_by_name(listing, left, ids))
            elif preset.name in presets.OF_FILES:
                found.update(_by_number(server, session, listing, left, preset))
            elif preset.name in presets.OF_HEADERS:
                found.update(_by_header(server, session, listing, left, preset))
        return stamp, found

    def _stamp(self, session: "Session[Any]", path: "Path") -> str:
        return str(session.connection.run_blocking("disk", foreign.stamp, path))

    def _read_file(
        self, session: "Session[Any]", preset: Preset, directory: "Path"
    ) -> dict[bytes, bytes]:
        try:
            return session.connection.run_blocking("disk", foreign.read_ids, preset, directory)
        except foreign.BadIdFile as error:
            session.log.error(  # noqa: TRY400 - needs no traceback
                "id file not usable", path=str(foreign.id_file(preset, directory)), error=str(error)
            )
            raise TemporaryFailure("the ids of messages cannot be read") from error


def prepare(server: "POP3Server[Any]") -> ForeignIds | None:
    """Return what gives ids other than the source's own, None if nothing does.

    Raises ConfigError.
    """
    wanted = presets.parse(server.settings.uidl)
    if [one.name for one in wanted] == ["maildir-name"] and "maildir-name" in server.uidl_presets:
        return None  # those are its own
    return ForeignIds(server, wanted) if wanted else None


def _keys(names: list[str], listing: Listing) -> list[str]:
    """Return what the messages are written down by: the source's own ids, each once.

    One that comes twice, or that no database takes (NUL, half a surrogate pair), stands there as it
    would be announced without us.
    """
    seen: set[str] = set()
    keys = []
    for name, uid in zip(names, listing.uids, strict=True):
        keys.append(name if name not in seen and name.isprintable() else uid.decode("ascii"))
        seen.add(name)
    return keys


def _given(
    listing: Listing,
    keys: list[str],
    new: list[int],
    found: dict[int, bytes],
    entries: Entries,
) -> dict[str, str]:
    """Return the ids of new messages by the source's own, all different from those there are."""
    mail = [index for index in new if found.get(index) != _INTERNAL]
    uids = distinct(
        [found.get(index, listing.uids[index]) for index in mail],
        {uid.encode("ascii") for uid in entries.uids.values()},
    )
    given = {keys[index]: _no_mail(listing.uids[index]) for index in new}
    given.update((keys[index], uid.decode("ascii")) for index, uid in zip(mail, uids, strict=True))
    return given


def _no_mail(uid: bytes) -> str:
    """Return what is written down for a message that is no mail: no id, and like no other."""
    return (_NO_MAIL + uid).decode("ascii")


def _by_name(
    listing: Listing, indexes: Iterable[int], ids: dict[bytes, bytes]
) -> Iterator[tuple[int, bytes]]:
    """Find messages by their file names; the source has hashed those that POP3 cannot carry."""
    by_uid = {name if _VALID.fullmatch(name) else hashed(name): uid for name, uid in ids.items()}
    for index in indexes:
        if uid := by_uid.get(listing.uids[index]):
            yield index, uid


def _by_header(
    server: "POP3Server[Any]",
    session: "Session[Any]",
    listing: Listing,
    indexes: list[int],
    preset: Preset,
) -> Iterator[tuple[int, bytes]]:
    """Make the ids that the other server makes of headers."""
    for index, header in _headers(server, session, listing, indexes):
        match preset.name:
            case "md5":
                uid = headers.popa3d(header)
            case "message-id":
                uid = headers.first_field(header, b"message-id")
            case "x-uidl":
                uid = headers.first_field(header, b"x-uidl")
            case _:
                envelope = server.read_envelope(session, listing.message(index))
                uid = headers.qpopper(header, envelope, old=preset.name == "qpopper-old")
        if uid:
            yield index, uid


def _by_number(
    server: "POP3Server[Any]",
    session: "Session[Any]",
    listing: Listing,
    indexes: list[int],
    preset: Preset,
) -> Iterator[tuple[int, bytes]]:
    """Make the ids of c-client and Dovecot for an mbox, from the uids that are noted in it.

    Mail comes in with X-UID of somebody's making: only those count that grow and are not above the
    last one that the first message tells of.
    """
    base = highest = last = 0
    for _, header in _headers(server, session, listing, [0] if indexes else []):
        base, last = headers.imap_base(header) or (0, 0)
    by_number = not presets.variables(preset.format).isdisjoint("uv")
    for index, header in _headers(server, session, listing, indexes):
        if index == 0 and headers.is_internal(header):
            yield index, _INTERNAL
            continue
        number = headers.imap_uid(header) or 0
        if by_number and not highest < number <= last:
            continue
        highest = max(highest, number)
        md5 = headers.dovecot_md5(header)
        if uid := presets.fill(preset.format, Known(number, base, guid=md5, md5=md5)):
            yield index, uid


def _headers(
    server: "POP3Server[Any]", session: "Session[Any]", listing: Listing, indexes: list[int]
) -> Iterator[tuple[int, bytes]]:
    """Read the headers of messages; others have a turn now and then."""
    for count, index in enumerate(indexes, 1):
        if count % _AT_ONCE == 0:
            session.connection.pause(0)
        stream = server.read_top(session, listing.message(index), 0)
        try:
            yield index, headers.header_of(wire.read_blocks(stream, _BLOCK))
        finally:
            stream.close()


def distinct(wanted: list[bytes], taken: set[bytes]) -> list[bytes]:
    """Make ids that RFC 1939 §7 allows and that differ from each other and from those taken.

    What cannot be announced becomes a hash. Of equal ones the first keeps its id and the others get
    ".2", ".3" … at their end.
    """
    valid = [uid if _VALID.fullmatch(uid) else hashed(uid) for uid in wanted]
    # an id that comes by itself is not pushed away by one that needs a suffix
    reserved = set(valid)
    used = set(taken)
    counts: dict[bytes, int] = {}
    given = []
    for uid in valid:
        other = uid
        count = counts.get(uid, 1)
        while other in used or (count > 1 and other in reserved):
            count += 1
            other = _with_suffix(uid, count)
        counts[uid] = count
        used.add(other)
        given.append(other)
    return given


def _with_suffix(uid: bytes, count: int) -> bytes:
    other = b"%b.%d" % (uid, count)
    return other if len(other) <= LONGEST_UID else hashed(other)
