"""Login names: `localpart[~view][@domain]`, checked before anything is looked up or opened."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from unicodedata import category, normalize

MAX_OCTETS = 255

_VIEW = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,32}")
# Letters without a lower case form, marks of Indic scripts, decimal digits: near enough to IDNA.
_LABEL_LETTERS = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"})
# What no name may hold: C0, C1, DEL, and what some readers take for an end of line.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Invisible letters (bidi marks, zero-width joiners): two names that look the same must be the same.
_INVISIBLE = frozenset({"Cf", "Cn", "Co"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a login comes from, for backends that go by it; none of it is needed for the others."""

    server_name: str | None
    """The name the client gave in its TLS handshake (SNI), as it came."""
    host_names: Callable[[], Sequence[str]]
    """Asks for the client's host name, confirmed by a forward lookup; may take seconds."""


@dataclass(frozen=True, slots=True)
class LoginName:
    """A login name in its normal form: NFC, the domain in lower case."""

    localpart: str
    view: str | None
    domain: str | None
    origin: Origin | None = field(default=None, compare=False, repr=False)

    @property
    def user(self) -> str:
        """Who it is: what users files, locks, limits and penalties go by."""
        return self.localpart if self.domain is None else f"{self.localpart}@{self.domain}"

    @property
    def full(self) -> str:
        """The whole name, as it would be typed."""
        view = "" if self.view is None else f"~{self.view}"
        return self.localpart + view + ("" if self.domain is None else f"@{self.domain}")

    def as_user(self, user: str) -> "LoginName":
        """Return the name of the user that a backend found, with the view that was asked for."""
        if user == self.user:
            return self
        local, at, domain = user.rpartition("@")
        if not at:
            return replace(self, localpart=user, domain=None)
        return replace(self, localpart=local, domain=domain)

    @classmethod
    def parse(cls, raw: bytes, *, strict: bool = True) -> "LoginName":
        """Take a name from the wire; ValueError tells what is wrong and never repeats the input.

        Strict names are safe as one part of a path. With `strict=False` the local part takes any
        text without controls (a source whose users are search terms), and what is no domain or
        view belongs to it.
        """
        return _parsed(raw, strict=strict)

    def coming_from(self, origin: Origin) -> "LoginName":
        """Return the same name with where it comes from; `replace` takes four times as long."""
        return LoginName(self.localpart, self.view, self.domain, origin)


@lru_cache(maxsize=4096)  # the same users come again and again; what is no name is not kept
def _parsed(raw: bytes, *, strict: bool) -> LoginName:
    text = _decoded(raw)
    if text is None:
        raise ValueError("login name is not 1 to 255 octets of UTF-8")
    unwanted = _CONTROLS | _INVISIBLE if strict else _CONTROLS
    if any(category(letter) in unwanted for letter in text):
        raise ValueError("login name holds a control character")
    return _strict_name(text) if strict else _wide_name(text)


def _decoded(raw: bytes) -> str | None:
    """Decode and normalise. No exception leaves here: a UnicodeDecodeError carries its input."""
    if not 1 <= len(raw) <= MAX_OCTETS:
        return None
    try:
        text = normalize("NFC", raw.decode("utf-8"))
    except UnicodeDecodeError:
        return None
    return text if len(text.encode()) <= MAX_OCTETS else None


def _domain(text: str) -> str | None:
    """Return the domain in its normal form, None if it is none."""
    domain = normalize("NFC", text.lower())
    # A few letters change again in a second round; a domain with one would have two normal forms.
    if domain != normalize("NFC", domain.lower()) or len(domain.encode()) > MAX_OCTETS:
        return None
    return domain if all(map(_is_label, domain.split("."))) else None


def _is_label(label: str) -> bool:
    if not label or label[0] == "-" or label[-1] == "-":
        return False
    return all(letter == "-" or category(letter) in _LABEL_LETTERS for letter in label)


def _strict_name(text: str) -> LoginName:
    name, at, rest = text.rpartition("@")
    domain = _domain(rest) if at else None
    if at and domain is None:
        raise ValueError("login name has a broken domain")
    name, tilde, view = (name if at else text).partition("~")
    if tilde and not _VIEW.fullmatch(view):
        raise ValueError("login name has a broken view")
    if not name:
        raise ValueError("login name has an empty part")
    if "/" in name or name.startswith(".") or ".." in name or ".." in view:
        raise ValueError("login name holds a slash, a leading dot or two dots")
    return _bounded(LoginName(name, view if tilde else None, domain))


def _wide_name(text: str) -> LoginName:
    name, at, rest = text.rpartition("@")
    domain = _domain(rest) if at and name else None
    if domain is None:
        name = text
    local, tilde, view = name.rpartition("~")
    if tilde and local and _VIEW.fullmatch(view):
        return _bounded(LoginName(local, view, domain))
    return _bounded(LoginName(name, None, domain))


def _bounded(name: LoginName) -> LoginName:
    """Lower case may be longer than what came in."""
    if len(name.full.encode()) > MAX_OCTETS:
        raise ValueError("login name is over 255 octets")
    return name
