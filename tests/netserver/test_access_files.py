"""Files that say who may connect: their lines, their order, their changes, and reverse lookup."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netserver import access, client_flow, native
from netserver.access import Verdict, within_limit
from netserver.access_files import AccessRuleList, Pattern, RuleFile, TrustedList
from netserver.echo import EchoServer
from netserver.endpoints import UNIX, UNKNOWN, Address
from netserver.errors import ConfigError
from tests.netserver.pairs import Process
from tests.support.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Make = Callable[..., Process]


def never() -> Sequence[str]:
    """Fail: no lookup was needed here."""
    raise AssertionError("names were asked for without need")


def rules(text: str) -> AccessRuleList:
    """Return the rules of a file with this text."""
    return AccessRuleList.parse(text.encode(), "/f")


def decided(text: str, host: str, names: Sequence[str] | None = None) -> str:
    """Return whether this client may connect, and the line that decided."""
    lookup = never if names is None else lambda: names
    verdict = rules(text).decide(Address(host, 1), lookup)
    return f"{'yes' if verdict.allowed else 'no'} {verdict.rule or ''}".rstrip()


# -- whom a line means ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("10.0.0.1", "10.0.0.1", "10.0.0.12"),
        ("10.1.", "10.1.255.255", "10.100.0.1"),
        ("100.0.0.", "100.0.0.7", "100.0.1.7"),
        ("100.0.0.*", "100.0.0.255", "10.0.0.0"),
        ("10.", "10.255.0.1", "110.0.0.1"),
        ("0.", "0.1.2.3", "1.0.0.0"),
        ("192.0.2.128/25", "192.0.2.200", "192.0.2.100"),
        ("192.0.2.0/255.255.255.0", "192.0.2.9", "192.0.3.9"),
        ("2001:DB8::/32", "2001:db8:1::1", "2001:db9::1"),
        ("::1", "::1", "::2"),
        ("10.", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
        ("::ffff:10.1.1.1", "10.1.1.1", "10.1.1.2"),
    ],
)
def test_addresses_match_by_whole_octets(pattern: str, inside: str, outside: str) -> None:
    """An address, a prefix in both forms, a CIDR, IPv6; nobody's name is asked for."""
    for word, answers in (("DENY", ("no", "yes")), ("deny", ("no", "yes"))):
        text = f"{word} {pattern}"
        assert decided(text, inside).startswith(answers[0])
        assert decided(text, outside) == answers[1]


OCTETS = st.lists(st.integers(0, 255), min_size=4, max_size=4)


@given(OCTETS, st.integers(1, 4), OCTETS, st.integers(0, 4), st.booleans())
def test_prefixes_agree_with_a_naive_reference(
    pattern: list[int], length: int, client: list[int], shared: int, star: bool
) -> None:
    """The first octets are compared as numbers, one by one, and nothing else counts."""
    client = pattern[:shared] + client[shared:]
    text = ".".join(str(octet) for octet in pattern[:length])
    if length < 4:
        text += ".*" if star else "."
    expected = all(pattern[place] == client[place] for place in range(length))
    address = Address(".".join(map(str, client)), 1)
    assert Pattern.of(text).matches(address, IPv4Address(address.host), never) is expected


@pytest.mark.parametrize(
    "whom",
    [
        "10",
        "10.0",
        "10.0.0",
        "10.0.0.1.",
        "256.",
        "010.",
        "10..",
        "*",
        "10.*.*",
        "10.0.0.1/8",
        "::g",
        "2001:db8:",
        "a_b!",
        "-x.org",
        "*.example.org",
        "1.2.3.4.5",
    ],
)
def test_a_mistyped_line_is_named(whom: str) -> None:
    """It must not become a rule that never matches."""
    with pytest.raises(ConfigError, match=r"^/f:2: no address, network or host name"):
        rules(f"ALLOW ::1\nDENY {whom}\n")
    with pytest.raises(ConfigError, match=r"^/f:1: no address, network or host name"):
        TrustedList.parse(whom.encode(), "/f")


@pytest.mark.parametrize("line", ["10.0.0.1", "DENY", "DENY 10. 11.", "REFUSE 10.", "DENY\xe9 10."])
def test_a_line_is_two_words(line: str) -> None:
    """Anything else is an error with its line."""
    with pytest.raises(ConfigError, match=r"^/f:3: not "):
        AccessRuleList.parse(b"\n# none\n" + line.encode("latin-1"), "/f")


