"""Each command of RFC 1939, 2449 and 6856, in each state, on raw octets."""

from collections.abc import Callable

import pytest

from tests.conftest import Mailbox
from tests.support.maildirs import HEADER, PLAIN, top, with_crlf
from tests.support.servers import RunningServer

Make = Callable[..., Mailbox]

AFTER_LOGIN = [
    b"STAT",
    b"LIST",
    b"LIST 1",
    b"RETR 1",
    b"DELE 1",
    b"NOOP",
    b"RSET",
    b"TOP 1 0",
    b"UIDL",
    b"UIDL 1",
]
BEFORE_LOGIN = [b"USER anna", b"PASS secret", b"AUTH PLAIN", b"STLS", b"UTF8", b"APOP a b"]


def test_greeting_is_positive_and_short(server: RunningServer) -> None:
    """The server speaks first, with one +OK line of at most 512 octets."""
    with server.connect() as wire:
        assert wire.greeting.startswith(b"+OK")
        assert len(wire.greeting) <= 510


@pytest.mark.parametrize("line", AFTER_LOGIN)
def test_mail_commands_are_refused_before_login(server: RunningServer, line: bytes) -> None:
    """No mail command works in the AUTHORIZATION state, not even between USER and PASS."""
    with server.connect() as wire:
        wire.err(line)
        wire.ok(b"USER anna")
        wire.err(line)


@pytest.mark.parametrize("line", BEFORE_LOGIN)
def test_login_commands_are_refused_after_login(mailbox: Make, line: bytes) -> None:
    """No login command works in the TRANSACTION state."""
    with mailbox([PLAIN]).session() as wire:
        wire.err(line)
        assert wire.ok(b"STAT").split()[1] == b"1"


def test_stat_is_two_numbers(mailbox: Make) -> None:
    """STAT answers count and octets and nothing before them."""
    with mailbox([PLAIN, PLAIN]).session() as wire:
        assert wire.ok(b"STAT") == b"+OK 2 %d" % (2 * len(with_crlf(PLAIN)))


def test_empty_maildrop(mailbox: Make) -> None:
    """An empty maildrop has zero messages and empty lists, ended by a dot."""
    with mailbox().session() as wire:
        assert wire.ok(b"STAT") == b"+OK 0 0"
        assert wire.lines(b"LIST") == []
        assert wire.lines(b"UIDL") == []
        for line in (b"LIST 1", b"RETR 1", b"DELE 1", b"TOP 1 0", b"UIDL 1"):
            wire.err(line)
        assert wire.quit().startswith(b"+OK")


def test_a_user_without_maildir_has_an_empty_maildrop(
    server: RunningServer, fresh_names: "object"
) -> None:
    """A missing mailbox is empty, and login creates nothing."""
    user = next(fresh_names)  # type: ignore[call-overload]
    with server.session(user) as wire:
        assert wire.ok(b"STAT") == b"+OK 0 0"
        wire.quit()
    assert not server.maildir(user).exists()


def test_list_of_one_is_one_line(mailbox: Make) -> None:
    """LIST n repeats the line that LIST shows for n."""
    with mailbox([PLAIN, HEADER + b"\nx\n"]).session() as wire:
        listed = wire.lines(b"LIST")
        assert wire.ok(b"LIST 2") == b"+OK " + listed[1]


def test_messages_in_cur_and_new_are_served_and_tmp_is_not(mailbox: Make) -> None:
    """Both folders of a maildir are mail; what is being delivered is not."""
    box = mailbox([PLAIN])
    (box.path / "cur" / "1800000000.M1P1.test.example:2,S").write_bytes(PLAIN + b"seen\n")
    (box.path / "tmp" / "1800000001.M1P1.test.example").write_bytes(b"half")
    with box.session() as wire:
        assert wire.ok(b"STAT").split()[1] == b"2"
        assert wire.message(b"RETR 2") == with_crlf(PLAIN + b"seen\n")


def test_dele_twice_is_an_error(mailbox: Make) -> None:
    """A message marked deleted cannot be deleted again in this session."""
    with mailbox([PLAIN, PLAIN]).session() as wire:
        wire.ok(b"DELE 1")
        wire.err(b"DELE 1")
        assert wire.ok(b"STAT").split()[1] == b"1"


def test_numbers_do_not_move(mailbox: Make) -> None:
    """After DELE 1 message 2 is still message 2."""
    with mailbox([HEADER + b"\none\n", HEADER + b"\ntwo\n"]).session() as wire:
        wire.ok(b"DELE 1")
        assert wire.message(b"RETR 2").endswith(b"two\r\n")
        for line in (b"RETR 1", b"TOP 1 0", b"LIST 1", b"UIDL 1"):
            wire.err(line)


def test_rset_restores(mailbox: Make) -> None:
    """RSET takes every mark away."""
    box = mailbox([PLAIN, PLAIN, PLAIN])
    with box.session() as wire:
        before = wire.lines(b"LIST")
        wire.ok(b"DELE 1")
        wire.ok(b"DELE 3")
        wire.ok(b"RSET")
        assert wire.lines(b"LIST") == before
        wire.message(b"RETR 3")


def test_noop_does_nothing(mailbox: Make) -> None:
    """NOOP is +OK."""
    with mailbox([PLAIN]).session() as wire:
        wire.ok(b"NOOP")
        assert wire.ok(b"STAT").split()[1] == b"1"


