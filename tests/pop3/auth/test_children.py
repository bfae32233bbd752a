"""Questions to auth children: what goes over the wire, and what happens when it goes wrong."""

import json
import os
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pop3.auth import AuthChain, Backend, Identity, LoginName, Secret, children, schemes
from pop3.auth.backend import Setup, is_right
from pop3.auth.children import Apart, AuthChildren
from pop3.errors import AuthFailed, TemporaryFailure
from tests.support.logins import RIGHT, SHA512, Pools
from tests.support.logins import hashes as hashes  # noqa: PLC0414 - a fixture

JOE = LoginName("joe", "phone", "x.org")
NOBODY = LoginName("nobody", None, None)


class Rooted(Backend):
    """Knows joe@x.org; needs root."""

    name: ClassVar[str] = "rooted"
    needs_root: ClassVar[bool] = True

    def __init__(self, argument: str = "", setup: Setup | None = None) -> None:
        self.argument = argument
        self.setup = setup or Setup()

    def lookup(self, login: LoginName, run_blocking: Any) -> Identity | None:
        """Know joe."""
        return Identity(login.user, 7, 8, "/home/joe") if login == JOE else None

    def verify(self, login: LoginName, secret: Secret, run_blocking: Any) -> Identity | None:
        """Compare with one hash."""
        if self.argument == "broken":
            raise RuntimeError("with the password in a local variable")
        if self.argument == "unsure":
            raise TemporaryFailure("own text")
        found = self.lookup(login, run_blocking)
        if found and not is_right(self.setup, ("", ""), SHA512, secret, run_blocking):
            raise AuthFailed
        return found

    def dummy_cost(self) -> float:
        """Say that it is dear."""
        return schemes.cost(SHA512)

    def refuse(self, secret: Secret, run_blocking: Any) -> None:
        """Do the same work for nobody."""
        is_right(self.setup, ("", ""), schemes.dummy_like(SHA512), secret, run_blocking)


class Log:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, event: str, **values: object) -> None:
        """Keep a line."""
        self.lines.append(f"{event} {values}")


class Pool:
    """Auth children that answer in a thread of this process."""

    def __init__(self, argument: str = "", *, given_up: bool = True) -> None:
        self.log = Log()
        server: Any = SimpleNamespace(rights_are_given_up=given_up, log=self.log)
        self.children = AuthChildren(server)
        self.chain = AuthChain([Rooted(argument)]).map(self.children.stand_in)
        self.taken = 0

    @contextmanager
    def answering(self, questions: int = 1) -> Iterator[None]:
        """Answer so many questions meanwhile."""
        thread = threading.Thread(target=self._answer, args=(questions,))
        thread.start()
        try:
            yield
        finally:
            thread.join(10)

    def _answer(self, questions: int) -> None:
        with children._borrowed(self.children._answering) as end:
            deadline = time.monotonic() + 5
            while self.taken < questions and time.monotonic() < deadline:
                end.settimeout(1)
                try:
                    end.recv(1, socket.MSG_PEEK)
                except TimeoutError:
                    continue
                self.children._take(end)
                self.taken += 1

    def close(self) -> None:
        """Close both ends."""
        for end in (self.children._asking, self.children._answering):
            if end >= 0:
                os.close(end)


@pytest.fixture
def pool() -> Iterator[Callable[..., Pool]]:
    """Make pools that are closed afterwards."""
    made: list[Pool] = []

    def make(argument: str = "", *, given_up: bool = True) -> Pool:
        made.append(Pool(argument, given_up=given_up))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_answer_comes_back_whole(pool: Callable[..., Pool]) -> None:
    """Identity, refusal and lookup are what the backend says; the pool is "auth"."""
    one, pools = pool(), Pools()
    with one.answering(3):
        identity = one.chain.authenticate(JOE, Secret(RIGHT), pools)
        assert identity == Identity("joe@x.org", 7, 8, "/home/joe")
        with pytest.raises(AuthFailed):
            one.chain.authenticate(JOE, Secret(b"gu\xe9ss"), pools)
        assert one.chain.lookup(JOE, pools) == identity
    assert pools.asked == ["auth"] * 3
    assert one.log.lines == []


def test_unknown_users_cost_one_hash_in_the_child(
    pool: Callable[..., Pool], hashes: list[str | None]
) -> None:
    """The same hash as a wrong password of a known user."""
    one = pool()
    for login, questions in ((JOE, 1), (NOBODY, 3)):
        hashes.clear()
        with one.answering(questions), pytest.raises(AuthFailed):
            one.chain.authenticate(login, Secret(b"guess"), Pools())
        assert hashes == ["SHA512-CRYPT$6$rounds=1000$"]


