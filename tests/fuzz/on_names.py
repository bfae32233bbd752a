"""Login names and the file names of maildirs."""

import contextlib
import os
from pathlib import Path

from pop3 import paths
from pop3.auth.names import LoginName
from pop3.errors import PermanentFailure
from pop3.message import announce
from pop3.sources.maildir_scan import _order, file_at, places_of, stated_size
from tests.fuzz.target import target


@target(
    "login-name",
    seeds=(
        b"anna",
        b"anna~view@example.org",
        b"a+b@EXAMPLE.ORG",
        "J\u00f6rg@b\u00fccher.example".encode(),
        b"../etc",
        b"a/b",
        b"..",
        b"a~b~c",
        b"q w%20e",
    ),
    words=(
        b"@",
        b"~",
        b"..",
        b"/",
        "\u0130".encode(),
        "e\u0301".encode(),
        "\u202e".encode(),
        b"\xc3",
    ),
    longest=300,
)
def login_name(data: bytes) -> None:
    """A name is refused, or has one normal form; a strict one is one safe part of a path."""
    for strict in (True, False):
        try:
            name = LoginName.parse(data, strict=strict)
        except ValueError as error:
            assert len(data) < 4 or data.decode("utf-8", "replace") not in str(error)
            continue
        again = LoginName.parse(name.full.encode(), strict=strict)
        assert again == name
        assert name.as_user(name.user) is name
        assert len(name.full.encode()) <= 255
        if strict:
            assert "/" not in name.user
            assert "\0" not in name.full
            assert not name.user.startswith(".")
            assert LoginName.parse(name.user.encode()).user == name.user
        with contextlib.suppress(PermanentFailure):
            path = paths.fill("/srv/{domain}/{user}", user=name.user, domain="d", home=None)
            assert os.path.normpath(path) == str(path)
            assert path.parent == Path("/srv/d")


@target(
    "maildir-name",
    seeds=(
        b"n1700000000.M1P2.host/n1700000001.M1P2.host/c1700000000.M9P2.host:2,S",
        b"c1.a,W=10:2,/nx:2,S/n:2,/c\xff\xfe:2,RS/n" + b"a" * 80,
        b"n9999999999.a/n10000000000.b/c1.c/c1.c:2,T",
    ),
    words=(b"/c", b"/n", b":2,S", b",W=", b",S=", b"1700000000.", b"0" * 30),
)
def maildir_name(data: bytes) -> None:
    """Each file has an id that POP3 can carry, and is found again by it; the order is naive."""
    parts = [part for part in data.replace(b"\0", b"").split(b"/") if len(part) > 1]
    names = sorted({(part[0] in b"cC", part[1:]) for part in parts if part[1:2] != b"."})
    uids: list[bytes] = []
    places: list[bytes] = []
    for folder in (0, 1):
        here = [name for in_cur, name in names if in_cur == bool(folder)]
        found = places_of(folder, here)
        for name, uid, place in zip(here, *found, strict=True):
            assert file_at(uid, place) == (folder, name)
            assert 1 <= len(uid) <= 70
            assert all(0x21 <= octet <= 0x7E for octet in uid)
            assert b"\0" not in place
            if (size := stated_size(uid)) is not None:
                assert b",W=%d" % size in uid or b",W=0" in uid
        uids += found[0]
        places += found[1]
    order = _order(uids, places)
    kept = [uids[i] for i in order]
    assert len(set(kept)) == len(kept)
    assert set(kept) == set(uids)
    assert announce(kept) == kept
    for i in order:
        twins = [j for j, uid in enumerate(uids) if uid == uids[i]]
        assert max(twins, key=lambda j: (places[j][0] in b"cC", places[j])) == i
    arrivals = [_arrived(file_at(uids[i], places[i])[1]) for i in order]
    assert arrivals == sorted(arrivals)


def _arrived(name: bytes) -> tuple[bool, int, bytes]:
    base = name.partition(b":")[0]
    digits = len(base) - len(base.lstrip(b"0123456789"))
    return not digits, int(base[:digits] or b"0"), base
