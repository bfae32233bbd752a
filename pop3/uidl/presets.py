"""The value of --uidl: which ids to announce, and the parts a preset is made of.

Nothing heavy is imported here: the options of every server are checked with it.
"""

import re
from dataclasses import dataclass

DEFAULT = "default"

OF_FILES = frozenset({"dovecot", "courier", "cyrus", "uw"})
"""Presets that need what the other server has kept beside or in the mail."""

OF_HEADERS = frozenset({"md5", "qpopper", "qpopper-old", "message-id", "x-uidl"})
"""Presets that need the header of a message and nothing else; every source can serve them."""

IMPORTED = "imported"
"""What was written into the journal by a tool, and else the source's own ids."""

PRESETS = (DEFAULT, "maildir-name", *sorted(OF_FILES), *sorted(OF_HEADERS), IMPORTED)

FORMATS = {
    "dovecot": "%08Xu%08Xv",
    "courier": "",  # courierpop3dsizelist; with a format courierimapuiddb
    "cyrus": "%v.%u",
    "uw": "%08Xv%08Xu",
}
"""The ids of these servers in the notation of Dovecot's pop3_uidl_format."""

_FIELD = re.compile(r"%(?:(%)|(0[0-9]{1,2})?(X)?([uv])|(M)?([fgm]))")


@dataclass(frozen=True, slots=True)
class Preset:
    """One word of --uidl and its format, which has the default filled in."""

    name: str
    format: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What another server has kept about one message; `guid`, `name` and `md5` may be missing."""

    uid: int
    validity: int
    name: bytes = b""
    guid: bytes = b""
    md5: bytes = b""


def uidl_presets(text: str) -> str:
    """Read the value of --uidl. Raises ValueError."""
    parse(text)
    return text


def parse(text: str) -> tuple[Preset, ...]:
    """Return the presets of a list, those that say what is announced; none for the default ids.

    Raises ValueError.
    """
    found = tuple(_preset(word) for word in text.split(","))
    names = [one.name for one in found]
    if len(found) > 1 and not {DEFAULT, "maildir-name"}.isdisjoint(names):
        raise ValueError("default and maildir-name stand alone")
    if len(set(names)) != len(names):
        raise ValueError("a preset is there twice")
    return () if names == [DEFAULT] else found


def _preset(word: str) -> Preset:
    name, colon, form = word.partition(":")
    if name not in PRESETS:
        raise ValueError(f"a preset is one of {', '.join(PRESETS)}")
    if not colon:
        return Preset(name, FORMATS.get(name, ""))
    if name not in {"dovecot", "courier"}:
        raise ValueError(f"{name} takes no format")
    check_format(form)
    return Preset(name, form)


def check_format(form: str) -> None:
    """See whether a format can be filled in and tells messages apart. Raises ValueError."""
    rest = _FIELD.sub("", form)
    if "%" in rest or not all("!" <= letter <= "~" for letter in rest):
        raise ValueError(f"format {form!r}: there are %u %v %f %g %m, as in %08Xu or %Mf, and %%")
    if not variables(form) & set("ufgm"):
        raise ValueError(f"format {form!r} gives all messages one id")


def variables(form: str) -> set[str]:
    """Return the letters of a format: u, v, f, g, m."""
    return {match[4] or match[6] for match in _FIELD.finditer(form) if not match[1]}


def fill(form: str, known: Known) -> bytes | None:
    """Return the id of a message; None if the format asks for what is not known of it."""
    import hashlib  # noqa: PLC0415 - the options are read without it

    parts: list[bytes] = []
    at = 0
    for match in _FIELD.finditer(form):
        parts.append(form[at : match.start()].encode("ascii"))
        at = match.end()
        percent, width, as_hex, number, as_md5, text = match.groups()
        if percent:
            parts.append(b"%")
        elif number:
            value = known.uid if number == "u" else known.validity
            digits = f"{value:x}" if as_hex else str(value)
            # a width cuts as well as it fills, as it does in Dovecot
            length = int(width or 0) or len(digits)
            parts.append(digits.zfill(length)[:length].encode("ascii"))
        else:
            value_of = {"f": known.name, "g": known.guid or known.name, "m": known.md5}[text]
            if not value_of:
                return None
            if as_md5:
                digest = hashlib.md5(value_of, usedforsecurity=False)
                value_of = digest.hexdigest().encode("ascii")
            parts.append(value_of)
    parts.append(form[at:].encode("ascii"))
    return b"".join(parts)
