"""What clients of Mail::POP3 heard, and who was let in: rows 1 to 27 (see test_c1_rows)."""

import io
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from netserver import Connection, access
from pop3.sources.maildir import MaildirSettings, POP3Maildir
from tests.conftest import Start
from tests.support.maildirs import PLAIN, make_maildir, stored_messages
from tests.support.servers import run_program, write_users

LOGIN = b"USER anna\r\nPASS secret\r\n"


class Site:
    """A maildir of anna's, served on files in this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.mail = make_maildir(directory / "mail/anna", [PLAIN] * 3)
        self.users = write_users(directory / "users", {"anna": "secret", "ben": "two  words"})

    def server(self, kind: type[POP3Maildir] = POP3Maildir, **options: Any) -> POP3Maildir:
        """Return a server."""
        defaults: dict[str, Any] = {
            "maildir": f"{self.directory}/mail/{{user}}",
            "auth": (f"passwd-file:{self.users}",),
            "state": f"sqlite:///{self.directory}/state/state.sqlite",
            "auth_failure_delay": 0.0,
            "lock_wait": 0.0,
            "log_file": str(self.log),
        }
        return kind(MaildirSettings(**(defaults | options)))

    def hear(self, said: bytes, peer: str = "127.0.0.1", **options: Any) -> list[bytes]:
        """Let a client say all this and return the lines it hears."""
        out = io.BytesIO()
        with self.server(**options) as server:
            server.serve(io.BytesIO(said), out, peer=peer)
        return out.getvalue().split(b"\r\n")[:-1]

    def stored(self) -> int:
        """Return how many messages are left."""
        return len(stored_messages(self.mail))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return one with three messages."""
    return Site(tmp_path)


def test_c1_row_01_commands_in_any_case(site: Site) -> None:
    """All eleven of Mail::POP3 are known, in capitals or not."""
    said = (
        b"UsEr anna\npass secret\nStat\nlist 1\nuidl 1\nretr 1\ntop 1 0\ndele 1\nrset\nnoop\nquit\n"
    )
    heard = site.hear(said)
    assert not [line for line in heard if line.startswith(b"-ERR")]
    assert len([line for line in heard if line.startswith(b"+OK")]) == 12


@pytest.mark.parametrize("verb", [b"STAT", b"LIST", b"RETR 1", b"DELE 1", b"NOOP", b"UIDL"])
def test_c1_row_02_before_login(site: Site, verb: bytes) -> None:
    """Only what belongs there is done before the login."""
    assert site.hear(verb + b"\r\nQUIT\r\n")[1:] == [b"-ERR not in this state", b"+OK bye"]


def test_c1_row_04_lines(site: Site) -> None:
    """An overlong line is refused and the session goes on; a password may have blanks."""
    heard = site.hear(b"NOOP " + b"x" * 5000 + b"\r\nUSER ben\nPASS two  words\r\n")
    assert heard[1:] == [b"-ERR line too long", b"+OK", b"+OK logged in"]


def test_c1_row_06_time_is_up(site: Site) -> None:
    """A client that falls silent is left, and nothing is deleted without QUIT."""
    near, far = socket.socketpair()
    with near, far, site.server(timeout=0.2) as server:
        far.sendall(LOGIN + b"DELE 1\r\nDELE 2\r\n")
        server.serve(near, near, peer="127.0.0.1")
    assert site.stored() == 3
    assert '"reason":"timeout"' in site.log.read_text() or "reason=timeout" in site.log.read_text()


def test_c1_row_07_greeting(site: Site) -> None:
    """The text is the administrator's, of up to 200 characters."""
    text = "Mail of the " + "x" * 180
    assert site.hear(b"QUIT\r\n", greeting=text)[0] == b"+OK " + text.encode()


def test_c1_row_08_friendly_texts(site: Site) -> None:
    """The theme mpopd talks as the old program did."""
    heard = site.hear(LOGIN + b"QUIT\r\n", texts="mpopd")
    assert heard[2:] == [b"+OK thanks anna...", b"+OK TTFN anna..."]


def test_c1_row_09_user_tells_nothing(site: Site) -> None:
    """USER and PASS answer the same for a name that nobody has."""
    unknown = site.hear(b"USER nobody\r\nPASS secret\r\n")
    assert unknown == site.hear(b"USER anna\r\nPASS wrong\r\n")


@pytest.mark.parametrize("at_once", [True, False])
def test_c1_row_10_bogus_users(site: Site, at_once: bool) -> None:
    """`reject-bogus-user` refuses at USER, else a password is asked for."""
    heard = site.hear(b"USER nobody\r\n", reject_bogus_user=at_once)
    assert heard[1].startswith(b"-ERR" if at_once else b"+OK")


def test_c1_row_12_lock_is_waited_for(start: Start) -> None:
    """A login waits for a mailbox in use, then says [IN-USE]."""
    server = start(personality="fork", options=["--lock-wait", "0.3"])
    make_maildir(server.maildir(), [PLAIN])
    with server.session() as first, server.connect() as second:
        second.ok(b"USER anna")
        assert second.err(b"PASS secret").startswith(b"-ERR [IN-USE]")
        second.ok(b"USER anna")
        second.send(b"PASS secret\r\n")
        first.quit()
        assert second.reply().startswith(b"+OK")
        second.quit()


