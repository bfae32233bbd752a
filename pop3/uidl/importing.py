"""Take over ids from a server that keeps no files we could read: saved listings and Message-IDs."""

import re
from collections.abc import Iterable, Mapping

_LINE = re.compile(rb"([\x21-\x7e]{1,200})[ \t]+(\S{1,998})")


def read_table(data: bytes) -> list[tuple[bytes, bytes]]:
    """Read lines of an id and the Message-ID of its message; "#" begins a comment.

    Raises ValueError naming the line that is something else.
    """
    found: list[tuple[bytes, bytes]] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise ValueError(f"line {number} is not an id and a Message-ID")
        found.append((match[1], match[2]))
    return found


def match_ids(
    old: Iterable[tuple[bytes, bytes]], present: Mapping[str, bytes]
) -> tuple[dict[str, str], list[str]]:
    """Find which message had which id: for `Journal.write`, by the source's own ids.

    `old` are ids and Message-IDs as the other server had them, `present` the Message-IDs of what is
    here. Also returns the messages left out: those not there before, and all those that share their
    Message-ID with another, unless both sides have equally many (then in their order).
    """
    ids: dict[bytes, list[bytes]] = {}
    for uid, message_id in old:
        ids.setdefault(message_id, []).append(uid)
    here: dict[bytes, list[str]] = {}
    for name, message_id in present.items():
        here.setdefault(message_id, []).append(name)
    found: dict[str, str] = {}
    for message_id, names in here.items():
        uids = ids.get(message_id, [])
        if message_id and len(uids) == len(names):
            found.update(zip(names, [uid.decode("ascii") for uid in uids], strict=True))
    return found, [name for name in present if name not in found]
