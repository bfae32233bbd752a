"""Whole conversations with a maildrop in memory, against the model."""

from functools import cache
from pathlib import Path
from typing import Any

from pop3.session import Session
from tests.fuzz.client import connection_of
from tests.fuzz.scratch import scratch
from tests.fuzz.target import pieces, target
from tests.model.pop3_model import GREETING, SessionModel
from tests.model.pop3_model import Mail as Kept
from tests.pop3.fakes import Log, Mail, POP3Erasable, make_server, with_crlf_size

MESSAGES = (
    b"Subject: one\n\n.\n..dots\nlast",
    b"Subject: two\r\n\r\nbody\r\n.\r\n",
    b"",
    b".\n\n\nthree\n",
    b"A: b\n\n" + b".234567\n" * 9000,
)
LOGIN = b"USER joe\r\nPASS secret\r\n"
WORDS = (
    LOGIN,
    b"STAT\r\n",
    b"LIST 1\r\n",
    b"LIST\r\n",
    b"UIDL\r\n",
    b"RETR 1\r\n",
    b"TOP 1 0\r\n",
    b"DELE 2\r\n",
    b"RSET\r\n",
    b"QUIT\r\n",
    b"CAPA\r\n",
    b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n",
    b"AUTH PLAIN\r\n",
    b"AGpvZQBzZWNyZXQ=\r\n",
    b"LANG *\r\n",
    b"UTF8\r\n",
    b"STLS\r\n",
    b"NOOP\r\n",
    b"GET / HTTP/1.1\r\n",
)


class POP3Unlocked(POP3Erasable):
    """Needs no lock file."""

    def lock_path(self, session: Session[list[Mail]]) -> Path | None:
        """Return no path."""
        del session
        return None


def memory_server(users: str, **options: Any) -> POP3Erasable:
    """Return a server whose users file has this text."""
    directory = scratch("session")
    file = directory / "own-users"
    file.write_text(users)
    file.chmod(0o600)
    made = make_server(
        directory,
        kind=POP3Unlocked,
        auth=(f"passwd-file:{file}",),
        plaintext_auth="always",
        **options,
    )
    assert isinstance(made, POP3Erasable)
    return made


@cache
def _server() -> POP3Erasable:
    return memory_server("joe:{PLAIN}secret\n", sasl="PLAIN")


@target(
    "session",
    seeds=(
        b"\0\0\0" + LOGIN + b"STAT\r\nLIST\r\nUIDL\r\nQUIT\r\n",
        b"\3\1\0" + LOGIN + b"RETR 1\r\nDELE 1\r\nRETR 1\r\nTOP 2 1\r\nRSET\r\nQUIT\r\n",
        b"\0\0\7" + LOGIN + b"RETR 5\r\nTOP 5 8999\r\nDELE 5\r\nSTAT\r\nQUIT\r\n",
        b"\1\1\0AUTH PLAIN\r\nAGpvZQBzZWNyZXQ=\r\nDELE 2\r\nDELE 4\r\nLIST\r\nQUIT\r\n",
        b"\0\0\0CAPA\r\nLANG\r\nUTF8\r\nAUTH\r\nUSER joe\r\nPASS wrong\r\nSTLS\r\n",
    ),
    words=WORDS,
)
def session(data: bytes) -> None:
    """Every octet of the answers, and what is left of the mail, is as the model says."""
    sizes, takes, said = data[:2], data[2:3], data[3:]
    server = _server()
    server.log = quiet = Log()  # type: ignore[assignment]
    server.store.mail["joe"] = [
        Mail(f"u{n}", stored, with_crlf_size(stored) if stored else 0)
        for n, stored in enumerate(MESSAGES, 1)
    ]
    drop = [Kept(b"u%d" % n, stored) for n, stored in enumerate(MESSAGES, 1)]
    # a send that takes a few octets only is slow for what is long
    connection, near, log = connection_of(pieces(said, sizes), 512 + takes[0] if any(takes) else 0)
    server.process_request(connection)
    connection.close()
    model = SessionModel({b"joe": drop}, {b"joe": b"secret"})
    expected = GREETING + model.feed(said)
    if bytes(near.sent) != expected:
        at = next(
            i for i, pair in enumerate(zip(near.sent, expected, strict=False)) if pair[0] != pair[1]
        )
        raise AssertionError(
            f"octet {at}: {near.sent[at - 60 : at + 60]!r} for {expected[at - 60 : at + 60]!r}"
        )
    gone = {mail.uid.decode() for mail in model.deleted}
    left = [mail.uid for mail in server.store.mail["joe"]]
    assert left == [mail.uid.decode() for mail in drop if mail.uid.decode() not in gone]
    assert all(level != "exception" for level, _, _ in (*log.events, *quiet.events))
