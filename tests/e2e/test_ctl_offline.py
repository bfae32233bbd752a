"""What pop3-ctl tells of a configuration, with a running server or without one."""

import json
import os
import socket
from pathlib import Path

import pytest

from netserver.control import Caller, ControlError
from tests.conftest import Start
from tests.netserver.certs import make_certificate
from tests.support.ctl import (
    ask,
    ctl,
    place,
    started,
    write_config,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration of no running server."""
    path = tmp_path / "server.yaml"
    write_config(path, tmp_path, deny=["192.0.2.0/24"])
    return path


def test_access_without_a_server(tmp_path: Path, config: Path) -> None:
    """The rule that decides is named; the exit code tells as well."""
    code, out, _ = ctl(tmp_path, "-f", str(config), "test-access", "192.0.2.7")
    assert code == 1
    assert "192.0.2.7 may not connect" in out
    assert "192.0.2.0/24" in out
    assert ctl(tmp_path, "-f", str(config), "test-access", "198.51.100.1")[0] == 0


def test_auth_without_a_server(tmp_path: Path, config: Path) -> None:
    """Right, wrong and unknown; the password is never shown."""
    password = tmp_path / "password"
    for text, user, code, said in (
        ("secret\n", "anna", 0, "passwd-file: right, user anna"),
        ("wrong\n", "anna", 1, "passwd-file: wrong password"),
        ("secret\n", "nobody", 1, "passwd-file: does not know nobody"),
    ):
        password.write_text(text)
        got = ctl(tmp_path, "-f", str(config), "test-auth", user, "--password-file", str(password))
        assert got == (code, f"{said}\n", "")


def test_why_tells_who_holds_the_lock(tmp_path: Path, start: Start) -> None:
    """Of a running server, started by options alone: backend, mailbox, lock."""
    server = started(tmp_path, "fork", start=start)
    with server.session("anna"):
        code, out, errors = ctl(tmp_path, "--control-socket", place(tmp_path), "why", "anna")
        assert (code, errors) == (1, "")
        assert "passwd-file: user anna" in out
        assert f"mailbox: {server.maildir('anna')}, mode" in out
        worker = ask(server, "who")["sessions"][0]["worker"]  # type: ignore[index]
        assert f"lock: held by process {worker}" in out
    code, out, _ = ctl(tmp_path, "--control-socket", place(tmp_path), "why", "bert")
    assert code == 0
    assert "lock: free" in out
    code, out, _ = ctl(tmp_path, "--control-socket", place(tmp_path), "why", "nobody")
    assert code == 1
    assert "nobody knows this user: [AUTH]" in out


def test_penalties_can_be_seen_set_and_forgotten(tmp_path: Path, start: Start) -> None:
    """Failed logins are told by why; ban refuses, unban ends that."""
    server = started(tmp_path, "gevent", start=start, options=["--auth-failure-delay", "0.01"])
    socket_path = place(tmp_path)
    with server.connect() as wire:
        wire.ok(b"USER anna")
        wire.err(b"PASS wrong")
    assert (
        "penalty: 1 failed logins"
        in ctl(tmp_path, "--control-socket", socket_path, "why", "anna")[1]
    )
    code, out, errors = ctl(tmp_path, "--control-socket", socket_path, "ban", "anna")
    assert (code, errors) == (0, "")
    assert out.startswith("anna is banned until 2")
    _, out, _ = ctl(tmp_path, "--control-socket", socket_path, "bans", "--json")
    assert [(one["name"], one["by_hand"]) for one in json.loads(out)] == [("anna", True)]
    with server.connect() as wire:
        wire.ok(b"USER anna")
        wire.err(b"PASS secret")
    assert ctl(tmp_path, "--control-socket", socket_path, "unban", "anna")[0] == 0
    assert ctl(tmp_path, "--control-socket", socket_path, "bans")[1] == "nobody is banned\n"
    server.session("anna").quit()


def test_recover_and_run_jobs_without_a_server(tmp_path: Path, config: Path) -> None:
    """Where there is nothing to do they say so."""
    code, out, errors = ctl(tmp_path, "-f", str(config), "unlock", "anna")
    assert (code, errors) == (0, "")
    assert "nothing to recover" in out
    code, out, _ = ctl(tmp_path, "-f", str(config), "run-jobs")
    assert (code, out) == (0, "POP3Maildir has no periodic work\n")
    code, _, errors = ctl(tmp_path, "-f", str(config), "recover", "nobody")
    assert (code, errors) == (1, "pop3-ctl: nobody: passwd-file: does not know nobody\n")


def test_recover_of_an_mbox(tmp_path: Path) -> None:
    """The hook of the source is called."""
    config = tmp_path / "server.yaml"
    write_config(config, tmp_path, source="mbox", mbox=f"{tmp_path}/mail/{{user}}")
    text = config.read_text()
    config.write_text("".join(x for x in text.splitlines(True) if not x.startswith("maildir:")))
    (tmp_path / "mail" / "anna").write_bytes(b"From a@b Thu Jan  1 00:00:00 1970\n\nx\n")
    code, out, errors = ctl(tmp_path, "-f", str(config), "recover", "anna")
    assert (code, out, errors) == (0, f"{tmp_path}/mail/anna: nothing was interrupted\n", "")


def test_certificates_are_examined(tmp_path: Path) -> None:
    """Names and days of a good one; what is wrong with others."""
    cert, key = make_certificate(tmp_path)
    config = tmp_path / "server.yaml"
    write_config(config, tmp_path, tls_cert=[str(cert)], tls_key=[str(key)])
    code, out, _ = ctl(tmp_path, "-f", str(config), "certs", "--json")
    found = json.loads(out)[0]
    assert found["file"] == str(cert)
    assert found["days"] is not None
    assert code == bool(found["problems"])


def test_uidl_listings_are_compared(tmp_path: Path) -> None:
    """What a client would fetch again is named, and is the exit code."""
    (tmp_path / "old").write_text("+OK\r\n1 a\r\n2 b\r\n.\r\n")
    (tmp_path / "new").write_text("1 a\n2 c\n")
    code, out, _ = ctl(tmp_path, "uidl-diff", "old", "new")
    assert code == 1
    assert "again: 2 c" in out
    assert ctl(tmp_path, "uidl-diff", "old", "old")[0] == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [(("status",), 1), (("stop",), 1), (("-f", "none.yaml", "status"), 2), (("dance",), 2)],
)
def test_each_failure_is_told(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    """Not running is 1, wrong usage 2; never a traceback."""
    got, _, errors = ctl(tmp_path, *words, env={"STATE_DIRECTORY": str(tmp_path)})
    assert got == code
    assert "Traceback" not in errors
    assert "pop3-ctl: " in errors


def test_nobody_is_asked_who_belongs_to_somebody_else(tmp_path: Path) -> None:
    """A caller with rights must not believe a socket that another user made."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root to be somebody else")
    path = str(tmp_path / "fake.sock")
    fake = socket.socket(socket.AF_UNIX)
    try:
        fake.bind(path)
        os.setegid(65534)
        os.seteuid(65534)
        try:
            fake.listen(1)
        finally:
            os.seteuid(0)
            os.setegid(0)
        with pytest.raises(ControlError, match="belongs to user 65534"):
            Caller(path).ask("status")
    finally:
        fake.close()