def test_top_beyond_the_body_is_the_message(mailbox: Make) -> None:
    """More lines than there are: all of it."""
    message = HEADER + b"\n.a\nb\n\n.\nc"
    with mailbox([message]).session() as wire:
        for count in range(8):
            assert wire.message(b"TOP 1 %d" % count) == top(message, count)
        assert wire.message(b"TOP 1 999999999") == with_crlf(message)


def test_uidl_is_unique_stable_and_clean(mailbox: Make) -> None:
    """Unique-ids are 1 to 70 octets of 0x21-0x7E, differ, and are the same next time."""
    box = mailbox([PLAIN] * 5)
    odd = "1900000000.M1P1.caf\u00e9 host" + "x" * 100
    (box.path / "new" / odd).write_bytes(PLAIN)
    with box.session() as wire:
        first = wire.lines(b"UIDL")
    with box.session() as wire:
        assert wire.lines(b"UIDL") == first
    uids = [line.split(b" ", 1)[1] for line in first]
    assert len(set(uids)) == 6
    for uid in uids:
        assert 1 <= len(uid) <= 70
        assert all(0x21 <= octet <= 0x7E for octet in uid)


def test_uidl_survives_flags(mailbox: Make) -> None:
    """When another program moves a message to cur with flags, its unique-id stays."""
    box = mailbox([PLAIN])
    with box.session() as wire:
        before = wire.lines(b"UIDL")
    for file in (box.path / "new").iterdir():
        file.rename(box.path / "cur" / (file.name + ":2,RS"))
    with box.session() as wire:
        assert wire.lines(b"UIDL") == before


@pytest.mark.parametrize("line", [b"LAST", b"XTND XMIT", b"EHLO x", b"FOO", b"STARTTLS", b"QUITX"])
def test_unknown_commands_are_one_error(mailbox: Make, line: bytes) -> None:
    """An unknown verb is -ERR and nothing else happens."""
    with mailbox([PLAIN]).session() as wire:
        wire.err(line)
        wire.ok(b"NOOP")


@pytest.mark.parametrize("line", [b"STAT 1", b"NOOP x", b"RSET x", b"QUIT x", b"CAPA x", b"STAT "])
def test_arguments_where_none_belong_are_errors(mailbox: Make, line: bytes) -> None:
    """Strict syntax: a command without arguments takes none."""
    box = mailbox([PLAIN])
    with box.session() as wire:
        wire.ok(b"DELE 1")
        wire.err(line)
        wire.ok(b"NOOP")
    assert len(box.stored()) == 1


def test_capa_after_login(mailbox: Make) -> None:
    """After login CAPA still lists what is there, and no mechanism to log in twice."""
    with mailbox().session() as wire:
        said = wire.lines(b"CAPA")
        assert {b"TOP", b"UIDL", b"PIPELINING", b"RESP-CODES"} <= set(said)
        assert b"STLS" not in said


def test_capa_says_no_stls_without_certificate(server: RunningServer) -> None:
    """What is not there is not announced, and refused."""
    with server.connect() as wire:
        assert b"STLS" not in wire.lines(b"CAPA")
        wire.err(b"STLS")
        wire.ok(b"USER anna")


def test_utf8_is_announced_and_taken_once_before_login(mailbox: Make) -> None:
    """RFC 6856: UTF8 works in AUTHORIZATION only, and mail is the same octets."""
    box = mailbox(["Subject: gr\u00fc\u00df\n\n\u00e4\n".encode()])
    with box.server.connect() as wire:
        assert any(line.split()[0] == b"UTF8" for line in wire.lines(b"CAPA"))
        wire.ok(b"UTF8")
        wire.login(box.user)
        assert wire.message(b"RETR 1") == "Subject: gr\u00fc\u00df\r\n\r\n\u00e4\r\n".encode()
        wire.err(b"UTF8")


def test_lang_lists_and_sets(mailbox: Make) -> None:
    """RFC 6856: LANG lists at least i-default, takes it and *, refuses an unknown tag."""
    with mailbox().session() as wire:
        listed = wire.lines(b"LANG")
        assert b"i-default" in [line.split(b" ")[0].lower() for line in listed]
        wire.ok(b"LANG i-default")
        wire.ok(b"LANG *")
        wire.err(b"LANG tlh-x-none")


def test_quit_deletes_what_was_marked(mailbox: Make) -> None:
    """QUIT in TRANSACTION removes marked messages and only those."""
    box = mailbox([HEADER + b"\n%d\n" % number for number in range(4)])
    with box.session() as wire:
        wire.ok(b"DELE 2")
        wire.ok(b"DELE 4")
        assert wire.quit().startswith(b"+OK")
    assert box.stored() == [HEADER + b"\n0\n", HEADER + b"\n2\n"]


@pytest.mark.parametrize("end", ["close", "reset", "half"])
def test_without_quit_nothing_is_deleted(mailbox: Make, end: str) -> None:
    """However a session ends: no QUIT, no deletion. "QUIT" without its LF is no QUIT."""
    box = mailbox([PLAIN, PLAIN])
    with box.session() as wire:
        wire.ok(b"DELE 1")
        if end == "half":
            wire.send(b"DELE 2\r\nQUIT")
            wire.half_close()
            wire.read_to_end()
        elif end == "reset":
            wire.reset()
    with box.session() as wire:
        assert wire.ok(b"STAT").split()[1] == b"2"
    assert len(box.stored()) == 2
