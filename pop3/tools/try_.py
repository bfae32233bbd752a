"""pop3-try: look at a server, a source or a website as a client sees it."""

import argparse
import io
import os
import ssl
import sys
from collections.abc import Sequence
from getpass import getpass
from pathlib import Path

from netserver.errors import BindError, ConfigError
from pop3.tools import try_scrape, try_source
from pop3.tools.talk import Dialogue, DialogueError, converse, look_around


def parser() -> argparse.ArgumentParser:
    """Return the command line of pop3-try."""
    top = argparse.ArgumentParser(
        prog="pop3-try",
        description="Try a POP3 server, a source or a website; look at what a client gets.",
    )
    kinds = top.add_subparsers(dest="kind", required=True, metavar="COMMAND")
    try_scrape.add_to(kinds)
    try_source.add_to(kinds)
    talk = kinds.add_parser(
        "talk",
        help="show a dialogue with a server",
        description="Show a dialogue with a server. With --user: log in, look at the maildrop and "
        "the first header, leave. Without: send what you type.",
        epilog="Exit status: 0 all was answered +OK, 1 refused or no connection, 2 wrong usage.",
    )
    talk.add_argument("host", metavar="HOST", help="name or address")
    talk.add_argument("port", metavar="PORT", type=port_number, help="1 to 65535")
    talk.add_argument("--user", metavar="USER", help="log in as this user")
    talk.add_argument(
        "--password-file", metavar="FILE", type=Path, help="its first line; without: asked for"
    )
    how = talk.add_mutually_exclusive_group()
    how.add_argument("--tls", action="store_true", help="TLS from the first octet (pop3s)")
    how.add_argument("--stls", action="store_true", help="TLS by the STLS command")
    talk.add_argument("--ca-file", metavar="FILE", help="trust the certificates in FILE")
    talk.add_argument(
        "--insecure",
        action="store_true",
        help="take any certificate, and let a password cross the network without TLS",
    )
    talk.add_argument("--timeout", metavar="SECONDS", type=float, default=30.0, help="default 30")
    return top


def port_number(text: str) -> int:
    """Return a TCP port, or raise what argparse turns into a message."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 65535):  # noqa: PLR2004 TCP
        raise argparse.ArgumentTypeError(f"not a port: {text}")
    return int(text)


def tls_context(options: argparse.Namespace) -> ssl.SSLContext:
    """Return the context the options ask for. Raises OSError if the CA file is none."""
    context = ssl.create_default_context(cafile=options.ca_file)
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def read_password(options: argparse.Namespace) -> str:
    """Return the password from its file or from the terminal. Raises OSError, EOFError."""
    if options.password_file:
        with options.password_file.open(encoding="utf-8") as lines:
            return str(lines.readline()).rstrip("\r\n")
    return getpass(f"password of {options.user}: ")


def hold(dialogue: Dialogue, options: argparse.Namespace, context: ssl.SSLContext) -> bool:
    """Go through the dialogue; return whether all that the program itself asked was agreed to."""
    if options.tls:
        dialogue.start_tls(context, options.host)
    if not dialogue.greeting().ok:
        return False
    if options.stls:
        dialogue.send([b"STLS"])
        if not dialogue.reply().ok:
            return False
        dialogue.start_tls(context, options.host)
    if not options.user:
        converse(dialogue, context, options.host, sys.stdin)
        return True
    if not dialogue.private and not options.insecure:
        raise DialogueError("no password over an open network: use --tls or --stls")
    return look_around(dialogue, options.user, options.password)


def talk(options: argparse.Namespace) -> int:
    """Hold the dialogue; return the exit status."""
    try:
        context = tls_context(options)
        options.password = read_password(options) if options.user else ""
    except (OSError, ValueError, EOFError) as error:
        print(f"pop3-try: {error}", file=sys.stderr)
        return 2
    try:
        with Dialogue.connect(options.host, options.port, options.timeout, sys.stdout) as dialogue:
            return 0 if hold(dialogue, options, context) else 1
    except DialogueError as error:
        print(f"pop3-try: {error}", file=sys.stderr)
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pop3-try with the given or the process's arguments; return the exit status."""
    top = parser()
    options, more = top.parse_known_args(arguments)
    if options.kind == "source":
        options.more = more  # options of pop3-server, and the user
    elif more:
        top.error(f"unrecognized arguments: {' '.join(more)}")
    run = {"talk": talk, "scrape": try_scrape.run, "source": try_source.run}[options.kind]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return run(options)
    except KeyboardInterrupt:
        return 1
    except (ConfigError, BindError) as error:
        print(f"pop3-try: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
