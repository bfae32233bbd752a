"""The admin child: answers on the control socket, with the rights that the master has.

It serves few clients at once: root and the server's own user; and, over HTTP, whoever
``--admin-listen`` lets come, who may look and nothing else.
"""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from netserver import admin_http, native
from netserver.admin_commands import Commands, Refused
from netserver.control import LINE_LIMIT, Place, peer_of
from netserver.endpoints import ListenSpec
from netserver.errors import NetServerError
from netserver.listeners import bind
from netserver.personalities.orders import Orders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netserver.scoreboard import Row
    from netserver.server import NetServer

MOST_CLIENTS = 8  # on the control socket, and as many over HTTP
# seconds for which a client may say nothing, or take nothing; over HTTP: for all of it
PATIENCE = 10.0
# seconds between two looks at the place, and until another try to get it
TURN = 0.5
RETRY = 5.0
# seconds for which it stays when nobody serves any more: a successor may be about to come
LAST_LOOK = 0.3


class Admin:
    """The life of the admin child; ``path`` is that of the control socket, None for none."""

    def __init__(self, server: NetServer, row: Row, path: str | None) -> None:
        self._server = server
        self._orders = Orders(server, row, os.getppid())
        self._commands = Commands(server)
        self._place = None if path is None else Place(path)
        self._listener: native.socket | None = None
        self._web: native.socket | None = None
        self._clients: list[_Client] = []
        self._next_look = 0.0
        self._complained = False
        self._end = float("inf")  # when it goes at the latest

    def run(self) -> None:
        """Answer until told to stop."""
        try:
            while not self._may_go():
                self._orders.beat()
                now = time.monotonic()
                if now >= self._next_look:
                    self._next_look = now + TURN
                    self._look_at_places(now)
                self._turn(now)
        finally:
            if self._place is not None:
                self._place.leave()
            for socket in (self._listener, self._web, *(one.socket for one in self._clients)):
                if socket is not None:
                    socket.close()

    def _may_go(self) -> bool:
        """Whether this process is to end now.

        TERM: at once.  QUIT: when another process has its place, or when nobody serves any more.
        """
        if not self._orders.drain:
            return False
        if self._orders.stop or os.getppid() != self._commands.master:
            return True
        listener, place = self._listener, self._place
        if listener is not None and place is not None and not place.is_ours():
            # those who came to us before another process took our place are answered here
            return not self._clients and not native.select([listener], [], [], 0)[0]
        now = time.monotonic()
        if self._end == float("inf"):
            self._end = now + self._server.settings.graceful_timeout
        if not self._commands.anybody_serves():
            self._end = min(self._end, now + LAST_LOOK)
        return now >= self._end

    # -- places ---------------------------------------------------------------------------------

    def _look_at_places(self, now: float) -> None:
        """Take the places that are to be had; a path that somebody removed is made again."""
        if self._orders.drain:
            return
        place = self._place
        if place is not None and (self._listener is None or not place.is_ours()):
            self._take(place, now)
        if self._web is None and self._server.settings.admin_listen is not None:
            self._take_web(self._server.settings.admin_listen, now)

    def _take(self, place: Place, now: float) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        problem = None
        if not place.is_free() and not self._commands.is_predecessor(place.path):
            problem = "another server has it"
        else:
            try:
                self._listener = place.take()
            except OSError as error:
                problem = (error.strerror or "failed").lower()
        self._say("control socket", place.path, problem, now)

    def _take_web(self, spec: str, now: float) -> None:
        problem = None
        try:
            listener = bind([ListenSpec.parse(spec)], backlog=16)[0]
        except NetServerError as error:
            problem = str(error)
        else:
            self._web = listener.socket
            spec = self._commands.web_address = listener.address
        self._say("admin pages", spec, problem, now)

    def _say(self, what: str, where: str, problem: str | None, now: float) -> None:
        if problem is None:
            self._complained = False
            self._server.log.info("control: ready", what=what, at=where)
            return
        self._next_look = now + RETRY
        if not self._complained:
            self._complained = True
            self._server.log.error("control: not ready", what=what, at=where, why=problem)

    # -- clients --------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        signals = self._server.signals
        reads: list[Any] = [signals.fileno()]
        for listener, kind in ((self._listener, _Control), (self._web, _Web)):
            # apart: whoever may look must not keep those out who may give orders
            here = sum(isinstance(client, kind) for client in self._clients)
            if listener is not None and here < MOST_CLIENTS:
                reads.append(listener)
        reads += [client.socket for client in self._clients if not client.out]
        writes = [client.socket for client in self._clients if client.out]
        wait = TURN if self._end == float("inf") else LAST_LOOK / 3
        ready, writable, _ = native.select(reads, writes, [], wait)
        self._orders.look()
        for client in list(self._clients):
            if client.socket in ready or client.socket in writable:
                if client.may_take_long:
                    client.until = now + wait + PATIENCE
                alive = client.go_on() and now < client.until
            else:
                alive = now < client.until
            if not alive:
                self._clients.remove(client)
                client.close()
        for listener in (self._listener, self._web):
            if listener is not None and listener in ready:
                self._accept(listener)

    def _accept(self, listener: native.socket) -> None:
        try:
            descriptor, _ = listener._accept()  # type: ignore[attr-defined] # noqa: SLF001 - see native
        except OSError:
            return
        socket = native.socket(fileno=descriptor)
        socket.setblocking(False)
        if listener is self._web:
            self._clients.append(_Web(socket, self._commands))
            return
        client = _Control(socket, self._commands)
        pid, uid = peer_of(socket)
        if uid not in (0, os.geteuid()):
            self._server.log.warning("control socket: refused", peer_pid=pid, uid=uid)
            client.refuse()
        self._clients.append(client)


