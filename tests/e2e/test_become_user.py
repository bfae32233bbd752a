"""--become-user: root until the login, then the user and nobody else."""

import os
import pwd
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.e2e.test_daemon import status
from tests.support.maildirs import PLAIN, add_message, make_maildir, stored_messages, with_crlf
from tests.support.processes import children_of, reachable
from tests.support.servers import run_program

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]
IDS = {"anna": 54321, "ben": pwd.getpwnam("nobody").pw_uid}


def homes(home: Path, root_uid: int = 0) -> list[str]:
    """Make two users with private maildirs, one without a uid and one of root's."""
    reachable(home)
    lines = ["carl:{PLAIN}secret", f"dora:{{PLAIN}}secret:{root_uid}:0"]
    for name, uid in IDS.items():
        lines.append(f"{name}:{{PLAIN}}secret:{uid}:{uid}::{home}/mail/{name}:")
        make_maildir(home / "mail" / name, [PLAIN])
        for path in (home / "mail" / name, *(home / "mail" / name).rglob("*")):
            os.chown(path, uid, uid)
            path.chmod(0o700)
    (home / "people").write_text("\n".join(lines) + "\n")
    (home / "people").chmod(0o600)
    state = f"sqlite:///{home}/state/db"
    return ["--auth", f"passwd-file:{home}/people", "--state", state, "--become-user"]


@pytest.mark.parametrize("kind", ["fork", "inetd"])
def test_each_session_is_its_user(start: Start, tmp_path: Path, kind: str) -> None:
    """uid, gid and groups are the user's, mail is read and deleted, and indexes are kept."""
    server = start(personality=kind, users={}, options=homes(tmp_path))
    for user, uid in IDS.items():
        with server.session(user) as wire:
            if kind == "fork":
                [child] = children_of(server.pid)
                facts = status(child)
                assert set(facts["Uid"].split()) == set(facts["Gid"].split()) == {str(uid)}
                assert set(facts["Groups"].split()) <= {str(uid)}
                assert int(facts["CapEff"], 16) == 0
                assert facts["NoNewPrivs"] == "1"
            assert wire.message(b"RETR 1") == with_crlf(PLAIN)
            wire.ok(b"DELE 1")
            wire.quit()
        assert stored_messages(server.maildir(user)) == []
        own = tmp_path / "state/users" / str(uid)
        assert own.stat().st_uid == uid
        assert own.stat().st_mode & 0o077 == 0
        assert list((own / "index").iterdir())
    assert "not writable" not in server.log_text()
    assert "--become-user: who talks to strangers is root" in server.log_text()


def test_one_session_at_a_time_and_hiding(start: Start, tmp_path: Path) -> None:
    """The lock holds between sessions, and what is hidden stays hidden."""
    options = [*homes(tmp_path), "--delete", "hide", "--lock-wait", "0"]
    server = start(personality="fork", users={}, options=options)
    add_message(server.maildir(), PLAIN, 1)
    with server.session() as first, server.connect() as second:
        second.ok(b"USER anna")
        assert second.err(b"PASS secret").startswith(b"-ERR [IN-USE]")
        first.ok(b"DELE 1")
        first.quit()
    with server.session() as wire:
        assert wire.ok(b"STAT").startswith(b"+OK 1 ")
        wire.quit()
    assert len(stored_messages(server.maildir())) == 2


@pytest.mark.parametrize("whose", ["state", "users", "link"])
def test_root_goes_no_way_that_somebody_else_can_turn(tmp_path: Path, whose: str) -> None:
    """A state that an earlier server's user owns is refused, and nothing behind it is touched."""
    options = homes(tmp_path)
    victim = tmp_path / "victim"
    for path in (victim, tmp_path / "state"):
        path.mkdir(mode=0o700)
    if whose == "link":
        (tmp_path / "state/users").symlink_to(victim)
    elif whose == "users":
        (tmp_path / "state/users").mkdir()
        os.chown(tmp_path / "state/users", IDS["anna"], IDS["anna"])
    else:
        os.chown(tmp_path / "state", IDS["anna"], IDS["anna"])
    command = ("--no-default-config", "--personality", "fork", "--listen", "127.0.0.1:0")
    done = run_program("pop3-server", *command, *options, home=tmp_path)
    *_, line = done.stderr.splitlines()  # the one before it is the warning of each start
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert line.startswith("pop3-server: --become-user: ")
    assert line.endswith(": must be a directory of root's alone")
    assert victim.stat().st_mode & 0o777 == 0o700


def test_ids_are_written_down_where_the_user_may(start: Start, tmp_path: Path) -> None:
    """What --uidl and --expire keep lies in the user's own state: root's is out of reach."""
    server = start(
        personality="fork", users={}, options=[*homes(tmp_path), "--uidl", "md5", "--expire", "9"]
    )
    for _ in range(2):
        with server.session() as wire:
            ((_, uid),) = (line.split(b" ") for line in wire.lines(b"UIDL"))
            assert len(uid) == 16
            wire.quit()
    assert "nothing expires" not in server.log_text()
    assert (tmp_path / "state/users" / str(IDS["anna"]) / "uidl-journal").exists()


@pytest.mark.parametrize("user", ["carl", "dora"])
def test_who_is_no_user_of_the_machine_has_no_mailbox(
    start: Start, tmp_path: Path, user: str
) -> None:
    """Neither a name without a uid nor root's, with the right password."""
    server = start(personality="fork", users={}, options=homes(tmp_path))
    with server.connect() as wire:
        wire.ok(f"USER {user}".encode())
        assert wire.err(b"PASS secret") == b"-ERR [SYS/PERM] this login name has no mailbox"


def test_one_process_is_one_user(start: Start, tmp_path: Path) -> None:
    """After a login whose mailbox could not be opened nobody else can log in there."""
    server = start(personality="fork", users={}, options=homes(tmp_path))
    (server.maildir() / "new").chmod(0o000)
    with server.connect() as wire:
        wire.ok(b"USER anna")
        assert wire.err(b"PASS secret").startswith(b"-ERR [SYS/TEMP]")
        wire.ok(b"USER ben")
        assert wire.err(b"PASS secret") == b"-ERR [SYS/TEMP] log in on a new connection"
        assert wire.ended()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--personality", "prefork"], "--become-user: needs --personality fork or inetd"),
        (["--personality", "gevent"], "--become-user: needs --personality fork or inetd"),
        (["--personality", "fork", "--user", "nobody"], "cannot go together with --user"),
        (["--personality", "fork", "--user-log", "anna=full"], "with --user-log"),
        (["--personality", "fork", "--source", "feed", "--feed", "http://x/"], "in one state"),
    ],
)
def test_what_does_not_go_with_it(tmp_path: Path, options: list[str], told: str) -> None:
    """One line at start, exit 2."""
    own = [*homes(tmp_path), "--no-default-config", "--check-config"]
    if "--source" not in options:
        own += ["--maildir", "/x/{user}"]
    done = run_program("pop3-server", *own, *options, home=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
