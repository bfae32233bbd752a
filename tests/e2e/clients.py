"""Real POP3 clients: how each is told to fetch all messages, and what it does to them.

Each leaves the messages on the server, trusts exactly one CA file, has a home directory of its
own and must end within a time. What a client itself changes is written down in CLIENTS.
"""

import contextlib
import poplib
import re
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PLAIN, STLS, TLS = "plain", "stls", "tls"
SECONDS = 120.0


@dataclass(frozen=True)
class Target:
    """What a client is to fetch, and how it may get there."""

    port: int
    transport: str
    user: str
    password: str
    ca: Path
    home: Path
    host: str = "localhost"


@dataclass(frozen=True)
class Client:
    """A client, and what it makes of a message.

    What was fetched must equal `kept` of what was sent, both seen through `compared`.
    `alters` names made messages (see maildirs.NASTY) that it changes beyond that.
    """

    fetch: Callable[[Target], list[bytes]]
    kept: Callable[[bytes], bytes] = bytes
    compared: Callable[[bytes], bytes] = bytes
    alters: frozenset[str] = frozenset()
    transports: tuple[str, ...] = (PLAIN, STLS, TLS)
    program: str | None = None


def run(command: Sequence[str], target: Target) -> None:
    """Run a client to its end; a failure shows what it said, which never holds the password."""
    environment = {"HOME": str(target.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
    done = subprocess.run(
        command,
        cwd=target.home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )
    said = done.stdout.decode(errors="backslashreplace")[-4000:]
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{said}"


def private_file(path: Path, text: str) -> Path:
    """Write a file that only we can read, as clients demand for passwords."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def delivery_script(target: Target) -> Path:
    """Return a delivery agent that puts each message it is given into a numbered file."""
    inbox = target.home / "inbox"
    inbox.mkdir()
    script = target.home / "deliver"
    script.write_text(
        f"#!/bin/sh\ncd {shlex.quote(str(inbox))} || exit 75\n"
        "set -- *\n[ -e 00000 ] || shift\nexec cat >$(printf %05d $#)\n"
    )
    script.chmod(0o700)
    return script


def delivered(target: Target) -> list[bytes]:
    """Return what the delivery script was given, in order."""
    return [path.read_bytes() for path in sorted((target.home / "inbox").iterdir())]


def trusting(target: Target) -> ssl.SSLContext:
    """Return a TLS context that trusts the test's CA and nothing else."""
    return ssl.create_default_context(cafile=str(target.ca))


# -- poplib ----------------------------------------------------------------------------------------


def fetch_by_poplib(target: Target) -> list[bytes]:
    """Fetch with Python's own client.

    It refuses lines of more than 2048 octets, which RFC 1939 does not; that limit is raised.
    """
    with raised_line_limit():
        if target.transport == TLS:
            context = trusting(target)
            client: poplib.POP3 = poplib.POP3_SSL(target.host, target.port, context=context)
        else:
            client = poplib.POP3(target.host, target.port, timeout=SECONDS)
        with contextlib.closing(client):
            if target.transport == STLS:
                client.stls(trusting(target))
            client.user(target.user)
            client.pass_(target.password)
            count = client.stat()[0]
            found = [b"\r\n".join([*client.retr(n + 1)[1], b""]) for n in range(count)]
            client.quit()
    return found


@contextlib.contextmanager
def raised_line_limit() -> Iterator[None]:
    """Let poplib read lines of up to 1 MiB."""
    old, poplib._MAXLINE = poplib._MAXLINE, 1 << 20
    try:
        yield
    finally:
        poplib._MAXLINE = old


# -- curl ------------------------------------------------------------------------------------------


def fetch_by_curl(target: Target) -> list[bytes]:
    """Fetch with curl: the list first, then every message over one connection."""
    scheme = "pop3s" if target.transport == TLS else "pop3"
    url = f"{scheme}://{target.host}:{target.port}/"
    common = f'user = "{target.user}:{target.password}"\ncacert = "{target.ca}"\n'
    common += "silent\nshow-error\n"
    if target.transport == STLS:
        common += "ssl-reqd\n"
    listing = target.home / "list"
    get(target, common, [(url, listing)])
    numbers = [line.split(b" ")[0].decode() for line in listing.read_bytes().split(b"\r\n")[:-1]]
    pairs = [(url + number, target.home / f"message-{number}") for number in numbers]
    if pairs:
        get(target, common, pairs)
    return [path.read_bytes() for _, path in pairs]


def get(target: Target, common: str, pairs: Sequence[tuple[str, Path]]) -> None:
    """Let one curl get these addresses into these files."""
    text = common + "".join(f'url = "{url}"\noutput = "{path}"\n' for url, path in pairs)
    run(["curl", "--disable", "--config", str(private_file(target.home / "curlrc", text))], target)


# -- fetchmail -------------------------------------------------------------------------------------


def fetch_by_fetchmail(target: Target) -> list[bytes]:
    """Fetch with fetchmail, delivering to a script."""
    how = {
        PLAIN: 'sslproto ""',
        STLS: f'sslproto "TLS1.2+" sslcertck sslcertfile "{target.ca}"',
        TLS: f'ssl sslproto "TLS1.2+" sslcertck sslcertfile "{target.ca}"',
    }[target.transport]
    text = (
        "set no bouncemail\nset no spambounce\nset invisible\n"
        f'poll "{target.host}" protocol pop3 service {target.port} '
        "auth password timeout 60 bad-header accept\n"
        f'  user "{target.user}" password "{target.password}" is "{target.user}" here\n'
        f"  {how} keep fetchall no rewrite pass8bits no stripcr no forcecr\n"
        f'  mda "{delivery_script(target)}"\n'
    )
    rc = private_file(target.home / "fetchmailrc", text)
    pid = target.home / "fetchmail.pid"
    run(["fetchmail", "--nodetach", "--fetchmailrc", str(rc), "--pidfile", str(pid)], target)
    return delivered(target)


# -- mpop ------------------------------------------------------------------------------------------


def fetch_by_mpop(target: Target) -> list[bytes]:
    """Fetch with mpop, delivering to a script."""
    tls = {
        PLAIN: "tls off",
        STLS: f"tls on\ntls_starttls on\ntls_trust_file {target.ca}",
        TLS: f"tls on\ntls_starttls off\ntls_trust_file {target.ca}",
    }[target.transport]
    text = (
        f"account default\nhost {target.host}\nport {target.port}\nuser {target.user}\n"
        f"password {target.password}\nauth user\n{tls}\nkeep on\nreceived_header off\n"
        f"timeout 60\nuidls_file {target.home}/uidls\ndelivery mda {delivery_script(target)}\n"
    )
    rc = private_file(target.home / "mpoprc", text)
    run(["mpop", f"--file={rc}"], target)
    return delivered(target)


# -- getmail ---------------------------------------------------------------------------------------


# getmail waits for its delivery agent by a signal that is lost when the agent is done too early;
# it then gives up after a minute. Here it waits for the process itself; all else is as it comes.
PATIENT_GETMAIL = """
import os, runpy, sys
from getmailcore.baseclasses import ForkingBase
ForkingBase._prepare_child = lambda self: None
ForkingBase._wait_for_child = lambda self, pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def fetch_by_getmail(target: Target) -> list[bytes]:
    """Fetch with getmail6, delivering to a script. It has no STLS."""
    kind = "SimplePOP3SSLRetriever" if target.transport == TLS else "SimplePOP3Retriever"
    trust = f"ca_certs = {target.ca}\n" if target.transport == TLS else ""
    text = (
        f"[retriever]\ntype = {kind}\nserver = {target.host}\nport = {target.port}\n"
        f"username = {target.user}\npassword = {target.password}\n{trust}timeout = 60\n"
        f"[destination]\ntype = MDA_external\npath = {delivery_script(target)}\n"
        "allow_root_commands = true\n"
        "[options]\ndelete = false\nread_all = true\ndelivered_to = false\nreceived = false\n"
    )
    directory = target.home / "getmail"
    directory.mkdir(mode=0o700)
    private_file(directory / "rc", text)
    program = shutil.which("getmail") or "getmail"
    interpreter = Path(program).read_text(encoding="utf-8").partition("\n")[0].removeprefix("#!")
    command = [*interpreter.split(), "-c", PATIENT_GETMAIL, program]
    run([*command, f"--getmaildir={directory}", "--rcfile=rc"], target)
    return delivered(target)


# -- all -------------------------------------------------------------------------------------------


def with_lf(message: bytes) -> bytes:
    """Return a message with the line ends of Unix."""
    return message.replace(b"\r\n", b"\n")


def words(message: bytes) -> bytes:
    """Return a message without white space, Return-Path and the last closing boundary.

    getmail takes each message apart and puts it together again by Python's email package: header
    fields are folded anew, lone CRs become line ends, an unclosed multipart gets its last boundary.
    """
    header, blank, body = with_lf(message).partition(b"\n\n")
    header = re.sub(rb"(?im)^Return-Path:.*\n([ \t].*\n)*", b"", header + b"\n")
    body = re.sub(rb"(?m)^--.+--\s*\Z", b"", blank + body)
    return b"".join(re.split(rb"\s+", header + body))


CLIENTS = {
    "poplib": Client(fetch_by_poplib),
    # an empty message comes out as one empty line
    "curl": Client(fetch_by_curl, alters=frozenset({"empty"}), program="curl"),
    # it mends what is no header and body, and cuts lines at 8 KiB
    "fetchmail": Client(
        fetch_by_fetchmail,
        alters=frozenset(
            {
                "dot as the first octet",
                "empty",
                "header only",
                "header without newline",
                "long line",
                "only a newline",
            }
        ),
        program="fetchmail",
    ),
    "mpop": Client(fetch_by_mpop, kept=with_lf, program="mpop"),
    # it knows no STLS
    "getmail": Client(fetch_by_getmail, compared=words, transports=(PLAIN, TLS), program="getmail"),
}
