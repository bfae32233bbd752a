"""The long form: `python -m tests.model [--personality NAME] [--commands N] [--seed N]`.

One JSON line for each personality; the status is 1 when an answer was not the model's.
"""

import argparse
import json
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import hypothesis.core
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import OPTIONS, USERS, Sessions
from tests.support.servers import PERSONALITIES, running

BATCH = 20
"""Machines between two looks at how many commands there were."""


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--personality", choices=PERSONALITIES, action="append")
    parser.add_argument("--commands", type=int, default=50_000, help="for each personality")
    parser.add_argument("--seed", type=int, default=None, help="of the first batch")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    failed = [
        name
        for name in options.personality or PERSONALITIES
        if not hold(name, options.commands, seed)
    ]
    return 1 if failed else 0


def hold(personality: str, wanted: int, seed: int) -> bool:
    """Run sessions until there were enough commands; tell whether all answers were right."""
    commands, sessions = Sessions.commands, Sessions.sessions
    began = time.monotonic()
    batch = 0
    right = True
    with (
        tempfile.TemporaryDirectory(prefix="pop3-model-") as home,
        running(Path(home), personality=personality, users=USERS, options=OPTIONS) as server,
    ):
        while right and Sessions.commands - commands < wanted:
            right = _batch(partial(Sessions, server), seed + batch)
            batch += 1
    report = {
        "figure": "G9",
        "personality": personality,
        "commands": Sessions.commands - commands,
        "bar": wanted,
        "sessions": Sessions.sessions - sessions,
        "divergences": 0 if right else 1,
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed if right else seed + batch - 1,
    }
    print(json.dumps(report), flush=True)
    return right


def _batch(make: Callable[[], Sessions], seed: int) -> bool:
    hypothesis.core.global_force_seed = seed  # type: ignore[assignment]  # what pytest's --hypothesis-seed sets
    form = settings(
        max_examples=BATCH,
        stateful_step_count=40,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    try:
        run_state_machine_as_test(make, settings=form)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
