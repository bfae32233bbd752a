"""`python -m pop3.tools.password_hash`: make what stands in a users file for SCRAM."""

import argparse
import getpass
import sys

from pop3.auth import stored
from pop3.auth.sasl.prepare import prepare
from pop3.auth.schemes import MAX_SECRET
from pop3.auth.secret import Secret


def main(arguments: list[str] | None = None) -> int:
    """Ask for a password, or read the first line of standard input; print its hash."""
    parser = argparse.ArgumentParser(prog="password_hash", description=__doc__)
    parser.add_argument("--scheme", choices=tuple(stored.ALGORITHMS), default="SCRAM-SHA-256")
    parser.add_argument("--iterations", type=int, default=stored.ITERATIONS, metavar="N")
    given = parser.parse_args(arguments)
    if not 4096 <= given.iterations <= 9_999_999:  # noqa: PLR2004 - RFC 7677 §4, users files
        parser.error("--iterations: from 4096 to 9999999")
    if sys.stdin.isatty():
        octets = getpass.getpass().encode()
    else:
        octets = sys.stdin.buffer.readline().rstrip(b"\r\n")
    prepared = prepare(octets)
    if prepared is None or len(prepared) > MAX_SECRET:
        parser.exit(2, "password_hash: empty, too long, or with letters a password cannot have\n")
    sys.stdout.write(stored.hash_of(Secret(prepared), given.scheme, given.iterations) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
