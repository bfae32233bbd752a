"""The verbs, one session at a time, on octets."""

import re
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netserver.errors import IdleTimeout, ServerStopping
from pop3 import wire
from pop3.errors import TemporaryFailure
from pop3.message import Message
from pop3.session import Session
from tests.pop3.fakes import (
    LOGIN,
    FakeConnection,
    Mail,
    POP3Erasable,
    POP3Memory,
    make_server,
    replies,
    talk,
)

HEADER = b"From: a@b\nSubject: s\n"
PLAIN = HEADER + b"\none\n.two\nthree\n"
SENT = PLAIN.replace(b"\n", b"\r\n")
SIZE = len(SENT)


@pytest.fixture
def server(tmp_path: Path) -> POP3Memory:
    """Return a server with three messages for joe."""
    return make_server(tmp_path, [PLAIN, HEADER + b"\n" + b"x" * 10, HEADER])


# -- after login ---------------------------------------------------------------------------------


def test_stat_and_list(server: POP3Memory) -> None:
    """Counts and octets as sent."""
    sizes = [SIZE, len(HEADER) + 2 + 2 + 10 + 2, len(HEADER) + 2]
    listed = b"".join([b"%d %d\r\n" % pair for pair in enumerate(sizes, 1)])
    expected = b"+OK 3 %d\r\n+OK 3 messages\r\n%b.\r\n+OK 2 %d\r\n" % (sum(sizes), listed, sizes[1])
    assert replies(server, b"STAT\r\nLIST\r\nLIST 2\r\n") == expected


def test_uidl(server: POP3Memory) -> None:
    """A2.10: UIDL n is one line, UIDL a list."""
    out = replies(server, b"UIDL 2\r\nUIDL\r\n")
    assert out == b"+OK 2 u2\r\n+OK\r\n1 u1\r\n2 u2\r\n3 u3\r\n.\r\n"


def test_retr_sends_what_list_says(server: POP3Memory) -> None:
    """A2.4, A2.8, A2.19: CRLF, doubled dots, and the size of what a client keeps."""
    out = replies(server, b"RETR 1\r\n")
    assert out == b"+OK %d octets\r\n%b.\r\n" % (SIZE, SENT.replace(b"\r\n.", b"\r\n.."))


def test_retr_adds_no_line(server: POP3Memory) -> None:
    """A2.7: a message gets a last line end if it has none, and nothing else."""
    assert replies(server, b"RETR 3\r\n") == b"+OK %d octets\r\n%b.\r\n" % (
        len(HEADER) + 2,
        HEADER.replace(b"\n", b"\r\n"),
    )


def test_retr_of_an_empty_message(tmp_path: Path) -> None:
    """It has no octets, and the reply still ends."""
    server = make_server(tmp_path)
    server.store.mail["joe"] = [Mail("e", b"", None)]
    assert replies(server, b"RETR 1\r\nLIST 1\r\n") == b"+OK 0 octets\r\n.\r\n+OK 1 0\r\n"


def test_a_message_ending_in_dot_cr(tmp_path: Path) -> None:
    """A2.13: the end of the reply follows whatever the last line is."""
    assert replies(make_server(tmp_path, [b"a\n.\r"], known=False), b"RETR 1\r\n").endswith(
        b"\r\n..\r\r\n.\r\n"
    )


def test_top(server: POP3Memory) -> None:
    """A2.1, A2.6: TOP 0 is the header, TOP k has k lines of the body, dots doubled."""
    head = HEADER.replace(b"\n", b"\r\n") + b"\r\n"
    out = replies(server, b"TOP 1 0\r\nTOP 1 2\r\nTOP 1 99\r\nTOP 3 5\r\n")
    assert out == (
        b"+OK\r\n" + head + b".\r\n"
        b"+OK\r\n" + head + b"one\r\n..two\r\n.\r\n"
        b"+OK\r\n" + head + b"one\r\n..two\r\nthree\r\n.\r\n"
        b"+OK\r\n" + HEADER.replace(b"\n", b"\r\n") + b".\r\n"
    )  # fmt: skip


