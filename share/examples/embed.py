"""Serve one client on two file handles.

In Perl this was `Mail::POP3::Server->new($config)->start($in, $out, $ip)`.

    embed.py MAIL_ROOT USERS_FILE <commands >answers

serves whoever is on standard input and output, with the maildirs below MAIL_ROOT.
"""

import sys
from pathlib import Path

from pop3.sources.maildir import MaildirSettings, POP3Maildir


def serve_one(mail: Path, users: Path, state: Path) -> None:
    """Serve whoever is on standard input and output."""
    settings = MaildirSettings(
        maildir=f"{mail}/{{user}}",
        auth=(f"passwd-file:{users}",),
        state=f"sqlite:///{state}",
        log_level="warning",
    )
    with POP3Maildir(settings) as server:
        server.serve(sys.stdin.buffer, sys.stdout.buffer, peer="127.0.0.1")


def main() -> None:
    """Take the arguments."""
    if len(sys.argv) != 3:  # noqa: PLR2004 - two and the program's name
        sys.exit("usage: embed.py MAIL_ROOT USERS_FILE")
    mail, users = Path(sys.argv[1]), Path(sys.argv[2])
    serve_one(mail, users, mail.parent / "state.sqlite")


if __name__ == "__main__":
    main()
