"""pop3-try scrape: every step from a site to its messages, in the terminal or in a browser."""

import argparse
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from netserver.errors import ConfigError
from pop3.tools.talk import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pop3.scrape.preview import FieldSeen, ItemSeen, Look, Sessions

_WATCH_SECONDS = 0.2
_LONGEST_VALUE = 100
_RED, _GREEN, _YELLOW, _DIM, _BOLD = "31", "32", "33", "2", "1"


def add_to(kinds: Any) -> None:
    """Add the command line of `scrape`."""
    scrape = kinds.add_parser(
        "scrape",
        help="show what a spec makes of a website",
        description="Show each request, what the selectors of a spec find, and the messages. "
        "With --serve in a browser, anew whenever the spec is saved.",
        epilog="Exit status: 0 all is well, 1 something is to be mended, 2 wrong usage or spec.",
    )
    scrape.add_argument("spec", metavar="SPEC", help="the spec, a YAML file")
    scrape.add_argument(
        "user", metavar="USER", help="the user name, such as perl:5:Berlin; with --test a directory"
    )
    pages = scrape.add_mutually_exclusive_group()
    pages.add_argument("--pages", metavar="DIR", help="saved pages in place of the site")
    pages.add_argument("--save", metavar="DIR", help="keep the pages there, for --pages")
    scrape.add_argument(
        "--items", metavar="N", type=count, default=3, help="items to read, default 3"
    )
    how = scrape.add_mutually_exclusive_group()
    how.add_argument(
        "--serve", metavar="[HOST:]PORT", help="show it on a web page on loopback; 0: any port"
    )
    how.add_argument(
        "--test",
        action="store_true",
        help="compare with the messages in a directory of test.yaml, pages/ and expected/",
    )
    scrape.add_argument(
        "--update", action="store_true", help="with --test: take the messages as they are now"
    )


def count(text: str) -> int:
    """Return a whole number from 1, or raise what argparse turns into a message."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 100_000):  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"not a number from 1 to 100000: {text}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Do what the options say; return the exit status. Raises ConfigError, BindError."""
    try:
        from pop3.scrape import preview  # noqa: F401, PLC0415 - httpx, lxml, Jinja2: heavy
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"scrape needs {error.name}: pip install 'netserver-pop3[scrape]'"
        ) from None
    if options.update and not options.test:
        raise ConfigError("--update: only with --test")
    if options.test:
        return _test(options)
    return _serve(options) if options.serve else _show(options)


def _sessions(options: argparse.Namespace) -> "Sessions":
    from pop3.scrape import preview  # noqa: PLC0415 - see run

    return preview.from_pages(options.pages) if options.pages else preview.on_the_site


# -- once, in the terminal --------------------------------------------------------------------


def _show(options: argparse.Namespace) -> int:
    from pop3.scrape import preview, saved  # noqa: PLC0415 - see run

    look = preview.look(
        options.spec,
        options.user,
        _sessions(options),
        offline=bool(options.pages),
        most=options.items,
    )
    if look.spec is None or not (look.steps or look.pages):
        raise ConfigError("; ".join(look.problems))
    report = Report(sys.stdout)
    report.look(look)
    if options.save:
        saved.save(options.save, look.steps)
        report.line(f"\npages are in {options.save}: try again without the site by --pages")
        if look.listed > len(look.items):
            report.line(f"items beyond --items {options.items} are not among them")
    return 0 if look.good else 1


class Report:
    """Writes a look for people; with colours on a terminal that has not said NO_COLOR."""

    def __init__(self, out: TextIO) -> None:
        """Write to `out`."""
        self._out = out
        self._colours = out.isatty() and not os.environ.get("NO_COLOR")

    def line(self, text: str = "", colour: str = "") -> None:
        """Write a line of our own."""
        coloured = f"\x1b[{colour}m{text}\x1b[0m" if self._colours and colour else text
        print(coloured, file=self._out, flush=True)

    def look(self, look: "Look") -> None:
        """Write all of it."""
        self._requests(look)
        for number, page in enumerate(look.pages, 1):
            self.line(
                f"\nlist page {number}: {page.matches} matches of {_shown_items(look)}, "
                f"{len(page.entries)} items",
                _BOLD,
            )
            for entry in page.entries:
                self.line(f"  {_safe(entry.uid):<24} {_url(entry.url)}")
        for number, item in enumerate(look.items, 1):
            self._item(number, item)
        self._verdict(look)

    def _requests(self, look: "Look") -> None:
        from pop3.scrape.preview_hints import without_secrets  # noqa: PLC0415 - see run

        self.line("requests", _BOLD)
        for step in look.steps:
            bad = not 200 <= step.status < 400  # noqa: PLR2004 - HTTP
            target = "" if step.page is None else step.page.headers.get("location", "")
            note = _safe(
                without_secrets(
                    f"-> {target}" if target else step.note.removeprefix(f"{step.request.url}: ")
                )
            )
            self.line(
                f"  {step.status or '---'}  {step.seconds:6.2f} s  {step.octets:>9,}  "
                f"{step.request.method} {_url(step.request.url)}  {note}".rstrip(),
                _RED if bad else "",
            )

    def _item(self, number: int, item: "ItemSeen") -> None:
        self.line(f"\nitem {number}: {_safe(item.entry.uid)}  {_url(item.entry.url)}", _BOLD)
        if item.problem:
            self.line(f"  {_safe(item.problem)}", _RED)
        for one in item.fields:
            self._field(one)
        if item.octets is None:
            return
        self.line(f"  the message, {len(item.octets):,} octets:", _DIM)
        for raw in item.octets.split(b"\r\n")[:-1]:
            self.line(f"  | {printable(raw)}".rstrip())

    def _field(self, one: "FieldSeen") -> None:
        name = one.reading.field.name
        given = f"[{one.selector}]"
        if one.state == "ok":
            self.line(f"  {name:<14} {_short(one.text)}  {_safe(given)}")
        elif one.state == "default":
            self.line(f"  {name:<14} {_short(one.text)}  (the default) {_safe(given)}", _YELLOW)
        else:
            word = "MISSING" if one.state == "missing" else "empty"
            self.line(
                f"  {name:<14} {word}  {_safe(given)} {_safe(one.hint)}",
                _RED if one.state == "missing" else _DIM,
            )

    def _verdict(self, look: "Look") -> None:
        self.line()
        for text in look.advice:
            self.line(f"note: {_safe(text)}", _YELLOW)
        for text in look.problems:
            self.line(f"to mend: {_safe(text)}", _RED)
        if look.good:
            self.line(
                f"all is well: {len(look.items)} of {look.listed} items, {look.seconds:.2f} s",
                _GREEN,
            )


