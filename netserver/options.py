"""Read the options of a settings class from flags, environment, files and defaults.

A field made by `option()` is a flag, a key of config files, an environment variable and a typed
attribute. Flags win over the environment, that over files, those over the `default_values()` of the
server class, and those over the field's own default. A list replaces the list of a lower layer.
Every mistake is a ConfigError whose one line says where the value was given, also where a higher
layer would have covered it.
"""

import argparse
import difflib
import glob
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, NoReturn, TypeVar

import configargparse
import yaml

from netserver import config_files
from netserver.declarations import (
    AsRead,
    Option,
    Origin,
    Settings,
    Text,
    one_line,
    option,
    options_of,
    quoted,
    text_of,
)
from netserver.errors import ConfigError

__all__ = [
    "Loaded",
    "Option",
    "Origin",
    "Settings",
    "default_config_dirs",
    "environment_prefix",
    "format_config",
    "load",
    "one_line",
    "option",
    "options_of",
    "options_reference",
    "quoted",
]

S = TypeVar("S", bound=Settings)

_NOTHING = "\0"  # how "no value" and "empty list" pass through configargparse
_DEFAULT_GROUP = "options"


@dataclass(frozen=True)
class Loaded(Generic[S]):
    """What `load` found: the settings, where each field came from, and what else was asked for."""

    settings: S
    origins: Mapping[str, Origin]
    texts: Mapping[str, Text]
    files: tuple[str, ...]
    check_config: bool
    print_config: bool


def load(
    settings_class: type[S],
    *,
    prog: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
    env_prefix: str | None = None,
    defaults: Mapping[str, object] | None = None,
    config_dirs: Iterable[str] | None = None,
    ignore_unknown: bool = False,
) -> Loaded[S]:
    """Read all layers into one frozen settings object; raises ConfigError.

    `argv` is without the program's name. `env_prefix` and `config_dirs` follow from `prog` unless
    given. `defaults` are those of a server class; their keys are field names. With `ignore_unknown`
    only what the class declares is read, and no help is given. `--help` and `--version` print and
    raise SystemExit(0); `--check-config` and `--print-config` are left to the caller.
    """
    prefix = environment_prefix(prog) if env_prefix is None else env_prefix
    dirs = default_config_dirs(prog, environ) if config_dirs is None else config_dirs
    options = options_of(settings_class)
    found: dict[str, tuple[Origin, Text]] = {
        one.name: (Origin("default"), text_of(one.default)) for one in options
    }
    values = {one.name: one.default for one in options}
    for one, default in _named(options, defaults or {}):
        origin = Origin("default_values")
        found[one.name] = (origin, text_of(default))
        values[one.name] = one.read(text_of(default), origin)

    files = _files_to_read(prog, argv, dirs)
    reader = _ConfigFiles(options, ignore_unknown=ignore_unknown)
    parser = _Parser(
        prog=prog,
        usage="%(prog)s [options]",
        allow_abbrev=False,
        add_help=not ignore_unknown,
        add_config_file_help=False,
        add_env_var_help=False,
        default_config_files=[glob.escape(file) for file in files],
        config_file_open_func=config_files.open_config,
        config_file_parser_class=reader,
    )
    _declare(parser, options, prefix, values)
    namespace, unknown = parser.parse_known_args(
        list(argv), env_vars=_environment(options, prefix, environ)
    )
    if unknown and not ignore_unknown:
        _refuse_unknown(unknown, parser)
    given = _sources(parser, reader)
    for one in options:
        if not hasattr(namespace, one.name):
            continue
        origin, text = _choose(one, getattr(namespace, one.name), given.get(one.name))
        found[one.name] = (origin, text)
        values[one.name] = one.read(text, origin)
    return Loaded(
        settings=settings_class(**{name: AsRead(value) for name, value in values.items()}),
        origins={name: origin for name, (origin, _) in found.items()},
        texts={name: text for name, (_, text) in found.items()},
        files=tuple(files),
        check_config=namespace.check_config,
        print_config=namespace.print_config,
    )


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc] # configargparse has no types
    def error(self, message: str) -> NoReturn:
        raise ConfigError(one_line(message.removeprefix("argument ")))