class _Client(ABC):
    """One connection; ``replies`` are pieces that are still to be made."""

    may_take_long: ClassVar[bool] = True

    def __init__(self, socket: native.socket, commands: Commands) -> None:
        self.socket = socket
        self.out = b""
        self.until = time.monotonic() + PATIENCE
        self._commands = commands
        self._given = b""
        self._replies: Iterator[bytes] = iter(())
        self._last = False  # what is to be sent now is the last

    def go_on(self) -> bool:
        """Read or write what can be; return whether the connection goes on."""
        try:
            if self.out:
                self.out = self.out[self.socket.send(self.out) :]
            else:
                data = self.socket.recv(LINE_LIMIT)
                if not data:
                    return False
                self._given += data
        except BlockingIOError:
            return True
        except OSError:
            return False
        while not self.out:
            self.out = next(self._replies, b"")
            if not self.out and (self._last or not self._take()):
                break
        return bool(self.out) or not self._last

    def close(self) -> None:
        """End the connection; unread input would take our last words from the other side."""
        with suppress(OSError):
            self.socket.recv(LINE_LIMIT)
        self.socket.close()

    @abstractmethod
    def _take(self) -> bool:
        """Take the next request of what was given; False if there is none yet."""


class _Control(_Client):
    """A client of the control socket."""

    def __init__(self, socket: native.socket, commands: Commands) -> None:
        super().__init__(socket, commands)
        self._stranger = False

    def _take(self) -> bool:
        if self._stranger:
            self._last = bool(self._given)
            self._replies = iter([_failure("refused", "not for this user")] * self._last)
            return self._last
        end = self._given.find(b"\n")
        if end < 0 and len(self._given) < LINE_LIMIT:
            return False
        if end < 0 or end >= LINE_LIMIT:
            self._last = True
            self._replies = iter([_failure("too-long", "a line is too long")])
            return True
        line, self._given = self._given[:end], self._given[end + 1 :]
        self._replies = self._answers(line)
        return True

    def refuse(self) -> None:
        """Tell a stranger that it is one, whatever it asks."""
        self._stranger = True

    def _answers(self, line: bytes) -> Iterator[bytes]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            yield _failure("protocol", "a request is one JSON object on a line")
            return
        try:
            for answer in self._commands.answers(request):
                yield json.dumps({"ok": True, **answer}).encode() + b"\n"
        except Refused as error:
            yield _failure(error.kind, str(error))
        except Exception:
            self._commands.server.log.exception("a command failed")
            yield _failure("internal", "internal error; the server's log tells more")


class _Web(_Client):
    """A client of --admin-listen: one request, then the end."""

    may_take_long: ClassVar[bool] = False

    def _take(self) -> bool:
        if b"\r\n\r\n" not in self._given and len(self._given) < admin_http.LONGEST_REQUEST:
            return False
        self._last = True
        self._replies = iter([admin_http.respond(self._given, self._commands)])
        return True


def _failure(kind: str, text: str) -> bytes:
    return json.dumps({"ok": False, "error": {"type": kind, "text": text}}).encode() + b"\n"


def run(server: NetServer, row: Row, path: str | None) -> None:
    """Be the admin child until told to stop."""
    Admin(server, row, path).run()