def _shown_items(look: "Look") -> str:
    return "" if look.spec is None else _safe(f"[{look.spec.listing.items}]")


def _safe(text: str) -> str:
    return printable(text.encode("utf-8", "backslashreplace"))


def _url(url: str) -> str:
    from pop3.scrape.preview_hints import without_secrets  # noqa: PLC0415 - see run

    return _safe(without_secrets(url))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return _safe(text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…")


# -- again and again, in a browser -------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    from pop3.scrape import preview, preview_html, preview_memory  # noqa: PLC0415 - see run
    from pop3.scrape.preview_server import PreviewServer, endpoint  # noqa: PLC0415 - see run

    if options.save:
        raise ConfigError("--save: not with --serve")
    sessions = _sessions(options) if options.pages else preview_memory.Memory().session
    with PreviewServer(*endpoint(options.serve)) as server:
        server.show(preview_html.files(preview.Look(options.spec, options.user), 0))
        print(f"look at {server.url}  (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):  # how it is meant to end
            watch(options, sessions, server.show)
    return 0


def watch(
    options: argparse.Namespace,
    sessions: "Sessions",
    show: "Callable[[Any], None]",
    *,
    most: int = sys.maxsize,
) -> None:
    """Look, show, wait until the spec or the saved pages change, and so on, `most` times."""
    from pop3.scrape import preview, preview_html  # noqa: PLC0415 - see run

    for version in range(1, most + 1):
        stamp = _stamp(options)
        look = preview.look(
            options.spec,
            options.user,
            sessions,
            offline=bool(options.pages),
            most=options.items,
        )
        show(preview_html.files(look, version))
        verdict = "all is well" if look.good else f"to mend: {'; '.join(look.problems)}"
        print(f"{time.strftime('%H:%M:%S')} {_safe(verdict)}", flush=True)
        while most > version and _stamp(options) == stamp:
            time.sleep(_WATCH_SECONDS)


def _stamp(options: argparse.Namespace) -> tuple[Any, ...]:
    """Return what changes when the spec or the pages do."""
    paths = [options.spec]
    if options.pages:
        paths += [options.pages, os.path.join(options.pages, "pages.yaml")]
    found: list[Any] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found.append(None)  # an editor may be between two names
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


# -- as a test --------------------------------------------------------------------------------


def _test(options: argparse.Namespace) -> int:
    from pop3.scrape import regression  # noqa: PLC0415 - see run
    from pop3.scrape.errors import ScrapeError  # noqa: PLC0415 - same

    directory = options.user
    if not os.path.exists(os.path.join(directory, "test.yaml")):
        raise ConfigError(
            f"{directory}/test.yaml: there is none; write `user: NAME` into it, and save the pages "
            f"by --save {directory}/pages"
        )
    report = Report(sys.stdout)
    try:
        if options.update:
            names = regression.write_expected(options.spec, directory)
            report.line(f"{directory}/expected: {len(names)} messages", _GREEN)
            return 0
        lines = regression.check(options.spec, directory)
    except ScrapeError as error:
        report.line(_safe(f"{options.spec}: {error}"), _RED)
        return 1
    for line in lines:
        report.line(_safe(line), {"-": _RED, "+": _GREEN, "@": _DIM}.get(line[:1], ""))
    if lines:
        report.line(
            f"\nnot as expected; if this is right: pop3-try scrape --test --update "
            f"{options.spec} {directory}"
        )
        return 1
    report.line(f"{options.spec}: as expected", _GREEN)
    return 0