class _ConfigFiles(configargparse.ConfigFileParser):  # type: ignore[misc] # same
    """Check every entry against its option, and remember where it was."""

    def __init__(self, options: Sequence[Option], *, ignore_unknown: bool) -> None:
        super().__init__()
        self._options = {one.key: one for one in options}
        self._ignore_unknown = ignore_unknown
        self.origins: dict[tuple[str, str], Origin] = {}

    def parse(self, stream: BinaryIO) -> dict[str, list[str] | str]:
        items: dict[str, list[str] | str] = {}
        for key, value, file, line in config_files.read(stream, stream.name):
            declared = self._options.get(config_files.same_key(key))
            if declared is None:
                if self._ignore_unknown:
                    continue
                like = _did_you_mean(config_files.same_key(key), self._options)
                raise ConfigError(f"{file}:{line}: {one_line(key)}: unknown option{like}")
            origin = Origin("file", file, line)
            declared.read(value, origin)
            self.origins[file, declared.key] = origin
            if value is not None or not declared.is_switch:
                items[declared.key] = _carried(declared, value)
        return items


def _carried(declared: Option, text: Text) -> list[str] | str:
    """Return text in the form in which configargparse hands it to argparse unchanged."""
    if declared.is_switch and isinstance(text, str):
        return text.lower()
    return ([text] if isinstance(text, str) else text) or [_NOTHING]


def _files_to_read(prog: str, argv: Sequence[str], dirs: Iterable[str]) -> list[str]:
    """Return the config files, the highest layer last, as absolute paths without repetition."""
    parser = _Parser(prog=prog, allow_abbrev=False, add_help=False)
    _declare_common(parser)
    known, _ = parser.parse_known_args(list(argv), env_vars={})
    if known.version:
        from netserver import __version__  # noqa: PLC0415 - looking it up loads socket and ssl

        print(f"{prog} {__version__}")
        raise SystemExit(0)
    files = [] if known.no_default_config else [file for one in dirs for file in _files_in(one)]
    for file in known.config:
        try:  # configargparse would pass over a file that is missing
            config_files.open_config(file).close()
        except ConfigError as error:
            raise ConfigError(f"--config: {error}") from None
        files.append(os.path.abspath(file))
    return [file for index, file in enumerate(files) if file not in files[index + 1 :]]


