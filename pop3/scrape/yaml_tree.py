"""Read a YAML file as a tree of texts in which every value knows its line and its key."""

import re
from collections.abc import Collection
from typing import NoReturn

import yaml

from netserver.config_files import MAX_OCTETS, open_config
from netserver.declarations import one_line, quoted
from netserver.errors import ConfigError

_NULLS = ("", "~", "null")
_TEXT = "tag:yaml.org,2002:str"
_DEEPEST = 20
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_OCTETS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


class Value:
    """One value of the file: `text`, `many` or `keys` is set, none of them for an empty one."""

    def __init__(self, file: str, line: int, name: str) -> None:
        """Name the place."""
        self.file = file
        self.line = line
        self.name = name
        self.text: str | None = None
        self.many: list[Value] | None = None
        self.keys: dict[str, Value] | None = None

    def fail(self, problem: str) -> NoReturn:
        """Raise ConfigError with file, line and key."""
        where = f"{self.file}:{self.line}: {self.name + ': ' if self.name else ''}"
        raise ConfigError(one_line(where + problem))

    def mapping(self, known: Collection[str] | None = None) -> "dict[str, Value]":
        """Return the keys; with `known` there may be no others."""
        if self.keys is None:
            self.fail("expected lines of the form `key: value`")
        for key, value in self.keys.items():
            if known is not None and key not in known:
                value.fail(f"no such key; there are {', '.join(sorted(known))}")
        return self.keys

    def sequence(self) -> "list[Value]":
        """Return the values of a list; one value alone is a list of one."""
        return [self] if self.many is None else self.many

    def string(self) -> str:
        """Return the text."""
        if self.text is None:
            self.fail("a text is missing" if self.is_empty else "expected one text")
        return self.text

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written."""
        return self.text is None and self.many is None and self.keys is None

    def choice(self, *choices: str) -> str:
        """Return one of some words."""
        text = self.string()
        if text not in choices:
            self.fail(f"{quoted(text)} is not one of {', '.join(choices)}")
        return text

    def boolean(self) -> bool:
        """Return yes or no."""
        text = self.string().lower()
        if text not in _BOOLEANS:
            self.fail(f"{quoted(text)} is not yes or no")
        return _BOOLEANS[text]

    def number(self, least: int = 0, most: int = 10**9) -> int:
        """Return a whole number within bounds."""
        text = self.string()
        if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
            self.fail(f"{quoted(text)} is not a whole number from {least} to {most}")
        return int(text)

    def seconds(self) -> float:
        """Return a time such as 0.5, 90s, 15m, 2h or 30d in seconds."""
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([smhd]?)", self.string())
        if found is None:
            self.fail(f"{quoted(self.string())} is no time such as 90s, 15m, 2h or 30d")
        return float(found[1]) * _UNITS[found[2]]

    def octets(self) -> int:
        """Return a size such as 500k or 2m in octets."""
        found = re.fullmatch(r"([0-9]{1,10}) ?([kmg]?)", self.string().lower())
        if found is None or not int(found[1]):
            self.fail(f"{quoted(self.string())} is no size such as 500k or 2m")
        return int(found[1]) * _OCTETS[found[2]]


def read(path: str) -> Value:
    """Read a file. Raises ConfigError with file and line."""
    with open_config(path) as stream:
        octets = stream.read(MAX_OCTETS + 1)
    if len(octets) > MAX_OCTETS:
        raise ConfigError(f"{path}: larger than {MAX_OCTETS} octets")
    try:
        text = octets.decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text") from None
    except yaml.reader.ReaderError:
        raise ConfigError(f"{path}: a control character is not allowed") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = one_line(error.problem or "wrong YAML")
        raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    if node is None:
        raise ConfigError(f"{path}: the file is empty")
    return _value(node, path, "", set(), 0)


def _value(node: yaml.Node, file: str, name: str, seen: set[int], depth: int) -> Value:
    value = Value(file, node.start_mark.line + 1, name)
    if id(node) in seen:
        value.fail("anchors and aliases are not supported")
    seen.add(id(node))
    if depth > _DEEPEST:
        value.fail("nested too deeply")
    if isinstance(node, yaml.MappingNode):
        value.keys = {}
        for key_node, item in node.value:
            key = _value(key_node, file, name, seen, depth + 1)
            word = key.string()
            path = f"{name}.{word}" if name else word
            found = _value(item, file, path, seen, depth + 1)
            found.line = key.line
            if word in value.keys:
                found.fail(f"given twice (first in line {value.keys[word].line})")
            value.keys[word] = found
    elif isinstance(node, yaml.SequenceNode):
        value.many = [
            _value(item, file, f"{name}[{number}]", seen, depth + 1)
            for number, item in enumerate(node.value, 1)
        ]
    else:
        if node.tag != _TEXT:
            value.fail("YAML tags are not supported")
        plain = node.style is None  # type: ignore[attr-defined] # the stubs forget it
        value.text = None if plain and node.value in _NULLS else node.value
        if "\0" in node.value:
            value.fail("contains a NUL character")
    return value
