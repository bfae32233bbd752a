"""Users files, password hashes, access files and trusted files."""

from netserver.access_files import AccessRuleList, TrustedList
from netserver.endpoints import Address
from netserver.errors import ConfigError
from pop3.auth import passwd_file, schemes
from pop3.auth.names import LoginName
from tests.fuzz.target import target

HASHES = (
    b"{PLAIN}secret",
    b"{SHA512-CRYPT}$6$rounds=1000$saltsalt$" + b"." * 86,
    b"$1$saltsalt$1K7dkhtbTNVUwUicA5kOT1",
    b"$y$j75$saltsaltsalt$cyRSWlvfVOdE0vmeiOBzilqWNjtLPn/A/Lo191FuXP9",
    b"{SSHA}" + b"A" * 36,
    b"{SHA256}" + b"A" * 43 + b"=",
    b"{SCRAM-SHA-256}4096,YWFh," + b"A" * 43 + b"=," + b"A" * 43 + b"=",
    b"$2b$05$" + b"." * 53,
    b"$argon2id$v=19$m=64,t=1,p=1$YWFhYWFhYWE$" + b"A" * 43,
    b"{PBKDF2}$1$salt$100$" + b"a" * 40,
    b"ab0123456789a",
    b"{CRYPT}!",
    b"*",
)
PATH = "/etc/users"


def _is_one_line(error: ConfigError) -> bool:
    text = str(error)
    return text.startswith(PATH + ":") and "\n" not in text


@target(
    "users-file",
    seeds=(
        b"anna:{PLAIN}secret\nbert:!:1000:1000:Bert:/home/bert:/bin/sh:x:y\n# c\n\n",
        b"\xef\xbb\xbfanna@example.org:" + HASHES[1] + b"::\r\n",
        b"".join(b"u%d:%b\n" % pair for pair in enumerate(HASHES)),
    ),
    words=(b"\nx:{PLAIN}y", b":0:0:", b"::", b"{CRYPT}", b"{SHA512-CRYPT}", b":/home/", *HASHES),
    longest=2048,
)
def users_file(data: bytes) -> None:
    """A file is a table of users, or one line tells what is wrong and where."""
    try:
        users = passwd_file.parse(data, PATH)
    except ConfigError as error:
        assert _is_one_line(error), error
        return
    for user, entry in users.table.items():
        assert LoginName.parse(user.encode()).user == user
        assert entry.hash_text is None or schemes.check(entry.hash_text) is not None
        assert entry.home is None or entry.home.startswith("/")
        assert all(number is None or 0 <= number < 2**32 - 1 for number in (entry.uid, entry.gid))
    assert schemes.check(users.dummy) is not None


@target("hash", seeds=HASHES, words=(b"{", b"}", b"$", b"rounds=", b"=", b",", b"{SCRAM-SHA-1}"))
def password_hash(data: bytes) -> None:
    """A hash that passes the check can be verified and imitated; the others are a ValueError."""
    text = data.decode("utf-8", "replace")
    try:
        shape = schemes.check(text)
    except ValueError as error:
        body = text.partition("}")[2] if text.startswith("{") else text
        assert len(body) < 12 or body not in str(error).partition("{")[0]
        return
    if shape is None:
        return
    dummy = schemes.dummy_like(text)
    assert schemes.check(dummy) == shape
    milliseconds = schemes.cost(text)
    assert milliseconds >= 0
    assert schemes.cost(dummy) == milliseconds
    if milliseconds < 0.2:
        assert schemes.verify(text, b"no such password") in (True, False)
        assert not schemes.verify(text, b"")
        assert not schemes.verify(text, b"a\0b")


@target(
    "access-file",
    seeds=(
        b"ALLOW 10.0.0.0/8\nDENY ALL\n",
        b"allow .example.org # x\r\nWARN 192.0.2.\nDENY 192.0.2.*\n",
        b"\xef\xbb\xbfALLOW unix\nALLOW ::1\nDENY 2001:db8::/32\n",
        b"\x1d\nWARN \xef\xbb\xbf",  # a blank for str and none for bytes
        b"10.0.0.1\n192.0.2.0/24\nmail.example.org\n",
    ),
    words=(
        b"ALLOW ",
        b"DENY ALL\n",
        b"WARN ",
        b"/33",
        b"::ffff:10.0.0.1",
        b"10.1.",
        b".*",
        b"256.",
    ),
)
def access_file(data: bytes) -> None:
    """A file is a list of rules that judges every client, or one line tells what is wrong."""
    clients = [
        Address("10.1.2.3", 1),
        Address("192.0.2.77", 2),
        Address("2001:db8::1", 3),
        Address("unix", None),
        Address("unknown", None),
    ]
    for kind in (AccessRuleList, TrustedList):
        try:
            rules = kind.parse(data, PATH)
        except ConfigError as error:
            assert _is_one_line(error), error
            continue
        for client in clients:
            if isinstance(rules, TrustedList):
                told = rules.match(client, lambda: ("host.example.org",))
                assert told is None or told.startswith(PATH)
            else:
                verdict = rules.decide(client, lambda: ("host.example.org",))
                assert verdict.allowed in (True, False)
