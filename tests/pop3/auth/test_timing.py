"""Who exists cannot be told by the time a refusal takes.

The test counts the work that is done; the clock is for a machine that does nothing else:
`python -m tests.pop3.auth.test_timing [PAIRS] [OPTION…]` measures it from outside, with these
options of the server (`user7` must be a user then and `usher` not) or with users files.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pop3.auth.chain import AuthChain
from pop3.auth.names import LoginName
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed
from tests.support.logins import MD5, SHA512, Pools, hashes  # noqa: F401 - hashes is a fixture
from tests.support.servers import RunningServer, running

DELAY = "0.005"  # more than a hash of a test takes
PLAIN = "{PLAIN}pass word"
KINDS = {"PLAIN": PLAIN, "MD5-CRYPT": MD5, "SHA512-CRYPT": SHA512}


def chain_of(path: Path, hash_text: str) -> AuthChain:
    """Return a chain of one users file with a hundred users of one kind of hash."""
    path.write_text("".join(f"user{number}:{hash_text}\n" for number in range(100)))
    path.chmod(0o600)
    return AuthChain.from_specs([f"passwd-file:{path}"], base_directory=str(path.parent))


def refuse(chain: AuthChain, user: str, pools: Pools) -> str:
    """Try to log in with a wrong password; return the text of the refusal."""
    with pytest.raises(AuthFailed) as refusal:
        chain.authenticate(LoginName.parse(user.encode()), Secret(b"guess"), pools)
    return refusal.value.text


def auc(ones: Sequence[float], others: Sequence[float]) -> float:
    """Return the probability that one of the first is greater than one of the second.

    0.5 is what somebody gets who tosses a coin.
    """
    ranked = sorted([(value, 1) for value in ones] + [(value, 0) for value in others])
    ranks = 0.0
    at = 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        ranks += sum(kind for _, kind in ranked[at:end]) * (at + end + 1) / 2
        at = end
    count = len(ones)
    return (ranks - count * (count + 1) / 2) / (count * len(others))


def test_auc_of_known_samples() -> None:
    """All above is 1, all below 0, the same 0.5."""
    assert auc([3, 4], [1, 2]) == 1
    assert auc([1, 2], [3, 4]) == 0
    assert auc([1, 2, 2], [2, 1, 2]) == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_known_and_unknown_users_cost_the_same_work(
    tmp_path: Path,
    hashes: list[str | None],  # noqa: F811 - the fixture
    kind: str,
) -> None:
    """As many hashes of the same shape, in the same pools, and the same text."""
    chain = chain_of(tmp_path / "users", KINDS[kind])
    work = []
    for user in ("user7", "nobody", "user7@example.org"):
        pools = Pools()
        hashes.clear()
        text = refuse(chain, user, pools)
        asked = [pool for pool in pools.asked if pool != "disk"]  # where the file is looked at
        work.append((list(hashes), asked, text))
    assert work[0] == work[1] == work[2]
    assert len(work[0][0]) == 1


class Door:
    """A real server, met as a new address each time, so that no delay grows."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._number = 0

    def refuse(self, user: str) -> float:
        """Try a wrong password; return the seconds until the answer, greeting and all left out."""
        self._number += 1
        high, low = divmod(self._number, 250)
        with self._server.connect(greeted=False) as wire:
            wire.send(b"PROXY TCP4 10.1.%d.%d 192.0.2.1 4711 110\r\n" % (high, low))
            wire.line()
            wire.ok(b"USER " + user.encode())
            begin = time.perf_counter()
            wire.err(b"PASS guess")
            return time.perf_counter() - begin


def measure(refuse: Callable[[str], float], pairs: int) -> float:
    """Return the AUC of the times that refusals of a known and of an unknown user take."""
    times: dict[str, list[float]] = {"user7": [], "usher": []}
    for number in range(pairs + 20):
        order = list(times)
        random.shuffle(order)
        for user in order:
            taken = refuse(user)
            if number >= 20:  # the first ones warm up
                times[user].append(taken)
    return auc(times["user7"], times["usher"])


def main() -> None:
    """Measure what a client sees, for each kind of hash in a users file or with other options."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    own = tuple(sys.argv[2:])
    for kind in ("own",) if own else KINDS:
        with tempfile.TemporaryDirectory() as directory:
            home = Path(directory)
            auth = own
            if not own:
                chain_of(home / "file", KINDS[kind])
                auth = ("--auth", f"passwd-file:{home / 'file'}")
            options = ("--proxy-protocol", "127.0.0.1", "--plaintext-auth", "always", *auth)
            with running(
                home,
                personality="prefork",
                users={},
                options=(*options, "--auth-failure-delay", DELAY),
            ) as server:
                result = measure(Door(server).refuse, pairs)
        print(f"{kind:14} AUC {result:.3f}  ({pairs} pairs)", flush=True)


if __name__ == "__main__":
    main()