def test_c1_row_13_source_by_name(tmp_path: Path) -> None:
    """One that there is not is told with those there are; module:Class is one of your own."""
    users = write_users(tmp_path / "users", {"anna": "x"})
    common = ("--no-default-config", "--check-config", "--state", f"sqlite:///{tmp_path}/s/s.db")
    done = run_program("pop3-server", *common, "--source", "nonsense", home=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    (tmp_path / "own.py").write_text(
        "from pop3.sources.maildir import POP3Maildir\nclass Own(POP3Maildir): pass\n"
    )
    own = ("--source", "own:Own", "--auth", f"passwd-file:{users}")
    done = run_program("pop3-server", *common, *own, home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_c1_row_14_list(site: Site) -> None:
    """Number and size, and no word behind them."""
    heard = site.hear(LOGIN + b"LIST\r\nLIST 2\r\n")
    assert re.fullmatch(rb"\+OK 3 messages;1 (\d+);2 \1;3 \1;\.;\+OK 2 \1", b";".join(heard[3:]))


def test_c1_row_15_retr_counts_what_it_sends(site: Site) -> None:
    """An added Received header is in the sizes of RETR, LIST and STAT."""
    heard = site.hear(LOGIN + b"STAT\r\nLIST 1\r\nRETR 1\r\n", add_received=("anna",))
    size = int(heard[4].split()[2])
    assert heard[3] == b"+OK 3 %d" % (3 * size)
    assert heard[5] == b"+OK %d octets" % size
    assert heard[6].startswith(b"Received: from ")
    assert sum(len(line) + 2 for line in heard[6:-1]) == size


def test_c1_row_17_dots_and_line_ends(site: Site) -> None:
    """Dots are doubled and every line ends in CRLF, whatever is stored."""
    make_maildir(site.directory / "mail/ben", [b"Subject: x\n\n.\n..a\r\nno end"])
    heard = site.hear(b"USER ben\r\nPASS two  words\r\nRETR 1\r\n")
    assert heard[4:] == [b"Subject: x", b"", b"..", b"...a", b"no end", b"."]


def test_c1_row_18_quit_tells_failures(site: Site) -> None:
    """What could not be deleted makes QUIT fail."""

    class Broken(POP3Maildir):
        def delete_messages(self, session: Any, messages: Any) -> None:
            raise OSError("disk full")

    out = io.BytesIO()
    with site.server(Broken) as server:
        server.serve(io.BytesIO(LOGIN + b"DELE 1\r\nQUIT\r\n"), out)
    assert out.getvalue().endswith(b"\r\n-ERR [SYS/TEMP] some of 1 messages not deleted\r\n")
    assert site.stored() == 3


def test_c1_row_23_log(site: Site) -> None:
    """Levels, and an id on all lines of a session; a line for each refusal."""
    site.hear(b"USER anna\r\nPASS wrong\r\n" + LOGIN + b"QUIT\r\n", log_format="logfmt")
    lines = site.log.read_text().splitlines()
    failed, ended = [line for line in lines if "login failed" in line or "event=session " in line]
    ids = {re.search(r" session=(\S+)", line)[1] for line in (failed, ended)}  # type: ignore[index]
    assert len(ids) == 1
    assert "level=warning" in failed


def test_c1_row_24_trusted(site: Site) -> None:
    """Who is trusted needs no host name, and a DENY holds all the same."""
    trusted = site.directory / "trusted"
    trusted.write_text("192.0.2.\n")
    options: dict[str, Any] = {"reverse_lookup": "on", "trusted_file": str(trusted)}
    assert site.hear(b"QUIT\r\n", "192.0.2.1", **options)[0].startswith(b"+OK")
    assert site.hear(b"QUIT\r\n", "192.0.2.1", deny=("192.0.2.1",), **options) == []


def test_c1_row_25_reverse_lookup(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `double`, a client without a name that leads back is refused."""
    table = {"192.0.2.1": "good.example", "192.0.2.2": "liar.example"}
    back = {"good.example": "192.0.2.1", "liar.example": "192.0.2.99"}

    def name_of(address: tuple[str, int], _flags: int) -> tuple[str, str]:
        if address[0] not in table:
            raise socket.gaierror(socket.EAI_NONAME, "no name")
        return table[address[0]], "0"

    def addresses_of(name: str, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", (back[name], 0))]

    monkeypatch.setattr(access, "getnameinfo", name_of)
    monkeypatch.setattr(access, "getaddrinfo", addresses_of)
    greeted = [
        bool(site.hear(b"QUIT\r\n", f"192.0.2.{last}", reverse_lookup="double"))
        for last in (1, 2, 3)
    ]
    assert greeted == [True, False, False]
    assert site.hear(b"QUIT\r\n", "192.0.2.3")  # off unless asked for


def test_c1_row_26_access_file(site: Site) -> None:
    """ALLOW, DENY and WARN, comments; the first match decides, and prefixes are whole octets."""
    rules = site.directory / "access"
    rules.write_text("# ours\nWARN 10.0.0.1\nDENY 10.0.0.2\nALLOW 10.0.0.\nDENY ALL\n")
    addresses = ("10.0.0.1", "10.0.0.2", "10.0.0.12", "10.0.1.1")
    heard = [site.hear(b"QUIT\r\n", one, access_file=str(rules)) for one in addresses]
    assert [bool(lines) for lines in heard] == [True, False, True, False]
    assert f"{rules}:2" in site.log.read_text()


def test_c1_row_27_own_rules(site: Site) -> None:
    """A class of one's own says who may connect."""

    class OddOnly(POP3Maildir):
        def allow_deny_hook(self, connection: Connection) -> bool:
            return connection.peer.host.endswith(("1", "3"))

    for peer, greeted in (("192.0.2.1", True), ("192.0.2.2", False)):
        out = io.BytesIO()
        with site.server(OddOnly) as server:
            server.serve(io.BytesIO(b"QUIT\r\n"), out, peer=peer)
        assert bool(out.getvalue()) == greeted
