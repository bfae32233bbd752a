"""Declare an option once, as a field of a settings class, and read its text by its type."""

import difflib
import io
import os
import re
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self, Union, get_args, get_origin, get_type_hints

from netserver.errors import ConfigError

if TYPE_CHECKING:
    from netserver.config_files import Entry

Text = str | list[str] | None  # a value as it was written, before its option has read it

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True}
_BOOLEANS |= {"false": False, "no": False, "off": False, "0": False}


def option(
    default: object,
    *,
    help: str,  # noqa: A002 - the name argparse gave it
    short: str | None = None,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    kind: Callable[[str], object] | None = None,
    repeat: bool = False,
    secret: bool = False,
    group: str = "",
    flag: str | None = None,
) -> Any:
    """Declare an option as a dataclass field; the annotation tells its type.

    Types are str, int, float, bool (each also `| None`) and, with `repeat`, a tuple of them.
    Numbers are not negative. `kind` reads a value its own way: it takes the text of one value and
    raises ValueError. `secret` hides the value wherever settings are shown. `flag` is for a name
    other than the field's.
    """
    if isinstance(default, list):
        default = tuple(default)
    keywords = {
        "help": help,
        "short": short,
        "metavar": metavar,
        "choices": tuple(choices or ()),
        "kind": kind,
        "repeat": repeat,
        "secret": secret,
        "group": group,
        "flag": flag,
    }
    return field(default=default, metadata={"option": keywords})


