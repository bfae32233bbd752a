"""Whole sessions against the model, under every personality; the long form is `tests.model`."""

from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import OPTIONS, USERS, Sessions
from tests.support.servers import running

EXAMPLES = {"inetd": 2}  # a Python is started for each session there


def test_sessions_answer_as_the_model_does(personality: str, tmp_path: Path) -> None:
    """Every octet of whole sessions is what the model says, while others deliver and remove."""
    short = settings(
        max_examples=EXAMPLES.get(personality, 6),
        stateful_step_count=10,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    before = Sessions.commands
    with running(tmp_path, personality=personality, users=USERS, options=OPTIONS) as server:
        run_state_machine_as_test(partial(Sessions, server), settings=short)  # type: ignore[arg-type]
    assert Sessions.commands - before > 50
