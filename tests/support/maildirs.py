"""Maildirs for tests, and a naive reference for what their messages look like on the wire.

The reference shares no code with the server and is written byte by byte on purpose.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

CR: Final = 13
LF: Final = 10
DOT: Final = 46

HEADER: Final = (
    b"From: a@example.org\nTo: b@example.org\nSubject: test\nMessage-ID: <1@example.org>\n"
)
PLAIN: Final = HEADER + b"\nfirst line\nsecond line\nthird line\n"

NASTY: Final[dict[str, bytes]] = {
    "plain": PLAIN,
    "stored with CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "mixed line ends": HEADER.replace(b"\n", b"\r\n") + b"\r\none\ntwo\r\nthree\n",
    "dots": HEADER + b"\n.\n..\n...\n.hidden\nnot.at.start\n.\n",
    "dot in the header": b".X-Odd: yes\n" + HEADER + b"\nbody\n",
    "dot as the first octet": b".\n",
    "dot without final newline": HEADER + b"\nlast\n.",
    "dot CR without LF": HEADER + b"\nlast\n.\r",
    "lone CR": HEADER + b"\na\rb\r.\rc\n\r\n.\r\r\n",
    "end of reply inside": HEADER + b"\nx\r\n.\r\nDELE 1\r\n-ERR y\r\n",
    "bare LF dot LF": HEADER + b"\nx\n.\ny\n",
    "8-bit and NUL": HEADER + b"\n" + bytes(range(256)) + b"\n\xff\xfe\x00\n",
    "no final newline": HEADER + b"\nno newline at the end",
    "empty": b"",
    "only a newline": b"\n",
    "header only": HEADER,
    "header without newline": b"Subject: x",
    "blank body": HEADER + b"\n",
    "unicode line ends": HEADER + "\n\x85x\u2028y\x0bz\x0c\x1c\n".encode(),
    "long line": HEADER + b"\n" + b"x" * 70_000 + b"\n." + b"y" * 5_000 + b"\n",
    "1 MiB": HEADER
    + b"\n"
    + b".dotted line of a big message\nplain line of a big message\n" * 18_079,
}


def make_maildir(path: Path, messages: Iterable[bytes] = (), *, folder: str = "new") -> Path:
    """Make a maildir at `path`; the messages sort in the order they are given."""
    for name in ("new", "cur", "tmp"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for number, message in enumerate(messages):
        add_message(path, message, number, folder=folder)
    return path


def add_message(path: Path, message: bytes, number: int, *, folder: str = "new") -> Path:
    """Deliver one message as a delivery agent does: write under tmp, then rename."""
    name = f"{1_700_000_000 + number}.M{number:06d}P1Q{number}.test.example"
    (path / "tmp" / name).write_bytes(message)
    place = path / folder / (name + (":2,S" if folder == "cur" else ""))
    return (path / "tmp" / name).rename(place)


def stored_messages(path: Path) -> list[bytes]:
    """Return what is in a maildir now, in the order of delivery."""
    files = [file for folder in ("new", "cur") for file in (path / folder).iterdir()]
    return [file.read_bytes() for file in sorted(files, key=lambda file: file.name)]


def with_crlf(stored: bytes) -> bytes:
    """Return the octets a client keeps: every LF has its CR, the last line has an end."""
    out = bytearray()
    for octet in stored:
        if octet == LF and (not out or out[-1] != CR):
            out.append(CR)
        out.append(octet)
    if out and out[-1] != LF:
        out += b"\r\n"
    return bytes(out)


def stuff_dots(text: bytes) -> bytes:
    """Double the dot at the start of each line that ends in CRLF (RFC 1939 section 3)."""
    out = bytearray()
    at_start = True
    for octet in text:
        if at_start and octet == DOT:
            out.append(DOT)
        out.append(octet)
        at_start = octet == LF
    return bytes(out)


def undo_dots(received: bytes) -> bytes:
    """Take away what `stuff_dots` added, as a client does."""
    lines = received.split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


def top(stored: bytes, count: int) -> bytes:
    """Return the headers, the empty line and `count` lines of the body (RFC 1939 section 7)."""
    head, rest = bytearray(), with_crlf(stored)
    while rest:
        end = rest.index(b"\r\n") + 2
        line, rest = rest[:end], rest[end:]
        head += line
        if line == b"\r\n":
            break
    for _ in range(count):
        if not rest:
            break
        end = rest.index(b"\r\n") + 2
        head += rest[:end]
        rest = rest[end:]
    return bytes(head)
