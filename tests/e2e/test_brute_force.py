"""Those who guess passwords: bans, what survives a restart, the log line, limits of a user."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from netserver.control import Caller, ControlError
from tests.conftest import Start
from tests.support.processes import wait_until
from tests.support.servers import ROOT, RunningServer, run_program
from tests.support.wire import Wire

FILTER = ROOT / "share" / "fail2ban" / "filter.d" / "pop3-server.conf"
FAIL2BAN = shutil.which("fail2ban-regex")
BEHIND = ("--proxy-protocol", "127.0.0.1", "--plaintext-auth", "always")
STRICT = (*BEHIND, "--auth-failure-delay", "0.01", "--ban-after", "3")


def come(server: RunningServer, host: str) -> Wire:
    """Connect as a client of that address."""
    wire = server.connect(greeted=False)
    family, own = ("TCP6", "2001:db8::1") if ":" in host else ("TCP4", "198.51.100.1")
    wire.send(f"PROXY {family} {host} {own} 4711 110\r\n".encode())
    return wire


def is_served(server: RunningServer, host: str) -> bool:
    """Whether a client of that address gets a greeting; if not it must get nothing at all."""
    with come(server, host) as wire:
        said = wire.read_to_end_or(b"QUIT\r\n")
        assert said == b"" or said.startswith(b"+OK"), said
        return bool(said)


def guess(server: RunningServer, host: str, words: list[bytes], user: bytes = b"anna") -> None:
    """Fail with these passwords on one connection."""
    with come(server, host) as wire:
        wire.line()
        for word in words:
            wire.ok(b"USER " + user)
            assert wire.err(b"PASS " + word) == b"-ERR [AUTH] authentication failed"


def test_who_guesses_is_not_let_in_any_more(start: Start, personality: str) -> None:
    """By any worker, nor after a restart; others are, and who repeats an old password."""
    server = start(personality=personality, options=STRICT)
    guess(server, "192.0.2.7", [b"a", b"b", b"c"])
    server.wait_for_log('"address":"192.0.2.7"')
    guess(server, "192.0.2.8", [b"old", b"old", b"old"])
    guess(server, "192.0.2.8", [b"old", b"old"])
    for number, word in enumerate((b"a", b"b", b"c")):
        guess(server, f"2001:db8:1:2::{number}", [word])
    for _ in range(1 if personality == "inetd" else 3):  # by whichever worker
        assert not is_served(server, "192.0.2.7")
        assert not is_served(server, "2001:db8:1:2:ffff::9")
    for host in ("192.0.2.8", "2001:db8:1:3::1"):
        assert is_served(server, host)
    if personality != "inetd":  # each client of which is a restart
        server.reload()
        assert not is_served(server, "192.0.2.7")
    server.stop()
    server = start(personality=personality, options=STRICT)
    assert not is_served(server, "192.0.2.7")
    assert is_served(server, "192.0.2.8")


def test_a_connection_that_is_there_already_gets_no_more_tries(start: Start) -> None:
    """The right password is refused like a wrong one once the address is banned."""
    server = start(personality="gevent", options=STRICT)
    with come(server, "192.0.2.7") as early:
        early.line()
        guess(server, "192.0.2.7", [b"a", b"b", b"c"])
        early.ok(b"USER anna")
        assert early.err(b"PASS secret") == b"-ERR [AUTH] authentication failed"


def test_whom_the_operator_trusts_is_never_banned(start: Start, tmp_path: Path) -> None:
    """By --penalty-exempt and by --trusted-file; nor is this machine, where a webmail may be."""
    trusted = tmp_path / "trusted"
    trusted.write_text("192.0.2.64/26\n")
    options = (*STRICT, "--penalty-exempt", "192.0.2.7", "--trusted-file", str(trusted))
    server = start(personality="prefork", options=options)
    for host in ("192.0.2.7", "192.0.2.65", "127.0.0.9"):
        guess(server, host, [b"a", b"b", b"c"])
        guess(server, host, [b"d", b"e"])
        assert is_served(server, host)


def test_an_operator_bans_and_a_program_is_told(start: Start, tmp_path: Path) -> None:
    """By the control socket; the program gets words and no shell."""
    told = tmp_path / "told"
    program = tmp_path / "tell me"
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> {told}\necho >> {told}\n')
    program.chmod(0o700)
    path = str(tmp_path / "control")
    options = (*STRICT, "--control-socket", path, "--ban-command", f"'{program}' '$(id)'")
    server = start(personality="prefork", options=options)
    wait_until(lambda: Path(path).exists(), 10, "the control socket")
    caller = Caller(path)
    answer = caller.ask("ban", name="192.0.2.9", seconds=600)
    assert answer["banned_until"]
    caller.ask("ban", name="anna", seconds=600)
    listed = caller.ask("penalties")["bans"]
    assert {ban["name"] for ban in listed} == {"192.0.2.9", "anna"}
    assert not is_served(server, "192.0.2.9")
    with come(server, "192.0.2.10") as wire:
        wire.line()
        wire.ok(b"USER anna")
        wire.err(b"PASS secret")
    wait_until(lambda: told.exists() and "192.0.2.9" in told.read_text(), 10, "the program")
    for name in ("192.0.2.9", "anna"):
        assert caller.ask("unban", name=name)["banned_until"] is None
    assert is_served(server, "192.0.2.9")
    with come(server, "192.0.2.10") as wire:
        wire.line()
        wire.login("anna", "secret")
    wait_until(lambda: "unban" in told.read_text(), 10, "the program")
    first, second = told.read_text().splitlines()
    assert re.fullmatch(r"\$\(id\)\|ban\|192\.0\.2\.9\|(600|59[0-9])\|", first), first
    assert second == "$(id)|unban|192.0.2.9|"
    with pytest.raises(ControlError, match="of whom"):
        caller.ask("ban")


def test_ban_options_are_checked(tmp_path: Path) -> None:
    """Each mistake is one line that names the option."""
    for options, words in (
        (("--penalty-exempt", "10.0.0.0/33"), "--penalty-exempt '10.0.0.0/33'"),
        (("--ban-command", "/nowhere/ban"), "--ban-command '/nowhere/ban': there is no such"),
        (("--ban-after", "5", "--auth-failure-delay", "0"), "--ban-after: "),
        (("--ban-time", "0"), "--ban-time"),
        (("--personality", "inetd", "--ban-command", "true"), "--ban-command: "),
        (("--expire", "soon"), "--expire"),
        (("--expire", "30", "--delete", "ignore"), "--expire: "),
    ):
        users = tmp_path / "users"
        users.write_text("anna:{PLAIN}secret\n")
        users.chmod(0o600)
        common = ("--no-default-config", "--auth", f"passwd-file:{users}", "--check-config")
        done = run_program("pop3-server", *common, *options, home=tmp_path)
        assert done.returncode == 2, done
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


# -- the log line ---------------------------------------------------------------------------------

NAMES = (
    b'x" peer=203.0.113.1:1 session=1 code=AUTH user=y',
    b"203.0.113.2",
    b'","peer":"203.0.113.3:1","session":"1","code":"AUTH","user":"',
    b"x\\n2026-11-25T15:27:44.000Z warning  login failed pid=1 peer=203.0.113.4:5",
    b"\xe2\x80\xa8level=warning event=\xc2\x85",
)


def failures_found(log: Path, tmp_path: Path) -> list[str]:
    """Return the addresses that the filter finds in a log: by fail2ban itself where it is."""
    if FAIL2BAN:
        done = subprocess.run(
            [FAIL2BAN, "--out", "ip", str(log), str(FILTER)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=tmp_path,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)},
        )
        return done.stdout.split()
    return [host for line in log.read_text().splitlines() if (host := match_by_re(line))]


def match_by_re(line: str) -> str | None:
    """Return the address of a failed login as fail2ban would find it."""
    config = configparser.ConfigParser()
    config.read(FILTER)
    stamp = r"^(?:timestamp=|\{\"timestamp\":\")?\d+-\d+-\d+T\d+:\d+:\d+\.\d+Z"
    rest = re.sub(stamp, "", line)
    for rule in config["Definition"]["failregex"].strip().splitlines():
        found = re.search(rule.replace("<ADDR>", r"(?P<host>[0-9A-Fa-f:.]+)"), rest)
        if found:
            return found["host"]
    return None


@pytest.mark.parametrize("form", ["logfmt", "json", "console"])
def test_the_filter_finds_failed_logins_and_nothing_else(
    start: Start, tmp_path: Path, form: str
) -> None:
    """Their true addresses, whatever the names are; one line each."""
    options = (*BEHIND, "--log-format", form, "--max-per-user", "1")
    server = start(personality="fork", options=options)
    for name in NAMES:
        guess(server, "192.0.2.7", [b"x"], name)
    guess(server, "2001:db8:1:2::7", [b"x", b"203.0.113.5"])
    with come(server, "192.0.2.10") as one, come(server, "192.0.2.11") as other:
        one.line()
        one.login("anna", "secret")
        other.line()
        other.ok(b"USER anna")
        assert other.err(b"PASS secret").startswith(b"-ERR [IN-USE]")  # is no failure to ban for
    server.stop()
    expected = ["192.0.2.7"] * len(NAMES) + ["2001:db8:1:2::7"] * 2
    log = server.log_path
    assert len(re.findall("^.*login failed.*$", log.read_text(), re.MULTILINE)) == len(expected) + 1
    assert failures_found(log, tmp_path) == expected
    assert [host for line in log.read_text().splitlines() if (host := match_by_re(line))] == (
        expected
    )


def test_the_filter_knows_syslog_and_the_journal(tmp_path: Path) -> None:
    """Where date and host are written by others."""
    words = "peer=192.0.2.7:4711 session=1a-1 code=AUTH user=joe"
    log = tmp_path / "log"
    log.write_text(
        f"2026-11-25T15:27:44.123456+00:00 mx pop3-server[77]: warning login failed {words}\n"
        f"Nov 25 15:27:44 mx pop3-server[77]: login failed {words}\n"
        f"Nov 25 15:27:44 mx other[77]: login failed {words}\n"
    )
    if FAIL2BAN is None:
        pytest.skip("fail2ban is not installed")
    assert failures_found(log, tmp_path) == ["192.0.2.7"] * 2


# -- limits of a user -----------------------------------------------------------------------------


def test_a_user_who_comes_again_too_soon(start: Start, personality: str) -> None:
    """RFC 2449 section 6.5: refused with LOGIN-DELAY, after the password; said in CAPA."""
    users = {"anna": "secret", "bert": "secret"}
    server = start(personality=personality, users=users, options=("--login-delay", "500"))
    with server.connect() as wire:
        assert b"LOGIN-DELAY 500" in wire.lines(b"CAPA")
        wire.login()
        assert b"LOGIN-DELAY 500" in wire.lines(b"CAPA")
        wire.quit()
    with server.connect() as wire:
        wire.ok(b"USER anna")
        assert wire.err(b"PASS wrong").startswith(b"-ERR [AUTH]")
        wire.ok(b"USER anna")
        assert wire.err(b"PASS secret").startswith(b"-ERR [LOGIN-DELAY]")
        wire.login("bert")


def test_one_user_from_one_address(start: Start, personality: str) -> None:
    """--max-per-user-source counts both together, in all processes."""
    if personality in ("single", "inetd"):
        pytest.skip("one client at a time, or no table that processes share")
    users = {"anna": "secret", "bert": "secret"}
    server = start(
        personality=personality, users=users, options=(*BEHIND, "--max-per-user-source", "1")
    )
    with come(server, "192.0.2.7") as one, come(server, "192.0.2.7") as two:
        one.line()
        one.login()
        two.line()
        two.ok(b"USER anna")
        assert b"too many sessions" in two.err(b"PASS secret")
        two.login("bert")
        with come(server, "192.0.2.8") as three:
            three.line()
            three.ok(b"USER anna")
            assert b"in use" in three.err(b"PASS secret")  # it came as far as the lock
        one.quit()
    with come(server, "192.0.2.7") as one:
        one.line()
        one.login()
