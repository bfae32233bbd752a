"""What single users have: Received headers, logs, debug sessions; and texts. The real programs."""

import json
import os
import stat
from collections.abc import Sequence
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.e2e.test_daemon import give_to_nobody
from tests.support.maildirs import make_maildir, stored_messages, undo_dots
from tests.support.processes import reachable, wait_until
from tests.support.servers import RunningServer, run_program

SHORT = b"Subject: one\r\n\r\nbody\r\n.dot\r\n"
BARE = b".begins with a dot\r\n"
LONG = b"Subject: long\r\n\r\n" + b"x" * 70 * 1024 + b"\r\nend\r\n"
MAIL = [SHORT, BARE, LONG]
USERS = {"anna": "secret", "ben": "secret"}
PATIENCE = 10.0


def user_log(server: RunningServer, user: str, last: str = "disconnect") -> str:
    """Return what stands in a user's log as soon as its last line is there."""
    path = server.home / "user-logs" / f"{user}.log"
    wait_until(lambda: path.exists() and last in path.read_text(), PATIENCE, f"{last} in {path}")
    return path.read_text()


def sizes(server: RunningServer, user: str) -> tuple[list[int], list[bytes], bytes]:
    """Fetch all; return the sizes in LIST, the messages, and the header that stands before each.

    STAT, LIST, LIST n and RETR must agree with the octets that came.
    """
    with server.session(user) as wire:
        count, total = map(int, wire.ok(b"STAT").split()[1:3])
        listed = [int(line.split()[1]) for line in wire.lines(b"LIST")]
        messages = []
        for number in range(1, count + 1):
            said = int(wire.ok(b"RETR %d" % number).split()[1])
            message = undo_dots(wire.rest_of_reply())
            messages.append(message)
            assert said == len(message) == listed[number - 1]
            assert wire.ok(b"LIST %d" % number) == b"+OK %d %d" % (number, said)
        assert total == sum(listed)
        header = messages[0][: len(messages[0]) - len(SHORT)]
        assert wire.message(b"TOP 1 0") == header + b"Subject: one\r\n\r\n"
        wire.ok(b"DELE 1")
        assert wire.ok(b"STAT") == b"+OK %d %d" % (count - 1, total - listed[0])
        assert [line.split()[0] for line in wire.lines(b"LIST")] == [b"2", b"3"]
    return listed, messages, header


def mailboxes(server: RunningServer) -> None:
    """Give both users the same mail."""
    for user in USERS:
        make_maildir(server.maildir(user), MAIL)


def test_addreceived_is_in_every_size_and_for_its_users_only(
    start: Start, personality: str
) -> None:
    """C1 15, 16: the header of --add-received counts in STAT, LIST, RETR and stands in TOP."""
    options = ("--add-received", "anna", "--received-from", "mail.example.org")
    server = start(personality=personality, users=USERS, options=options)
    mailboxes(server)
    listed, messages, header = sizes(server, "anna")
    assert messages == [header + message for message in MAIL]
    assert listed == [len(header) + len(message) for message in MAIL]
    assert header.startswith(b"Received: from mail.example.org\r\n by [127.0.0.1] with POP3\r\n")
    assert b" (authenticated as anna)\r\n" in header
    assert max(map(len, header.split(b"\r\n"))) <= 78
    field = message_from_bytes(header)["Received"]
    assert parsedate_to_datetime(field.rpartition(";")[2].strip()).tzinfo is not None
    assert sizes(server, "ben")[1] == MAIL


def test_addreceived_for_all_with_sizes_not_known_before(start: Start, tmp_path: Path) -> None:
    """What is kept of sizes found once is without the header, so that they are right without it."""
    server = start(personality="gevent", users=USERS, options=("--add-received", "*"))
    mailboxes(server)
    _, messages, header = sizes(server, "ben")
    assert messages == [header + message for message in MAIL]
    server.stop()
    plain = start(home=tmp_path, personality="gevent", users=USERS)
    assert sizes(plain, "ben")[1] == MAIL


def talk(server: RunningServer, user: str) -> None:
    """Hold one session with all sorts of commands, secrets in wrong places too."""
    with server.session(user) as wire:
        wire.message(b"RETR 1")
        wire.message(b"RETR 3")
        wire.message(b"TOP 1 0")
        wire.err(b"PASS hunter2")
        wire.err(b"hunter2")
        wire.err(b"RETR hunter2")
        wire.err(b"APOP anna 0123456789abcdef0123456789abcdef")
        wire.ok(b"DELE 1")
        wire.quit()


