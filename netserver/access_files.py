"""Files that say who may connect, and who is trusted; read again when they change."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from netserver.access import Verdict, ip_of, is_host_name, matches_name, network_of
from netserver.errors import ConfigError
from netserver.file_contents import (
    CHECK_INTERVAL,
    FileContents,
    Looks,
    NotRegularError,
    signature_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netserver.access import IPAddress, Network
    from netserver.endpoints import Address
    from netserver.logs import Log

    Names = Callable[[], Sequence[str]]
    RunBlocking = Callable[..., Any]

_DIGEST = 16

_WORDS = ("ALLOW", "DENY", "WARN")
_OCTETS = 4
_PREFIX = re.compile(r"([0-9]{1,3}(\.[0-9]{1,3}){0,2})\.\*?", re.ASCII)

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Whom a line means: a network, a name, the peers of UNIX sockets, or everybody."""

    text: str
    network: Network | None = None
    name: str | None = None

    @classmethod
    def of(cls, text: str) -> Pattern:
        """Read an address, ``10.0.0.`` or ``10.0.0.*``, CIDR, host name, ``.domain`` or ``ALL``.

        Raises ``ValueError``.
        """
        plain = text.lower()
        if plain in ("all", "unix"):
            return cls(plain)
        if prefix := _PREFIX.fullmatch(plain):
            return cls(text, network=_network_of_prefix(prefix[1]))
        if is_host_name(plain):
            return cls(text, name=plain)
        return cls(text, network=network_of(plain))

    @property
    def is_all(self) -> bool:
        """Whether everybody is meant."""
        return self.text == "all"

    def matches(self, address: Address, ip: IPAddress | None, names: Names) -> bool:
        """Whether this client is meant; its names are asked for only by a pattern with a name."""
        if self.network is not None:
            return ip is not None and ip in self.network
        if self.name is not None:
            return ip is not None and matches_name(self.name, names())
        return self.is_all or address.host == self.text