def test_deleted_messages_disappear_from_every_reply(server: POP3Memory) -> None:
    """A2.2: until RSET nothing shows or touches them."""
    out = replies(
        server,
        b"DELE 2\r\nSTAT\r\nLIST\r\nUIDL\r\nRETR 2\r\nTOP 2 0\r\nLIST 2\r\nUIDL 2\r\nDELE 2\r\n"
        b"RSET\r\nUIDL 2\r\n",
    )
    lines = out.split(b"\r\n")
    assert lines[0] == b"+OK message deleted"
    assert lines[1].startswith(b"+OK 2 ")
    assert [line for line in lines if re.match(rb"2 ", line)] == []
    assert lines.count(b"-ERR message is deleted") == 5
    assert lines[-3:] == [b"+OK", b"+OK 2 u2", b""]


@pytest.mark.parametrize(
    "line",
    [
        b"RETR 0", b"RETR 4", b"RETR", b"RETR ", b"RETR 1 ", b"RETR  1", b"RETR 1 2", b"RETR -1",
        b"RETR +1", b"RETR 4294967297", "RETR \u0661".encode(), b"RETR 1_0", b"RETR one",
        b"DELE", b"DELE 0", b"LIST 0", b"LIST ", b"LIST 1 2", b"UIDL 0", b"UIDL 9",
        b"TOP", b"TOP 1", b"TOP 1 ", b"TOP 1 -1", b"TOP 1 2 3", b"TOP 0 0", b"TOP  1 1",
        b"TOP 1 99999999999999999999", b"STAT 1", b"STAT ", b"NOOP x", b"RSET 1", b"QUIT 1",
        b"CAPA x", b"", b" ", b":", b"a:b", b"::::", b"\x00", b"LIST 1\x00 2", b"NOOP\rDELE 1",
        b"-", b"%s%n",
        "\ufb06at".encode(), b"XTND", b"USER joe", b"PASS secret", b"AUTH PLAIN", b"STLS",
        b"UTF8", b"APOP a b",
    ],
)  # fmt: skip
def test_wrong_lines_are_one_error(server: POP3Memory, line: bytes) -> None:
    """A2.14, A2.15: one -ERR, nothing of the line in it, nothing done, and the session goes on."""
    out = replies(server, line + b"\r\nNOOP\r\nSTAT\r\n")
    assert re.fullmatch(rb"-ERR [ -~]+\r\n\+OK\r\n\+OK 3 \d+\r\n", out)
    assert line == b"-" or not line.strip() or line not in out


@pytest.mark.parametrize("line", [b"LIST 0001", b"list 1", b"LiSt 1"])
def test_spellings_that_are_fine(server: POP3Memory, line: bytes) -> None:
    """Verbs in any case, numbers with leading zeros."""
    assert replies(server, line + b"\r\n") == b"+OK 1 %d\r\n" % SIZE


def test_long_lines(server: POP3Memory) -> None:
    """A line over 255 octets is one -ERR, and its end is no command."""
    out = replies(server, b"NOOP " + b"x" * 9000 + b" DELE 1\r\nSTAT\r\n")
    assert re.fullmatch(rb"-ERR line too long\r\n\+OK 3 \d+\r\n", out)
    assert replies(server, b"x" * 254 + b"\r\n") == b"-ERR line too long\r\n"
    assert replies(server, b"x" * 253 + b"\r\n") == b"-ERR unknown command\r\n"


def test_twenty_bad_commands_end_it(server: POP3Memory) -> None:
    """After login there is more patience than before, but an end."""
    out = replies(server, b"BAD\r\n" * 30)
    assert out == b"-ERR unknown command\r\n" * 19 + b"-ERR too many errors\r\n"
    assert "delete_messages" not in server.store.calls


def test_lang(server: POP3Memory) -> None:
    """RFC 6856: list, English, the default, and what there is not."""
    out = replies(
        server, b"LANG\r\nLANG en-GB\r\nLANG *\r\nLANG i-default\r\nLANG mul\r\nLANG \r\n"
    )
    lines = out.split(b"\r\n")
    assert lines[1:4] == [b"en English", b"i-default Default language", b"."]
    assert [line.split(b" ")[:2] for line in lines[4:7]] == [
        [b"+OK", b"en"], [b"+OK", b"i-default"], [b"+OK", b"i-default"],
    ]  # fmt: skip
    assert [line[:4] for line in lines[7:9]] == [b"-ERR"] * 2


