"""Ids that other servers make of a message's header, each exactly as that server does it."""

import hashlib
import re
from collections.abc import Iterator

LONGEST = 256 * 1024
"""Octets of a header that are looked at."""

_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:(.*(?:\n[ \t].*)*)", re.MULTILINE)
_IMAP_BASE = re.compile(
    rb"^X-IMAP(?:base)?[ \t]*:[ \t]*([0-9]{1,10})[ \t]+([0-9]{1,10})", re.IGNORECASE | re.MULTILINE
)
_INTERNAL = re.compile(
    rb"^Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA", re.MULTILINE
)
_UID = re.compile(rb"^X-UID[ \t]*:[ \t]*([0-9]{1,10})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_BLANK = re.compile(rb"^\r?\n", re.MULTILINE)
_QPOPPER_FIELDS = (b"received:", b"date:", b"message-id:", b"subject:")
_QPOPPER_LONGEST = 72  # octets of an X-UIDL header that Qpopper believes, line end included
_BASE = 80


def header_of(blocks: Iterator[bytes]) -> bytes:
    """Return the header of a message in blocks, without the blank line; of a long one its begin."""
    data = b""
    for block in blocks:
        data += block
        if blank := _BLANK.search(data):
            return data[: blank.start()]
        if len(data) >= LONGEST:
            break
    return data


def first_field(header: bytes, name: bytes) -> bytes:
    """Return the first word of a field, b"" if there is none; the name is in small letters."""
    for found in _FIELD.finditer(header):
        if found[1].lower() == name:
            words = found[2].split()
            return words[0] if words else b""
    return b""


def imap_base(header: bytes) -> tuple[int, int] | None:
    """Return uidvalidity and the last uid, as c-client and Dovecot note them in the first message.

    The field is X-IMAPbase, or X-IMAP in a message that is no mail.
    """
    found = _IMAP_BASE.search(header)
    return (int(found[1]), int(found[2])) if found else None


def is_internal(header: bytes) -> bool:
    """Tell c-client's first message, which is no mail: it holds X-IMAP and is shown to nobody."""
    return bool(_INTERNAL.search(header)) and imap_base(header) is not None


def imap_uid(header: bytes) -> int | None:
    """Return the uid of X-UID."""
    found = _UID.search(header)
    return int(found[1]) if found else None


def popa3d(header: bytes) -> bytes:
    """Return popa3d's id: 8 octets of the MD5 of what does not change in a header.

    That is the first Received field; Date and Message-ID as far as they stand before it; each
    Delivered-To and X-Delivery-ID: whole lines with their ends, continued lines too.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for line, _ in _popa3d_lines(header):
        digest.update(line)
    raw = digest.digest()
    return (raw[3::-1] + raw[7:3:-1]).hex().encode("ascii")


def dovecot_md5(header: bytes) -> bytes:
    """Return what Dovecot has for %m and %g of a message in an mbox: as popa3d, of values only."""
    digest = hashlib.md5(usedforsecurity=False)
    for line, continued in _popa3d_lines(header, any_case=True):
        value = line if continued else line.partition(b":")[2].lstrip(b" \t")
        digest.update(value.removesuffix(b"\n").removesuffix(b"\r"))
    return digest.hexdigest().encode("ascii")


def _popa3d_lines(header: bytes, *, any_case: bool = False) -> Iterator[tuple[bytes, bool]]:
    """Yield the lines that count, and whether each continues the one before."""
    counts = received = False
    for line in _lf_lines(header):
        if line[:1] in (b" ", b"\t"):
            if counts:
                yield line, True
            continue
        low = line[:14].lower()
        if low.startswith(b"received:"):
            counts, received = not received, True
        elif low.startswith((b"date:", b"message-id:")):
            counts = not received
        elif low.startswith(b"x-delivery-id:"):
            counts = any_case or line.startswith(b"X")
        else:
            counts = low.startswith(b"delivered-to:")
        if counts:
            yield line, False


def _lf_lines(header: bytes) -> list[bytes]:
    return [line for line in re.split(rb"(?<=\n)", header) if line]


def qpopper(header: bytes, envelope: bytes, *, old: bool = False) -> bytes:
    """Return Qpopper's id: X-UIDL if it fits, else made of the MD5 of the "From " line and fields.

    These are the first lines of Received, Date, Message-Id and Subject, Content-Length not. Before
    version 3 it was in hex. A Qpopper that writes into the mailbox has left X-UIDL there.
    """
    digest = hashlib.md5(envelope, usedforsecurity=False)
    for line in _lf_lines(header):
        low = line[:12].lower()
        if low.startswith(b"x-uidl:"):
            value = line[7:].lstrip(b" \t")
            if 1 < len(value) <= _QPOPPER_LONGEST and value.strip():
                return value.strip()
        elif low.startswith(_QPOPPER_FIELDS):
            digest.update(line)
    if old:
        return digest.hexdigest().encode("ascii")
    digest.update(envelope)
    return _base80(digest.digest())


def _base80(raw: bytes) -> bytes:
    """Write 16 octets as Qpopper does: 5 digits for 4 octets, which overlap by half."""
    digits = bytearray()
    for at in range(0, len(raw), 4):
        value = 0
        for octet in raw[at : at + 4]:
            value = (value << 4) + octet
        for _ in range(5):
            value, digit = divmod(value, _BASE)
            digits.append(0x21 + digit)
    return bytes(digits).replace(b".", b"~")
