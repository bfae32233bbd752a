"""Ids that clients know from another server: formats, id files, headers, and what is announced."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.journal import Journal
from pop3.message import hashed
from pop3.uidl import foreign, headers, presets, read_listing, uidl_diff
from pop3.uidl.announced import distinct
from pop3.uidl.importing import match_ids, read_table
from pop3.uidl.presets import Known, Preset
from tests.pop3.fakes import LOGIN, Mail, POP3Memory, make_server, replies, talk

# What popa3d 1.0.3 and Dovecot 2.3.19 (pop3_uidl_format=%m) themselves gave for these messages.
RECEIVED = (
    b"Return-Path: <a@x>\n"
    b"Delivered-To: anna@example.org\n"
    b"Received: from mx.example.org by host.example.org\n"
    b"\twith ESMTP id 1; Mon, 1 Jan 2024 00:00:00 +0000\n"
    b"Received: from other.example.org by mx.example.org; Mon, 1 Jan 2024 00:00:00 +0000\n"
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\n"
    b"Message-ID: <one@example.org>\n"
    b"Subject: one\n"
)
LOCAL = (
    b"Date: Mon, 1 Jan 2024 00:00:01 +0000\n"
    b"message-id:   <two@example.org>\n"
    b"X-Delivery-ID: 77\n"
    b"x-delivery-id: 78\n"
    b"Subject: two\n"
    b"\tfolded\n"
    b"Delivered-To: b\n"
    b" c\n"
)
NOTHING = b"Subject: nothing that counts\n"
SHOUTED = b"DATE: late\nRECEIVED: by z\nDate: after\nX-UIDL: abc123\n"
POPA3D = {
    RECEIVED: b"0527d0e3f54f29b0",
    LOCAL: b"1fa13c3ea6cdf9cc",
    NOTHING: b"d98c1dd404b2008f",
    SHOUTED: b"cb3668774777b237",
}

# What courierpop3d 1.0.16 wrote, and the ids it gave for that.
COURIER = (
    b"/3 11 1690000000\n"
    b"1700000001.M1P1.host:2, 17 8:1690000000:0\n"
    b"1700000002.M2P1.host:2, 17 9:1690000000:0\n"
    b'1700000004.M4+a"b.host:2,S 22 0:0:0\n'
)
COURIER_IDS = {
    b"1700000001.M1P1.host": b"UID8-1690000000",
    b"1700000002.M2P1.host": b"UID9-1690000000",
    b'1700000004.M4+a"b.host': b"1700000004.M4+2Ba+22b.host",
}


# -- the option ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["default", "maildir-name", "dovecot", "x-uidl,dovecot:%v.%u", "courier:%v-%u", "uw"]
)
def test_presets_are_read(text: str) -> None:
    """A list of presets, two of them with a format, is a value of --uidl."""
    assert presets.uidl_presets(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exchange", "a preset is one of"),
        ("", "a preset is one of"),
        ("default,uw", "stand alone"),
        ("uw,uw", "twice"),
        ("uw:%u", "takes no format"),
        ("dovecot:", "one id"),
        ("dovecot:%v", "one id"),
        ("dovecot:%%u", "one id"),
        ("dovecot:%q%u", "there are"),
        ("dovecot:%u %v", "there are"),
        ("dovecot:ü%u", "there are"),
    ],
)
def test_a_wrong_preset_is_explained(text: str, said: str) -> None:
    """A mistake is refused with words that help."""
    with pytest.raises(ValueError, match=said):
        presets.uidl_presets(text)


@pytest.mark.parametrize(
    ("form", "uid"),
    [
        ("%08Xu%08Xv", b"0000000a65920080"),
        ("%v.%u", b"1704067200.10"),
        ("%u-%v", b"10-1704067200"),
        ("%05u%%x", b"00010%x"),
        ("%f", b"170.M1"),
        ("%g", b"170.M1"),
        ("%Mf", hashlib.md5(b"170.M1").hexdigest().encode()),
        ("%m", None),
    ],
)
def test_a_format_is_filled_in(form: str, uid: bytes | None) -> None:
    """The notation is that of Dovecot's pop3_uidl_format."""
    presets.check_format(form)
    assert presets.fill(form, Known(10, 1704067200, b"170.M1")) == uid


# -- id files ------------------------------------------------------------------------------------


def read(tmp_path: Path, word: str, name: str, content: bytes) -> dict[bytes, bytes]:
    """Write an id file and read it."""
    (tmp_path / name).write_bytes(content)
    return foreign.read_ids(presets.parse(word)[0], tmp_path)