def test_names_are_whole_names() -> None:
    """A host is that host, `.domain` all below it; a name with "all" in it is not ALL."""
    text = "ALLOW Pop.Example.org\nALLOW .example.net\nALLOW small.all\nDENY all"
    for name, allowed in [
        ("pop.example.org", "yes /f:1: ALLOW Pop.Example.org"),
        ("xpop.example.org", "no /f:4: DENY all"),
        ("a.b.example.net.", "yes /f:2: ALLOW .example.net"),
        ("example.net", "no /f:4: DENY all"),
        ("SMALL.all", "yes /f:3: ALLOW small.all"),
    ]:
        assert decided(text, "192.0.2.1", [name]) == allowed
    assert decided(text, "192.0.2.1", []) == "no /f:4: DENY all"


# -- their order ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "expected"),
    [
        ("", "10.0.0.1", "yes"),
        ("# only a comment", "10.0.0.1", "yes"),
        ("ALLOW 10.", "11.0.0.1", "yes"),
        ("ALLOW 10.\nDENY 10.0.0.1", "10.0.0.1", "yes /f:1: ALLOW 10."),
        ("Deny 10.0.0.1\nAllow 10.", "10.0.0.1", "no /f:1: DENY 10.0.0.1"),
        ("DENY ALL\nALLOW 10.", "10.0.0.1", "yes /f:2: ALLOW 10."),
        ("DENY ALL\nALLOW 10.", "11.0.0.1", "no /f:1: DENY ALL"),
        ("deny all\r\nDENY 10.0.0.1\r\nALLOW 10.\r\n", "10.0.0.1", "no /f:2: DENY 10.0.0.1"),
        ("ALLOW ALL\nDENY 10.", "10.0.0.1", "yes /f:1: ALLOW ALL"),
        ("ALLOW 10.\nALLOW .example.org", "10.0.0.1", "yes /f:1: ALLOW 10."),
        ("\ufeffDENY\t10. # why", "10.0.0.1", "no /f:1: DENY 10."),
    ],
)
def test_the_first_match_decides(text: str, host: str, expected: str) -> None:
    """Except for DENY ALL, which comes last wherever it stands."""
    assert decided(text, host) == expected


def test_a_warning_goes_on() -> None:
    """All WARN lines up to the one that decides are told."""
    found = rules("WARN ALL\nWARN 11.\nWARN 10.\nDENY 10.0.\nWARN 10.0.0.1")
    verdict = found.decide(Address("10.0.0.1", 1), never)
    assert verdict == Verdict(False, "/f:4: DENY 10.0.", ("/f:1: WARN ALL", "/f:3: WARN 10."))
    assert found.decide(Address("12.0.0.1", 1), never) == Verdict(True, None, ("/f:1: WARN ALL",))


def test_peers_without_an_address() -> None:
    """UNIX peers match `unix` and ALL; who is unknown matches ALL and is refused otherwise."""
    for text, expected in [
        ("", (True, True)),
        ("DENY 0.0.0.0/0\nDENY .x.org", (True, False)),
        ("DENY ALL", (False, False)),
        ("DENY ALL\nALLOW unix", (True, False)),
        ("ALLOW ALL", (True, True)),
        ("DENY UNIX", (False, False)),
    ]:
        found = rules(text)
        assert tuple(found.decide(p, never).allowed for p in (UNIX, UNKNOWN)) == expected, text


def test_the_trusted_are_one_a_line() -> None:
    """The line that trusts is told; ALL is no line."""
    found = TrustedList.parse(
        "# café\n10.1.\n\n2001:db8::/32 # net\nPop.x.org".encode("latin-1"), "/t"
    )
    assert found.match(Address("10.1.2.3", 1), never) == "/t:2: 10.1."
    assert found.match(Address("2001:db8::1", 1), never) == "/t:4: 2001:db8::/32"
    assert found.match(Address("10.100.2.3", 1), lambda: ["pop.x.org"]) == "/t:5: Pop.x.org"
    assert found.match(Address("10.100.2.3", 1), list) is None
    with pytest.raises(ConfigError, match=r"^/t:1: ALL"):
        TrustedList.parse(b"all", "/t")


def test_the_example_in_the_document_is_right() -> None:
    """Its lines are read, and mean what is said there."""
    text = (ROOT / "share" / "doc" / "access.md").read_text()
    example = re.search(r"```\n(# word.*?)```", text, re.DOTALL)
    assert example
    found = rules(example[1])
    assert found.decide(Address("192.0.2.66", 1), never).rule == "/f:2: DENY 192.0.2.66"
    assert found.decide(Address("192.0.2.6", 1), never).allowed
    assert not found.decide(Address("198.51.100.1", 1), lambda: ()).allowed


