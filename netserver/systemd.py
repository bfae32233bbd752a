"""What a service manager passes in and wants to hear: sd_notify(3), sd_listen_fds(3)."""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import suppress

from netserver import native

FIRST_LISTEN_FD = 3

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def notify(**fields: object) -> None:
    """Tell the service manager ``READY=1``, ``STATUS="…"``, ``STOPPING=1``, ``RELOADING=1``, ….

    Does nothing without ``$NOTIFY_SOCKET``; never raises and never waits.  ``RELOADING`` gets the
    ``MONOTONIC_USEC`` that Type=notify-reload wants with it.
    """
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return
    if "RELOADING" in fields:
        fields.setdefault("MONOTONIC_USEC", time.monotonic_ns() // 1000)
    text = "\n".join(f"{key}={_one_line(value)}" for key, value in fields.items())
    # an abstract name begins with NUL where the variable has "@"
    address = "\0" + place[1:] if place[0] == "@" else place
    with suppress(OSError), native.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(text.encode("utf-8", "backslashreplace"), address)


def _one_line(value: object) -> str:
    return str(value).replace("\n", " ")


def listen_fds() -> dict[str, list[int]]:
    """Return the sockets that were passed to this process, by name; empty if there are none.

    They will not be inherited further, and the variables are gone after the first call.
    """
    owner = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    if owner != str(os.getpid()) or not _NUMBER.fullmatch(count):
        return found
    for index in range(int(count)):
        name = names[index] if index < len(names) and names[index] else "unknown"
        number = FIRST_LISTEN_FD + index
        try:
            os.set_inheritable(number, False)
        except OSError:
            break  # the variables promise more than is there
        found.setdefault(name, []).append(number)
    return found
