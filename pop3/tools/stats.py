"""pop3-stats: what users fetched, counted from logs."""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence

from netserver.declarations import one_line
from pop3.state import default_directory
from pop3.tools.log_lines import files_in, records
from pop3.tools.tally import Tally

_COLUMNS = ("connects", "retr", "top", "dele", "octets", "errors", "failed")


def parser() -> argparse.ArgumentParser:
    """Return the command line of pop3-stats."""
    top = argparse.ArgumentParser(
        prog="pop3-stats",
        description="Count what users fetched, from the server's log or the logs of single users, "
        "those of Mail::POP3 too; files may be compressed (.gz).",
        epilog="Exit status: 0 done, 2 wrong usage or a file that cannot be read.",
    )
    top.add_argument("users", metavar="USER", nargs="*", help="count these; without: all")
    top.add_argument("--all", action="store_true", help="count all users")
    top.add_argument(
        "--log", metavar="FILE", nargs="+", action="extend", default=[], help="- is standard input"
    )
    top.add_argument(
        "--user-log-dir",
        metavar="DIR",
        help="logs of single users; without --log and this one: where the server has them",
    )
    top.add_argument("--json", action="store_true", help="print JSON")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pop3-stats with the given or the process's arguments; return the exit status."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if options.all and options.users:
        return _complain("--all and names of users exclude each other")
    try:
        tally = count(_files(options), options.users)
        print(as_json(tally) if options.json else as_text(tally))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 1
    except (OSError, EOFError, ValueError) as error:
        return _complain(str(error))
    return 0


def _complain(text: str) -> int:
    print(f"pop3-stats: {one_line(text)}", file=sys.stderr)
    return 2


def _files(options: argparse.Namespace) -> list[str]:
    """Return the files to read. Raises OSError, ValueError."""
    directory = options.user_log_dir
    if directory is None and not options.log:
        directory = str(default_directory() / "user-logs")
        if not os.path.isdir(directory):
            raise ValueError("nothing to read: give --log FILE or --user-log-dir DIR")
    return [*options.log, *(files_in(directory) if directory else ())]


def count(files: Iterable[str], users: Sequence[str] = ()) -> Tally:
    """Read all files and count. Raises OSError with the file's name, EOFError, ValueError."""
    tally = Tally(users)
    for file in files:
        for record in records(file):
            if record is None:
                tally.bad_lines += 1
            else:
                tally.add(record)
    return tally


def as_json(tally: Tally) -> str:
    """Return all that was counted as one JSON document."""
    document = {
        "users": {name: one.as_dict() for name, one in tally.sorted_users()},
        "total": tally.total.as_dict(),
        "bad_lines": tally.bad_lines,
    }
    return json.dumps(document, indent=2)


def as_text(tally: Tally) -> str:
    """Return a table with a line for each user, and the hours of the day below it."""
    rows: list[tuple[str, ...]] = [("user", *_COLUMNS, "first", "last")]
    people = [*tally.sorted_users(), ("total", tally.total)]
    for name, one in people:
        counts = [str(getattr(one, column)) for column in _COLUMNS]
        rows.append((one_line(name), *counts, one.first or "-", one.last or "-"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < place <= len(_COLUMNS) else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if busy := [(hour, found) for hour, found in enumerate(tally.total.hours) if found]:
        lines += ["", "hour  connects", *[f"{hour:02d}    {found:8d}" for hour, found in busy]]
    if tally.bad_lines:
        lines += ["", f"{tally.bad_lines} lines could not be read"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