# -- their changes --------------------------------------------------------------------------------


class Watched:
    """An access file, a clock to turn, and what was logged about it."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.now = 0.0
        self.warnings: list[str] = []
        self.reads = 0
        self.write(text)
        log: Any = self
        self.file = RuleFile("--access-file", str(path), self.parse, log, lambda: self.now)

    def parse(self, data: bytes, path: str) -> AccessRuleList:
        """Count."""
        self.reads += 1
        return AccessRuleList.parse(data, path)

    def write(self, text: str) -> None:
        """Put another file in its place, one that was not changed just now."""
        fresh = self.path.with_name("fresh")
        fresh.write_text(text)
        os.utime(fresh, (1_000_000_000, 1_000_000_000))
        fresh.rename(self.path)

    def warning(self, _: str, *, why: str) -> None:
        """Keep what is wrong."""
        self.warnings.append(why)

    def debug(self, *_: object, **__: object) -> None:
        """Be a log."""

    def allowed(self, *, later: float = 1.5) -> bool:
        """Return whether 10.0.0.1 may connect some seconds later."""
        self.now += later
        found = self.file.rules(client_flow._at_once)
        return found.decide(Address("10.0.0.1", 1), never).allowed


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Not more often than once a second, and only if it changed."""
    watched = Watched(tmp_path / "access", "DENY 10.")
    assert not watched.allowed()
    assert watched.reads == 1
    watched.write("DENY 11.")
    assert not watched.allowed(later=0.5)
    assert watched.allowed(later=1.0)
    assert watched.allowed()
    assert watched.reads == 2


def test_a_file_written_just_now_is_read_again(tmp_path: Path) -> None:
    """A change within the same tick of the file system's clock is not missed."""
    watched = Watched(tmp_path / "access", "DENY 10.")
    watched.path.write_text("DENY 11.")
    assert watched.allowed()
    assert watched.allowed()
    assert watched.reads == 3


def test_a_broken_file_leaves_the_old_rules(tmp_path: Path) -> None:
    """One warning for each thing that is wrong, and the next good file counts."""
    watched = Watched(tmp_path / "access", "DENY 10.")
    place = f"--access-file {watched.path}"
    watched.write("DENY 11.\nDENY 300.1.1.1")
    assert [watched.allowed() for _ in range(3)] == [False] * 3
    watched.path.unlink()
    assert [watched.allowed() for _ in range(3)] == [False] * 3
    os.mkfifo(watched.path)
    assert [watched.allowed() for _ in range(3)] == [False] * 3
    assert [text.partition(" (")[0] for text in watched.warnings] == [
        f"{place}:2: no address, network or host name",
        f"{place}: No such file or directory",
        f"{place}: not a regular file",
    ]
    watched.write("ALLOW 10.")
    assert watched.allowed()
    watched.path.unlink()
    assert watched.allowed()
    assert len(watched.warnings) == 4


def test_one_process_tells_for_all(tmp_path: Path) -> None:
    """Children of one master see the same broken file, and one warning is enough."""
    watched = Watched(tmp_path / "access", "DENY 10.")
    watched.path.unlink()
    child = os.fork()
    if child == 0:
        ok = not watched.allowed() and len(watched.warnings) == 1
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not watched.allowed()
    assert watched.warnings == []


def test_a_bad_file_at_start_is_an_error(tmp_path: Path) -> None:
    """With option, file and line; a server does not come up with half its rules."""
    path = tmp_path / "access"
    path.write_text("ALLOW 10.\nALLOWED 11.\n")
    for options, error in [
        ({"access_file": str(path)}, f"--access-file {path}:2: not ALLOW, DENY, WARN and one "),
        ({"trusted_file": str(path)}, f"--trusted-file {path}:1: no address"),
        ({"access_file": f"{path}x"}, f"--access-file {path}x: No such file or directory"),
        ({"trusted_file": str(tmp_path)}, f"--trusted-file {tmp_path}: Is a directory"),
    ]:
        with pytest.raises(ConfigError) as caught:
            Process(EchoServer, tmp_path / "log", **options)
        assert str(caught.value).startswith(error)


# -- a server with them ---------------------------------------------------------------------------


