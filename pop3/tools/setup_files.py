"""The files that pop3-setup writes."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from netserver.declarations import Option, Origin, options_of
from netserver.endpoints import ListenSpec
from netserver.errors import ConfigError
from pop3.paths import fixed_part
from pop3.shipped import shipped
from pop3.sources.maildir import MaildirSettings
from pop3.sources.mbox import MboxSettings

TEMPLATE = shipped("systemd", "pop3-server.service")
_STATE = "/var/lib/pop3-server"


@dataclass(frozen=True)
class Answers:
    """What is to be set up; an empty text is "none"."""

    directory: str
    unit: str | None
    state: str | None
    source: str
    mail: str
    listen: str
    tls_cert: str
    tls_key: str
    user: str
    login: str

    @property
    def config(self) -> str:
        """The configuration file."""
        return f"{self.directory}/server.yaml"

    @property
    def state_url(self) -> str:
        """The value of --state."""
        return f"sqlite:///{self.state or _STATE}/state.sqlite"


@dataclass(frozen=True)
class NewFile:
    """A file to be written."""

    path: str
    text: str
    mode: int = 0o644
    group: int = -1

    def write(self) -> str | None:
        """Write it whole, by renaming; return the name of the backup there is now.

        Raises OSError.
        """
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        beside = f"{self.path}.{os.getpid()}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(beside, flags, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as stream:
                stream.write(self.text)
                if self.group >= 0:
                    os.fchown(stream.fileno(), -1, self.group)
                os.fchmod(stream.fileno(), self.mode)
                stream.flush()
                os.fsync(stream.fileno())
            backup = self._keep_old()
            os.replace(beside, self.path)
        except BaseException:
            if os.path.exists(beside):
                os.unlink(beside)
            raise
        return backup

    def _keep_old(self) -> str | None:
        if not os.path.lexists(self.path):
            return None
        number = 1
        while os.path.lexists(backup := f"{self.path}.old-{number}"):
            number += 1
        os.link(self.path, backup, follow_symlinks=False)
        return backup


def check(answers: Answers) -> None:
    """See whether a server would take all this. Raises ConfigError that names the flag."""
    declared: dict[str, Option] = {
        one.key: one for settings in (MaildirSettings, MboxSettings) for one in options_of(settings)
    }
    declared[answers.source].read(answers.mail, Origin("flag", "--mail"))
    ListenSpec.parse(answers.listen)
    if not answers.mail.startswith(("/", "~", "{home}")):
        raise ConfigError(f"--mail {answers.mail}: not an absolute path")
    if answers.mail.startswith(("~", "{home}")):
        raise ConfigError("--mail: users of a users file have no home until it says so; use {user}")
    if answers.tls_key and not answers.tls_cert:
        raise ConfigError("--tls-key: needs --tls-cert")
    for flag, path in (("--tls-cert", answers.tls_cert), ("--tls-key", answers.tls_key)):
        if path and not os.path.isfile(path):
            raise ConfigError(f"{flag} {path}: no such file")
    if answers.user:
        _ids(answers.user)


def _ids(user: str) -> tuple[int, int]:
    import pwd  # noqa: PLC0415 - not on every system

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(
            f"--user {user}: there is no such user; make it: useradd --system {shlex.quote(user)}"
        ) from None
    return entry.pw_uid, entry.pw_gid


def make_mail_root(answers: Answers) -> Iterator[str]:
    """Make the directory above all users' mail if it is missing; yield its name then.

    Raises OSError.
    """
    root = os.fspath(fixed_part(answers.mail))
    if os.path.isdir(root):
        return
    os.makedirs(root, mode=0o750)
    if answers.user and os.geteuid() == 0:
        os.chown(root, *_ids(answers.user))
    yield root


def files(answers: Answers, password: str) -> Iterator[NewFile]:
    """Yield what is to be written."""
    group = _ids(answers.user)[1] if answers.user and os.geteuid() == 0 else -1
    yield NewFile(answers.config, config_text(answers))
    yield NewFile(f"{answers.directory}/access", _ACCESS)
    yield NewFile(f"{answers.directory}/trusted", _TRUSTED)
    users = _USERS + f"{answers.login}:{hashed(password)}\n"
    yield NewFile(f"{answers.directory}/users", users, 0o600 if group < 0 else 0o640, group)
    if answers.unit is not None:
        yield NewFile(answers.unit, unit_text(answers))


def hashed(password: str) -> str:
    """Return the password as it stands in a users file."""
    import argon2  # noqa: PLC0415 - only here

    return "{ARGON2ID}" + argon2.PasswordHasher().hash(password)


def _quoted(text: str) -> str:
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))
    return quoted.rstrip("\n")


def config_text(answers: Answers) -> str:
    """Return the configuration."""
    of = answers.directory
    tls = (
        f"tls-cert: [{_quoted(answers.tls_cert)}]\n"
        if answers.tls_cert
        else '# tls-cert: ["/etc/ssl/mail.pem"]\n'
    )
    if answers.tls_key:
        tls += f"tls-key: [{_quoted(answers.tls_key)}]\n"
    who = f"user: {_quoted(answers.user)}\n" if answers.user else '# user: "vmail"\n'
    return f"""\
