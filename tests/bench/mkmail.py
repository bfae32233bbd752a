"""Make mailboxes for a POP3 benchmark: the same mail as maildirs and/or mbox files.

    mkmail.py --out mail --users 200 --messages 10 --size 4096 --passwd plain
    mkmail.py --out big --users 1 --messages 20 --size 10485760 --mbox

Writes OUT/maildir/userNNN/{cur,new,tmp}, OUT/mbox/userNNN and OUT/passwd. The same options give
the same bytes on every run. SIZE is the size of a message on disk, in octets with LF line ends (the
last line is cut so that it fits exactly). Some body lines start with a dot, some with "From ", some
are empty: what a server must get right.
"""

import argparse
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

EPOCH = 1_700_000_000
WORDS = """
the of and to in is that for it as was with be by on not he his but at are this have from or had
an they which one you were all her she there would their we him been has when who will no more
if out so up said what its about than into them can only other time new some could these two may
first then do any like my now over such our man me even most made after also did many off before
must well back through years where much your way down should because long each just state those
people too mr how little good world make very year still see own work life day get here old
between both under last never same another know while being three us men went since come message
mailbox server delivery receipt meeting report attached regards thanks invoice order number
review
""".split()  # noqa: SIM905 - a list of 180 strings reads worse


def make_body_pool(rng: random.Random, size: int = 1 << 18) -> bytes:
    """Return a block of text lines out of which every body is cut."""
    lines: list[str] = []
    total = 0
    while total < size:
        kind = rng.random()
        if kind < 0.02:
            line = "." * rng.randint(1, 3) + rng.choice(("", " hidden", "dotted line"))
        elif kind < 0.025:
            line = "From the start this line looks like an mbox separator"
        elif kind < 0.10:
            line = ""
        else:
            line, width = rng.choice(WORDS), rng.randint(40, 76)
            while len(line) < width:
                line += " " + rng.choice(WORDS)
        lines.append(line)
        total += len(line) + 1
    return ("\n".join(lines) + "\n").encode()


def make_message(rng: random.Random, pool: bytes, user: str, number: int, size: int) -> bytes:
    """Return one message of exactly `size` octets, LF line ends."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(EPOCH + 600 * number))
    sender = f"{rng.choice(WORDS)}.{rng.choice(WORDS)}"
    relay = f"mx{number % 7}.sender.example"
    head = (
        f"Return-Path: <{sender}@sender.example>\n"
        f"Delivered-To: {user}@example.org\n"
        f"Received: from {relay} ({relay} [192.0.2.{number % 250 + 1}])\n"
        f"\tby mail.example.org (Postfix) with ESMTPS id {rng.getrandbits(44):011X}\n"
        f"\tfor <{user}@example.org>; {date}\n"
        f"Date: {date}\n"
        f"From: {sender.title().replace('.', ' ')} <{sender}@sender.example>\n"
        f"To: {user}@example.org\n"
        f"Subject: {' '.join(rng.choices(WORDS, k=6))}\n"
        f"Message-ID: <{number}.{rng.getrandbits(64):016x}@sender.example>\n"
        "MIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=us-ascii\n"
        "Content-Transfer-Encoding: 7bit\n"
        "\n"
    ).encode()
    room = max(size - len(head), 2)
    at = pool.index(b"\n", rng.randrange(len(pool) - 1000)) + 1
    body = (pool[at:] + pool * (room // len(pool) + 1))[: room - 1] + b"\n"
    return head + body


def mbox_form(message: bytes, number: int) -> bytes:
    """Return a message as an mbox file holds it."""
    date = time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(EPOCH + 600 * number))
    quoted = message.replace(b"\nFrom ", b"\n>From ")
    return b"From sender@sender.example " + date.encode() + b"\n" + quoted + b"\n"


def password_field(scheme: str, password: str) -> str:
    """Return the second field of a passwd-file line."""
    if scheme == "plain":
        return "{PLAIN}" + password
    command = ["openssl", "passwd", "-6", "-salt", "benchmarksalt", "-stdin"]
    out = subprocess.run(command, input=password.encode(), stdout=subprocess.PIPE, check=True)
    return "{SHA512-CRYPT}" + out.stdout.decode().strip()


class Owner:
    """Who the mail belongs to."""

    def __init__(self, spec: str | None) -> None:
        """Take UID:GID, or none for whoever runs this."""
        self.uid, self.gid = map(int, spec.split(":")) if spec else (os.getuid(), os.getgid())

    def take(self, path: Path) -> None:
        """Give a file or directory to the owner."""
        os.chown(path, self.uid, self.gid)


def make_maildir(home: Path, owner: Owner) -> None:
    """Make an empty maildir in place of what is there."""
    shutil.rmtree(home, ignore_errors=True)
    for sub in ("cur", "new", "tmp"):
        (home / sub).mkdir(parents=True)
        owner.take(home / sub)
    owner.take(home)


def fill(given: argparse.Namespace, user: int, pool: bytes, owner: Owner) -> None:
    """Write the mailboxes of one user."""
    name = f"user{user:03d}"
    rng = random.Random(f"{given.seed}/{user}")
    home = given.out / "maildir" / name
    if not given.no_maildir:
        make_maildir(home, owner)
    mbox: list[bytes] = []
    for number in range(given.messages):
        message = make_message(rng, pool, name, number, given.size)
        if given.mbox:
            mbox.append(mbox_form(message, number))
        if given.no_maildir:
            continue
        stamp = EPOCH + 600 * number
        file = f"{stamp}.M{number % 1000000:06d}P{user}Q{number}.mail.example.org"
        if given.sizes:
            file += f",S={len(message)},W={len(message) + message.count(10)}"
        path = home / given.subdir / (file + (":2,S" if given.subdir == "cur" else ""))
        path.write_bytes(message)
        owner.take(path)
        os.utime(path, (stamp, stamp))
    if given.mbox:
        path = given.out / "mbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(mbox))
        owner.take(path)


def options() -> argparse.ArgumentParser:
    """Return what the command line may hold."""
    form = argparse.RawDescriptionHelpFormatter
    known = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    known.add_argument("--out", required=True, type=Path, help="directory to write to")
    known.add_argument("--users", type=int, default=200)
    known.add_argument("--first-user", type=int, default=0)
    known.add_argument("--messages", type=int, default=10)
    known.add_argument("--size", type=int, default=4096)
    known.add_argument("--seed", type=int, default=1)
    known.add_argument("--subdir", choices=("new", "cur"), default="new", help="cur: seen")
    known.add_argument("--sizes", action="store_true", help="put ,S=..,W=.. in the file names")
    known.add_argument("--no-maildir", action="store_true")
    known.add_argument("--mbox", action="store_true", help="write the mbox files too")
    known.add_argument("--passwd", choices=("plain", "sha512-crypt"), help="write OUT/passwd")
    known.add_argument("--password", default="secret")
    known.add_argument("--owner", help="uid:gid to give the mail to, also put in OUT/passwd")
    return known


def main() -> None:
    """Make what the command line asks for."""
    given = options().parse_args()
    given.out = given.out.absolute()
    owner = Owner(given.owner)
    pool = make_body_pool(random.Random(given.seed))
    users = range(given.first_user, given.first_user + given.users)
    for user in users:
        fill(given, user, pool, owner)
    if given.passwd:
        field = password_field(given.passwd, given.password)
        home = given.out / "maildir"
        lines = (
            f"user{user:03d}:{field}:{owner.uid}:{owner.gid}::{home}/user{user:03d}::\n"
            for user in users
        )
        (given.out / "passwd").write_text("".join(lines))


if __name__ == "__main__":
    main()
