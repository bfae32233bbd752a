"""Sessions with a real server, delivery and removal between and during them, against the model."""

import base64
import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.model.pop3_model import GREETING, Mail, SessionModel
from tests.support.maildirs import add_message, make_maildir
from tests.support.servers import RunningServer
from tests.support.wire import Wire

PASSWORD: Final = "secret"
USERS: Final = {f"user{number}": PASSWORD for number in range(8)}
OPTIONS: Final = ("--lock-wait", "10", "--sasl", "PLAIN", "--plaintext-auth", "always")

# -- what clients say ----------------------------------------------------------------------------

_number = st.one_of(
    st.integers(0, 9).map(b"%d".__mod__),
    st.sampled_from(
        [
            b"",
            b"0001",
            b"+1",
            b"-1",
            b"1 ",
            b" 1",
            b"1_0",
            "\u0661".encode(),
            b"4294967297",
            b"9" * 11,
        ]
    ),
)
_few = st.integers(1, 3).map(b"%d".__mod__)
_argument = st.one_of(_few, _few, _few, _few, _few, _number)
_verbs = st.sampled_from(
    b"STAT LIST UIDL NOOP RSET CAPA RETR DELE TOP QUIT USER PASS AUTH STLS APOP UTF8 LANG".split()
)
_with_number = st.tuples(st.sampled_from([b"LIST", b"UIDL", b"RETR", b"RETR", b"DELE"]), _argument)
_lines = st.one_of(st.integers(0, 12), st.sampled_from([0, 1, 2**31, 9_999_999_999]))

