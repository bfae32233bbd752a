"""What a client could do if it got the worker to run its code: next to nothing.

The source of this test runs the Python text that the login name stands for, in the process that
serves, and shows what came of it as the one message of the mailbox.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import reachable
from tests.support.servers import ROOT, RunningServer, run_program, running, write_users

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="--user needs root")

SOURCE = '''
"""Runs whatever it is told, as an attacker would."""
import ctypes, errno, io, os, resource, signal, socket, subprocess
from netserver.reach import Reach
from pop3 import Message, POP3Server

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class POP3Owned(POP3Server[str]):
    """One message: the outcome."""

    def mail_reach(self):
        return Reach(write=(os.environ["MAIL"],))

    def open_box(self, session):
        try:
            with open(os.path.join(os.environ["MAIL"], session.user)) as file:
                code = file.read()
            exec(compile(code, session.user, "exec"), globals())
        except BaseException as error:
            return f"refused {type(error).__name__} {error}"
        return "done"

    def list_messages(self, session):
        return [Message(uid="outcome")]

    def read_message(self, session, message):
        return io.BytesIO(f"Subject: {session.box}\\n\\n".encode())
'''

# name: what the owned worker tries; {paths} are filled in
ACTIONS = {
    "its-own-mail": "with open('{mail}/new', 'w'):\n    os.unlink('{mail}/new')",
    "other-mail": "open('{outside}/mail-of-others').read()",
    "write-outside": "open('{outside}/written', 'w')",
    "program": "subprocess.run(['/bin/true'], check=True)",
    "program-in-memory": (
        "fd = os.memfd_create('x')\n"
        "with open('/usr/bin/true', 'rb') as file:\n    os.write(fd, file.read())\n"
        "os.execve(fd, ['x'], {{}})"
    ),
    "connect": "with socket.socket() as far:\n    far.connect(('127.0.0.1', {port}))",
    "listen": "with socket.socket() as near:\n    near.bind(('127.0.0.1', 0))",
    "trace": "call('ptrace', 16, os.getppid(), 0, 0)",
    "signal-master": "os.kill(os.getppid(), signal.SIGTERM)",
    "become-root": "os.setuid(0)",
    "read-key": "open('{outside}/key.pem').read()",
    "read-users": "open('{users}').read()",
    "write-pid-file": "open('{outside}/pid', 'w')",
    "raw-socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "mount": "call('mount', b'none', b'{mail}', b'tmpfs', 0, None)",
    "bpf": "call('syscall', 321, 5, ctypes.create_string_buffer(128), 128)",
    "userfaultfd": "call('syscall', 323, 0)",
    "raise-limit": "resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))",
    "core-file": "resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
}
ALLOWED = {"its-own-mail"}


@pytest.fixture(scope="module", params=["prefork", "gevent", "fork", "inetd"])
def owned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """Serve under --user nobody, with what must stay out of reach beside the mail."""
    home = tmp_path_factory.mktemp("owned")
    outside = tmp_path_factory.mktemp("outside")
    mail, code = home / "in", home / "code"
    for directory in (mail, code):
        directory.mkdir()
    for directory in (code, outside):
        reachable(directory)
        directory.chmod(0o755)
    mail.chmod(0o777)
    (code / "owned.py").write_text(SOURCE)
    for name in ("mail-of-others", "key.pem", "pid"):
        (outside / name).write_text("nobody's business")
        (outside / name).chmod(0o666)  # it is not the mode that keeps the worker out
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        running(
            home,
            personality=request.param,
            source="owned:POP3Owned",
            users=dict.fromkeys(ACTIONS, "secret"),
            options=(
                *("--user", "nobody", "--sandbox", "require"),
                *("--state", f"sqlite:///{home}/state/state.db"),
            ),
            env={"PYTHONPATH": f"{code}{os.pathsep}{ROOT}", "MAIL": str(mail)},
        ) as server,
    ):
        for name, action in ACTIONS.items():
            (mail / name).write_text(
                action.format(
                    mail=mail,
                    outside=outside,
                    users=home / "users",
                    port=listener.getsockname()[1],
                )
            )
            (mail / name).chmod(0o644)
        yield server
    shutil.rmtree(home, ignore_errors=True)


@ROOT_ONLY
@pytest.mark.parametrize("action", ACTIONS)
def test_an_owned_worker(owned: RunningServer, action: str) -> None:
    """Each action is refused by the kernel, and the server serves on."""
    with owned.session(action) as wire:
        outcome = wire.message(b"RETR 1").decode()
        wire.quit()
    if action in ALLOWED:
        assert "done" in outcome
    else:
        assert "refused PermissionError" in outcome or "refused ValueError" in outcome


def test_require_refuses_where_it_cannot(tmp_path: Path) -> None:
    """`single` cannot be shut in: with `require` it does not start, and says why."""
    users = write_users(tmp_path / "users", {"anna": "secret"})
    done = run_program(
        "pop3-server",
        *("--no-default-config", "--personality", "single", "--sandbox", "require"),
        *("--listen", "127.0.0.1:0", "--auth", f"passwd-file:{users}", "--maildir", "/m/{user}"),
        home=tmp_path,
    )
    assert done.returncode == 1
    assert "--sandbox require: the personality single must be able to start programs" in done.stderr
