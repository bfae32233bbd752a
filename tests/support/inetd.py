"""A super-server of a hundred lines: accepts, and starts one program per connection."""

import os
import selectors
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


class Inetd:
    """Accept on 127.0.0.1:0 and run `command` with descriptors 0 and 1 on the connection."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], errors: Path) -> None:
        """Start accepting at once, in a thread."""
        self.command = list(command)
        self.env = dict(env)
        self.errors = errors
        self.children: list[subprocess.Popen[bytes]] = []
        self.codes: list[int] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.host, self.port = self.listener.getsockname()[:2]
        self._wake_read, self._wake_write = os.pipe()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="inetd")
        self._thread.start()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(1.0)]
                self._reap()
                if self._wake_read in ready:
                    return
                if self.listener in ready:
                    self._spawn()

    def _spawn(self) -> None:
        connection, _ = self.listener.accept()
        with connection, self.errors.open("ab") as errors:
            child = subprocess.Popen(
                self.command,
                stdin=connection.fileno(),
                stdout=connection.fileno(),
                stderr=errors,
                env=self.env,
            )
        with self._lock:
            self.children.append(child)

    def _reap(self) -> None:
        with self._lock:
            self.codes += [code for child in self.children if (code := child.poll()) is not None]
            self.children = [child for child in self.children if child.returncode is None]

    def signal(self, number: int) -> None:
        """Send a signal to every running child."""
        with self._lock:
            for child in self.children:
                child.send_signal(number)

    def stop(self, deadline: float) -> list[int]:
        """Stop accepting, end the children by TERM (KILL after `deadline` s), return exit codes."""
        os.write(self._wake_write, b"x")
        self._thread.join(deadline)
        self.listener.close()
        for child in self.children:
            child.terminate()
        for child in self.children:
            try:
                child.wait(deadline)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(deadline)
            self.codes.append(child.returncode)
        self.children.clear()
        os.close(self._wake_read)
        os.close(self._wake_write)
        return self.codes