# Made by pop3-setup. All options are in share/doc/options.md and in pop3-server --help;
# "pop3-server -c {answers.config} --check-config" finds mistakes.

# Where mail is. {{user}}, {{localpart}}, {{domain}}, {{initial}} and ~ are filled in.
source: {answers.source}
{answers.source}: {_quoted(answers.mail)}

# Where to listen: HOST:PORT, tls://HOST:PORT, *:110 for all addresses. May be a list.
listen: [{_quoted(answers.listen)}]

# With a certificate, STLS is offered on every listener. Without TLS no password is taken from
# another machine, unless plaintext-auth is "always".
{tls}# plaintext-auth: loopback

# Who may log in: lines "name:hash"; see the file.
auth: [{_quoted(f"passwd-file:{of}/users")}]

# Who may connect, and who needs no host name; both are read again when they change.
access-file: {_quoted(f"{of}/access")}
trusted-file: {_quoted(f"{of}/trusted")}
# reverse-lookup: double

# Whom the processes become that talk to clients. Mail must be theirs.
{who}
# Locks, indexes and what must survive a restart.
state: {_quoted(answers.state_url)}

# personality: gevent        # single, fork, prefork, inetd
# timeout: 600
# log-level: info
# log-file: /var/log/pop3-server.log
"""


def _word(text: str) -> str:
    """Write a path as one word of a unit, where %, $, quotes and blanks mean something."""
    for sign, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(sign, written)
    return f'"{text}"' if re.search(r"[\s'\"\\]", text) else text


def unit_text(answers: Answers) -> str:
    """Return the unit for systemd: the one in share/systemd with this server's command."""
    program = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "pop3-server")
    command = f"{_word(program)} --no-default-config --config {_word(answers.config)}"
    command += " --log-file journald"
    lines = []
    try:
        template = TEMPLATE.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--unit: {TEMPLATE}: {error.strerror}; give --unit none") from None
    for line in template.splitlines():
        if line.startswith("ExecStart="):
            lines.append(f"ExecStart={command}")
        elif line.startswith("StateDirectory=") and answers.state is not None:
            # "-": the server makes it, and without it systemd would start nothing
            lines.append(f"ReadWritePaths={_word('-' + answers.state)}")
        elif not line.startswith("#") or lines:
            lines.append(line)
    return "# Made by pop3-setup.\n" + "\n".join(lines) + "\n"


def next_commands(answers: Answers) -> str:
    """Return what to do now."""
    config = shlex.quote(answers.config)
    lines = ["Next:", f"  pop3-server --no-default-config -c {config} --check-config"]
    if answers.unit is not None:
        lines += ["  systemctl daemon-reload", "  systemctl enable --now pop3-server"]
    else:
        lines.append(f"  pop3-server --no-default-config -c {config}")
    host, _, port = answers.listen.partition("?")[0].removeprefix("tls://").rpartition(":")
    tls = " --tls" if answers.listen.startswith("tls://") else ""
    if port.isdigit():
        there = "localhost" if host in ("*", "") else host.strip("[]")
        lines.append(f"  pop3-try talk {there} {port}{tls} --user {shlex.quote(answers.login)}")
    return "\n".join(lines)


_ACCESS = """\
# Who may connect: ALLOW, DENY or WARN, then an address, a prefix ("10.0.0."), a network
# ("10.0.0.0/8"), a host name or ALL. The first line that matches decides; without any, all may.
# "DENY ALL" anywhere refuses whoever matches no ALLOW.
#
# ALLOW 127.0.0.1
# ALLOW 192.168.0.0/16
# DENY ALL
"""
_TRUSTED = """\
# Who is let in without a host name when reverse-lookup is on: an address, a prefix, a network or
# a host name on each line.
#
# 192.168.0.0/16
"""
_USERS = """\
# name:{SCHEME}hash, or name:hash:uid:gid:gecos:home:shell; see share/doc/authentication.md.
"""
