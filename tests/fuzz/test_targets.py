"""Every target on all inputs that are kept, and on some thousand made from them."""

import itertools

import pytest

from tests.fuzz.mutation import inputs
from tests.fuzz.target import Target, targets

SLOW = {
    "compose": 100,
    "feed": 400,
    "tls": 150,
    "session": 600,
    "auth-lines": 500,
    "mbox": 1000,
    "encode": 1000,
}
MADE = 2000
SEED = 1939


@pytest.mark.parametrize("target", targets().values(), ids=targets())
def test_kept_inputs_are_handled(target: Target) -> None:
    """No input that was ever of interest, or once failed, makes a target raise."""
    found = 0
    for where, data in target.corpus():
        try:
            target.run(data)
        except Exception as error:
            error.add_note(f"{target.name}, {where}: {data!r}")
            raise
        found += 1
    assert found >= 2


@pytest.mark.parametrize("target", targets().values(), ids=targets())
def test_made_inputs_are_handled(target: Target) -> None:
    """No input made from them does; the long form is `python -m tests.fuzz`."""
    corpus = [data for _, data in target.corpus()]
    made = inputs(corpus, target.words, target.longest, SEED)
    for data in itertools.islice(made, SLOW.get(target.name, MADE)):
        try:
            target.run(data)
        except Exception as error:
            error.add_note(f"{target.name}: {data!r}")
            raise
