"""The programs that show a server to a person: the demonstration and pop3-try."""

import io
import os
import poplib
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3.tools.talk import Dialogue, DialogueError, masked, printable
from tests.netserver.certs import make_certificate
from tests.support.maildirs import HEADER, PLAIN, make_maildir
from tests.support.servers import ROOT, RunningServer, environment, running

SECONDS = 60
PASSWORD = "pass wörd"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Return a server with a plain and a TLS port and two messages for anna."""
    home = tmp_path_factory.mktemp("tools")
    cert, key = make_certificate(home)
    with running(
        home,
        personality="single",
        users={"anna": PASSWORD},
        listen=["127.0.0.1:0", "tls://127.0.0.1:0"],
        options=["--tls-cert", str(cert), "--tls-key", str(key)],
    ) as started:
        make_maildir(started.maildir("anna"), [b"X-Odd: \x1b[31m\x9b\n" + PLAIN, HEADER + b"\n.\n"])
        (home / "password").write_text(PASSWORD + "\n", encoding="utf-8")
        yield started


def talk(
    server: RunningServer, *options: str, number: int = 0, typed: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run pop3-try talk against one of the server's ports."""
    port = str(server.endpoint(number)[1])
    return subprocess.run(
        [sys.executable, str(ROOT / "bin/pop3-try"), "talk", "localhost", port, *options],
        input=typed,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
        env=environment(server.home),
    )


@pytest.mark.parametrize("how", ["plain", "--stls", "--tls"])
def test_talk_shows_a_login_without_the_password(server: RunningServer, how: str) -> None:
    """All commands and answers are there, the password is not, and nothing steers the terminal."""
    options = ["--user", "anna", "--password-file", str(server.home / "password")]
    if how != "plain":
        options += [how, "--ca-file", str(server.home / "localhost.crt")]
    done = talk(server, *options, number=1 if how == "--tls" else 0)
    assert done.returncode == 0, done.stdout + done.stderr
    for command in ("CAPA", "USER anna", "STAT", "LIST", "UIDL", "TOP 1 0", "QUIT"):
        assert f"C: {command}\n" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
    assert "X-Odd: \\x1b[31m\\x9b\n" in done.stdout
    assert "first line" not in done.stdout
    assert ("TLSv1" in done.stdout) == (how != "plain")


def test_talk_says_no_by_its_exit_status(server: RunningServer) -> None:
    """Refused: 1; no connection or no trust: 1; wrong usage: 2; never a traceback."""
    (server.home / "wrong").write_text("wrong\n")
    user = ("--user", "anna", "--password-file")
    refused = talk(server, *user, str(server.home / "wrong"))
    distrusted = talk(server, "--tls", number=1)
    unreadable = talk(server, *user, str(server.home / "none"))
    unknown = talk(server, "--frobnicate")
    codes = [done.returncode for done in (refused, distrusted, unreadable, unknown)]
    assert codes == [1, 1, 2, 2]
    assert "S: -ERR [AUTH]" in refused.stdout
    for done in (refused, distrusted, unreadable, unknown):
        assert "Traceback" not in done.stderr


def test_talk_without_a_user_sends_what_is_typed(server: RunningServer) -> None:
    """Lines on standard input become commands; whole replies come back, dots undone by nobody."""
    typed = f"CAPA\nUSER anna\nPASS {PASSWORD}\nRETR 2\nNOOP\nQUIT\nNOT SENT\n"
    done = talk(server, typed=typed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "S: ..\n" in done.stdout
    assert done.stdout.count("S: +OK") == 7
    assert PASSWORD not in done.stdout
    assert "NOT SENT" not in done.stdout


def test_talk_does_not_start_tls_after_early_octets() -> None:
    """What came in the clear behind the answer to STLS is not taken for something protected."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        dialogue = Dialogue(ours, io.StringIO())
        dialogue.send([b"STLS"])
        theirs.sendall(b"+OK begin\r\n+OK injected\r\n")
        assert dialogue.reply().ok
        with pytest.raises(DialogueError, match="before TLS"):
            dialogue.start_tls(ssl.create_default_context(), "localhost")


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (b"PASS a b", b"PASS ********"),
        (b"pass x", b"pass ********"),
        (b"APOP anna c4c9334bac560ecc979e58001b3e22fb", b"APOP anna ********"),
        (b"AUTH PLAIN AGFubmEAeA==", b"AUTH PLAIN ********"),
        (b"AUTH PLAIN", b"AUTH PLAIN"),
        (b"USER anna", b"USER anna"),
        (b"RETR 1", b"RETR 1"),
    ],
)
def test_masked_hides_what_proves(command: bytes, shown: bytes) -> None:
    """Passwords, digests and initial responses are never shown, other arguments are."""
    assert masked(command) == shown


def test_printable_leaves_no_control_characters() -> None:
    """Every octet and every character that could steer a terminal becomes visible text."""
    for raw in (bytes(range(256)), "a\u202eb\u0085\u2028é日".encode()):
        text = printable(raw)
        assert text.isprintable()
    assert printable("é日".encode()) == "é日"


def demo_environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """Return an environment whose temporary directory is the test's own."""
    return {**environment(tmp_path), "TMPDIR": str(tmp_path), **more}


def test_demo_once_fetches_every_sample(tmp_path: Path) -> None:
    """DEMO_ONCE=1 fetches what is there with a real client, says so, and leaves nothing behind."""
    done = subprocess.run(
        [sys.executable, "-m", "pop3.tools.demo"],
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
        env=demo_environment(tmp_path, DEMO_ONCE="1"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    samples = len(list((ROOT / "share/demo/mail").iterdir()))
    assert f"{samples} messages" in done.stdout
    assert "All as long as LIST says." in done.stdout
    assert list(tmp_path.glob("pop3-demo-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_serves_until_it_is_told_to_end(tmp_path: Path, number: int) -> None:
    """What it prints is enough to log in; Ctrl-C stops the server and removes the mail."""
    with subprocess.Popen(
        [sys.executable, "-m", "pop3.tools.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=demo_environment(tmp_path),
    ) as demo:
        assert demo.stdout is not None
        text = ""
        try:
            while "Ctrl-C" not in text:
                line = demo.stdout.readline()
                assert line, text
                text += line
            password = re.findall(r"password +(\S+)", text)[0]
            port = int(re.findall(r"port (\d+)", text)[0])
            client = poplib.POP3("127.0.0.1", port, timeout=SECONDS)
            client.user("demo")
            assert client.pass_(password).startswith(b"+OK")
            client.quit()
            os.kill(demo.pid, number)
            assert demo.wait(SECONDS) == 0
        finally:
            demo.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    assert list(tmp_path.glob("pop3-demo-*")) == []