_usual: st.SearchStrategy[bytes] = st.one_of(
    _with_number.map(b" ".join),
    _with_number.map(b" ".join),
    st.builds(b"TOP %b %d".__mod__, st.tuples(_argument, _lines)),
    st.sampled_from([b"STAT", b"LIST", b"UIDL", b"NOOP", b"RSET", b"CAPA", b"LANG"]),
    st.sampled_from([b"sTaT", b"list", b"Uidl", b"LANG *", b"LANG en-GB", b"LANG de"]),
)
_odd: st.SearchStrategy[bytes] = st.one_of(
    st.tuples(_verbs, _number).map(b" ".join),
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"\r")),
    st.sampled_from(
        [
            b"",
            b" ",
            b"NOOP ",
            b"NOOP\rDELE 1",
            b"LIST 1\x00 2",
            b"TOP 1",
            b"TOP 1 2 3",
            b"TOP 1  2",
            b"X" * 253,
            b"NOOP" + b" " * 250,
            b"Y" * 9000,
            "LI\u017fT".encode(),
        ]
    ),
)
_command = st.integers(0, 11).flatmap(lambda one: _odd if one == 0 else _usual)
_end_of_line = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])
_one_line = st.tuples(_command, _end_of_line).map(b"".join)
_pieces = st.one_of(
    st.lists(_one_line, max_size=12), st.lists(_one_line, min_size=20, max_size=60)
).map(b"".join)
_before_login = st.one_of(
    st.just(b""),
    st.just(b""),
    st.sampled_from([b"CAPA\r\n", b"STAT\r\n", b"USER nobody\r\nPASS x\r\n", b"AUTH\r\n"]),
    st.lists(st.tuples(_odd, _end_of_line).map(b"".join), max_size=3).map(b"".join),
)
_message = st.one_of(
    st.lists(
        st.sampled_from(
            [b"A: b\n", b"\n", b"\r\n", b".\n", b"..\r\n", b"x", b"\r", b".x\n", b"\0\xff\n"]
        ),
        max_size=14,
    ).map(b"".join),
    st.binary(max_size=60),
    st.integers(60_000, 140_000).map(lambda size: b"A: b\n\n" + b".23456\n" * (size // 7)),
)


@dataclass(frozen=True)
class Talk:
    """What one client does: octets, where they are cut, what happens meanwhile, how it leaves."""

    before: bytes
    by_sasl: bool
    first: bytes
    meanwhile: tuple[str, ...]
    second: bytes
    leaves: str
    cuts: tuple[int, ...]


_talks = st.builds(
    Talk,
    before=_before_login,
    by_sasl=st.booleans(),
    first=_pieces,
    meanwhile=st.lists(st.sampled_from(["deliver", "remove", "read"]), max_size=2).map(tuple),
    second=_pieces,
    leaves=st.sampled_from(["quit", "quit", "quit", "half a quit", "leave", "reset"]),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8).map(tuple),
)


def chunked(octets: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut octets into pieces of these sizes, in turn; a size over 50 means all the rest."""
    chunks: list[bytes] = []
    for size in itertools.cycle(sizes):
        if not octets or len(chunks) > 400 or size > 50:
            break
        chunks.append(octets[:size])
        octets = octets[size:]
    return [*chunks, octets] if octets else chunks


# -- the machine ---------------------------------------------------------------------------------


class Sessions(RuleBasedStateMachine):
    """A maildrop, whoever changes it, and one client after the other."""

    commands = 0
    """Sent by all machines together, and answered as the model says."""

    sessions = 0
    _turn = itertools.count()
    # no name comes twice: it might get the inode that it had before, and would be the same message
    _delivered = itertools.count()

    def __init__(self, server: RunningServer) -> None:
        """Begin with an empty maildrop."""
        super().__init__()
        self.server = server
        self.user = f"user{next(self._turn) % len(USERS)}"
        self.path = server.maildir(self.user)
        shutil.rmtree(self.path, ignore_errors=True)
        make_maildir(self.path)
        self.drop: list[Mail] = []
        self.place: dict[bytes, str] = {}

    # -- others ----------------------------------------------------------------------------------

    @rule(message=_message, folder=st.sampled_from(["new", "new", "cur"]))
    def deliver(self, message: bytes, folder: str) -> None:
        """Let mail come."""
        self._deliver(message, folder)

    @precondition(lambda self: self.drop)
    @rule(which=st.integers(0, 20))
    def remove(self, which: int) -> None:
        """Let another program take a message away."""
        self._remove(which)

    @precondition(lambda self: self.drop)
    @rule(which=st.integers(0, 20))
    def read(self, which: int) -> None:
        """Let another program move a message to cur/ and set its flags."""
        self._read(which)

    def _deliver(self, message: bytes, folder: str = "new") -> None:
        file = add_message(self.path, message, next(self._delivered), folder=folder)
        uid = os.fsencode(file.name.partition(":")[0])
        self.drop.append(Mail(uid, message))
        self.place[uid] = str(file)

    def _remove(self, which: int) -> bytes:
        mail = self.drop.pop(which % len(self.drop))
        os.unlink(self.place.pop(mail.uid))
        return mail.uid

    def _read(self, which: int) -> None:
        uid = self.drop[which % len(self.drop)].uid
        place = str(self.path / "cur" / (os.fsdecode(uid) + ":2,RS"))
        os.rename(self.place[uid], place)
        self.place[uid] = place

    # -- clients ---------------------------------------------------------------------------------

    @rule(talk=_talks)
    def session(self, talk: Talk) -> None:
        """Hold a session; every octet of its answers must be the model's."""
        user = self.user.encode()
        login = b"USER %b\r\nPASS secret\r\n" % user
        if talk.by_sasl:
            plain = base64.b64encode(b"\0" + user + b"\0secret")
            login = b"AUTH PLAIN %b\r\n" % plain
        model = SessionModel({user: tuple(self.drop)}, {user: b"secret"})
        with self.server.connect(greeted=False) as wire:
            expected = GREETING
            expected += self._say(wire, model, talk.before + login + talk.first, talk.cuts)
            if talk.meanwhile and model.user is not None and not model.ended:
                self._await(wire, expected)
                self._meanwhile(model, talk.meanwhile)
            last = {"quit": b"QUIT\r\n", "half a quit": b"QUIT"}.get(talk.leaves, b"")
            expected += self._say(wire, model, talk.second + last, talk.cuts)
            self._await(wire, expected)
            if talk.leaves == "reset":
                wire.reset()
            else:
                with contextlib.suppress(OSError):
                    wire.half_close()
                assert wire.read_to_end() == b"", "more than the model says"
        for mail in model.deleted:
            assert mail.uid in model.gone or not os.path.exists(self.place[mail.uid])
            self.place.pop(mail.uid, None)
        gone = {mail.uid for mail in model.deleted}
        self.drop = [mail for mail in self.drop if mail.uid not in gone]
        assert all(map(os.path.exists, self.place.values())), "more is gone than was deleted"
        type(self).commands += model.commands
        type(self).sessions += 1

    def _say(self, wire: Wire, model: SessionModel, octets: bytes, cuts: tuple[int, ...]) -> bytes:
        expected = b""
        for chunk in chunked(octets, cuts):
            if model.ended:
                break
            expected += model.feed(chunk)
            with contextlib.suppress(ConnectionError):
                wire.send(chunk)
        return expected

    def _await(self, wire: Wire, expected: bytes) -> None:
        """Read as many octets as the model says; the first that differs is shown."""
        while len(wire.received) < len(expected):
            before = len(wire.received)
            wire.at = before
            with contextlib.suppress(ConnectionError, TimeoutError):
                wire._receive(time.monotonic() + wire.timeout)
            if len(wire.received) == before:
                break
        wire.at = len(wire.received)
        got = bytes(wire.received)
        if got != expected:
            at = next(
                (
                    i
                    for i, pair in enumerate(zip(got, expected, strict=False))
                    if pair[0] != pair[1]
                ),
                min(len(got), len(expected)),
            )
            around = slice(max(at - 200, 0), at + 200)
            raise AssertionError(
                f"octet {at}:\ngot      {got[around]!r}\nexpected {expected[around]!r}"
            )

    def _meanwhile(self, model: SessionModel, events: tuple[str, ...]) -> None:
        for event in events:
            if event == "deliver":
                self._deliver(b"Subject: later\n\nmail\n")
            elif not self.drop:
                continue
            elif event == "remove":
                model.gone.add(self._remove(len(events)))
            else:
                self._read(len(events))