def test_dovecots_list(tmp_path: Path) -> None:
    """Uid and validity in hex; a saved id goes first, an empty one is the file name."""
    content = (
        b"3 V1704067200 N7 G43eeaa13baf1066b883f000083ecc375\n"
        b"1 :1.M1.host,S=40\n"
        b"2 W50 S40 :2.M2.host:2,S\n"
        b"4 PUID4-1690000000 Gabc :3.M3.host:2,\n"
        b"5 P :4.M4.host\n"
        b"6 Gguid6 :with space:2,\n"
        b"0 :zero\n"
        b"9 :no/slash\n"
        b"broken\n"
        b"8 :half a li"
    )
    ids = read(tmp_path, "dovecot", "dovecot-uidlist", content)
    assert ids == {
        b"1.M1.host,S=40": b"0000000165920080",
        b"2.M2.host": b"0000000265920080",
        b"3.M3.host": b"UID4-1690000000",
        b"4.M4.host": b"4.M4.host",
        b"with space": b"0000000665920080",
    }
    by_guid = read(tmp_path, "dovecot:%g", "dovecot-uidlist", content)
    assert by_guid[b"with space"] == b"guid6"
    assert by_guid[b"2.M2.host"] == b"2.M2.host"
    cyrus = read(tmp_path, "cyrus", "dovecot-uidlist", content)
    assert cyrus[b"3.M3.host"] == b"1704067200.4"


def test_dovecots_first_list(tmp_path: Path) -> None:
    """The list of Dovecot 0.99 and 1.0 is read too."""
    ids = read(tmp_path, "dovecot:%v.%u", "dovecot-uidlist", b"1 77 3\n1 1.M1.h:2,S\n2 2.M2.h\n")
    assert ids == {b"1.M1.h": b"77.1", b"2.M2.h": b"77.2"}


def test_couriers_lists(tmp_path: Path) -> None:
    """All versions of the list of sizes, and the one of uids when a format is given."""
    name = "courierpop3dsizelist"
    assert read(tmp_path, "courier", name, COURIER) == COURIER_IDS
    assert read(tmp_path, "courier", name, b"/2 9 77\na:2,S 20 5:77\nb 20 6:0\n") == {
        b"a": b"UID5-77",
        b"b": b"UID6",
    }
    assert read(tmp_path, "courier", name, b"/1 9\na 20 5\n") == {b"a": b"UID5"}
    assert read(tmp_path, "courier", name, b"a'b 20\n") == {b"a'b": b"a+27b"}
    ids = read(tmp_path, "courier:%v-%u", "courierimapuiddb", b"1 77 9\n5 a:2,S\n6 b c\n")
    assert ids == {b"a": b"77-5", b"b c": b"77-6"}


@pytest.mark.parametrize(
    ("word", "name", "content"),
    [
        ("dovecot", "dovecot-uidlist", b""),
        ("dovecot", "dovecot-uidlist", b"2 V1 N1\n1 :a\n"),
        ("dovecot", "dovecot-uidlist", b"3 N1\n1 :a\n"),
        ("courier", "courierpop3dsizelist", b"/9 1 1\na 1 1:1\n"),
        ("courier:%u", "courierimapuiddb", b"x\n"),
    ],
)
def test_a_broken_id_file_is_refused(tmp_path: Path, word: str, name: str, content: bytes) -> None:
    """A file that does not begin as it should gives no ids rather than wrong ones."""
    with pytest.raises(foreign.BadIdFile):
        read(tmp_path, word, name, content)


