"""Users files: `user:{SCHEME}hash:uid:gid:gecos:home:shell:extra`; a hash is enough."""

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from netserver.errors import ConfigError
from netserver.file_contents import FileContents, Looks, NotRegularError, signature_of
from pop3.auth import schemes
from pop3.auth.names import MAX_OCTETS, LoginName
from pop3.auth.stored import Survey, survey

#: `run_blocking(pool, function, *args)` calls the function where it may block: a pool under gevent.
RunBlocking = Callable[..., Any]

# Most names, without the cost of a full parse: 100,000 users are read at each start.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+(?:[.+-][A-Za-z0-9_]+)*(?:@[a-z0-9]+(?:[.-][a-z0-9]+)*)?")
_NUMBER = re.compile(r"[0-9]{1,10}")
_MAX_ID = 2**32 - 2  # the last one means "no change" to chown and setuid


class Entry(NamedTuple):
    """One user. `hash_text` None: may not log in."""

    hash_text: str | None
    uid: int | None
    gid: int | None
    home: str | None


@dataclass(frozen=True, slots=True)
class Users:
    """A users file, read and checked."""

    table: dict[str, Entry]
    #: A hash with no password, of the shape most users have: the work done for everybody else.
    dummy: str
    #: Whether somebody's password stands there unhashed.
    has_plain: bool
    #: What the hashes allow besides passwords on the wire.
    survey: Survey = field(default_factory=Survey)


def parse(data: bytes, path: str) -> Users:
    """Read the text of a users file. ConfigError (`path:line: what`) for the first mistake."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data.count(b"\n", 0, error.start)
        raise ConfigError(f"{path}:{before + 1}: not UTF-8") from None
    table: dict[str, Entry] = {}
    shapes: Counter[str] = Counter()
    samples: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line[:1] in ("", "#"):
            continue
        try:
            user, entry, shape = _user(line.removesuffix("\r"))
            if user in table:
                raise ValueError(f"duplicate user {user!r}")  # noqa: TRY301 - gets its line below
        except ValueError as error:
            if not line.strip():
                continue
            raise ConfigError(f"{path}:{number}: {error}") from None
        table[user] = entry
        if shape is not None and entry.hash_text is not None:
            shapes[shape] += 1
            samples.setdefault(shape, entry.hash_text)
    common = samples[shapes.most_common(1)[0][0]] if shapes else None
    found = survey((count, samples[shape]) for shape, count in shapes.items())
    return Users(table, schemes.dummy_like(common), "PLAIN" in shapes, found)


def _user(line: str) -> tuple[str, Entry, str | None]:
    """Read one line: the user, what is known of it, and the shape of its hash."""
    # The last field is free text and may hold colons.
    user, *fields = line.split(":", 7)
    if not fields:
        raise ValueError("not user:hash[:uid:gid:gecos:home:shell:extra]")
    if not _PLAIN_NAME.fullmatch(user) or len(user) > MAX_OCTETS:
        user = _user_name(user)
    shape = schemes.check(fields[0])
    hash_text = None if shape is None else fields[0]
    if len(fields) == 1:
        return user, Entry(hash_text, None, None, None), shape
    uid = _id(fields[1], "uid")
    gid = _id(fields[2], "gid") if len(fields) > 2 else None  # noqa: PLR2004 - field numbers
    home = fields[4] if len(fields) > 4 else ""  # noqa: PLR2004
    if home and (home[0] != "/" or "\0" in home):
        raise ValueError("home is not an absolute path")
    return user, Entry(hash_text, uid, gid, home or None), shape


def _user_name(text: str) -> str:
    try:
        name = LoginName.parse(text.encode())
    except ValueError as error:
        raise ValueError(f"bad user name: {error}") from None
    if name.view is not None or text != text.strip():
        raise ValueError("bad user name: a view or blanks around it")
    return name.user


@lru_cache(maxsize=64)  # many users, one service uid
def _id(text: str, what: str) -> int | None:
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > _MAX_ID:
        raise ValueError(f"bad {what}: not a number from 0 to {_MAX_ID}")
    return int(text)


class UsersFile:
    """A users file, read again when it changes; one that broke leaves the old table in force."""

    def __init__(
        self,
        path: str,
        warn: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._warn = warn
        self._users: Users | None = None
        self._looks = Looks(clock, 0.0)
        # What the file looked like when it was read, and when reading it failed.
        self._seen: tuple[int, ...] | None = None
        self._failed: tuple[int, ...] | str | None = None

    @property
    def loaded(self) -> Users | None:
        """What was read last."""
        return self._users

    def load(self) -> None:
        """Read the file unless it is unchanged. ConfigError if it cannot be read or is wrong."""
        try:
            complaints = self._read()
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror or type(error).__name__}") from None
        for complaint in complaints:
            self._warn(complaint)

    def users(self, run_blocking: RunBlocking) -> Users:
        """Return the users; look, when it is time, whether the file changed."""
        for complaint in self._looks.if_due(lambda: run_blocking("disk", self._look)) or ():
            self._warn(complaint)
        if self._users is None:
            raise ConfigError(f"{self.path}: not loaded")
        return self._users

    def _look(self) -> list[str]:
        """Read the file again if it changed. Runs in a pool: raises and logs nothing."""
        signature = None
        try:
            signature = signature_of(os.stat(self.path))
            if signature == self._failed:
                return []
            complaints = self._read()
        except ConfigError as error:
            self._failed, text = signature, str(error)
        except OSError as error:
            text = f"{self.path}: {error.strerror or type(error).__name__}"
            if text == self._failed:
                return []
            self._failed = text
        else:
            self._failed = None
            return complaints
        return [f"{text}; going on with the users read before, until a reload or a better file"]

    def _read(self) -> list[str]:
        """Read the file if it changed; return what deserves a warning."""
        if self._seen is not None and signature_of(os.stat(self.path)) == self._seen:
            return []
        try:
            file = FileContents.read(self.path)
        except NotRegularError:
            raise ConfigError(f"{self.path}: not a regular file") from None
        self._users = users = parse(file.data, self.path)
        self._seen = file.signature
        return _complaints(self.path, file.mode, users)


def _complaints(path: str, mode: int, users: Users) -> list[str]:
    found = []
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        found.append(f"{path}: others than its owner can write it")
    if mode & stat.S_IROTH and users.has_plain:
        found.append(f"{path}: everybody can read it, and it holds unhashed passwords")
    return found