def test_pipelined_commands_give_the_same_replies(server: POP3Memory) -> None:
    """Bare LF ends a line as CRLF does."""
    said = b"STAT\r\nLIST 1\r\nUIDL 2\r\nNOOP\r\n"
    assert replies(server, said) == replies(server, said.replace(b"\r\n", b"\n"))


# -- messages in blocks --------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_a_message_longer_than_a_block(tmp_path: Path, known: bool) -> None:
    """It goes out in pieces that are the same octets, its size told before."""
    long = HEADER + b"\n" + (b".dot\n" + b"y" * 70 + b"\n") * 20_000
    server = make_server(tmp_path, [long], known=known)
    connection = FakeConnection(LOGIN + b"RETR 1\r\nTOP 1 40000\r\nTOP 1 3\r\n")
    pieces: list[int] = []
    connection.on_write = lambda data: pieces.append(len(data))
    server.process_request(connection)  # type: ignore[arg-type]
    assert max(pieces) < 2 * wire.BLOCK
    sent = wire.encode(long)
    size = wire.sent_size(long)
    short = wire.encode(b"".join(wire.top([long], 3)))
    assert connection.out.endswith(
        b"+OK %d octets\r\n%b.\r\n+OK\r\n%b.\r\n+OK\r\n%b.\r\n" % (size, sent, sent, short)
    )
    assert all(stream.closed for stream in server.store.streams)
    assert connection.log.fields("session")["octets"] == size


class Breaking(BytesIO):
    """Breaks off after so many reads."""

    def __init__(self, data: bytes, reads: int, error: Exception) -> None:
        """Give data for some reads, then raise."""
        super().__init__(data)
        self.reads = reads
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        """Read, or break off."""
        self.reads -= 1
        if self.reads < 0:
            raise self.error
        return super().read(size)


class POP3Breaking(POP3Erasable):
    """A source whose streams break off."""

    reads = 0
    error: Exception = OSError("disk")

    def read_message(self, session: Session[list[Mail]], message: Message) -> BinaryIO:
        """Open a message that will break off."""
        with super().read_message(session, message) as stream:
            broken = Breaking(stream.read(), self.reads, self.error)
        self.store.streams.append(broken)
        return broken


@pytest.mark.parametrize("error", [OSError("disk"), TemporaryFailure("far end"), TimeoutError()])
@pytest.mark.parametrize("command", [b"RETR 1", b"TOP 1 5"])
def test_a_source_that_breaks_off_before_the_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, command: bytes
) -> None:
    """It is one -ERR [SYS/TEMP], and the session goes on."""
    monkeypatch.setattr(POP3Breaking, "error", error)
    server = make_server(tmp_path, [PLAIN], kind=POP3Breaking)
    out = replies(server, command + b"\r\nNOOP\r\n")
    assert re.fullmatch(rb"-ERR \[SYS/TEMP\] [ -~]+\r\n\+OK\r\n", out)
    assert all(stream.closed for stream in server.store.streams)