class Greeting(EchoServer):
    """Says one line."""

    def process_request(self, connection: Any) -> None:
        """Say it."""
        connection.write(b"hello\r\n")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return a maker of servers in this process, with the texts of the two files."""
    made: list[Process] = []

    def maker(access: str = "", trusted: str = "", **settings: Any) -> Process:
        for name, text in (("access", access), ("trusted", trusted)):
            if text:
                (tmp_path / name).write_text(text)
                settings[f"{name}_file"] = str(tmp_path / name)
        made.append(Process(Greeting, tmp_path / f"log{len(made)}", **settings))
        return made[-1]

    yield maker
    for process in made:
        process.close()


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """Return the names that lookups find, by kind of lookup; both count in "asked"."""
    found: dict[str, tuple[str, ...]] = {"given": (), "confirmed": (), "asked": ()}

    def lookup(kind: str) -> Callable[[str], tuple[str, ...]]:
        def look(host: str) -> tuple[str, ...]:
            found["asked"] += (f"{kind} {host}",)
            return found[kind]

        return look

    monkeypatch.setattr(client_flow, "given_names", lookup("given"))
    monkeypatch.setattr(client_flow, "confirmed_names", lookup("confirmed"))
    return found


def test_a_refusal_and_a_warning_name_file_line_and_rule(make: Make, tmp_path: Path) -> None:
    """Both are logged with where they stand."""
    process = make("# x\nwarn 127.\ndeny 127.0.0.0/8")
    assert process.serve().text == b""
    told = [(event["level"], event["rule"]) for event in process.events() if "rule" in event]
    file = tmp_path / "access"
    assert told == [("warning", f"{file}:2: WARN 127."), ("info", f"{file}:3: DENY 127.0.0.0/8")]


def test_each_kind_of_rule_only_takes_away(make: Make, resolver: dict[str, Any]) -> None:
    """An ALLOW in the file helps nobody who is denied before or has no name after it."""
    assert make("ALLOW ALL", deny=("127.0.0.1",)).serve().text == b""
    assert make("ALLOW ALL", listen=("127.0.0.1:0?deny=127.0.0.1",)).serve().text == b""
    assert make("ALLOW ALL", reverse_lookup="on").serve().text == b""
    assert resolver["asked"] == ("given 127.0.0.1",)
    assert make("DENY ALL", allow=("127.0.0.1",)).serve().text == b""
    assert make("DENY ALL", trusted="127.0.0.1").serve().text == b""
    assert make("ALLOW ALL", allow=("127.0.0.1",)).serve().text == b"hello\r\n"


@pytest.mark.parametrize(
    ("mode", "found", "welcome"),
    [
        ("off", (), True),
        ("on", (), False),
        ("on", ("given",), True),
        ("double", ("given",), False),
        ("double", ("given", "confirmed"), True),
    ],
)
def test_reverse_lookup(
    make: Make, resolver: dict[str, Any], mode: str, found: tuple[str, ...], welcome: bool
) -> None:
    """`on` wants a name, `double` one that leads back; the answer is kept."""
    resolver.update(dict.fromkeys(found, ("pop.x.org",)))
    process = make(reverse_lookup=mode)
    assert [process.serve().text for _ in range(2)] == [b"hello\r\n" if welcome else b""] * 2
    assert len(resolver["asked"]) == (0 if mode == "off" else 1)
    refused = [event["rule"] for event in process.events() if event["event"] == "refused"]
    assert refused == ([] if welcome else [f"--reverse-lookup {mode}"] * 2)


def test_the_trusted_need_no_name(make: Make, resolver: dict[str, Any]) -> None:
    """Nobody even asks for it, unless the trusted file speaks of names."""
    assert make(trusted="127.", reverse_lookup="double").serve().text == b"hello\r\n"
    assert resolver["asked"] == ()
    resolver["confirmed"] = ("pop.x.org",)
    assert make(trusted=".x.org", reverse_lookup="on").serve().text == b"hello\r\n"
    assert resolver["asked"] == ("confirmed 127.0.0.1",)


def test_the_trusted_are_not_counted_by_source(make: Make) -> None:
    """--max-per-source stops the others."""
    for trusted, answers in (("127.", [b"hello\r\n"]), ("10.", [b""])):
        process = make(trusted=trusted, max_per_source=1)
        flow: Any = process.server
        flow.clients.claim_source = lambda _: False  # as if there were one already
        assert [process.serve().text] == answers


def test_explain_tells_each_step(make: Make, resolver: dict[str, Any], tmp_path: Path) -> None:
    """Which rule decides, at each listener, for addresses and UNIX peers."""
    process = make(
        "WARN 10.\nDENY 10.0.0.12\nALLOW 10.\nALLOW unix\nDENY ALL",
        trusted="10.1.",
        deny=("10.9.0.0/16",),
        listen=("127.0.0.1:0", "127.0.0.1:0?deny=10.0.0.2"),
        reverse_lookup="double",
    )
    explain = process.server.explain_access
    file = tmp_path / "access"
    assert explain("10.0.0.2").split("\n") == [
        "10.0.0.2 may not connect to 127.0.0.1:0",
        "  --allow, --deny: goes on, no rule matches",
        f"  --access-file: warns, {file}:1: WARN 10.",
        f"  --access-file: goes on, {file}:3: ALLOW 10.",
        "  --reverse-lookup: refused, --reverse-lookup double",
        "10.0.0.2 may not connect to 127.0.0.1:0?deny=10.0.0.2",
        "  --allow, --deny: goes on, no rule matches",
        "  --listen 127.0.0.1:0?deny=10.0.0.2: refused, 10.0.0.2",
    ]
    assert f"  --access-file: refused, {file}:2: DENY 10.0.0.12" in explain("10.0.0.12")
    assert "  --allow, --deny: refused, 10.9.0.0/16" in explain("10.9.1.1")
    trusting = explain("10.1.0.1")
    assert f"  --reverse-lookup: goes on, {tmp_path}/trusted:1: 10.1." in trusting
    assert "not connect" not in trusting
    assert explain("unix").startswith("unix may connect")
    assert f"refused, {file}:5: DENY ALL" in explain("2001:db8::1")


# -- lookups have a limit -------------------------------------------------------------------------


def soon() -> float:
    """Return a time that passes within the test."""
    return time.monotonic() + 0.01


def later() -> float:
    """Return a time that does not."""
    return time.monotonic() + 30


def test_who_waited_too_long_is_not_looked_up() -> None:
    """The time in the queue of a pool counts."""

    def refuse(_: str) -> tuple[str, ...]:
        raise AssertionError("asked too late")

    assert within_limit(refuse, "192.0.2.1", time.monotonic()) == ()


def test_a_slow_resolver_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not answered in time has no name; with too many such lookups none is begun."""
    go_on, ended = threading.Event(), threading.Semaphore(0)
    monkeypatch.setattr(access, "_ROOM", [None] * 2)

    def slow(_: str) -> tuple[str, ...]:
        assert go_on.wait(30)
        ended.release()
        return ("late.example",)

    assert [within_limit(slow, "192.0.2.1", soon()) for _ in range(2)] == [(), ()]
    assert within_limit(lambda _: ("never.example",), "192.0.2.1", later()) == ()
    go_on.set()
    assert ended.acquire(timeout=30)
    assert ended.acquire(timeout=30)
    for _ in range(3000):  # the threads give their room back just after
        if len(access._ROOM) == 2:
            break
        go_on.clear()
        go_on.wait(0.01)
    assert within_limit(lambda host: (host,), "192.0.2.1", later()) == ("192.0.2.1",)


def test_no_more_threads_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's limit of processes is no reason to fail."""

    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(native, "start_new_thread", refuse)
    room = len(access._ROOM)
    assert within_limit(lambda host: (host,), "192.0.2.1", later()) == ()
    assert len(access._ROOM) == room


PATCHED = """
from gevent import monkey
monkey.patch_all()
import time
from netserver.access import within_limit
sleep = monkey.get_original("time", "sleep")
import gevent
from gevent import threadpool
pool = threadpool.ThreadPool(1)
def slow(host):
    sleep(60)
assert within_limit(lambda host: (host,), "x", time.monotonic() + 30) == ("x",)
assert pool.apply(within_limit, (slow, "x", time.monotonic() + 0.05)) == ()
import gc
hubs = [thing for thing in gc.get_objects() if isinstance(thing, gevent.hub.Hub)]
# the pool's own thread may have one, the threads of lookups have none
assert len(hubs) <= 2, hubs
import os
print("right", flush=True)
os._exit(0)
"""


def test_the_limit_holds_where_gevent_has_patched() -> None:
    """The threads are the system's: they make no hub, and the pool's thread gets free."""
    done = subprocess.run(
        [sys.executable, "-c", PATCHED],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr) == ("right\n", "")
