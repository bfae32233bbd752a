"""pop3-setup: ask a few questions, and write all that a server needs to begin with."""

import argparse
import getpass
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netserver.declarations import one_line
from netserver.errors import ConfigError
from pop3.auth.names import LoginName
from pop3.tools import setup_files
from pop3.tools.setup_files import Answers, NewFile

DIRECTORY = "/etc/pop3-server"
UNIT = "/etc/systemd/system/pop3-server.service"
SHORTEST_PASSWORD = 8


@dataclass(frozen=True)
class Question:
    """One thing to know: by a flag, by asking, or its default."""

    name: str
    text: str
    default: str
    help: str
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The flag that answers it."""
        return "--" + self.name.replace("_", "-")


QUESTIONS = (
    Question(
        "source", "Where is mail: maildir or mbox?", "maildir", "kind of mail", ("maildir", "mbox")
    ),
    Question(
        "mail",
        "Where is a user's mail, with {user} or ~ in it?",
        "",
        "a user's maildir or mbox file",
    ),
    Question(
        "listen", "Listen on (HOST:PORT, * for all addresses)?", "127.0.0.1:1110", "where to listen"
    ),
    Question("tls_cert", "File with the TLS certificate (empty: none)?", "", "TLS certificate"),
    Question(
        "tls_key", "File with its key (empty: in the same file)?", "", "key of the certificate"
    ),
    Question("user", "Unix user that serves (empty: whoever starts it)?", "", "who serves"),
    Question("login", "First login name?", "anna", "first user who may log in"),
)
_PATHS = ("tls_cert", "tls_key")  # a server does not start where this program did
_MAIL = {"maildir": "/srv/mail/{user}", "mbox": "/var/mail/{user}"}


class SetupError(Exception):
    """What is wrong, in one line; `status` is the exit code."""

    def __init__(self, text: str, status: int = 2) -> None:
        super().__init__(text)
        self.status = status


def parser() -> argparse.ArgumentParser:
    """Return the command line of pop3-setup."""
    top = argparse.ArgumentParser(
        prog="pop3-setup",
        description="Write a configuration, files of access rules, a users file and a unit for "
        "systemd. Asks what no flag answers.",
        epilog="Exit status: 0 done, 1 a file is there already or cannot be written, 2 wrong usage "
        "or a wrong answer.",
    )
    top.add_argument("--yes", action="store_true", help="ask nothing: flags and defaults")
    top.add_argument("--force", action="store_true", help="replace files, and keep backups of them")
    top.add_argument("--dir", default=DIRECTORY, help=f"of the configuration ({DIRECTORY})")
    top.add_argument("--unit", default=UNIT, metavar="FILE", help=f"for systemd, or none ({UNIT})")
    top.add_argument("--state", metavar="DIR", help="where the server keeps its state")
    for one in QUESTIONS:
        default = one.default or {"mail": "by --source"}.get(one.name, "none")
        top.add_argument(one.flag, choices=one.choices or None, help=f"{one.help} ({default})")
    top.add_argument(
        "--password-file", metavar="FILE", help="the first user's password: its first line"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pop3-setup with the given or the process's arguments; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        _run(options)
    except (SetupError, ConfigError) as error:
        print(f"pop3-setup: {one_line(str(error))}", file=sys.stderr)
        return error.status if isinstance(error, SetupError) else 2
    except (KeyboardInterrupt, EOFError):
        print("\npop3-setup: given up; nothing was written", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    if not options.yes and not sys.stdin.isatty():
        raise SetupError("standard input is no terminal to ask at; give --yes, and flags")
    answers, password, made = _answers(options)
    setup_files.check(answers)
    files = list(setup_files.files(answers, password))
    _demand_free(files, force=options.force)
    try:
        for root in setup_files.make_mail_root(answers):
            print(f"made {root}")
        for file in files:
            backup = file.write()
            print(f"wrote {file.path}" + (f" (the old one is {backup})" if backup else ""))
    except OSError as error:
        raise SetupError(f"{error.filename}: {error.strerror}", 1) from None
    if made:
        print(f"\nThe password of {answers.login} is {password}\nIt is nowhere else; note it now.")
    print("\n" + setup_files.next_commands(answers))


def _demand_free(files: Sequence[NewFile], *, force: bool) -> None:
    there = [file.path for file in files if os.path.lexists(file.path)]
    if there and not force:
        word = "are" if len(there) > 1 else "is"
        raise SetupError(f"{', '.join(there)} {word} there already; --force keeps backups", 1)
    for file in files:
        if os.path.islink(file.path) or (
            os.path.lexists(file.path) and not os.path.isfile(file.path)
        ):
            raise SetupError(f"{file.path}: not a regular file", 1)


def _answers(options: argparse.Namespace) -> tuple[Answers, str, bool]:
    """Return the answers, the first user's password, and whether it was made here."""
    found: dict[str, str] = {}
    for one in QUESTIONS:
        default = one.default or (_MAIL[found["source"]] if one.name == "mail" else "")
        given = getattr(options, one.name)
        if one.name == "tls_key" and not found["tls_cert"]:
            found[one.name] = given or ""
        elif given is not None or options.yes:
            found[one.name] = default if given is None else given
        else:
            found[one.name] = _ask(one, default)
    answers = Answers(
        directory=os.path.abspath(options.dir),
        unit=None if options.unit == "none" else os.path.abspath(options.unit),
        state=None if options.state is None else os.path.abspath(options.state),
        **(found | {name: os.path.abspath(found[name]) for name in _PATHS if found[name]}),
    )
    _check_login(answers.login)
    return answers, *_password(options, answers.login)


def _check_login(name: str) -> None:
    try:
        parsed = LoginName.parse(os.fsencode(name))
    except ValueError as error:
        raise SetupError(f"--login {name}: {error}") from None
    if ":" in name or parsed.user != name:
        raise SetupError(f"--login {name}: not a name as it stands in a users file")


def _ask(question: Question, default: str) -> str:
    shown = f" [{default}]" if default else ""
    while True:
        answer = input(f"{question.text}{shown} ").strip() or default
        if not question.choices or answer in question.choices:
            return answer
        print(f"One of: {', '.join(question.choices)}")


def _password(options: argparse.Namespace, login: str) -> tuple[str, bool]:
    if options.password_file is not None:
        try:
            with open(options.password_file, encoding="utf-8") as stream:
                password = stream.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise SetupError(f"--password-file {options.password_file}: {why}") from None
        if not password:
            raise SetupError(f"--password-file {options.password_file}: its first line is empty")
        return password, False
    if options.yes:
        return secrets.token_urlsafe(12), True
    return _asked_password(login, getpass.getpass)


def _asked_password(login: str, ask: Callable[[str], str]) -> tuple[str, bool]:
    while True:
        password = ask(f"Password of {login} (empty: make one)? ")
        if not password:
            return secrets.token_urlsafe(12), True
        if len(password) < SHORTEST_PASSWORD:
            print(f"At least {SHORTEST_PASSWORD} characters.")
        elif ask("Once more? ") == password:
            return password, False
        else:
            print("They are not the same.")


if __name__ == "__main__":
    sys.exit(main())
