"""However the octets of a session are cut, the answers are the same."""

import itertools
from collections.abc import Callable
from typing import Any

from tests.model.pop3_model import GREETING, Mail, SessionModel
from tests.support.maildirs import NASTY
from tests.support.wire import converse

SAID = (
    b"CAPA\r\nUSER %b\r\nPASS secret\r\nSTAT\r\nLIST\nUIDL\r\nRETR 1\r\nTOP 2 1\r\nDELE 3\r\nX\r\n"
    b"LIST 3\r\nRSET\r\nRETR 3\nNOOP\r\n" + b"Y" * 300 + b"\r\nSTAT\r\n"
)
MESSAGES = [NASTY["dots"], NASTY["lone CR"], NASTY["end of reply inside"]]


def test_any_two_pieces_are_answered_as_one(mailbox: Callable[..., Any], personality: str) -> None:
    """A session in one piece, in two cut anywhere, and in single octets gets the same octets."""
    box = mailbox(MESSAGES)
    said = SAID % box.user.encode()
    host, port = box.server.host, box.server.port
    whole = converse(host, port, [said])
    cuts = range(1, len(said), 120 if personality == "inetd" else 5)
    for cut in cuts:
        assert converse(host, port, [said[:cut], said[cut:]]) == whole, cut
    assert converse(host, port, [said[i : i + 1] for i in range(len(said))]) == whole


def test_the_whole_is_what_the_model_says(mailbox: Callable[..., Any]) -> None:
    """The answers that all cuts have in common are the right ones."""
    box = mailbox(MESSAGES)
    said = SAID % box.user.encode()
    files = sorted((box.path / "new").iterdir())
    drop = [Mail(file.name.encode(), file.read_bytes()) for file in files]
    user = box.user.encode()
    offered: tuple[bytes, ...] = ()
    got = converse(box.server.host, box.server.port, [said])
    for line in itertools.takewhile(lambda one: one != b".", got.split(b"\r\n")):
        word, *names = line.split(b" ")
        offered = tuple(names) if word == b"SASL" else offered
    model = SessionModel({user: drop}, {user: b"secret"}, mechanisms=offered)
    assert got == GREETING + model.feed(said)
