"""Our server beside Dovecot: same mail, same load generator, runs taken in turns.

    python tests/bench/bench.py [--quick] [--only login,check,fetch,pipeline,idle,big]

Prints a table of medians and ratios and writes them to build/bench.json. README.md beside this
file tells what each row means.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

import dovecot

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOADS = {
    "login": ("--script", "login"),
    "check": ("--script", "check", "--expect", "10"),
    "fetch": ("--script", "fetch", "--expect", "10"),
    "pipeline": ("--script", "fetch", "--expect", "10", "--pipeline"),
}
NAMES = (*LOADS, "idle", "big")
CLIENTS = 64
USERS = 1000
BIG_USER = 901_000  # a number no small mailbox has
BIG_MESSAGES = 100_000
START_DEADLINE = 30.0


class Server(Protocol):
    """What the bench needs of each rival."""

    name: str
    idle_sessions: int
    port: int

    @property
    def pid(self) -> int:
        """Process id of the root of the process tree."""

    def start(self) -> None:
        """Return when it serves."""

    def stop(self) -> None:
        """End it and all its children."""

    def forget(self, user: str) -> None:
        """Remove indexes and caches of one mailbox; called while stopped."""


class Ours:
    """bin/pop3-server under one personality."""

    def __init__(self, name: str, home: Path, mail: Path, passwd: Path, *options: str) -> None:
        self.name = name
        self.home = home
        self.mail = mail
        self.passwd = passwd
        self.options = options
        self.idle_sessions = CLIENTS if "prefork" in options else USERS
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The master's process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start on a free port; return when the address file is there."""
        self.home.mkdir(parents=True, exist_ok=True)
        addresses = self.home / "addresses"
        addresses.unlink(missing_ok=True)
        command = [sys.executable, str(ROOT / "bin/pop3-server"), "--no-default-config"]
        command += ["--listen", "127.0.0.1:0", "--address-file", str(addresses)]
        command += ["--source", "maildir", "--maildir", f"{self.mail}/{{user}}"]
        command += ["--auth", f"passwd-file:{self.passwd}"]
        command += ["--state", f"sqlite:///{self.home}/state/state.db"]
        command += ["--log-file", str(self.home / "log"), *self.options]
        (self.home / "state").mkdir(exist_ok=True)
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.home / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(command, env=variables, stdout=errors, stderr=errors)
        end = time.monotonic() + START_DEADLINE
        while not addresses.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                print((self.home / "stderr").read_text(), end="")
                raise RuntimeError(f"{self.name} did not start")
            time.sleep(0.02)
        self.port = int(addresses.read_text().split()[0].rpartition(":")[2])

    def stop(self) -> None:
        """TERM by pid, and wait."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def forget(self, user: str) -> None:
        """Remove the state directory: index files of all mailboxes."""
        shutil.rmtree(self.home / "state", ignore_errors=True)


def process_tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    tree, todo = [], [pid]
    while todo:
        one = todo.pop()
        tree.append(one)
        todo += parents.get(one, [])
    return tree


def proportional_kib(pid: int) -> int:
    """Return the proportional set size of a process tree, in KiB."""
    total = 0
    for one in process_tree(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            found = re.search(r"^Pss: +([0-9]+) kB", text, re.MULTILINE)
            total += int(found[1]) if found else 0
    return total


def processor_seconds(pid: int) -> float:
    """Return the processor time a process tree has used, its ended children included."""
    ticks = 0
    for one in process_tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


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
        subprocess.run([compiler, "-O2", "-Wall", "-o", target, source], check=True)

    def make_mail(self, out: Path, *, small: bool, big: bool) -> None:
        """Write the mailboxes and the password file of one server."""
        owner = f"{dovecot.UID}:{dovecot.UID}" if os.geteuid() == 0 else ""
        common = [sys.executable, str(HERE / "mkmail.py"), "--passwd", "plain"]
        common += ["--owner", owner] if owner else []
        sizes = []
        if small:
            sizes.append(("0", str(USERS), "10", "4096"))
        if big:
            sizes.append((str(BIG_USER), "1", str(BIG_MESSAGES), "2048"))
        lines = []
        for first, users, messages, size in sizes:
            words = ["--out", str(out), "--first-user", first, "--users", users]
            words += ["--messages", messages, "--size", size]
            subprocess.run([*common, *words], check=True)
            lines.append((out / "passwd").read_text())
        (out / "passwd").write_text("".join(lines))

    def load(self, server: Server, *words: str, users: int = 300) -> dict[str, Any]:
        """Run the load generator once; remember its errors."""
        command = [str(self.work / "pop3load"), "--port", str(server.port), "--timeout", "60"]
        command += ["--users", str(users), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        report: dict[str, Any] = json.loads(done.stdout)
        if report["errors"] or report["size_mismatch"]:
            self.errors.append(f"{server.name}: {done.stdout.strip()}")
        return report

    def throughput(self, name: str, servers: list[Server]) -> None:
        """Sessions per second at 64 clients, the servers taken in turns."""
        words = (*LOADS[name], "-c", str(CLIENTS))
        for server in servers:
            self.load(server, *words, "-d", "1")  # indexes made, caches filled
        for _ in range(self.rounds):
            for server in servers:
                before = processor_seconds(server.pid)
                report = self.load(server, *words, "-d", str(self.seconds))
                used = processor_seconds(server.pid) - before
                self.note(f"{name}, sessions/s", server.name, report["sessions_per_s"])
                self.note(f"{name}, CPU ms", server.name, 1000 * used / report["sessions"])
                self.note(f"{name}, p99 ms", server.name, report["session_ms"]["p99"])

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


def contestants(bench: Bench, chosen: set[str]) -> list[Server]:
    """Return the servers that can run here, each with its own copy of the mail."""
    why_not = dovecot.install()
    kinds = ["gevent", "prefork"] + ([] if why_not else ["dovecot"])
    if why_not:
        print(f"without Dovecot: {why_not}", file=sys.stderr)
    servers: list[Server] = []
    for kind in kinds:
        base = bench.work / kind
        print(f"making mail for {kind} …", file=sys.stderr)
        bench.make_mail(base, small=bool(chosen - {"big"}), big="big" in chosen)
        mail, passwd = base / "maildir", base / "passwd"
        if kind == "dovecot":
            servers.append(dovecot.Dovecot(base / "server", mail, passwd))
        else:
            workers = {"gevent": "2", "prefork": str(CLIENTS)}[kind]
            options = ("--personality", kind, "--workers", workers)
            servers.append(Ours(f"ours-{kind}", base / "server", mail, passwd, *options))
    return servers


def measure(bench: Bench, servers: list[Server], chosen: set[str]) -> None:
    """Run the chosen rows."""
    for server in servers:
        server.start()
    for name in LOADS:
        if name in chosen:
            print(f"{name} …", file=sys.stderr)
            bench.throughput(name, servers)
    if "idle" in chosen:
        print("idle …", file=sys.stderr)
        bench.idle(servers)
    if "big" in chosen:
        print("big …", file=sys.stderr)
        bench.big(servers)


def main() -> int:
    """Run what the command line asks for; return 1 when a server answered wrongly."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="three runs of one second")
    options.add_argument("--only", metavar="NAMES", help=f"some of {','.join(NAMES)}")
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
        servers = contestants(bench, chosen)
        try:
            measure(bench, servers, chosen)
        finally:
            for server in servers:
                server.stop()
    print(bench.table(dovecot.Dovecot.name))
    for error in bench.errors:
        print(f"WRONG: {error}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"rows": bench.results, "errors": bench.errors}, indent=1))
    print(f"written to {given.json}")
    return 1 if bench.errors else 0


if __name__ == "__main__":
    sys.exit(main())
