"""Read Perl text as data: hash literals and plain assignments. Nothing in it is ever evaluated.

What is no plain data (a `sub`, a variable, a call, an interpolating string) is passed over with its
brackets and quotation marks balanced, and becomes a `Code` that names its line.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from pop3.tools.perl_text import (
    BARE_KEY,
    CLOSERS,
    QUOTE_LIKE,
    SPACE,
    Cut,
    end_of_quoted,
    interpolated,
    number,
    unescaped,
)

MAX_OCTETS = 1 << 20
MAX_DEPTH = 50
_MAX_HEREDOCS = 100

_ASSIGNMENT = re.compile(
    r"(?:(?:our|my|local)\b\s*)?([$@%])(?:\w+::)*([A-Za-z]\w*)\s*"
    r"(?:\{\s*(?:'([^'\\\n]*)'|\"([^\"\\$@\n]*)\"|(-?\w+))\s*\}\s*)?=(?![=~>])"
)
_PASSED = re.compile(r"(?:use|no|package|require)\b[^;{}'\"]*(?:'[^']*'|\"[^\"]*\")?[^;{}'\"]*;")
_TRUE = re.compile(r"[0-9]+\s*(?=;|\Z)")
_END = re.compile(r"__(?:END|DATA)__\b")
_BLOCK = re.compile(r"(?:sub|if|unless|for|foreach|while|until|BEGIN|END)\b")
_VARIABLE = re.compile(r"[$@%&](?:\^?\w+|(?=\{)|#?\$*\w*(?=[{\w])|[^\s\w{])")
_CODE = re.compile(r"\w+|[^\S\n]+|->\s*\w+|.", re.DOTALL)
_HEREDOC = re.compile(r"<<(~?)(?:\"([^\"\n]*)\"|'([^'\n]*)'|([A-Za-z_]\w*))")
_BEFORE_PATTERN = frozenset("(,=~!&|{;?:[")
_WORDS_BEFORE_PATTERN = frozenset(
    ("split", "grep", "map", "if", "unless", "and", "or", "not", "return")
)


class PerlDataError(Exception):
    """The text cannot be read as data; `line` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


@dataclass(frozen=True)
class Code:
    """Something that only a Perl interpreter could give a value."""

    line: int


Value: TypeAlias = "str | Code | list[Value] | dict[str, Value] | None"


@dataclass(frozen=True)
class Item:
    """The value of one top-level key, and the line it begins on. Numbers are text."""

    value: Value
    line: int


@dataclass
class PerlData:
    """What a file holds: its keys, and the lines of what stands beside them and is code."""

    items: dict[str, Item] = field(default_factory=dict)
    code: list[Code] = field(default_factory=list)


