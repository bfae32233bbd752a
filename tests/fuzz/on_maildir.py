"""The index file of a maildir."""

import os
import struct
import zlib
from functools import cache
from pathlib import Path

from pop3.sources import maildir_index
from pop3.sources.maildir_index import MaildirIndex
from pop3.sources.maildir_scan import refresh
from tests.fuzz.scratch import scratch
from tests.fuzz.target import target
from tests.support.maildirs import make_maildir, with_crlf

MESSAGES = (b"A: b\n\none\n", b"A: c\n\n.\ntwo", b"")


@cache
def _maildir() -> tuple[bytes, str, MaildirIndex, bytes]:
    """Return a maildir, its index file, the right index and the octets that are on disk of it."""
    directory = scratch("maildir")
    root = make_maildir(directory / "box", MESSAGES)
    index = refresh(os.fsencode(root), MaildirIndex())
    index.large = {1: (7, 8, 9)}
    path = str(directory / "index")
    maildir_index.save(index, path)
    return os.fsencode(root), path, index, Path(path).read_bytes()


def changed(original: bytes, script: bytes) -> bytes:
    """Change octets of a file: three octets of the script are a place (two) and a value."""
    octets = bytearray(original)
    for i in range(0, len(script) - 2, 3):
        at = (script[i] << 8 | script[i + 1]) % (len(octets) + 1)
        if at == len(octets):
            octets.append(script[i + 2])
        elif script[i] & 0x80:
            del octets[at : at + script[i + 2]]
        else:
            octets[at] = script[i + 2]
    return bytes(octets)


@target(
    "maildir-index",
    seeds=(
        b"\0",
        b"\0\0\x05\1",
        b"\1\0\x18\2",
        b"\1\0\x14\xff\0\x1c\xff",
        b"\2POP3mdx\1",
        b"\1\x80\x60\x08",
    ),
    words=(b"\1\0", b"\0\x0c", b"POP3mdx\1"),
)
def index_file(data: bytes) -> None:
    """A damaged index is no index, one with a right sum is whole; the mail is found anyway."""
    mode, script = data[:1], data[1:]
    root, path, right, original = _maildir()
    kind = mode[0] % 3 if mode else 0
    octets = script if kind == 2 else changed(original, script)
    if kind:
        octets = octets[:8] + struct.pack("=I", zlib.crc32(octets[12:])) + octets[12:]
    Path(path).write_bytes(octets)
    found = maildir_index.load(path)
    if found is None:
        if kind == 0:
            assert octets != original
        return
    assert len(found.uids) == len(found.sizes) == len(found.inodes)
    assert len(maildir_index.split(found.places, len(found))) == len(found)
    if kind == 0:
        assert found == right
        again = refresh(root, found)
        assert list(again.sizes) == [len(with_crlf(one)) for one in MESSAGES]
        assert again.uids == right.uids