def test_only_plain_files_of_some_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link, a pipe and a huge file are not followed, waited for or read."""
    preset = Preset("dovecot", "%u")
    path = tmp_path / "dovecot-uidlist"
    assert foreign.read_ids(preset, tmp_path) == {}
    path.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        foreign.read_ids(preset, tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(foreign.BadIdFile):
        foreign.read_ids(preset, tmp_path)
    path.unlink()
    path.write_bytes(b"3 V1 N1\n")
    monkeypatch.setattr(foreign, "LONGEST", 7)
    with pytest.raises(foreign.BadIdFile):
        foreign.read_ids(preset, tmp_path)


# -- headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", POPA3D, ids=["received", "local", "nothing", "shouted"])
def test_popa3ds_hash(header: bytes) -> None:
    """The ids are those of popa3d itself."""
    assert headers.popa3d(header) == POPA3D[header]


def test_qpoppers_hash() -> None:
    """The "From " line and four fields, once in hex and once in the digits of later versions."""
    envelope = b"From a@x Mon Jan  1 00:00:00 2024\n"
    lines = b"".join(
        line
        for line in LOCAL.splitlines(keepends=True)
        if line.lower().startswith((b"date", b"message-id", b"subject"))
    )
    old = hashlib.md5(envelope + lines).hexdigest().encode()
    assert headers.qpopper(LOCAL, envelope, old=True) == old
    raw = hashlib.md5(envelope + lines + envelope).digest()
    value = ((raw[0] * 16 + raw[1]) * 16 + raw[2]) * 16 + raw[3]
    new = headers.qpopper(LOCAL, envelope)
    assert len(new) == 20
    assert b"." not in new
    digits = [octet - 0x21 for octet in new.replace(b"~", b".")[:5]]
    assert sum(digit * 80**place for place, digit in enumerate(digits)) == value
    assert headers.qpopper(SHOUTED, envelope) == b"abc123"
    assert headers.qpopper(b"X-UIDL: " + b"x" * 80 + b"\n", envelope) != b"x" * 80


def test_fields_are_found() -> None:
    """The first one counts, folded or not, in any case, with LF or CRLF."""
    assert headers.first_field(RECEIVED, b"message-id") == b"<one@example.org>"
    assert headers.first_field(b"A: b\r\nMessage-ID:\r\n <x@y>\r\n", b"message-id") == b"<x@y>"
    assert headers.first_field(b"Message-ID: \nSubject: <x>\n", b"message-id") == b""
    assert headers.first_field(NOTHING, b"message-id") == b""
    base = b"X-IMAPbase: 1704067200 0000000004 $Junk\nX-UID: 3   \n"
    assert headers.imap_base(base) == (1704067200, 4)
    assert headers.imap_base(b"X-IMAP: 7 9\n") == (7, 9)
    assert headers.imap_uid(base) == 3
    assert headers.imap_uid(b"X-UID: 3 or so\n") is None


def test_a_header_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the blank line however the blocks are cut, and at the limit at the latest."""
    whole = b"A: b\r\nC: d\r\n\r\nE: f\r\n"
    for cut in range(1, len(whole)):
        assert headers.header_of(iter((whole[:cut], whole[cut:]))).rstrip() == b"A: b\r\nC: d"
    monkeypatch.setattr(headers, "LONGEST", 10)
    assert headers.header_of(iter([b"x" * 10] * 9)) == b"x" * 10


# -- what is announced ---------------------------------------------------------------------------


def test_ids_differ() -> None:
    """What cannot be sent is hashed; equal ids get a suffix that pushes no other away."""
    given = distinct([b"a", b"a", b"a.2", b"a", b"", b"x" * 71, b"t"], {b"t", b"t.2"})
    assert given == [b"a", b"a.3", b"a.2", b"a.4", hashed(b""), hashed(b"x" * 71), b"t.3"]
    many = distinct([b"y" * 70] * 1000, set())
    assert len(set(many)) == 1000
    assert max(map(len, many)) <= 70


@pytest.fixture
def server(tmp_path: Path) -> Iterator[POP3Memory]:
    """Return a server that announces Message-IDs."""
    made = make_server(tmp_path, [b"Message-ID: <a@x>\n\nb\n"], uidl="message-id")
    yield made
    made.state.close()


def ids(server: POP3Memory) -> list[bytes]:
    """Log in and return the ids of UIDL."""
    said = replies(server, b"UIDL\r\nQUIT\r\n").split(b"\r\n")
    return [line.split(b" ")[1] for line in said[1 : said.index(b".")]]


def test_equal_ids_stay_apart_for_good(server: POP3Memory) -> None:
    """Of two mails with one Message-ID each keeps its id, also when the other one is deleted."""
    same = b"Message-ID: <a@x>\n\nother\n"
    server.store.mail["joe"] += [Mail("u2", same, None), Mail("u3", b"Subject: none\n\n", None)]
    assert ids(server) == [b"<a@x>", b"<a@x>.2", b"u3"]
    assert replies(server, b"DELE 1\r\nQUIT\r\n").endswith(b"+OK bye\r\n")
    assert ids(server) == [b"<a@x>.2", b"u3"]
    server.store.mail["joe"].append(Mail("u4", same, None))
    assert ids(server) == [b"<a@x>.2", b"u3", b"<a@x>.3"]


def test_a_source_that_names_two_messages_alike(server: POP3Memory) -> None:
    """Both are shown under ids that differ, and these stay."""
    server.store.mail["joe"].append(Mail("u1", b"Message-ID: <b@x>\n\nb\n", 22))
    first = ids(server)
    assert len(set(first)) == 2
    assert ids(server) == first


