"""The pytest plugin gives programs' tests a real server."""

import os
import poplib
import subprocess
import sys
import tomllib
from email.message import EmailMessage
from pathlib import Path

import pytest

from pop3.testing import running

ROOT = Path(__file__).resolve().parents[2]

SAMPLE = '''
import poplib


def test_fetch(pop3_server):
    """The tests of a program that fetches and deletes."""
    pop3_server.deliver("anna", b"Subject: hello\\n\\nworld\\n")
    client = poplib.POP3(pop3_server.host, pop3_server.port, timeout=10)
    client.user("anna")
    client.pass_("secret")
    assert client.retr(1)[1] == [b"Subject: hello", b"", b"world"]
    client.dele(1)
    client.quit()
    assert pop3_server.messages("anna") == []


def test_many(pop3_servers):
    """Two servers at once, one of them with options."""
    one = pop3_servers(users={"ben@example.org": "word"})
    two = pop3_servers(options=["--greeting", "hello there"])
    assert one.port != two.port
    client = poplib.POP3(two.host, two.port, timeout=10)
    assert client.getwelcome() == b"+OK hello there"
    client.close()
    client = poplib.POP3(one.host, one.port, timeout=10)
    client.user("ben@example.org")
    assert client.pass_("word").startswith(b"+OK")
    client.close()
'''


def test_the_fixtures(tmp_path: Path) -> None:
    """A test file of somebody else's passes, with every warning an error."""
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "pop3.testing"],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_pytest_finds_it() -> None:
    """The plugin is declared in the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"pop3": "pop3.testing"}


def test_without_pytest() -> None:
    """The same server for a `with` block."""
    message = EmailMessage()
    message["Subject"] = "x"
    message.set_content("text")
    with running() as server:
        server.deliver("anna", message)
        server.deliver("anna", "Subject: y\n\n")
        assert len(server.messages("anna")) == 2
        client = poplib.POP3(server.host, server.port, timeout=10)
        client.user("anna")
        client.pass_("secret")
        assert client.stat()[0] == 2
        client.quit()
    with pytest.raises(ConnectionRefusedError):
        poplib.POP3(server.host, server.port, timeout=10)


def test_a_server_that_cannot_start_says_why() -> None:
    """What it printed is in the error."""
    with pytest.raises(RuntimeError, match="--nonsense"), running(options=["--nonsense"]):
        pass
