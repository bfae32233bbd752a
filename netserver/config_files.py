"""Read flat YAML, TOML and INI files as text, each value with the line it stands on.

Every scalar is handed on as the text that was written: what `off`, `010` or `1:30` mean is for
the option to say and not for the file format, so that no host or user name becomes a number.
"""

import os
import re
import stat
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, NoReturn

import yaml

from netserver.declarations import one_line
from netserver.errors import ConfigError

MAX_OCTETS = 1 << 20

_YAML_NULLS = ("", "~", "null", "Null", "NULL")
_YAML_TEXT = "tag:yaml.org,2002:str"


class Entry(NamedTuple):
    """One key of a config file; the value is None where the file gives none."""

    key: str
    value: str | list[str] | None
    file: str
    line: int


def open_config(path: str) -> BinaryIO:
    """Open a regular file for `read`; raises ConfigError. Never waits, not even for a FIFO."""
    try:
        stream = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise ConfigError(f"{path}: cannot be read: not a regular file")
    return stream


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read(stream: BinaryIO, name: str) -> list[Entry]:
    """Read all entries of a file; the end of its name tells the format. Raises ConfigError."""
    try:
        reader = _READERS[os.path.splitext(name)[1]]
    except KeyError:
        raise ConfigError(f"{name}: the name must end in .yaml, .toml or .ini") from None
    try:
        octets = stream.read(MAX_OCTETS + 1)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
    if len(octets) > MAX_OCTETS:
        raise ConfigError(f"{name}: larger than {MAX_OCTETS} octets")
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _fail(name, octets.count(b"\n", 0, error.start) + 1, "not UTF-8 text")
    try:
        entries = reader(text, name)
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply") from None
    for entry in entries:
        if "\0" in "".join(entry.value or ""):
            _fail(name, entry.line, f"{entry.key}: contains a NUL character")
    return entries


def same_key(key: str) -> str:
    """Return the form in which keys are compared: `lock_wait` is `lock-wait`."""
    return key.replace("_", "-")


def _fail(file: str, line: int, text: str) -> NoReturn:
    raise ConfigError(f"{file}:{line}: {one_line(text)}")


def _refuse_repeated(entries: list[Entry]) -> list[Entry]:
    lines: dict[str, int] = {}
    for entry in entries:
        key = same_key(entry.key)
        if key in lines:
            _fail(entry.file, entry.line, f"{entry.key}: given twice (first in line {lines[key]})")
        lines[key] = entry.line
    return entries


# YAML: the node tree and not the loaded objects, since only nodes know their lines


def _read_yaml(text: str, file: str) -> list[Entry]:
    try:
        top = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.reader.ReaderError as error:
        _fail(file, text.count("\n", 0, error.position) + 1, "a control character is not allowed")
    except yaml.MarkedYAMLError as error:
        _fail(file, *_yaml_problem(error))
    if top is None:
        return []
    if not isinstance(top, yaml.MappingNode):
        _fail(file, top.start_mark.line + 1, "expected lines of the form `key: value`")
    seen: set[int] = set()
    entries = []
    for key_node, node in top.value:
        line = key_node.start_mark.line + 1
        key = _yaml_text(key_node, file, "a key", seen)
        if not key:
            _fail(file, line, "a key is missing")
        value: str | list[str] | None
        if isinstance(node, yaml.SequenceNode):
            _refuse_alias(node, file, key, seen)
            value = [_yaml_text(item, file, key, seen) or "" for item in node.value]
        else:
            value = _yaml_text(node, file, key, seen)
        entries.append(Entry(key, value, file, line))
    return _refuse_repeated(entries)


def _yaml_text(node: yaml.Node, file: str, key: str, seen: set[int]) -> str | None:
    line = node.start_mark.line + 1
    _refuse_alias(node, file, key, seen)
    if isinstance(node, yaml.MappingNode):
        _fail(file, line, f"{key}: nested keys are not supported (write `key: value` flat)")
    if isinstance(node, yaml.SequenceNode):
        _fail(file, line, f"{key}: a list inside a list is not supported")
    if node.tag != _YAML_TEXT:
        _fail(file, line, f"{key}: YAML tags are not supported")
    value: str = node.value
    plain = node.style is None  # type: ignore[attr-defined] # the stubs forget it
    return None if plain and value in _YAML_NULLS else value