def _network_of_prefix(octets: str) -> Network:
    given = octets.split(".")
    zeros = ["0"] * (_OCTETS - len(given))
    return network_of(f"{'.'.join(given + zeros)}/{8 * len(given)}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an access file: ``word`` is ALLOW, DENY or WARN; ``told`` is for logs."""

    word: str
    pattern: Pattern
    told: str

    @property
    def is_deny_all(self) -> bool:
        """Whether it closes the door behind all other lines."""
        return self.word == "DENY" and self.pattern.is_all


class AccessRuleList:
    """The lines of an access file, whose first match decides.

    ``DENY ALL`` has no place among them: wherever it stands, it refuses whom no line allows.
    """

    __slots__ = ("_closed", "_rules")

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        closing = [rule.told for rule in rules if rule.is_deny_all]
        self._closed = closing[0] if closing else None
        self._rules = [rule for rule in rules if not rule.is_deny_all]

    @classmethod
    def parse(cls, data: bytes, path: str) -> AccessRuleList:
        """Read a file's text; its first mistake raises ``ConfigError`` (``path:line: what``)."""
        rules = []
        for number, line in _lines(data):
            try:
                word, whom = _two_words(line)
                rules.append(Rule(word, Pattern.of(whom), f"{path}:{number}: {word} {whom}"))
            except ValueError as error:
                raise ConfigError(f"{path}:{number}: {error}") from None
        return cls(rules)

    def decide(self, address: Address, names: Names) -> Verdict:
        """Return the verdict on ``address``; ``names`` is called only if a line has a name."""
        warnings: list[str] = []
        ip = ip_of(address)
        for rule in self._rules:
            if not rule.pattern.matches(address, ip, names):
                continue
            if rule.word != "WARN":
                return Verdict(rule.word == "ALLOW", rule.told, tuple(warnings))
            warnings.append(rule.told)
        # a client whose address is unknown matches no line: it must not profit from that
        nobody = ip is None and address.host != "unix" and bool(self._rules)
        return Verdict(self._closed is None and not nobody, self._closed, tuple(warnings))


class TrustedList:
    """The lines of a trusted file."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Sequence[tuple[Pattern, str]] = ()) -> None:
        self._entries = entries

    @classmethod
    def parse(cls, data: bytes, path: str) -> TrustedList:
        """Read a file's text; its first mistake raises ``ConfigError`` (``path:line: what``)."""
        entries = []
        for number, line in _lines(data):
            try:
                pattern = Pattern.of(_ascii(line))
                if pattern.is_all:
                    raise ValueError("ALL is nobody's address; name whom you trust")  # noqa: TRY301
            except ValueError as error:
                raise ConfigError(f"{path}:{number}: {error}") from None
            entries.append((pattern, f"{path}:{number}: {pattern.text}"))
        return cls(entries)

    def match(self, address: Address, names: Names) -> str | None:
        """Return the line that trusts this client, None if none does."""
        ip = ip_of(address)
        for pattern, told in self._entries:
            if pattern.matches(address, ip, names):
                return told
        return None


def _lines(data: bytes) -> list[tuple[int, bytes]]:
    """Return what is no comment, with its number; comments may be in any encoding."""
    plain = (
        line.partition(b"#")[0].strip() for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    )
    return [(number, line) for number, line in enumerate(plain, 1) if line]


def _ascii(line: bytes) -> str:
    try:
        return line.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError("not ASCII") from None


def _two_words(line: bytes) -> tuple[str, str]:
    words = _ascii(line).split()
    word = words[0].upper() if words else ""  # what str takes for blanks, bytes may not
    if word not in _WORDS or len(words) != 2:  # noqa: PLR2004 - as the name says
        raise ValueError(f"not {', '.join(_WORDS)} and one address, network, host name or ALL")
    return word, words[1]


@dataclass(frozen=True, slots=True)
class _Contents(Generic[P]):
    """A file as it was read, and the rules it holds."""

    rules: P
    file: FileContents


class RuleFile(Generic[P]):
    """A file of rules, read again when it changes; one that broke leaves the old rules in force.

    ``option`` is what errors begin with.  Raises ``ConfigError`` if the file cannot be read or is
    wrong.
    """

    def __init__(
        self,
        option: str,
        path: str,
        parse: Callable[[bytes, str], P],
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = os.path.abspath(path)
        self._option = option
        self._parse = parse
        self._log = log
        self._looks = Looks(clock, clock() + CHECK_INTERVAL)
        # shared by the processes that are forked later: only one of them tells what is wrong
        self._told = mmap.mmap(-1, _DIGEST)
        self._now = self._read()

    def rules(self, run_blocking: RunBlocking) -> P:
        """Return the rules; look, when it is time, whether the file changed."""
        found = self._looks.if_due(lambda: run_blocking("disk", self._look))
        if found is not None:
            self._take(found)
        return self._now.rules

    def _look(self) -> _Contents[P] | str:
        """Return what is in the file, or why it cannot be used; may run in a pool."""
        try:
            unchanged = signature_of(os.stat(self.path)) == self._now.file.signature
            return self._now if unchanged else self._read()
        except ConfigError as error:
            return str(error)
        except OSError as error:
            return self._unreadable(error)

    def _take(self, found: _Contents[P] | str) -> None:
        if isinstance(found, str):
            digest = hashlib.blake2b(found.encode(), digest_size=_DIGEST).digest()
            if self._told[:] != digest:
                self._told[:] = digest
                self._log.warning("access rules not read, the old ones stay", why=found)
            return
        self._told[:] = bytes(_DIGEST)
        if found.file.data != self._now.file.data:
            self._log.debug("access rules read again", file=self.path)
        self._now = found

    def _read(self) -> _Contents[P]:
        try:
            file = FileContents.read(self.path)
        except NotRegularError:
            raise ConfigError(f"{self._option} {self.path}: not a regular file") from None
        except OSError as error:
            raise ConfigError(self._unreadable(error)) from None
        try:
            return _Contents(self._parse(file.data, self.path), file)
        except ConfigError as error:
            raise ConfigError(f"{self._option} {error}") from None

    def _unreadable(self, error: OSError) -> str:
        return f"{self._option} {self.path}: {error.strerror or type(error).__name__}"