@dataclass(frozen=True)
class Settings:
    """Base of all settings classes: frozen dataclasses whose fields are made by `option()`.

    Values given to the constructor are checked, and text is read as it is in files: raises
    ConfigError. What is not given is the field's default.
    """

    def __post_init__(self) -> None:
        for one in options_of(type(self)):
            value = getattr(self, one.name)
            if isinstance(value, AsRead):
                object.__setattr__(self, one.name, value.value)
            elif value is not one.default:
                object.__setattr__(self, one.name, one.take(value, type(self).__name__))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a YAML, TOML or INI file, and no other; raises ConfigError."""
        from netserver import config_files  # noqa: PLC0415 - which needs this module

        name = os.fspath(path)
        with config_files.open_config(name) as stream:
            return cls._of_entries(config_files.read(stream, name))

    @classmethod
    def from_text(cls, text: str, form: str = "yaml") -> Self:
        """Read the text of such a file; `form` is yaml, toml or ini. Raises ConfigError."""
        from netserver import config_files  # noqa: PLC0415 - which needs this module

        stream = io.BytesIO(text.encode("utf-8", "surrogateescape"))
        return cls._of_entries(config_files.read(stream, f"text.{form}"))

    @classmethod
    def _of_entries(cls, entries: "Iterable[Entry]") -> Self:
        known = {one.key: one for one in options_of(cls)}
        values = {}
        for key, text, file, line in entries:
            one = known.get(key.replace("_", "-"))
            if one is None:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
                like = f" (did you mean {near[0]}?)" if near else ""
                raise ConfigError(f"{file}:{line}: {one_line(key)}: unknown option{like}")
            values[one.name] = AsRead(one.read(text, Origin("file", file, line)))
        return cls(**values)


@dataclass(frozen=True)
class AsRead:
    """A value that its option has read already: not to be read again."""

    value: Any


@dataclass(frozen=True)
class Origin:
    """Where a value came from: kind is flag, environment, file, default_values or default."""

    kind: str
    name: str = ""
    line: int = 0

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.name}:{self.line}"
        return f"{self.kind} {self.name}".rstrip()

    def blame(self, key: str) -> str:
        """Return the beginning of an error line about `key`."""
        if self.kind in ("flag", "environment"):
            return self.name
        return f"{self}: {key}"


@dataclass(frozen=True)
class Option:
    """One declared option and how its text is read."""

    name: str
    default: Any
    base: type
    optional: bool
    help: str
    short: str | None
    metavar: str | None
    choices: tuple[str, ...]
    kind: Callable[[str], object] | None
    repeat: bool
    secret: bool
    group: str
    flag: str

    @property
    def key(self) -> str:
        """The key in config files: the flag without its dashes."""
        return self.flag[2:]

    @property
    def is_switch(self) -> bool:
        """Whether it is given as `--x` and `--no-x`."""
        return self.base is bool and not self.kind and not self.repeat

    def variable(self, prefix: str) -> str:
        """Return the name of its environment variable."""
        return prefix + self.key.upper().replace("-", "_")

    def read(self, text: Text, origin: Origin) -> Any:
        """Turn text into a value; raises ConfigError with the place it was written."""
        try:
            return self._read(text)
        except ValueError as error:
            problem = "is not valid" if self.secret and text is not None else str(error)
            raise ConfigError(f"{origin.blame(self.key)}: {one_line(problem)}") from None

    def take(self, value: object, where: str) -> Any:
        """Return a value from a program, which may be text; raises ConfigError that tells where.

        What a `kind` has read, and is no text, is taken as it is.
        """
        if self.repeat and not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: {self.name}: takes a list or a tuple")
        items = value if isinstance(value, (list, tuple)) else (value,)
        if self.kind is not None and not all(isinstance(one, (str, os.PathLike)) for one in items):
            if value is None and not self.optional:
                raise ConfigError(f"{where}: {self.name}: has no value")
            return tuple(items) if self.repeat else value
        if not self.kind and self.base is str and any(map(_is_no_text, items)):
            raise ConfigError(f"{where}: {self.name}: takes text")
        return self.read(text_of(value), Origin(where))

    def _read(self, text: Text) -> object:
        if text is None:
            if self.optional:
                return None
            raise ValueError("has no value")
        if self.repeat:
            return tuple(map(self._item, [text] if isinstance(text, str) else text))
        if isinstance(text, list):
            raise ValueError(f"takes one value, {len(text)} given")  # noqa: TRY004 - a user's mistake
        return self._item(text)

    def _item(self, text: str) -> object:
        if self.choices and text not in self.choices:
            raise ValueError(f"{quoted(text)} is not one of {', '.join(self.choices)}")
        if self.kind is None:
            return _TYPES[self.base](text)
        try:
            return self.kind(text)
        except ValueError as error:
            raise ValueError(f"{quoted(text)}: {error}") from None

    def show_default(self, default: object) -> str:
        """Return a default for people: secrets hidden, `-` for none."""
        text = text_of(default)
        if text is None or text in ([], ""):
            return "-"
        return "(hidden)" if self.secret else ", ".join([text] if isinstance(text, str) else text)


def _is_no_text(value: object) -> bool:
    return value is not None and not isinstance(value, (str, os.PathLike))


def _read_bool(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(f"{quoted(text)} is not true or false") from None


def _read_int(text: str) -> int:
    return int(_number(text, r"[0-9]{1,10}", "a whole number"))


def _read_float(text: str) -> float:
    return float(_number(text, r"[0-9]{1,10}(\.[0-9]{1,10})?", "a number"))


def _number(text: str, pattern: str, what: str) -> str:
    if re.fullmatch(r"-[0-9.]+", text):
        raise ValueError(f"{text} is negative")
    if not re.fullmatch(pattern, text):
        raise ValueError(f"{quoted(text)} is not {what}")
    return text


_TYPES: dict[type, Callable[[str], object]] = {
    str: str,
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
}


def one_line(text: str) -> str:
    """Return text with line ends and control characters made visible, so that it is one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def quoted(text: str) -> str:
    """Return text in quotes for an error line, cut if it is long."""
    return f'"{one_line(text if len(text) <= 80 else text[:77] + "...")}"'  # noqa: PLR2004


def text_of(value: object) -> Text:
    """Return the text that would give this value."""
    if isinstance(value, (tuple, list)):
        return [str(text_of(item)) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None if value is None else str(value)


def options_of(settings_class: type[Settings]) -> tuple[Option, ...]:
    """Return the options of a class and its bases in the order of declaration."""
    hints = get_type_hints(settings_class)
    found = []
    for declared in fields(settings_class):
        keywords = declared.metadata.get("option")
        if keywords is None:
            raise TypeError(f"{settings_class.__name__}.{declared.name} is not made by option()")
        item, optional = _item_type(hints[declared.name])
        if item not in _TYPES and keywords["kind"] is None:
            raise TypeError(f"{settings_class.__name__}.{declared.name} needs a kind")
        flag = keywords["flag"] or "--" + declared.name.replace("_", "-")
        found.append(
            Option(
                name=declared.name,
                default=declared.default,
                base=item,
                optional=optional,
                **{**keywords, "flag": flag},
            )
        )
    return tuple(found)


def _item_type(annotation: Any) -> tuple[Any, bool]:
    arguments = get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [one for one in arguments if one is not types.NoneType]
        return (rest[0] if len(rest) == 1 else object), len(rest) < len(arguments)
    if get_origin(annotation) is tuple:
        return arguments[0], False
    return annotation, False