@pytest.mark.parametrize("error", [OSError("disk"), TemporaryFailure("far end"), KeyError("bug")])
def test_a_source_that_breaks_off_in_the_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The connection is reset: half a message never ends with "."; nothing is deleted."""
    monkeypatch.setattr(POP3Breaking, "error", error)
    monkeypatch.setattr(POP3Breaking, "reads", 2)
    server = make_server(tmp_path, [PLAIN, b"z\n" * 400_000], kind=POP3Breaking)
    connection = talk(server, LOGIN + b"DELE 1\r\nRETR 2\r\nQUIT\r\n")
    assert connection.aborted
    assert not connection.out.endswith(wire.END)
    assert "delete_messages" not in server.store.calls
    assert server.store.calls.count("close_box") == 1
    assert connection.log.fields("session")["reason"] == "error"


def test_a_message_that_is_gone(server: POP3Memory) -> None:
    """Somebody else deleted it: [SYS/TEMP], and the numbers stay."""
    server.store.fail["read_message"] = FileNotFoundError("gone")
    out = replies(server, b"RETR 1\r\nTOP 2 0\r\nUIDL 3\r\n")
    assert out == b"-ERR [SYS/TEMP] message is gone\r\n" * 2 + b"+OK 3 u3\r\n"


def test_a_bug_in_a_source(server: POP3Memory) -> None:
    """The client learns nothing of it, the log all, and nothing is deleted."""
    server.store.fail["read_message"] = KeyError("secret detail")
    connection = talk(server, LOGIN + b"DELE 1\r\nRETR 2\r\nQUIT\r\n")
    assert connection.out.endswith(b"+OK message deleted\r\n-ERR [SYS/TEMP] internal error\r\n")
    assert ("exception", "session failed", {}) in connection.log.events
    assert "delete_messages" not in server.store.calls


# -- sizes ---------------------------------------------------------------------------------------


def test_unknown_sizes_are_found_once(tmp_path: Path) -> None:
    """LIST n reads one message, LIST the others, and the next session none."""
    server = make_server(tmp_path, [PLAIN, PLAIN + b"x\n", PLAIN], known=False)
    replies(server, b"LIST 2\r\n")
    assert server.store.calls.count("read_message") == 1
    out = replies(server, b"LIST\r\nSTAT\r\n")
    assert server.store.calls.count("read_message") == 3
    again = replies(server, b"LIST\r\nSTAT\r\n")
    assert server.store.calls.count("read_message") == 3
    assert out == again
    assert b"\r\n2 %d\r\n" % (SIZE + 3) in out
    assert all(stream.closed for stream in server.store.streams)


def test_a_size_found_by_retr_is_remembered(tmp_path: Path) -> None:
    """Nothing is read twice."""
    server = make_server(tmp_path, [PLAIN], known=False)
    assert replies(server, b"RETR 1\r\nLIST 1\r\n").endswith(b"\r\n+OK 1 %d\r\n" % SIZE)
    replies(server, b"STAT\r\n")
    assert server.store.calls.count("read_message") == 1


def test_a_size_that_cannot_be_found(tmp_path: Path) -> None:
    """STAT says so instead of a wrong number."""
    server = make_server(tmp_path, [PLAIN], known=False)
    server.store.fail["read_message"] = OSError("disk")
    assert (
        replies(server, b"STAT\r\nNOOP\r\n")
        == b"-ERR [SYS/TEMP] a message cannot be read\r\n+OK\r\n"
    )


def test_a_wrong_size_is_corrected(tmp_path: Path) -> None:
    """RETR tells the true size, the log that the source was wrong."""
    server = make_server(tmp_path)
    server.store.mail["joe"] = [Mail("u", PLAIN, 5)]
    connection = talk(server, LOGIN + b"LIST 1\r\nRETR 1\r\nLIST 1\r\n")
    assert connection.out.endswith(b"+OK 1 %d\r\n" % SIZE)
    assert b"+OK %d octets" % SIZE in connection.out
    assert connection.log.fields("size was wrong") == {"number": 1, "said": 5, "sent": SIZE}


# -- QUIT and other ends -------------------------------------------------------------------------


def test_quit_deletes_and_answers(server: POP3Memory) -> None:
    """A2.5, A2.11: deletion happens at QUIT, before the reply."""
    connection = FakeConnection(LOGIN + b"DELE 1\r\nDELE 3\r\nQUIT\r\n")
    seen: list[list[str]] = []
    connection.on_write = lambda data: (
        seen.append([mail.uid for mail in server.store.mail["joe"]])
        if data == b"+OK bye\r\n"
        else None
    )
    server.process_request(connection)  # type: ignore[arg-type]
    assert seen == [["u2"]]
    assert connection.log.fields("session")["dele"] == 2
    assert server.store.calls[-2:] == ["delete_messages", "close_box"]


@pytest.mark.parametrize(
    ("said", "at_end"),
    [
        (b"DELE 1\r\n", None),
        (b"DELE 1\r\nQUIT", None),
        (b"DELE 1\r\nRSET\r\nQUIT\r\n", None),
        (b"DELE 1\r\n", IdleTimeout()),
        (b"DELE 1\r\n", ServerStopping()),
        (b"DELE 1\r\n" + b"BAD\r\n" * 20 + b"QUIT\r\n", None),
        (b"QUIT\r\n", None),
    ],
)
def test_every_other_end_deletes_nothing(
    server: POP3Memory, said: bytes, at_end: Exception | None
) -> None:
    """A2.12: only a whole QUIT line of a live session deletes; the box is closed each time."""
    talk(server, LOGIN + said, at_end=at_end)
    assert "delete_messages" not in server.store.calls
    assert server.store.calls.count("close_box") == 1
    assert talk(server, LOGIN + b"STAT\r\n").out.split(b"\r\n")[3].startswith(b"+OK 3 ")


def test_an_idle_client_is_left_without_a_word(server: POP3Memory) -> None:
    """RFC 1939 §3: no reply, no deletion."""
    connection = talk(server, LOGIN, at_end=IdleTimeout())
    assert connection.out.endswith(b"+OK logged in\r\n")
    assert connection.log.fields("session")["reason"] == "timeout"


def test_a_stop_is_told(server: POP3Memory) -> None:
    """Who waits for a command gets [SYS/TEMP]."""
    connection = talk(server, LOGIN, at_end=ServerStopping())
    assert connection.out.endswith(b"+OK logged in\r\n-ERR [SYS/TEMP] server is stopping\r\n")


def test_a_stop_in_a_message_is_a_reset(server: POP3Memory) -> None:
    """A reply that stopped half-way gets no other reply behind it."""
    connection = FakeConnection(LOGIN + b"RETR 1\r\n")

    def stop(data: bytes) -> None:
        if b"octets" in data:
            raise ServerStopping

    connection.on_write = stop
    server.process_request(connection)  # type: ignore[arg-type]
    assert connection.aborted
    assert b"stopping" not in connection.out


def test_a_failed_deletion_is_told(server: POP3Memory) -> None:
    """QUIT is -ERR with the source's text, and the session is over (RFC 1939 §6)."""
    server.store.fail["delete_messages"] = TemporaryFailure("1 of 2 messages not deleted")
    out = replies(server, b"DELE 1\r\nDELE 2\r\nQUIT\r\nNOOP\r\n")
    assert out.endswith(b"-ERR [SYS/TEMP] 1 of 2 messages not deleted\r\n")
    assert server.store.calls.count("close_box") == 1


