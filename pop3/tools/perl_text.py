"""The small pieces of Perl text: space, quotation, escapes, numbers."""

import re

CLOSERS = {"(": ")", "[": "]", "{": "}", "<": ">"}

SPACE = re.compile(
    r"(?:\s++|#[^\n]*+|(?m:^)=[A-Za-z](?s:.*?)(?:(?m:^)=cut\b[^\n]*+|\Z))*+",
)
BARE_KEY = re.compile(r"(-?[A-Za-z_]\w*)(?=\s*=>)")
QUOTE_LIKE = re.compile(r"(?<!->)(q|qq|qr|qw|qx|m|s|tr|y)\b(?!\s*=>)\s*(?=[^\w\s,;=)\]}])")

_INTERPOLATED = re.compile(r"(?:^|[^\\])(?:\\\\)*(?:\$(?:[\w:{&$]|\^\w)|@[\w:{$])")
_NUMBER = re.compile(
    r"([-+]?)(?:0[xX]([0-9a-fA-F_]{1,16})|0[bB]([01_]{1,64})|0([0-7_]{1,20})"
    r"|((?:0(?![0-9_])|[1-9][0-9_]{0,19})(?:\.[0-9_]{0,20})?(?:[eE][-+]?[0-9]{1,4})?))(?![\w.])",
    re.ASCII,
)
_ESCAPE = re.compile(
    r"\\(x\{\s*[0-9a-fA-F]{1,6}\s*\}|x[0-9a-fA-F]{0,2}|[0-7]{1,3}|c[@-_a-z]|.)", re.DOTALL
)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "e": "\x1b", "f": "\f", "b": "\b"}
_MODIFIERS = frozenset("QULEFNoul")
_SURROGATES = range(0xD800, 0xE000)
_MAX_CHARACTER = 0x10FFFF


class Cut(Exception):
    """The text ends before its quotation does."""


def end_of_quoted(text: str, start: int) -> int:
    """Return where the text quoted by the delimiter at `start` ends. Raises Cut."""
    opener = text[start]
    closer = CLOSERS.get(opener, opener)
    if closer == "\\":
        raise Cut
    depth = 0
    for found in re.compile(rf"\\.|[{re.escape(opener + closer)}]", re.DOTALL).finditer(
        text, start
    ):
        if found[0] == closer and (closer != opener or depth):
            depth -= 1
            if not depth:
                return found.end()
        elif found[0] == opener:
            depth += 1
    raise Cut


def interpolated(content: str) -> bool:
    """Whether Perl would put the value of a variable into this double-quoted text."""
    return _INTERPOLATED.search(content) is not None


def unescaped(content: str) -> str | None:
    """Return a double-quoted text's value, None if it has escapes that are not data."""
    unknown = False

    def character(found: re.Match[str]) -> str:
        nonlocal unknown
        code = found[1]
        if code[0] in "x01234567":
            digits = code[1:].strip("{} \n\t") if code[0] == "x" else code
            value = int(digits or "0", 16 if code[0] == "x" else 8)
            if value in _SURROGATES or value > _MAX_CHARACTER:
                unknown = True
                return ""
            return chr(value)
        if len(code) > 1:
            return chr(ord(code[1].upper()) ^ 64)
        unknown = unknown or code in _MODIFIERS
        return _PLAIN_ESCAPES.get(code, code)

    value = _ESCAPE.sub(character, content)
    return None if unknown else value


def number(text: str, at: int) -> tuple[int, str] | None:
    """Return where a number ends, and its value as decimal text; None if there is none."""
    found = _NUMBER.match(text, at)
    if not found:
        return None
    sign = "-" if found[1] == "-" else ""
    for digits, base in ((found[2], 16), (found[3], 2), (found[4], 8)):
        if digits is not None:
            plain = digits.replace("_", "")
            return (found.end(), sign + str(int(plain, base))) if plain else None
    return found.end(), sign + found[5].replace("_", "")
