"""The long form: `python -m tests.fuzz TARGET… | all [--runs N] [--seconds N] [--keep]`.

With atheris (pip install atheris) inputs that reach new code lead to others; without it they are
changed blindly.  One JSON line for each target; the status is 1 when one failed, and the input that
it failed on is kept in its corpus.
"""

import argparse
import hashlib
import importlib.util
import itertools
import json
import os
import re
import resource
import secrets
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.mutation import inputs
from tests.fuzz.scratch import parent
from tests.fuzz.target import CORPUS, Target, targets

HANG = 10
"""Seconds one input may take: a hang is 1, but a machine may be busy."""

MEGABYTES = 512
MOST_KEPT = 120
"""Inputs in the corpus of one target."""


def main() -> int:
    """Run and report."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="+", choices=[*known, "all"])
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs for each target")
    parser.add_argument("--seconds", type=int, default=0, help="for each target, 0: no limit")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="add what reaches new code")
    parser.add_argument("--plain", action="store_true", help="do not use atheris")
    options = parser.parse_args()
    seed = secrets.randbits(31) if options.seed is None else options.seed
    guided = importlib.util.find_spec("atheris") is not None and not options.plain
    run = _guided if guided else _blind
    failed = False
    for name in known if "all" in options.target else options.target:
        report = {"figure": "G8", "target": name, "bar": options.runs, "guided": guided}
        report |= run(known[name], options, seed)
        print(json.dumps(report), flush=True)
        failed = failed or bool(report["failures"])
    return int(failed)


def _guided(target: Target, options: argparse.Namespace, seed: int) -> dict[str, object]:
    """Let atheris run the target in a child."""
    kept = CORPUS / target.name
    with tempfile.TemporaryDirectory(prefix="pop3-fuzz-", dir=parent()) as scratch:
        begin, new, dictionary = Path(scratch, "begin"), Path(scratch, "new"), Path(scratch, "dict")
        begin.mkdir()
        new.mkdir()
        for number, data in enumerate(target.seeds):
            (begin / f"seed{number}").write_bytes(data)
        dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        kept.mkdir(parents=True, exist_ok=True)
        common = [f"-max_len={target.longest}", f"-rss_limit_mb={MEGABYTES}"]
        limits = [f"-runs={options.runs}", f"-timeout={HANG}", f"-seed={seed}"]
        limits += [f"-max_total_time={options.seconds}", f"-artifact_prefix={kept}/"]
        words = [f"-dict={dictionary}"] if target.words else []
        code, said = _engine(
            target.name, scratch, *common, *limits, *words, "-print_final_stats=1", new, begin, kept
        )
        if code:
            print(said[-4000:], file=sys.stderr)
        elif options.keep:
            _keep(new, kept)
        if not any(kept.iterdir()):
            kept.rmdir()
    stats = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+([0-9]+)", said)}
    return {
        "executions": stats.get("number_of_executed_units", 0),
        "per_second": stats.get("average_exec_per_sec", 0),
        "slowest_seconds": stats.get("slowest_unit_time_sec", 0),
        "megabytes": stats.get("peak_rss_mb", 0),
        "failures": int(code != 0),
        "seed": seed,
    }


def _keep(new: Path, kept: Path) -> None:
    """Add some of the inputs that reached new code, short ones and long ones."""
    room = MOST_KEPT - sum(1 for _ in kept.iterdir())
    found = sorted(new.iterdir(), key=lambda file: (file.stat().st_size, file.name))
    for file in found[:: -(-len(found) // room)] if room > 0 and found else []:
        (kept / file.name).write_bytes(file.read_bytes())


def _engine(name: str, directory: str, *arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.fuzz.engine", name, *map(str, arguments)]
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "TMPDIR": directory},  # atheris ends without giving anything back
        text=True,
        errors="replace",
    )
    return done.returncode, done.stderr


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word)


def _blind(target: Target, options: argparse.Namespace, seed: int) -> dict[str, object]:
    """Run the target here, on inputs that nothing guides."""
    corpus = [data for _, data in target.corpus()]
    made = inputs(corpus, target.words, target.longest, seed)
    began = time.monotonic()
    count = failures = 0
    slowest = 0.0
    for data in itertools.islice(itertools.chain(corpus, made), options.runs):
        before = time.monotonic()
        if options.seconds and before - began > options.seconds:
            break
        try:
            target.run(data)
        except Exception:  # noqa: BLE001 - that is what is looked for
            traceback.print_exc()
            place = CORPUS / target.name / f"crash-{hashlib.sha1(data).hexdigest()}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            failures += 1
            break
        count += 1
        slowest = max(slowest, time.monotonic() - before)
    return {
        "executions": count,
        "per_second": round(count / max(time.monotonic() - began, 0.001)),
        "slowest_seconds": round(slowest, 3),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "failures": failures,
        "seed": seed,
    }


if __name__ == "__main__":
    sys.exit(main())