def test_user_log_brief(start: Start, personality: str) -> None:
    """C1 20, C2 15: a brief log has connects, what was retrieved with its octets, disconnects."""
    options = ("--user-log", "anna=brief", "--user-log-format", "json")
    server = start(personality=personality, users=USERS, options=options)
    mailboxes(server)
    talk(server, "anna")
    talk(server, "ben")
    events = [json.loads(line) for line in user_log(server, "anna").splitlines()]
    assert [one["event"] for one in events] == ["connect", "retrieved", "retrieved", "disconnect"]
    assert [one["octets"] for one in events[1:3]] == [len(SHORT), len(LONG)]
    assert events[0]["user"] == "anna"
    assert events[0]["peer"].startswith("127.0.0.1:")
    last = events[-1]
    counts = {name: last[name] for name in ("retr", "top", "dele", "errors", "reason")}
    assert counts == {"retr": 2, "top": 1, "dele": 1, "errors": 4, "reason": "quit"}
    assert {one["session"] for one in events} == {events[0]["session"]}
    assert os.listdir(server.home / "user-logs") == ["anna.log"]


def test_user_log_full_holds_no_secret(start: Start, personality: str) -> None:
    """C1 21, 22: a full log has each command and answer, no password, and belongs to one alone."""
    server = start(personality=personality, users=USERS, options=("--user-log", "*=full"))
    mailboxes(server)
    talk(server, "anna")
    text = user_log(server, "anna")
    for secret in ("hunter2", "secret", "0123456789abcdef"):
        assert secret not in text
    assert f'command="RETR 1" answer="+OK {len(SHORT)} octets"' in text
    assert f'command="RETR 3" answer="+OK {len(LONG)} octets"' in text
    assert 'command="PASS ?" answer="-ERR not in this state"' in text
    assert 'command=? answer="-ERR unknown command"' in text
    assert 'command="DELE 1" answer="+OK message deleted"' in text
    assert 'command=QUIT answer="+OK bye"' in text
    directory = server.home / "user-logs"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750
    assert stat.S_IMODE((directory / "anna.log").stat().st_mode) == 0o600


def test_user_log_follows_no_link_and_costs_no_session(start: Start, tmp_path: Path) -> None:
    """A link in place of the log is not written through; the client notices nothing."""
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    (tmp_path / "user-logs").mkdir(mode=0o750)
    (tmp_path / "user-logs" / "anna.log").symlink_to(victim)
    os.link(victim, tmp_path / "user-logs" / "ben.log")
    server = start(personality="prefork", users=USERS, options=("--user-log", "*=full"))
    mailboxes(server)
    for user in USERS:
        talk(server, user)
    assert victim.read_text() == "mine\n"
    assert server.log_text().count("user log not writable") == 2


def test_user_log_goes_on_in_a_new_file_after_rotation(start: Start) -> None:
    """A log that was renamed away is made anew for the next line, without any signal."""
    server = start(personality="single", options=("--user-log", "anna=brief"))
    make_maildir(server.maildir(), MAIL * 2)
    talk(server, "anna")
    user_log(server, "anna")
    directory = server.home / "user-logs"
    (directory / "anna.log").rename(directory / "anna.log.1")
    talk(server, "anna")
    assert user_log(server, "anna").count("disconnect") == 1


def test_user_debug_deletes_nothing_and_says_so(start: Start, personality: str) -> None:
    """C1 18, 19: a debug session is logged in full, and QUIT tells that nothing was deleted."""
    server = start(personality=personality, users=USERS, options=("--user-debug", "anna"))
    mailboxes(server)
    with server.session("anna") as wire:
        wire.ok(b"DELE 1")
        assert wire.ok(b"STAT").startswith(b"+OK 2 ")
        assert wire.quit() == b"+OK bye, nothing deleted (debug)"
    assert stored_messages(server.maildir("anna")) == MAIL
    assert 'command="DELE 1"' in user_log(server, "anna")
    assert "dele=0" in user_log(server, "anna")
    with server.session("ben") as wire:
        wire.ok(b"DELE 1")
        assert wire.quit() == b"+OK bye"
    assert len(stored_messages(server.maildir("ben"))) == 2