@pytest.mark.parametrize("name", ["x\udcff", "a\0b", "\ud800"])
def test_a_name_that_no_database_takes(server: POP3Memory, name: str) -> None:
    """Half a surrogate pair or a NUL in the source's own id is no reason to fail."""
    server.store.mail["joe"] = [Mail(name, b"Message-ID: <b@x>\n\nb\n", 22)]
    assert ids(server) == ids(server) == [b"<b@x>"]
    assert b"+OK" in replies(server, b"DELE 1\r\nQUIT\r\n")
    assert server.store.mail["joe"] == []


def test_a_header_is_read_once(server: POP3Memory) -> None:
    """The second login reads no message, and an id stays when the header changes."""
    assert ids(server) == [b"<a@x>"]
    server.store.mail["joe"][0] = Mail("u1", b"Message-ID: <changed@x>\n\nb\n", 26)
    server.store.calls.clear()
    assert ids(server) == [b"<a@x>"]
    assert "read_message" not in server.store.calls
    assert all(stream.closed for stream in server.store.streams)


def test_the_source_still_sees_its_own_ids(server: POP3Memory) -> None:
    """RETR and DELE find the message behind the announced id."""
    assert b"\r\nb\r\n.\r\n" in replies(server, b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
    assert server.store.mail["joe"] == []


def test_a_mail_that_cannot_be_read_gets_no_wrong_id(server: POP3Memory) -> None:
    """The login fails for now, and nothing is written down."""
    server.store.fail["read_message"] = OSError("broken disk")
    said = bytes(talk(server, LOGIN + b"QUIT\r\n").out)
    assert b"-ERR [SYS/TEMP]" in said
    server.store.fail.clear()
    assert ids(server) == [b"<a@x>"]


def test_default_ids_ask_nobody(tmp_path: Path) -> None:
    """Without --uidl there is no journal at all, and no database."""
    server = make_server(tmp_path, [b"Message-ID: <a@x>\n\nb\n"])
    assert server.uidl is None
    assert ids(server) == [b"u1"]
    assert not list((tmp_path / "state").glob("*.sqlite*"))
    assert not (tmp_path / "state" / "uidl-journal").exists()


@pytest.mark.parametrize("word", ["dovecot", "maildir-name", "uw", "x-uidl,courier"])
def test_a_source_refuses_what_it_cannot_do(tmp_path: Path, word: str) -> None:
    """A preset that needs a maildir or an mbox is refused at start by other sources."""
    with pytest.raises(ConfigError, match=r"--uidl .*: this source cannot do that; there are"):
        make_server(tmp_path, uidl=word)


def test_imported_ids(server: POP3Memory, tmp_path: Path) -> None:
    """Ids from a saved table are announced; what is not in it keeps its own."""
    table = read_table(b"# of the old server\nOLD-1 <a@x>\r\nOLD-2\t<gone@x>\n\n")
    found, left = match_ids(table, {"u1": b"<a@x>", "u2": b"", "u3": b"<b@x>"})
    assert (found, left) == ({"u1": "OLD-1"}, ["u2", "u3"])
    moved = make_server(tmp_path, [b"x\n", b"y\n"], uidl="imported")
    Journal(moved.state, moved.state_directory).write(f"{type(moved).__name__}/joe", found, "")
    assert ids(moved) == [b"OLD-1", b"u2"]
    assert "read_message" not in moved.store.calls
    moved.state.close()


def test_ids_are_matched_only_where_it_is_sure() -> None:
    """Equal Message-IDs count if both sides have as many of them, in their order."""
    old = [(b"A", b"<1>"), (b"B", b"<1>"), (b"C", b"<2>")]
    both = {"x": b"<1>", "y": b"<1>", "z": b"<2>"}
    assert match_ids(old, both) == ({"x": "A", "y": "B", "z": "C"}, [])
    assert match_ids(old, {"x": b"<1>", "z": b"<2>"}) == ({"z": "C"}, ["x"])
    with pytest.raises(ValueError, match="line 1"):
        read_table(b"alone\n")


# -- comparing -----------------------------------------------------------------------------------


def test_uidl_diff() -> None:
    """It tells what would be downloaded again, what is gone, and what is there twice."""
    old = read_listing(b"+OK\r\n1 a\r\n2 b\r\n3 b\r\n4 c\r\n.\r\n")
    diff = uidl_diff(old, [(1, b"b"), (2, b"a"), (3, b"d")])
    assert (diff.same, diff.again, diff.gone) == (2, [(3, b"d")], [(4, b"c")])
    assert diff.doubled == [b"b"]
    assert diff.moved == 2
    assert not diff.is_safe
    assert uidl_diff(old[:2], old[:2]).is_safe
    with pytest.raises(ValueError, match="line 2"):
        read_listing(b"1 a\nnonsense\n")