def _refuse_alias(node: yaml.Node, file: str, key: str, seen: set[int]) -> None:
    if id(node) in seen:  # an alias is its anchor's node once more
        _fail(file, node.start_mark.line + 1, f"{key}: anchors and aliases are not supported")
    seen.add(id(node))


def _yaml_problem(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    context, problem = error.context or "", error.problem or "wrong YAML"
    # what is left open is found at the end of the file, but to be mended where it begins
    opened = context.startswith("while scanning a ")
    mark = (error.context_mark if opened else None) or error.problem_mark
    if "'\\t'" in problem:
        problem = "a tab cannot indent YAML, use spaces"
    elif "alias" in problem or "alias" in context:
        problem = 'a value that begins with "*" needs quotes'
    elif "document" in problem:
        problem = "only one YAML document is expected"
    else:
        problem += " (a value with special characters needs quotes)"
    return (mark.line + 1 if mark else 1), problem


# TOML: tomllib gives no lines, so a valid text is cut into its statements and each is read alone

_TOML_PIECE = re.compile(
    r'"""(?:[^\\]|\\.)*?"""+|"(?:[^"\\\n]|\\.)*"|'
    r"'''.*?'''+|'[^'\n]*'|#[^\n]*|[\[\]{}\n]",
    re.DOTALL,
)


def _read_toml(text: str, file: str) -> list[Entry]:
    import tomllib  # noqa: PLC0415 - most servers have no TOML file

    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = str(error)
        found = re.search(r" \(at line ([0-9]+), column [0-9]+\)", problem)
        line = int(found[1]) if found else text.count("\n") + 1
        problem = problem.partition(" (at ")[0]
        _fail(file, line, problem.replace("Cannot overwrite a value", "a key is given twice"))
    entries = []
    for line, statement in _toml_statements(text):
        if statement.startswith("["):
            _fail(file, line, f"{statement.split(chr(10), 1)[0]}: tables are not supported")
        ((key, value),) = tomllib.loads(statement).items()
        if isinstance(value, dict):
            _fail(file, line, f"{key}: nested keys are not supported")
        if isinstance(value, list):
            if any(isinstance(item, (dict, list)) for item in value):
                _fail(file, line, f"{key}: a list may only hold plain values")
            entries.append(Entry(key, [_toml_text(item) for item in value], file, line))
        else:
            entries.append(Entry(key, _toml_text(value), file, line))
    return _refuse_repeated(entries)


def _toml_statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield every statement of a valid TOML text with the number of its first line."""
    start = depth = 0
    line = 1
    for piece in _TOML_PIECE.finditer(text + "\n"):
        depth += (piece[0] in "[{") - (piece[0] in "]}")
        if piece[0] != "\n" or depth:
            continue
        statement = text[start : piece.start()].strip()
        if statement and not statement.startswith("#"):
            yield line, statement
        line += text.count("\n", start, piece.end())
        start = piece.end()


def _toml_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# INI


def _read_ini(text: str, file: str) -> list[Entry]:
    entries: dict[str, Entry] = {}
    for line, written in enumerate(text.split("\n"), 1):
        content = written.strip()
        if not content or content[0] in "#;":
            continue
        if content[0] == "[":
            if not re.fullmatch(r"\[[^\]]*\]\s*([#;].*)?", content):
                _fail(file, line, "a section must be written `[name]`")
            continue
        found = re.fullmatch(r"([^=:]*[^=:\s])\s*[=:]\s*(.*)", content)
        if not found:
            _fail(file, line, "expected `key = value`")
        key, value = found[1], _ini_text(found[2])
        first = entries.get(same_key(key))
        if first is not None:
            entries[same_key(key)] = Entry(key, _as_list(first.value) + _as_list(value), file, line)
        else:
            entries[same_key(key)] = Entry(key, value, file, line)
    return list(entries.values())


def _ini_text(written: str) -> str | None:
    """Take quotes and a comment away: `"a # b"  # c` is `a # b`; nothing at all is no value."""
    quoted = re.fullmatch(r"""(["'])(.*?)\1\s*(?:[#;].*)?""", written)
    if quoted:
        return quoted[2]
    return re.split(r"(?:^|\s)[#;]", written, maxsplit=1)[0].rstrip() or None


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


_READERS = {".yaml": _read_yaml, ".yml": _read_yaml, ".toml": _read_toml, ".ini": _read_ini}
SUFFIXES = tuple(_READERS)