def read(octets: bytes) -> PerlData:
    """Read a file whose value is a hash literal, or else one of assignments.

    Raises PerlDataError.
    """
    if len(octets) > MAX_OCTETS:
        raise PerlDataError(1, f"larger than {MAX_OCTETS} octets")
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = octets.decode("latin-1")
    return _Reader(text.replace("\r\n", "\n")).file()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._heredocs = 0
        self._code: list[Code] = []

    # statements

    def file(self) -> PerlData:
        data = PerlData()
        literal: dict[str, Item] | None = None
        while True:
            self._space()
            if self._at >= len(self._text) or _END.match(self._text, self._at):
                break
            if self._take(";") or self._take_match(_PASSED) or self._take_match(_TRUE):
                continue
            if re.compile(r"\+?\s*\{").match(self._text, self._at):
                literal = self._literal(data)
            elif found := _ASSIGNMENT.match(self._text, self._at):
                self._assign(data, found)
            else:
                data.code.append(self._code_statement())
        data.code += self._code
        if literal is not None:
            data.items = literal
        if not data.items:
            raise PerlDataError(1, "no hash literal and no assignments: not a configuration")
        return data

    def _literal(self, data: PerlData) -> dict[str, Item]:
        self._take("+")
        self._space()
        self._at += 1
        items = {}
        for key, item in self._pairs(self._list("}", 1)):
            if isinstance(key, Code):
                data.code.append(key)
            else:
                items[key] = item
        return items

    def _assign(self, data: PerlData, found: re.Match[str]) -> None:
        line = self._line()
        sigil, name = found[1], found[2]
        key = next((text for text in found.groups()[2:] if text is not None), None)
        self._at = found.end()
        value: Value
        if key is not None and sigil == "$":
            value = self._statement_value()
            before = data.items.get(name)
            if before is not None and isinstance(before.value, dict):
                before.value[key] = value
            else:
                data.items[name] = Item({key: value}, line)
        elif sigil == "$":
            data.items[name] = Item(self._statement_value(), line)
        else:
            values = self._list(";", 1)
            if any(isinstance(item.value, Code) for item in values):
                value = Code(line)
            elif sigil == "%":
                value = {k: v.value for k, v in self._pairs(values) if isinstance(k, str)}
            else:
                value = [item.value for item in values]
            data.items[name] = Item(value, line)

    def _statement_value(self) -> Value:
        self._space()
        value = self._value(1)
        self._space()
        if self._at < len(self._text) and self._text[self._at] != ";":
            line = self._line()
            self._skip_code(";")
            return Code(line)
        return value

    def _code_statement(self) -> Code:
        line = self._line()
        block = _BLOCK.match(self._text, self._at) is not None
        self._skip_code(";", after_block=block)
        return Code(line)

    # values

    def _pairs(self, items: list[Item]) -> "list[tuple[str | Code, Item]]":
        if len(items) % 2:
            raise PerlDataError(items[-1].line, "a key without a value")
        pairs: list[tuple[str | Code, Item]] = []
        for key, value in zip(items[::2], items[1::2], strict=True):
            name = key.value
            if not isinstance(name, str):
                pairs.append((Code(key.line), value))
            else:
                pairs.append((name, Item(value.value, key.line)))
        return pairs

    def _list(self, closer: str, depth: int) -> list[Item]:
        """Read up to the closing bracket; lists within parentheses and qw are part of this one."""
        opened = self._line()
        if depth > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} deep")
        items: list[Item] = []
        while True:
            self._space()
            if self._at >= len(self._text):
                if closer == ";":
                    return items
                raise PerlDataError(opened, f'"{closer}" is missing for what begins here')
            if self._take(closer):
                return items
            if self._take("=>") or self._take(","):
                continue
            if self._text[self._at] in CLOSERS.values() or self._text[self._at] == ";":
                self._fail(f'"{self._text[self._at]}" where "{closer}" is missing')
            self._element(items, closer, depth)

    def _element(self, items: list[Item], closer: str, depth: int) -> None:
        line = self._line()
        start = self._at
        before = len(items)
        if self._text[start] in "%@" and depth == 1 and closer == "}":  # %defaults: pairs, not one
            self._skip_code(closer, comma=True)
            self._code.append(Code(line))
            return
        if self._take("("):
            items += self._list(")", depth + 1)
        elif (words := self._words()) is not None:
            items += [Item(word, line) for word in words]
        else:
            items.append(Item(self._value(depth), line))
        self._space()
        if self._at < len(self._text) and not re.compile(r"=>|[,;)\]}]").match(
            self._text, self._at
        ):
            del items[before:]
            self._skip_code(closer, comma=True)
            items.append(Item(Code(line), line))
        if self._at == start:  # a stray character: never stand still
            self._fail("cannot be read as data")

    def _words(self) -> list[str] | None:
        found = re.compile(r"qw\b\s*(?=[^\w\s,;=)\]}])").match(self._text, self._at)
        if not found:
            return None
        content = self._quoted_from(found.end())
        return content.split()

    def _value(self, depth: int) -> Value:
        line = self._line()
        text, at = self._text, self._at
        if found := BARE_KEY.match(text, at):
            self._at = found.end(1)
            return found[1]
        plus = re.compile(r"\+\s*(?=\{)").match(text, at)
        if plus:
            self._at = at = plus.end()
        if self._take("{"):
            pairs = self._pairs(self._list("}", depth + 1))
            return {k: v.value for k, v in pairs if isinstance(k, str)} | {
                f"(code in line {k.line})": k for k, _ in pairs if isinstance(k, Code)
            }
        if self._take("["):
            return [item.value for item in self._list("]", depth + 1)]
        if found := re.compile(r"undef\b(?:\s*\(\s*\))?").match(text, at):
            self._at = found.end()
            return None
        return self._scalar(line)

    def _scalar(self, line: int) -> Value:
        text, at = self._text, self._at
        quote = re.compile(r"(?:(qq?)\b\s*(?=[^\w\s,;=)\]}]))|(?=['\"])").match(text, at)
        if quote:
            start = quote.end()
            delimiter = text[start]
            content = self._quoted_from(start)
            plain = quote[1] == "q" or (not quote[1] and delimiter == "'")
            if plain:
                close = CLOSERS.get(delimiter, delimiter)
                return re.sub(rf"\\([\\{re.escape(delimiter + close)}])", r"\1", content)
            unquoted = None if interpolated(content) else unescaped(content)
            return Code(line) if unquoted is None else unquoted
        found = number(text, at)
        if found is not None:
            self._at, value = found
            return value
        self._skip_code("", comma=True)
        return Code(line)

    # what is passed over

    def _skip_code(self, closer: str, *, comma: bool = False, after_block: bool = False) -> None:
        """Go to the end of an expression, or of a statement, whose brackets must be balanced."""
        stack: list[tuple[str, int]] = []
        previous = ";"
        while True:
            start = self._at
            self._space()
            if self._at >= len(self._text):
                if stack:
                    raise PerlDataError(
                        stack[-1][1], f'"{stack[-1][0]}" is missing for what begins here'
                    )
                return
            here = self._text[self._at]
            if not stack and (here == ";" or (comma and here == ",") or here == closer):
                return
            if comma and not stack and here in ")]}":
                return
            if here in "()[]{}":
                self._skip_bracket(here, stack)
                previous = here
                if after_block and not stack and here == "}":
                    return
            else:
                previous = self._skip_token(here, previous)
            assert self._at > start

    def _skip_bracket(self, here: str, stack: list[tuple[str, int]]) -> None:
        if here in CLOSERS:
            stack.append((CLOSERS[here], self._line()))
            if len(stack) > MAX_DEPTH:
                self._fail(f"nested more than {MAX_DEPTH} deep")
        elif not stack or stack.pop()[0] != here:
            self._fail(f'"{here}" closes nothing')
        self._at += 1

    def _skip_token(self, here: str, previous: str) -> str:
        """Pass over one token of code; return it, for the next one's meaning may depend on it."""
        text = self._text
        if here in "'\"`":
            self._quoted_from(self._at)
            return here
        quote = QUOTE_LIKE.match(text, self._at)
        if quote:
            self._quoted_from(quote.end())
            if quote[1] in {"s", "tr", "y"}:
                if text[quote.end()] in CLOSERS:
                    self._space()
                    if self._at >= len(text):
                        self._fail("the second part of a substitution is missing")
                else:
                    self._at -= 1  # the middle delimiter begins the second part
                self._quoted_from(self._at)
            return "'"
        if here == "/" and (previous in _BEFORE_PATTERN or previous in _WORDS_BEFORE_PATTERN):
            self._quoted_from(self._at)
            return "'"
        if here in "$@%&" and (found := _VARIABLE.match(text, self._at)):
            self._at = max(found.end(), self._at + 1)
            return "$x"
        if here == "<" and (heredoc := _HEREDOC.match(text, self._at)):
            self._blank_heredoc(heredoc)
            return "'"
        found = _CODE.match(text, self._at)
        assert found is not None
        self._at = found.end()
        return found[0]

    def _blank_heredoc(self, found: re.Match[str]) -> None:
        """Make the lines of a here-document blank, so that they are passed over as space."""
        self._heredocs += 1
        if self._heredocs > _MAX_HEREDOCS:
            self._fail(f"more than {_MAX_HEREDOCS} here-documents")
        word = next(text for text in found.groups()[1:] if text is not None)
        start = self._text.find("\n", found.end()) + 1
        indent = r"[ \t]*" if found[1] else ""
        end = re.compile(rf"^{indent}{re.escape(word)}$", re.MULTILINE).search(self._text, start)
        if not start or not end:
            self._fail("a here-document has no end")
        blank = re.sub(r"[^\n]", " ", self._text[start : end.end()])
        self._text = self._text[:start] + blank + self._text[end.end() :]
        self._at = found.end()

    # the text

    def _quoted_from(self, start: int) -> str:
        try:
            end = end_of_quoted(self._text, start)
        except Cut:
            self._at = start
            self._fail("a quotation mark or delimiter is not closed")
        self._at = end
        return self._text[start + 1 : end - 1]

    def _space(self) -> None:
        found = SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _take_match(self, pattern: re.Pattern[str]) -> bool:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found is not None

    def _line(self) -> int:
        return bisect_left(self._ends, self._at) + 1

    def _fail(self, text: str) -> NoReturn:
        raise PerlDataError(self._line(), text)
