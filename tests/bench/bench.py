"""Our server beside Dovecot: same mail, same load generator, runs taken in turns.

    python tests/bench/bench.py [--quick] [--only NAMES] [--chart FILE.svg]

Prints a table of medians and ratios and writes them to build/bench.json. README.md beside this
file tells what each row means, and the names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chart
import dovecot
import mbox_row
from contestants import CLIENTS, ROOT, USERS, Ours, Server, contestants, defaults
from usage import processor_seconds, proportional_kib

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
LOADS = {
    "login": ("--script", "login"),
    "check": ("--script", "check", "--expect", "10"),
    "fetch": ("--script", "fetch", "--expect", "10"),
    "pipeline": ("--script", "fetch", "--expect", "10", "--pipeline"),
}
NAMES = (*LOADS, "crowd", "large", "tls", "default", "idle", "big", "mbox")
CROWD = 256
BIG_USER = 901_000  # a number no small mailbox has
BIG_MESSAGES = 100_000
LARGE_USER = 903_000
LARGE_MESSAGES = 20
LARGE_SIZE = 10 * 1024 * 1024


class Bench:
    """The instrument, the mailboxes and the results of one run."""

    def __init__(self, work: Path, *, quick: bool) -> None:
        self.work = work
        self.seconds = 1 if quick else 2
        self.rounds = 3 if quick else 5
        self.results: dict[str, dict[str, list[float]]] = {}
        self.errors: list[str] = []

    def note(self, row: str, server: str, value: float) -> None:
        """Keep one figure."""
        self.results.setdefault(row, {}).setdefault(server, []).append(value)

    def build(self) -> None:
        """Compile the load generator."""
        source, target = HERE / "pop3load.c", self.work / "pop3load"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SystemExit("bench: no C compiler (apt-get install gcc libc6-dev)")
        command = [compiler, "-O2", "-Wall", "-o", target, source]
        with_tls = [*command, "-DWITH_TLS", "-lssl", "-lcrypto"]
        self.tls = subprocess.run(with_tls, capture_output=True, check=False).returncode == 0
        if not self.tls:
            subprocess.run(command, check=True)

    def make_mail(self, out: Path, *, small: bool, large: bool, big: bool) -> None:
        """Write the mailboxes and the password file of one server."""
        owner = f"{dovecot.UID}:{dovecot.UID}" if os.geteuid() == 0 else ""
        common = [sys.executable, str(HERE / "mkmail.py"), "--passwd", "plain"]
        common += ["--owner", owner] if owner else []
        sizes = []
        if small:
            sizes.append(("0", str(USERS), "10", "4096"))
        if big:
            sizes.append((str(BIG_USER), "1", str(BIG_MESSAGES), "2048"))
        if large:
            sizes.append((str(LARGE_USER), "1", str(LARGE_MESSAGES), str(LARGE_SIZE)))
        lines = []
        for first, users, messages, size in sizes:
            words = ["--out", str(out), "--first-user", first, "--users", users]
            words += ["--messages", messages, "--size", size]
            subprocess.run([*common, *words], check=True)
            lines.append((out / "passwd").read_text())
        (out / "passwd").write_text("".join(lines))

    def load(self, server: Server, *words: str, users: int = 300) -> dict[str, Any]:
        """Run the load generator once; remember its errors."""
        port = server.tls_port if "--tls" in words else server.port
        command = [str(self.work / "pop3load"), "--port", str(port), "--timeout", "60"]
        command += ["--users", str(users), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        report: dict[str, Any] = json.loads(done.stdout)
        if report["errors"] or report["size_mismatch"]:
            self.errors.append(f"{server.name}: {done.stdout.strip()}")
        return report

    def throughput(
        self, row: str, load: str, servers: list[Server], *more: str, clients: int = CLIENTS
    ) -> None:
        """Sessions per second, the servers taken in turns."""
        words = (*LOADS[load], "-c", str(clients), *more)
        for server in servers:
            self.load(server, *words, "-d", "1")  # indexes made, caches filled
        for _ in range(self.rounds):
            for server in servers:
                before = processor_seconds(server.pid)
                report = self.load(server, *words, "-d", str(self.seconds))
                used = processor_seconds(server.pid) - before
                self.note(f"{row}, sessions/s", server.name, report["sessions_per_s"])
                self.note(f"{row}, CPU ms", server.name, 1000 * used / report["sessions"])
                self.note(f"{row}, p99 ms", server.name, report["session_ms"]["p99"])

    def large(self, row: str, servers: list[Server], *more: str) -> None:
        """Octets per second of one client that fetches 20 messages of 10 MiB."""
        words = ["--first-user", str(LARGE_USER), "-n", "1", "--script", "fetch"]
        words += ["--expect", str(LARGE_MESSAGES), *more]
        for turn in range(self.rounds + 1):
            for server in servers:
                report = self.load(server, *words, users=1)
                if turn:  # the first makes indexes
                    megabytes = report["bytes_in"] / 1e6
                    self.note(f"{row}, MB/s", server.name, megabytes / report["seconds"])

    def idle(self, servers: list[Server]) -> None:
        """Memory of logged-in sessions that do nothing, each server freshly started."""
        for server in servers:
            server.stop()
            server.start()
            count = server.idle_sessions
            before = proportional_kib(server.pid)
            command = [str(self.work / "pop3load"), "--port", str(server.port), "--users"]
            command += [str(count), "-n", str(count), "-c", "16", "--script", "idle", "--hold", "3"]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as client:
                assert client.stderr is not None
                ready = client.stderr.readline()
                after = proportional_kib(server.pid)
                out, _ = client.communicate(timeout=120)
            if not ready.startswith("READY") or json.loads(out)["errors"]:
                self.errors.append(f"{server.name}: idle: {ready}{out}")
            self.note("idle, KiB per session (growth)", server.name, (after - before) / count)
            self.note("idle, KiB per session (all)", server.name, after / count)

    def big(self, servers: list[Server]) -> None:
        """Seconds of one check (login, STAT, UIDL, LIST) of 100,000 messages."""
        words = ["--first-user", str(BIG_USER), "-n", "1", "--script", "check"]
        words += ["--expect", str(BIG_MESSAGES)]
        for _ in range(min(self.rounds, 3)):
            for server in servers:
                server.stop()
                server.forget(f"user{BIG_USER}")
                server.start()
                self._big_run(server, "big, first check, s", words)
                time.sleep(2.1)  # a directory changed this very second is never taken as unchanged
                self._big_run(server, "big, second check, s", words)
                self._big_run(server, "big, third check, s", words)

    def _big_run(self, server: Server, row: str, words: list[str]) -> None:
        report = self.load(server, *words, users=1)
        self.note(row, server.name, report["seconds"])

    def table(self, rival: str) -> str:
        """Return the results as text: medians, and each server against the rival."""
        names = list(dict.fromkeys(name for row in self.results.values() for name in row))
        head = ["", *names, *(f"{name} ÷ {rival}" for name in names if name != rival)]
        lines = [head]
        for row, values in self.results.items():
            medians = {name: statistics.median(values[name]) for name in values}
            cells = [f"{medians[name]:,.4g}" if name in medians else "-" for name in names]
            for name in names:
                if name != rival:
                    both = name in medians and medians.get(rival)
                    cells.append(f"{medians[name] / medians[rival]:.2f}" if both else "-")
            lines.append([row, *cells])
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )


def measure(bench: Bench, servers: list[Server], chosen: set[str]) -> None:
    """Run the chosen rows."""
    many = [server for server in servers if server.idle_sessions > CLIENTS]
    rows: dict[str, Callable[[], None]] = {
        **{name: partial(bench.throughput, name, name, servers) for name in LOADS},
        "crowd": lambda: bench.throughput(
            f"login at {CROWD} clients", "login", many, clients=CROWD
        ),
        "large": lambda: bench.large("20 x 10 MiB", servers),
        "tls": lambda: over_tls(bench, servers),
        "default": lambda: by_default(bench, servers),
        "idle": lambda: bench.idle(servers),
        "big": lambda: bench.big(servers),
    }
    for server in servers:
        server.start()
    for name, run in rows.items():
        if name in chosen:
            print(f"{name} …", file=sys.stderr)
            run()


def over_tls(bench: Bench, servers: list[Server]) -> None:
    """Measure implicit TLS: many handshakes, and much mail after one."""
    if bench.tls:
        bench.throughput("login over TLS", "login", servers, "--tls")
        bench.large("20 x 10 MiB over TLS", servers, "--tls")


def by_default(bench: Bench, servers: list[Server]) -> None:
    """Logins where nobody tuned anything; the others rest meanwhile."""
    untuned = defaults(servers)
    for server in servers:
        server.stop()
    try:
        for server in untuned:
            server.start()
        bench.throughput("login by default", "login", untuned)
    finally:
        for server in untuned:
            server.stop()
    for server in servers:
        server.start()


def main() -> int:
    """Run what the command line asks for; return 1 when a server answered wrongly."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="three runs of one second")
    options.add_argument("--only", metavar="NAMES", help=f"some of {','.join(NAMES)}")
    options.add_argument("--chart", type=Path, metavar="FILE", help="draw the ratios as SVG")
    options.add_argument("--json", type=Path, default=ROOT / "build/bench.json", metavar="FILE")
    given = options.parse_args()
    chosen = set(given.only.split(",")) if given.only else set(NAMES)
    if chosen - set(NAMES):
        options.error(f"--only: unknown {', '.join(sorted(chosen - set(NAMES)))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended too
    with tempfile.TemporaryDirectory(prefix="pop3-bench-") as directory:
        work = Path(directory)
        work.chmod(0o755)  # Dovecot's processes read the mail under another uid
        bench = Bench(work, quick=given.quick)
        bench.build()
        servers = contestants(bench, chosen) if chosen != {"mbox"} else []
        try:
            measure(bench, servers, chosen)
        finally:
            for server in servers:
                server.stop()
        if "mbox" in chosen:
            mbox_row.measure(bench, mbox_row.rivals(bench, Ours))
    print(bench.table(dovecot.Dovecot.name))
    for error in bench.errors:
        print(f"WRONG: {error}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"rows": bench.results, "errors": bench.errors}, indent=1))
    print(f"written to {given.json}")
    if given.chart is not None:
        given.chart.write_text(chart.draw(bench.results))
    return 1 if bench.errors else 0


if __name__ == "__main__":
    sys.exit(main())
