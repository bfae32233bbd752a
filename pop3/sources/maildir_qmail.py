"""Where qmail delivers a user's mail: the first line of ~/.qmail that names a maildir.

A line that begins with "." or "/" and ends with "/" does, by dot-qmail(5); programs, addresses,
mbox files and comments are passed over. The file is the user's own, so what it says is trusted no
further than the home directory.
"""

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pop3.errors import TemporaryFailure

if TYPE_CHECKING:
    from pop3.session import Session

NAME = ".qmail"
MAX_OCTETS = 65536
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def maildir_of(session: "Session[Any]") -> Path | None:
    """Return the maildir that ~/.qmail names, None if it names none or there is no such file.

    Raises TemporaryFailure where it cannot be followed: mail may be delivered there all the same,
    and another directory would look like mail that is lost.
    """
    home = session.home
    if not home or not os.path.isabs(home):
        return None
    try:
        line = _first_maildir(f"{home}/{NAME}")
        return None if line is None else _inside(home, line)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        session.log.error(  # noqa: TRY400 - a wrong file needs no traceback
            ".qmail cannot be followed", home=home, why=why
        )
        raise TemporaryFailure("mail store cannot be read") from error


def _first_maildir(path: str) -> bytes | None:
    """Return the line that names a maildir. Raises OSError, ValueError."""
    descriptor = os.open(path, _FLAGS)
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        text = stream.read(MAX_OCTETS + 1)
    if len(text) > MAX_OCTETS:
        raise ValueError(f"it is longer than {MAX_OCTETS} octets")
    for line in text.split(b"\n"):
        name = line.rstrip(b" \t\r")
        if name[:1] in (b".", b"/") and name.endswith(b"/"):
            return name
    return None


def _inside(home: str, line: bytes) -> Path:
    """Return the directory a line names: below the home, and no link on the way there."""
    if b"\0" in line:
        raise ValueError("its line holds a NUL")
    name = os.fsdecode(line)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("its line goes up by ..")
    if name.startswith("/"):
        above = [part for part in home.split("/") if part not in ("", ".")]
        if parts[: len(above)] != above:
            raise ValueError("its line leads out of the home directory")
        parts = parts[len(above) :]
    if not parts:
        raise ValueError("its line names the home directory itself")
    place = Path(home)
    for part in parts:
        place /= part
        if place.is_symlink():
            raise ValueError("its line leads over a symbolic link")
    return place
