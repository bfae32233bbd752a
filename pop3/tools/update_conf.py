"""pop3-update-conf: turn a configuration of Mail::POP3 into one of pop3-server.

The old file is Perl; it is read as data and never run.
"""

import argparse
import io
import json
import os
import stat
import sys
from collections.abc import Sequence
from typing import TextIO

from netserver.declarations import one_line
from pop3.tools.old_keys import Converted, convert, is_scrape
from pop3.tools.old_scrape import NoSpec, spec_text
from pop3.tools.perl_data import MAX_OCTETS, Item, PerlData, PerlDataError, read

_HEAD = """\
# Made by pop3-update-conf from {name}.
# What could not be taken over stands here as "not converted", with the line of the old file.
"""
_TLS = """
# From another machine a password needs TLS (tls-cert), or "plaintext-auth: always".
"""
_AUTH = """\
# Who may log in must be said here.
# auth: ["passwd-file:/etc/pop3-server/users"]
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line of pop3-update-conf."""
    top = argparse.ArgumentParser(
        prog="pop3-update-conf",
        description="Turn an old mpopd.conf (a Perl hash, or Perl assignments) into a "
        "configuration file of pop3-server. Nothing in the old file is evaluated.",
        epilog="Exit status: 0 all was converted, 1 something needs a hand or could not be "
        "written, 2 the old file cannot be read or wrong usage.",
    )
    top.add_argument("old", metavar="OLD", help="the old file")
    top.add_argument("-o", "--output", metavar="NEW.yaml", help="without: standard output")
    top.add_argument("--force", action="store_true", help="write over NEW.yaml if it is there")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pop3-update-conf with the given or the process's arguments; return the exit status."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    old = one_line(options.old)
    try:
        found = read(_octets_of(options.old))
    except PerlDataError as error:
        print(f"{old}:{error.line}: {one_line(str(error))}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        print(f"{old}: cannot be read: {reason}", file=sys.stderr)
        return 2
    results = [convert(key, item, found) for key, item in found.items.items()]
    try:
        if is_scrape(found) and "mailbox_args" in found.items:
            _take_spec(old, found.items["mailbox_args"], results, options)
        _write(document(old, results, found), options.output, force=options.force)
    except FileExistsError:
        print(
            f"{one_line(options.output)}: is there already; --force writes over it",
            end="\n",
            file=sys.stderr,
        )
        return 1
    except OSError as error:
        print(f"{one_line(options.output or '-')}: {error.strerror}", file=sys.stderr)
        return 1
    return 1 if report(old, results, found, sys.stderr) else 0


def _take_spec(old: str, item: Item, results: list[Converted], options: argparse.Namespace) -> None:
    """Write the description of a site as a spec beside the new file. Raises OSError."""
    key = "mailbox_args"
    at = next(number for number, one in enumerate(results) if one.key == key)
    made: tuple[tuple[str, str], ...] = ()
    try:
        text = spec_text(item.value, f"{key} of {old}, line {item.line}")
        if options.output is None:
            note = "with -o a spec is made of it"
        else:
            path = os.path.splitext(os.path.abspath(options.output))[0] + ".scrape.yaml"
            _write(text, path, force=options.force)
            made = (("scrape", f"[{json.dumps(f'site={path}')}]"),)
            note = f"see what is marked by hand in {path}"
    except NoSpec as error:
        note = f"no spec can be made of it: {error}; share/doc/scrape-spec.md"
    results[at] = Converted(key, item.line, made, note, by_hand=True)


def document(name: str, results: Sequence[Converted], found: PerlData) -> str:
    """Return the new configuration file."""
    parts = [_HEAD.format(name=name)]
    written: dict[str, int] = {}
    for one in results:
        parts.append(f"\n# {one_line(one.key)} (line {one.line})\n")
        for option, value in one.options:
            line = f"{option}: {value}"
            if option in written:
                line = f"# {line}  # not converted: line {written[option]} says the same option"
            written.setdefault(option, one.line)
            parts.append(line + "\n")
        word = "not converted: " if one.by_hand else ""
        if one.note:
            parts.append(f"# {word}{one.note}\n")
    parts += [f"\n# not converted: code in line {code.line}\n" for code in found.code]
    parts += [_TLS] if "auth" in written else [_TLS, _AUTH]
    return "".join(parts)


def report(name: str, results: Sequence[Converted], found: PerlData, out: TextIO) -> bool:
    """Say what needs a hand; return whether anything does."""
    left = [(one.line, f"{one_line(one.key)}: {one.note}") for one in results if one.by_hand]
    left += [
        (code.line, "code that is no part of a value: see what it was for") for code in found.code
    ]
    for line, text in sorted(left):
        print(f"{name}:{line}: not converted: {text}", file=out)
    if "auth" not in {option for one in results for option, _ in one.options}:
        print('note: say who may log in: set "auth" in the new file', file=out)
    return bool(left)


def _octets_of(path: str) -> bytes:
    """Read a regular file, one octet more than is taken. Raises OSError, ValueError.

    It is opened without waiting: a pipe might never say anything.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(MAX_OCTETS + 1)
    finally:
        os.close(descriptor)


def _write(text: str, path: str | None, *, force: bool) -> None:
    """Write a new file, whole or not at all; raises OSError, FileExistsError unless forced."""
    if path is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    if not force:
        with open(path, "x", encoding="utf-8") as new:
            new.write(text)
        return
    beside = f"{path}.{os.getpid()}.new"
    try:
        with open(beside, "x", encoding="utf-8") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
        os.replace(beside, path)
    except OSError:
        if os.path.exists(beside):
            os.unlink(beside)
        raise


if __name__ == "__main__":
    sys.exit(main())
