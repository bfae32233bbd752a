"""Right passwords are remembered, bounded in number and time."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from pop3.auth.cache import VerificationCache
from pop3.auth.secret import Secret

RIGHT = ("passwd-file", "joe", "{X}hash")


@pytest.fixture
def clock() -> list[float]:
    """Hold a time that only moves when told."""
    return [1000.0]


def test_cache_knows_only_what_was_right(clock: list[float]) -> None:
    """Another password, user, backend or stored hash is not known."""
    cache = VerificationCache(clock=lambda: clock[0])
    assert not cache.knows(*RIGHT, Secret(b"pw"))
    cache.remember(*RIGHT, Secret(b"pw"))
    assert cache.knows(*RIGHT, Secret(b"pw"))
    assert not cache.knows(*RIGHT, Secret(b"pw2"))
    for place in range(3):
        backend, user, stored = [text + "x" * (at == place) for at, text in enumerate(RIGHT)]
        assert not cache.knows(backend, user, stored, Secret(b"pw"))


def test_cache_forgets_after_an_hour(clock: list[float]) -> None:
    """Using an entry does not make it younger."""
    cache = VerificationCache(clock=lambda: clock[0])
    cache.remember(*RIGHT, Secret(b"pw"))
    clock[0] += 3599
    assert cache.knows(*RIGHT, Secret(b"pw"))
    clock[0] += 2
    assert not cache.knows(*RIGHT, Secret(b"pw"))
    assert len(cache) == 0


def test_cache_drops_what_was_used_longest_ago() -> None:
    """The entry used longest ago makes room for a new one."""
    cache = VerificationCache(max_entries=2)
    for user in ("a", "b"):
        cache.remember("f", user, "h", Secret(b"pw"))
    assert cache.knows("f", "a", "h", Secret(b"pw"))
    cache.remember("f", "c", "h", Secret(b"pw"))
    assert len(cache) == 2
    assert cache.knows("f", "a", "h", Secret(b"pw"))
    assert not cache.knows("f", "b", "h", Secret(b"pw"))


def test_cache_holds_no_password() -> None:
    """Neither the entries nor their keys hold the octets."""
    cache = VerificationCache()
    cache.remember(*RIGHT, Secret(b"correct-horse"))
    assert "correct" not in repr(vars(cache))


def test_cache_makes_its_key_when_first_used() -> None:
    """Two processes that came from one have different keys."""
    cache = VerificationCache()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        cache.remember(*RIGHT, Secret(b"pw"))
        os.write(write, cache._hmac_key or b"")
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        theirs = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    cache.remember(*RIGHT, Secret(b"pw"))
    assert len(theirs) == 32
    assert cache._hmac_key != theirs


def test_cache_bears_threads() -> None:
    """Many threads at once raise nothing and keep the bound."""
    cache = VerificationCache(max_entries=50)

    def work(seed: int) -> None:
        for number in range(300):
            cache.remember("f", str(seed * number % 97), "h", Secret(b"pw"))
            cache.knows("f", str(number % 97), "h", Secret(b"pw"))

    with ThreadPoolExecutor(4) as pool:
        for result in [pool.submit(work, seed) for seed in range(4)]:
            result.result(timeout=20)
    cache.remember(*RIGHT, Secret(b"pw"))
    assert len(cache) <= 50