def _files_in(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be read: {error.strerror}") from None
    visible = [name for name in names if not name.startswith(".")]
    return [os.path.join(directory, one) for one in visible if one.endswith(config_files.SUFFIXES)]


def _declare_common(parser: Any) -> None:
    group = parser.add_argument_group("configuration")
    add = group.add_argument
    add("-c", "--config", metavar="FILE", action="append", default=[], help=_HELP_CONFIG)
    add("--no-default-config", action="store_true", help="read no file but those of --config")
    add("--check-config", action="store_true", help="check all options and files, then end: 0 or 2")
    add("--print-config", action="store_true", help="print all values and where they came from")
    add("--version", action="store_true", help="print the version")


_HELP_CONFIG = "a YAML, TOML or INI file with option names as keys; may be repeated, later ones win"


def _declare(
    parser: Any, options: Sequence[Option], prefix: str, defaults: Mapping[str, object]
) -> None:
    _declare_common(parser)
    groups: dict[str, Any] = {}
    for one in options:
        title = one.group or _DEFAULT_GROUP
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        shown = one.show_default(defaults[one.name])
        text = f"{one.help} (default: {shown}; {one.variable(prefix)})".replace("%", "%%")
        names = [one.short, one.flag] if one.short else [one.flag]
        common = {"dest": one.name, "default": argparse.SUPPRESS, "help": text}
        common["env_var"] = one.variable(prefix)
        if one.is_switch:
            # configargparse takes the first name for true and the second for false
            groups[title].add_argument(
                *reversed(names), action=argparse.BooleanOptionalAction, **common
            )
        else:
            metavar = one.metavar or "|".join(one.choices) or one.base.__name__.upper()
            groups[title].add_argument(
                *names, action="append", metavar=metavar.replace("%", "%%"), **common
            )


def _environment(
    options: Sequence[Option], prefix: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """Check the variables that are options and give them a form configargparse leaves alone.

    A list is written as shell words, `POP3_ALLOW="10.0.0.0/8 ::1"`. An empty variable is unset.
    """
    variables = {}
    for one in options:
        name = one.variable(prefix)
        written = environ.get(name, "")
        if not written:
            continue
        try:
            text: Text = shlex.split(written) if one.repeat else written
        except ValueError:
            raise ConfigError(f"{name}: a quotation mark is not closed") from None
        one.read(text, Origin("environment", name))
        carried = _carried(one, text)
        variables[name] = carried if isinstance(carried, str) else json.dumps(carried)
    return variables


def _sources(parser: Any, reader: _ConfigFiles) -> dict[str, tuple[Origin, int]]:
    """Return for each field that a file or the environment gave its origin and number of values."""
    given = {}
    for source, settings in parser.get_source_to_settings_dict().items():
        kind, _, file = source.partition("|")
        for key, (action, value) in settings.items():
            if kind == "environment_variables":
                is_list = value.startswith("[")
                count = len(json.loads(value)) if is_list else 1
                given[action.dest] = (Origin("environment", key), count)
            elif kind == "config_file":
                given[action.dest] = (reader.origins[file, key], len(value))
    return given


def _choose(one: Option, value: Any, given: tuple[Origin, int] | None) -> tuple[Origin, Text]:
    """Tell what flags gave from what configargparse put in front of them."""
    if one.is_switch:
        return given[0] if given else Origin("flag", one.flag), text_of(value)
    # before Python 3.13 argparse makes an empty list of the value "--"
    value = [text if isinstance(text, str) else "--" for text in value]
    origin, count = given or (Origin("flag", one.flag), 0)
    if len(value) > count:
        origin = Origin("flag", one.flag)
        value = value[count:] if one.repeat else value[-1:]
    if value == [_NOTHING]:
        return origin, [] if one.repeat else None
    return origin, value if one.repeat else value[-1]


def _named(
    options: Sequence[Option], defaults: Mapping[str, object]
) -> Iterable[tuple[Option, object]]:
    by_key = {one.key: one for one in options}
    for name, default in defaults.items():
        key = config_files.same_key(name)
        if key not in by_key:
            raise ConfigError(f"default_values: {name}: unknown option{_did_you_mean(key, by_key)}")
        yield by_key[key], default


def _refuse_unknown(unknown: Sequence[str], parser: Any) -> NoReturn:
    first = unknown[0]
    if not first.startswith("-"):
        raise ConfigError(f"unexpected argument {quoted(first)}")
    flag = first.partition("=")[0]
    known = [name for action in parser._actions for name in action.option_strings]  # noqa: SLF001
    raise ConfigError(f"unknown option {one_line(flag)}{_did_you_mean(flag, known)}")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    names = {name.lstrip("-"): name for name in known}
    near = difflib.get_close_matches(word.lstrip("-"), names, n=1, cutoff=0.7)
    return f" (did you mean {names[near[0]]}?)" if near else ""


def environment_prefix(prog: str) -> str:
    """Return what a program's variables begin with: its first word, `POP3_` for pop3-server."""
    words = re.findall(r"[A-Za-z0-9]+", os.path.basename(prog)) or ["net", "server"]
    # net-server keeps both words: "NET_" alone would take in what is not ours
    return "_".join(words[: 2 if words[0] == "net" else 1]).upper() + "_"


def default_config_dirs(prog: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the directories whose config files are read unasked, the second one winning."""
    home = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    name = os.path.basename(prog)
    return (f"/etc/{name}", os.path.join(home, name))


def format_config(loaded: Loaded[Any]) -> str:
    """Return all values as a YAML config file, each with where it came from; secrets are hidden."""
    lines = []
    for one in options_of(type(loaded.settings)):
        text = loaded.texts[one.name]
        shown = "null" if text is None else _as_yaml(one, text)
        line = f"{one.key}: {shown}  # {one_line(str(loaded.origins[one.name]))}"
        if one.secret and text:
            line = f"# {one.key}: (hidden)  # {one_line(str(loaded.origins[one.name]))}"
        lines.append(line + "\n")
    return "".join(lines)


def _as_yaml(one: Option, text: str | list[str]) -> str:
    if isinstance(text, list):
        return f"[{', '.join(_as_yaml(one, item) for item in text)}]"
    if one.kind is None and one.base is not str:
        return text
    quoted_text: str = yaml.safe_dump(
        text, default_style='"', allow_unicode=True, width=float("inf")
    )
    return quoted_text.rstrip("\n")


def options_reference(settings_class: type[Settings], env_prefix: str = "NET_SERVER_") -> str:
    """Return all options as Markdown, one table for each group."""
    groups: dict[str, list[str]] = {}
    for one in options_of(settings_class):
        flag = f"`{one.flag}`, `--no-{one.key}`" if one.is_switch else f"`{one.flag}`"
        short = f"`{one.short}`, " if one.short else ""
        meaning = one.help + (f" ({', '.join(one.choices)})" if one.choices else "")
        meaning += " (may be repeated)" if one.repeat else ""
        cells = (
            short + flag,
            f"`{one.variable(env_prefix)}`",
            one.show_default(one.default),
            meaning,
        )
        row = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
        groups.setdefault(one.group or _DEFAULT_GROUP, []).append(row)
    head = "| option | environment | default | meaning |\n|---|---|---|---|\n"
    return "\n".join(f"### {title}\n\n{head}{''.join(rows)}" for title, rows in groups.items())
