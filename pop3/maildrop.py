"""The messages of one login: their numbers, the marks of DELE, the totals (RFC 1939 §5)."""

from array import array

from pop3 import wire
from pop3.errors import CommandError
from pop3.message import Listing, Message


class Maildrop:
    """A listing that stays as it was at login, and the marks set on it.

    Clients count from 1; `index` is counted from 0 here and in the listing. A marked message is in
    no reply until RSET. `added` octets stand before each message as sent, beside what its source
    says (see `pop3.received`).
    """

    __slots__ = ("_marked_octets", "added", "deleted", "listing")

    def __init__(self, listing: Listing) -> None:
        """Start with no marks."""
        self.listing = listing
        self.deleted: set[int] = set()
        self._marked_octets = 0
        self.added = 0

    def number(self, argument: bytes) -> int:
        """Find the message a client names; returns its index or raises CommandError."""
        number = wire.parse_number(argument)
        if not 0 < number <= len(self.listing):
            raise CommandError("no such message")
        if number - 1 in self.deleted:
            raise CommandError("message is deleted")
        return number - 1

    def delete(self, index: int) -> None:
        """Mark a message that is not marked yet; its size must be known or is taken as nothing."""
        self.deleted.add(index)
        self._marked_octets += max(self.listing.sizes[index], 0)

    def undelete_all(self) -> None:
        """Take all marks away (RSET)."""
        self.deleted.clear()
        self._marked_octets = 0

    def stat(self) -> tuple[int, int]:
        """Count the messages and their octets, marked ones left out."""
        listing = self.listing
        count = len(listing) - len(self.deleted)
        return count, listing.total - self._marked_octets + count * self.added

    def size(self, index: int) -> int:
        """Return the octets of a message as sent; the source must have said its size."""
        return self.listing.sizes[index] + self.added

    def set_size(self, index: int, octets: int) -> None:
        """Note the size of a message that was not known."""
        self.listing.set_size(index, octets)
        if index in self.deleted:
            self._marked_octets += octets

    def unknown(self) -> list[int]:
        """Return the messages, marked ones left out, whose size is not known."""
        return [index for index in self.listing.unknown() if index not in self.deleted]

    def deleted_messages(self) -> list[Message]:
        """Return what QUIT shall delete, in the order of numbers."""
        return [self.listing.message(index) for index in sorted(self.deleted)]

    def scan_listing(self) -> bytes:
        """Return the lines of LIST, all at once."""
        sizes = self.listing.sizes
        if self.added:
            sizes = array("q", [size + self.added for size in sizes])
        return self._lines(b"%d %d\r\n", sizes)

    def unique_ids(self) -> bytes:
        """Return the lines of UIDL, all at once."""
        return self._lines(b"%d %b\r\n", self.listing.uids)

    def _lines(self, form: bytes, column: "list[bytes] | array[int]") -> bytes:
        # 0.16 µs a line, the quickest of eight ways tried
        if not self.deleted:
            return b"".join([form % line for line in enumerate(column, 1)])
        gone = self.deleted
        return b"".join([form % line for line in enumerate(column, 1) if line[0] - 1 not in gone])
