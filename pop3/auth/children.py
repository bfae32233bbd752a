"""Auth children: processes that keep the rights which those who serve have given up.

One socket pair carries the questions of all who serve: a record is one JSON object and a
descriptor for the answer, and whichever child is free takes it. A child that dies closes that
descriptor, so whoever asked knows at once. Neither side keeps anything between two questions.
"""

import json
import os
import time
from _socket import (  # never patched: questions are asked in pool threads
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_PEEK,
    MSG_TRUNC,
    SCM_RIGHTS,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from netserver import native
from netserver.personalities.orders import Orders
from netserver.personalities.side import SideChild
from netserver.reach import Reach
from pop3.auth.backend import Backend, Identity
from pop3.auth.names import LoginName
from pop3.auth.passwd_file import RunBlocking
from pop3.auth.schemes import MAX_SECRET
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, TemporaryFailure

if TYPE_CHECKING:
    from netserver.scoreboard import Row
    from netserver.server import NetServer

MAX_FRAME = 8192
"""Octets of one question: a name of 255 and a secret of 511, each octet escaped, are fewer."""
ANSWER_SECONDS = 10.0

_VERIFY, _LOOKUP, _REFUSE = "verify", "lookup", "refuse"
_KNOWN, _UNKNOWN, _WRONG = "known", "unknown", "wrong"


class AuthChildren:
    """The backends that are asked in auth children, and the way there and back."""

    def __init__(self, server: "NetServer") -> None:
        self._server = server
        self._backends: list[Backend] = []
        # Numbers, not objects: both ends stay open as long as the process that has them.
        self._asking = self._answering = -1

    def stand_in(self, backend: Backend) -> Backend:
        """Return what asks a child where this backend needs one, else the backend."""
        if not (backend.always_apart or (backend.needs_root and self._server.rights_are_given_up)):
            return backend
        if not self._backends:
            near, far = socketpair(AF_UNIX, SOCK_SEQPACKET)
            near.setblocking(False)
            far.setblocking(False)
            self._asking, self._answering = near.detach(), far.detach()
        self._backends.append(backend)
        return Apart(backend, self, len(self._backends) - 1)

    def wanted(self, count: int) -> list[SideChild]:
        """Return what the master has to keep alive: nothing where no backend needs it."""
        if not self._backends:
            return []
        return [SideChild("auth", self.live, count=count, outlives=True)]

    def keep_out(self, others: Iterable[SideChild]) -> list[SideChild]:
        """Return side children of other kinds so that they cannot read questions either."""
        return [replace(other, run=partial(self._kept_out, other.run)) for other in others]

    def _kept_out(self, run: "Callable[[Row], None]", row: "Row") -> None:
        self.only_ask()
        run(row)

    def only_ask(self) -> None:
        """Give up the children's end: who serves must not read the questions of others."""
        if self._answering >= 0:
            native.close(self._answering)
            self._answering = -1

    # -- those who ask ------------------------------------------------------------------------

    def ask(self, number: int, what: str, login: LoginName | None, secret: Secret | None) -> Any:
        """Return the answer, None if there is none in time. In a pool: raises and logs nothing."""
        until = time.monotonic() + ANSWER_SECONDS
        try:
            ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        except OSError:
            return None
        try:
            frame = _frame(number, what, login, secret)
            with _borrowed(self._asking) as asking:
                asking.settimeout(ANSWER_SECONDS)
                rights = array("i", [theirs.fileno()])
                asking.sendmsg([frame], [(SOL_SOCKET, SCM_RIGHTS, rights)], MSG_NOSIGNAL)
            theirs.close()
            ours.settimeout(max(0.001, until - time.monotonic()))
            data = ours.recv(MAX_FRAME)
            return json.loads(data) if data else None
        except (OSError, ValueError):
            return None
        finally:
            theirs.close()
            ours.close()

    # -- the children -------------------------------------------------------------------------

    def live(self, row: "Row") -> None:
        """Be an auth child: answer until TERM, or until nobody is left who could ask.

        QUIT is not for us: who serves may still have clients that log in.
        """
        import resource  # noqa: PLC0415 - not on every system

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # passwords pass through here
        native.close(self._asking)
        server = self._server
        orders = Orders(server, row, os.getppid())
        with _borrowed(self._answering) as questions:
            while not orders.stop:
                orders.beat()
                sources = [server.signals.fileno(), self._answering]
                ready, _, _ = native.select(sources, [], [], orders.heartbeat)
                orders.look()
                if self._answering in ready and not orders.stop and not self._take(questions):
                    return

    def _take(self, questions: socket) -> bool:
        """Take one question and answer it; False at the end of all questions."""
        try:
            # what PAM modules start must not get the way to whoever asks
            frame, rights, flags, _ = questions.recvmsg(
                MAX_FRAME, CMSG_SPACE(array("i").itemsize), MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return True  # another child was faster
        descriptors = array("i")
        for level, kind, data in rights:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not frame and not descriptors:
            return False
        for descriptor in descriptors:
            try:
                self._reply(descriptor, b"" if flags & MSG_TRUNC else frame)
            finally:
                with suppress(OSError):
                    native.close(descriptor)
        return True

    def _reply(self, descriptor: int, frame: bytes) -> None:
        with suppress(OSError), _borrowed(descriptor) as asker:
            # who has given up needs no answer, and a hash is dear
            with suppress(BlockingIOError):
                if not asker.recv(1, MSG_PEEK | MSG_DONTWAIT):
                    return
            answer = self._answer(frame)
            if answer is not None:
                asker.send(json.dumps(answer).encode(), MSG_DONTWAIT | MSG_NOSIGNAL)

    def _answer(self, frame: bytes) -> list[Any] | None:
        """Return what to answer, None if there is nothing sensible to say."""
        try:
            number, what, login, secret = _question(frame)
            backend = self._backends[number]
        except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
            self._server.log.error("auth child: a question that is none")  # noqa: TRY400
            return None
        try:
            found = _ask(backend, what, login, secret)
        except AuthFailed:
            return [_WRONG]
        except TemporaryFailure:
            return None
        except Exception as error:  # noqa: BLE001 - a traceback could show the secret
            kind = type(error).__name__
            self._server.log.error(  # noqa: TRY400 - same
                "auth child: a backend failed", backend=backend.name, error=kind
            )
            return None
        if found is None:
            return [_UNKNOWN]
        return [_KNOWN, found.user, found.uid, found.gid, found.home]


def _ask(backend: Backend, what: str, login: LoginName | None, secret: Secret) -> Identity | None:
    if what == _REFUSE or login is None:
        backend.refuse(secret, _directly)
        return None
    if what == _LOOKUP:
        return backend.lookup(login, _directly)
    return backend.verify(login, secret, _directly)


class Apart(Backend):
    """Stands where a backend stood that is asked in an auth child."""

    name: ClassVar[str] = "auth child"

    def __init__(self, backend: Backend, children: AuthChildren, number: int) -> None:
        self._backend = backend
        self._children = children
        self._number = number

    def reach(self) -> Reach | None:
        """Need what the backend needs when it only looks."""
        return self._backend.reach()

    def refresh(self) -> None:
        """Let the backend look: the children to come begin with what it knows."""
        self._backend.refresh()

    def lookup(self, login: LoginName, run_blocking: RunBlocking) -> Identity | None:
        """Ask who this is."""
        return self._asked(_LOOKUP, login, None, run_blocking)

    def verify(
        self, login: LoginName, secret: Secret, run_blocking: RunBlocking
    ) -> Identity | None:
        """Ask whether the password is right."""
        return self._asked(_VERIFY, login, secret, run_blocking)

    def dummy_cost(self) -> float:
        """Return what the backend says."""
        return self._backend.dummy_cost()

    def refuse(self, secret: Secret, run_blocking: RunBlocking) -> None:
        """Let a child do the work of a wrong password."""
        self._asked(_REFUSE, None, secret, run_blocking)

    def _asked(
        self,
        what: str,
        login: LoginName | None,
        secret: Secret | None,
        run_blocking: RunBlocking,
    ) -> Identity | None:
        answer = run_blocking("auth", self._children.ask, self._number, what, login, secret)
        match answer:
            case ["known", user, uid, gid, home]:
                return Identity(user, uid, gid, home)
            case ["unknown"]:
                return None
            case ["wrong"]:
                raise AuthFailed
        raise TemporaryFailure("cannot verify passwords for now")


def _frame(number: int, what: str, login: LoginName | None, secret: Secret | None) -> bytes:
    """Write a question. An overlong secret is cut to one that is still too long to be right."""
    name = None if login is None else [login.localpart, login.view, login.domain]
    octets = "" if secret is None else secret.reveal()[: MAX_SECRET + 1].decode("latin-1")
    return json.dumps([number, what, name, octets]).encode("ascii")


def _question(frame: bytes) -> tuple[int, str, LoginName | None, Secret]:
    """Read a question. Raises ValueError, TypeError or AttributeError if it is none."""
    number, what, name, octets = json.loads(frame)
    if not isinstance(number, int) or number < 0 or what not in (_VERIFY, _LOOKUP, _REFUSE):
        raise ValueError("no such question")
    login = None if name is None else LoginName(*name)
    return number, what, login, Secret(octets.encode("latin-1"))


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket]:
    """Use a descriptor as a socket, and leave it open."""
    borrowed = socket(AF_UNIX, SOCK_SEQPACKET, 0, descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _directly(pool: str, function: Any, *args: Any) -> Any:
    del pool
    return function(*args)