@pytest.mark.parametrize("error", [OSError("disk"), KeyError("bug")])
def test_a_deletion_that_raises_anything(server: POP3Memory, error: Exception) -> None:
    """There is no +OK for what may not have happened."""
    server.store.fail["delete_messages"] = error
    out = replies(server, b"DELE 1\r\nQUIT\r\n")
    assert out.endswith(b"-ERR [SYS/TEMP] some of 1 messages not deleted\r\n")


# -- everything ----------------------------------------------------------------------------------

lines = st.one_of(
    st.sampled_from(
        [
            b"STAT", b"LIST", b"UIDL", b"LIST 1", b"UIDL 2", b"RETR 1", b"TOP 2 1", b"DELE 1",
            b"DELE 3", b"RSET", b"NOOP", b"CAPA", b"LANG", b"",
        ]
    ),
    st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")),
)  # fmt: skip


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(st.lists(lines, max_size=12))
def test_each_line_has_one_reply(server: POP3Memory, said: list[bytes]) -> None:
    """Whatever is said, each line has one well-formed reply until the session ends."""
    out = replies(server, b"".join([line + b"\r\n" for line in said]))
    count = 0
    while out:
        line, end, out = out.partition(b"\r\n")
        assert end
        assert re.match(rb"\+OK|-ERR", line)
        asked = said[count].rstrip(b"\r").upper()
        if line.startswith(b"+OK") and asked in (
            b"LIST",
            b"UIDL",
            b"CAPA",
            b"LANG",
            b"RETR 1",
            b"TOP 2 1",
        ):
            _, dot, out = (b"\r\n" + out).partition(b"\r\n.\r\n")
            assert dot
        count += 1
    assert count == len(said) or (count < len(said) and asked == b"QUIT")