@pytest.mark.parametrize("argument", ["broken", "unsure"])
def test_a_backend_that_fails_is_a_temporary_failure(
    pool: Callable[..., Pool], argument: str
) -> None:
    """The asker hears no more than that, and the log never more than the kind of error."""
    one = pool(argument)
    with one.answering(), pytest.raises(TemporaryFailure):
        one.chain.authenticate(JOE, Secret(b"hush"), Pools())
    assert "hush" not in "".join(one.log.lines)
    assert ("RuntimeError" in "".join(one.log.lines)) == (argument == "broken")


def test_nobody_answers(pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has an end."""
    monkeypatch.setattr(children, "ANSWER_SECONDS", 0.05)
    one = pool()
    with pytest.raises(TemporaryFailure):
        one.chain.authenticate(JOE, Secret(RIGHT), Pools())


def test_whoever_gave_up_costs_no_hash(
    pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, hashes: list[str | None]
) -> None:
    """A question whose asker has left is dropped."""
    monkeypatch.setattr(children, "ANSWER_SECONDS", 0.05)
    one = pool()
    with pytest.raises(TemporaryFailure):
        one.chain.authenticate(JOE, Secret(RIGHT), Pools())
    with one.answering():
        pass
    assert hashes == []
    assert one.taken == 1


@pytest.mark.parametrize(
    "frame",
    [
        b"x" * (children.MAX_FRAME + 1),
        b"{",
        b"[]",
        b"\xff",
        json.dumps([7, "verify", None, ""]).encode(),
        json.dumps([-1, "verify", None, ""]).encode(),
        json.dumps([0, "steal", None, ""]).encode(),
        json.dumps([0, "verify", ["a", "b"], ""]).encode(),
        json.dumps([0, "verify", None, 5]).encode(),
        b"[" * children.MAX_FRAME,
    ],
)
def test_nonsense_is_closed_without_an_answer(pool: Callable[..., Pool], frame: bytes) -> None:
    """A frame that is too big or no question ends in a closed descriptor and one line."""
    one = pool()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, children._borrowed(one.children._asking) as end:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [far.fileno()]))]
        end.sendmsg([frame], rights)
        far.close()
        near.settimeout(5)
        with one.answering():
            assert near.recv(100) == b""
    assert one.log.lines == ["auth child: a question that is none {}"]


def test_what_comes_without_a_socket_does_no_harm(pool: Callable[..., Pool]) -> None:
    """A question without a descriptor, or with one that is no socket, is dropped."""
    one = pool()
    with open(os.devnull, "rb") as null, children._borrowed(one.children._asking) as end:
        end.send(b"[]")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [null.fileno()]))]
        end.sendmsg([b"[]"], rights)
    with one.answering(3):
        assert one.chain.authenticate(JOE, Secret(RIGHT), Pools())
    assert one.taken == 3


def test_programs_of_a_backend_do_not_get_the_way_back(
    pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PAM modules start programs: the descriptor for the answer is closed in these."""
    one = pool()
    inheritable = []

    def look(descriptor: int, frame: bytes) -> None:
        del frame
        inheritable.append(os.get_inheritable(descriptor))

    monkeypatch.setattr(one.children, "_reply", look)
    with one.answering(), pytest.raises(TemporaryFailure):
        one.chain.authenticate(JOE, Secret(RIGHT), Pools())
    assert inheritable == [False]


def test_the_longest_question_fits() -> None:
    """The longest name and the longest password, at their most awkward, are one frame."""
    login = LoginName("é" * 60, "v" * 32, "ü" * 31)
    secret = Secret(b"\x01" * 8192)
    frame = children._frame(99, "verify", login, secret)
    assert len(frame) <= children.MAX_FRAME
    number, what, read, cut = children._question(frame)
    assert (number, what, read) == (99, "verify", login)
    assert len(cut.reveal()) == schemes.MAX_SECRET + 1


def test_only_those_who_need_it_are_asked_apart(pool: Callable[..., Pool]) -> None:
    """A backend that needs root is asked directly while its rights are there."""
    assert isinstance(pool().chain.backends[0], Apart)
    kept = pool(given_up=False)
    assert isinstance(kept.chain.backends[0], Rooted)
    assert kept.children.wanted(4) == []


def test_the_end_of_all_who_ask_is_the_end(pool: Callable[..., Pool]) -> None:
    """A child ends when nobody can ask any more."""
    one = pool()
    with children._borrowed(one.children._answering) as end:
        assert one.children._take(end)  # nothing there: another child was faster
        os.close(one.children._asking)
        one.children._asking = -1
        assert not one.children._take(end)