def test_texts_of_a_theme(start: Start, personality: str) -> None:
    """C1 7, 8: greeting and friendly texts; sizes and codes are as ever."""
    options = ("--texts", "mpopd", "--greeting", "good day")
    server = start(personality=personality, options=options)
    make_maildir(server.maildir(), [SHORT])
    with server.connect() as wire:
        assert wire.greeting == b"+OK good day"
        assert wire.ok(b"USER anna") == b"+OK and the password, please"
        assert wire.ok(b"PASS secret") == b"+OK thanks anna..."
        assert wire.ok(b"RETR 1") == b"+OK %d octets" % len(SHORT)
        wire.rest_of_reply()
        assert wire.quit() == b"+OK TTFN anna..."
    with server.connect() as wire:
        wire.ok(b"USER anna")
        assert wire.err(b"PASS wrong").startswith(b"-ERR [AUTH] ")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights up")
@pytest.mark.parametrize("kind", ["single", "fork", "prefork", "gevent"])
def test_user_log_of_a_server_that_gave_its_rights_up(
    start: Start, tmp_path: Path, kind: str
) -> None:
    """Directory and files belong to those who serve, and they can write there."""
    make_maildir(tmp_path / "mail" / "anna", MAIL)
    give_to_nobody(tmp_path / "mail")
    reachable(tmp_path)
    rights = ("--user", "nobody", "--group", "nogroup", "--state", f"sqlite:///{tmp_path}/st/db")
    server = start(personality=kind, options=(*rights, "--user-log", "*=brief"))
    talk(server, "anna")
    file = tmp_path / "st" / "user-logs" / "anna.log"
    wait_until(lambda: file.exists() and "disconnect" in file.read_text(), PATIENCE, "the log")
    for path, mode in ((file.parent, 0o750), (file, 0o600)):
        assert (path.owner(), path.group()) == ("nobody", "nogroup")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def refused(home: Path, *options: str) -> str:
    """Return the one line with which the server refuses to start."""
    users = home / "users"
    users.write_text("anna:{PLAIN}secret\n")
    users.chmod(0o600)
    fixed = ("--no-default-config", "--check-config", "--auth", f"passwd-file:{users}")
    state = ("--state", f"sqlite:///{home}/state.db")
    done = run_program("pop3-server", *fixed, *state, *options, home=home)
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--greeting", "two\nlines"], "--greeting"),
        (["--greeting", "x" * 201], "--greeting"),
        (["--greeting", "I am <mail@host>"], "--greeting"),
        (["--texts", "nosuch"], "--texts nosuch"),
        (["--texts", "./texts.yaml"], "texts.yaml:2: quit: {host}"),
        (["--user-log", "anna"], "--user-log"),
        (["--user-log", "anna=loud"], "--user-log"),
        (["--add-received", "an\x01na"], "--add-received"),
        (["--received-from", "a host"], "--received-from"),
        (["--user-log", "*=full", "--user-log-dir", "open"], "--user-log-dir"),
        (["--user-log", "*=full", "--user-log-dir", "users"], "--user-log-dir"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, options: Sequence[str], says: str) -> None:
    """A wrong option of these is refused at start, with its name and place."""
    (tmp_path / "texts.yaml").write_text('login: "hello {user}"\nquit: "bye from {host}"\n')
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert says in refused(tmp_path, *options)


def test_stats_of_a_real_server(start: Start, personality: str) -> None:
    """C1 59: pop3-stats finds the same in the server's log and in the logs of its users."""
    server = start(personality=personality, users=USERS, options=("--user-log", "*=brief"))
    mailboxes(server)
    for user in USERS:
        talk(server, user)
        user_log(server, user)
    wait_until(lambda: server.log_text().count('"event":"session"') == 2, PATIENCE, "two sessions")
    found: list[dict[str, Any]] = []
    for source in (["--log", "server.log"], ["--user-log-dir", "user-logs"]):
        done = run_program("pop3-stats", "--json", *source, home=server.home)
        assert (done.returncode, done.stderr) == (0, "")
        found.append(json.loads(done.stdout))
    names = ("connects", "messages", "octets", "retr", "top", "dele", "errors")
    for counts in (one["users"]["anna"] for one in found):
        assert [counts[name] for name in names] == [1, 2, len(SHORT + LONG), 2, 1, 1, 4]
    assert found[0]["total"]["connects"] == found[1]["total"]["connects"] == 2
    assert found[0]["bad_lines"] == found[1]["bad_lines"] == 0
