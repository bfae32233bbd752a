"""Options: four layers, where each value came from, and one line for every mistake."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netserver.errors import ConfigError
from netserver.options import (
    Loaded,
    Settings,
    default_config_dirs,
    environment_prefix,
    format_config,
    load,
    option,
    options_reference,
)
from netserver.settings import ServerSettings


def even(text: str) -> int:
    """Read an even number."""
    if int(text) % 2:
        raise ValueError("is odd")
    return int(text)


@dataclass(frozen=True)
class Base(Settings):
    """One option of every type."""

    name: str = option("anna", help="who", short="-n", group="people")
    timeout: float = option(600.0, help="how | long")
    workers: int | None = option(None, help="how many")
    listen: tuple[str, ...] = option(("a:1",), repeat=True, help="where")
    background: bool = option(False, help="100% detached")
    level: str = option("info", choices=("info", "debug"), help="how much")


@dataclass(frozen=True)
class Derived(Base):
    """What a subclass adds."""

    evens: tuple[int, ...] = option((), repeat=True, kind=even, help="only even ones")
    token: str = option("", secret=True, help="a password")
    passed: str = option("", flag="--pass", help="a name that Python keeps")


class Layers:
    """A place for config files, and a `load` that looks only there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.home.mkdir(exist_ok=True)

    def write(self, name: str, text: str) -> str:
        """Write a default config file and return its path."""
        (self.home / name).write_text(text)
        return str(self.home / name)

    def load(
        self,
        *argv: str,
        environ: Mapping[str, str] | None = None,
        defaults: Mapping[str, object] | None = None,
        ignore_unknown: bool = False,
    ) -> Loaded[Derived]:
        """Load the derived class."""
        return load(
            Derived,
            prog="test-server",
            argv=argv,
            environ=environ or {},
            defaults=defaults,
            config_dirs=[str(self.home)],
            ignore_unknown=ignore_unknown,
        )

    def refused(self, *argv: str, **keywords: Any) -> str:
        """Return the one line of the ConfigError."""
        with pytest.raises(ConfigError) as caught:
            self.load(*argv, **keywords)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    """Return an empty directory of config files."""
    return Layers(tmp_path / "config")


def test_without_anything_the_defaults_stand(layers: Layers) -> None:
    """Every field has its default, of its own type, and says so."""
    loaded = layers.load()
    assert loaded.settings == Derived()
    assert {str(origin) for origin in loaded.origins.values()} == {"default"}


def test_flags_beat_environment_beats_files_beats_class_beats_field(layers: Layers) -> None:
    """Each layer covers the ones below it, and the origin is that of the winner."""
    low = layers.write("1.yaml", "timeout: 1\nworkers: 1\nname: low\n")
    high = layers.write("2.ini", "workers = 2\nname = high\n")
    given = layers.home.parent / "given.toml"
    given.write_text("# given\nname = 'given'\n")
    defaults = {"timeout": 0.5, "level": "debug", "workers": "9"}
    environ = {"TEST_WORKERS": "3"}
    argv = ["--config", str(given)]

    loaded = layers.load(*argv, "--workers", "4", environ=environ, defaults=defaults)
    assert loaded.settings == Derived(name="given", timeout=1.0, workers=4, level="debug")
    assert str(loaded.origins["workers"]) == "flag --workers"
    assert str(loaded.origins["timeout"]) == f"{low}:1"
    assert str(loaded.origins["name"]) == f"{given}:2"
    assert str(loaded.origins["level"]) == "default_values"
    assert loaded.files == (low, high, str(given))

    loaded = layers.load(environ=environ, defaults=defaults)
    assert (loaded.settings.workers, loaded.settings.name) == (3, "high")
    assert str(loaded.origins["workers"]) == "environment TEST_WORKERS"

    loaded = layers.load("--no-default-config", defaults=defaults)
    assert (loaded.settings.timeout, loaded.settings.workers) == (0.5, 9)
    assert loaded.files == ()


@pytest.mark.parametrize(
    ("argv", "environ", "file", "expected"),
    [
        ([], {}, "listen: [c:1, c:2]\n", ("c:1", "c:2")),
        ([], {}, "listen: c:1\n", ("c:1",)),
        ([], {}, "listen: []\n", ()),
        ([], {"TEST_LISTEN": "b:1 'b 2'"}, "listen: [c:1, c:2]\n", ("b:1", "b 2")),
        ([], {"TEST_LISTEN": "[::1]:1"}, "", ("[::1]:1",)),
        (["--listen", "a:2"], {"TEST_LISTEN": "b:1"}, "listen: [c:1]\n", ("a:2",)),
        (["--listen=a:2", "--listen", "a:3"], {}, "listen: [c:1]\n", ("a:2", "a:3")),
        (["--listen=-", "--listen=--"], {}, "", ("-", "--")),
    ],
)
def test_a_list_replaces_the_list_of_a_lower_layer(
    layers: Layers,
    argv: Sequence[str],
    environ: Mapping[str, str],
    file: str,
    expected: tuple[str, ...],
) -> None:
    """Lists are never joined over layers, not even when the higher one is empty."""
    layers.write("0.ini", "listen = z:1\nlisten = z:2\n")
    if file:
        layers.write("1.yaml", file)
    assert layers.load(*argv, environ=environ).settings.listen == expected


def test_a_short_flag_covers_lower_layers_in_every_form(layers: Layers) -> None:
    """`-n x` and `-nx` are the same flag."""
    layers.write("1.yaml", "name: file\n")
    for argv in (["-n", "x"], ["-nx"], ["-n=x"], ["--name", "y", "--name", "x"]):
        loaded = layers.load(*argv, environ={"TEST_NAME": "environment"})
        assert loaded.settings.name == "x"
        assert str(loaded.origins["name"]) == "flag --name"


@pytest.mark.parametrize(
    ("argv", "variable", "file", "expected"),
    [
        (["--background"], "", "false", True),
        (["--no-background"], "true", "true", False),
        ([], "true", "false", True),
        ([], "no", "true", False),
        ([], "", "True", True),
        ([], "", "off", False),
    ],
)
def test_switches(
    layers: Layers, argv: Sequence[str], variable: str, file: str, expected: bool
) -> None:
    """`--x` and `--no-x` as flags, true and false elsewhere."""
    layers.write("1.yaml", f"background: {file}\n")
    environ = {"TEST_BACKGROUND": variable}
    assert layers.load(*argv, environ=environ).settings.background is expected


def test_values_of_every_kind(layers: Layers) -> None:
    """Types, kinds, other flags, underscores, null and odd text."""
    layers.write(
        "1.yaml", 'evens: [2, 4]\nworkers: null\ntoken: "%(a)s [x] \\" é 😀"\npass: "--"\n'
    )
    settings = layers.load("--timeout", "30", defaults={"workers": 5}).settings
    assert settings.evens == (2, 4)
    assert settings.workers is None
    assert settings.token == '%(a)s [x] " é 😀'
    assert settings.passed == "--"
    assert settings.timeout == 30.0


def test_lock_wait_and_lock_wait_are_one_key(tmp_path: Path) -> None:
    """Underscores in keys are as good as dashes."""
    (tmp_path / "a.yaml").write_text("max_servers: 7\n")
    loaded = load(ServerSettings, prog="x-server", argv=[], environ={}, config_dirs=[str(tmp_path)])
    assert loaded.settings.max_servers == 7


@pytest.mark.parametrize(
    ("argv", "environ", "line"),
    [
        (["--timeout", "abc"], {}, '--timeout: "abc" is not a number'),
        (["--timeout", "-5"], {}, "--timeout: -5 is negative"),
        (["--timeout", "inf"], {}, '--timeout: "inf" is not a number'),
        (["--timeout"], {}, "--timeout: expected one argument"),
        (["--workers", "1.5"], {}, '--workers: "1.5" is not a whole number'),
        (["--workers", "\u0663"], {}, '--workers: "\u0663" is not a whole number'),
        (["--level", "loud"], {}, '--level: "loud" is not one of info, debug'),
        (["--evens", "2", "--evens", "3"], {}, '--evens: "3": is odd'),
        (["--evens", "x\ny"], {}, '--evens: "x\\ny": invalid literal'),
        (["--tiemout", "3"], {}, "unknown option --tiemout (did you mean --timeout?)"),
        (["--time=3"], {}, "unknown option --time"),
        (["--xyz=secret"], {}, "unknown option --xyz"),
        (["-x"], {}, "unknown option -x"),
        (["word"], {}, 'unexpected argument "word"'),
        (["--background=yes"], {}, "--background"),
        (["-c", "/no/such.yaml"], {}, "--config: /no/such.yaml: cannot be read: No such file"),
        ([], {"TEST_TIMEOUT": "abc"}, 'TEST_TIMEOUT: "abc" is not a number'),
        ([], {"TEST_BACKGROUND": "maybe"}, 'TEST_BACKGROUND: "maybe" is not true or false'),
        ([], {"TEST_LISTEN": "'a"}, "TEST_LISTEN: a quotation mark is not closed"),
        (["--timeout=1"], {"TEST_TIMEOUT": "x"}, "TEST_TIMEOUT: "),
    ],
)
def test_a_mistake_is_one_line(
    layers: Layers, argv: Sequence[str], environ: Mapping[str, str], line: str
) -> None:
    """The line names the flag or the variable."""
    assert layers.refused(*argv, environ=environ).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('\ntimeout: "abc"\n', '2: timeout: "abc" is not a number'),
        ("timeout: [1, 2]\n", "1: timeout: takes one value, 2 given"),
        ("timeout:\n", "1: timeout: has no value"),
        ("listen:\n", "1: listen: has no value"),
        ("background: maybe\n", '1: background: "maybe" is not true or false'),
        ("\n\ntime_out: 3\n", "3: time_out: unknown option (did you mean timeout?)"),
        ("config: a.yaml\n", "1: config: unknown option"),
        ("help: true\n", "1: help: unknown option"),
        ("--timeout: 3\n", "1: --timeout: unknown option"),
        ("timeout: 1\nworkers: 1\ntimeout: 2\n", "3: timeout: given twice (first in line 1)"),
    ],
)
def test_a_mistake_in_a_file_names_its_line(layers: Layers, text: str, line: str) -> None:
    """Also where a flag covers the wrong value."""
    path = layers.write("1.yaml", text)
    for argv in ([], ["--timeout", "4"]):
        assert layers.refused(*argv).startswith(f"{path}:{line}")


def test_a_repeated_ini_key_is_a_list_only_where_it_may_be(layers: Layers) -> None:
    """The line is that of the second value."""
    path = layers.write("1.ini", "timeout = 1\nworkers = 1\ntimeout = 2\n")
    assert layers.refused() == f"{path}:3: timeout: takes one value, 2 given"


def test_a_default_of_the_class_can_be_wrong_too(layers: Layers) -> None:
    """default_values() is checked like every layer."""
    assert layers.refused(defaults={"time": 1}).startswith("default_values: time: unknown option")
    assert layers.refused(defaults={"timeout": "x"}).startswith("default_values: timeout: ")


def test_a_directory_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    """Config that is there and cannot be seen must not be passed over."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ConfigError, match="loop: cannot be read"):
        load(Derived, prog="x", argv=[], environ={}, config_dirs=[str(loop)])


def test_stage_one_reads_only_what_it_knows(layers: Layers) -> None:
    """Unknown flags, keys and --help are for the full parse."""
    layers.write("1.yaml", "no-such: 1\nname: file\n")
    loaded = layers.load("--maildir", "x", "-z", "--help", "--timeout", "3", ignore_unknown=True)
    assert (loaded.settings.name, loaded.settings.timeout) == ("file", 3.0)


def test_an_unknown_variable_is_ignored(layers: Layers) -> None:
    """The environment may hold what another version understands."""
    assert layers.load(environ={"TEST_NO_SUCH": "x"}).settings == Derived()


def test_printed_config_says_where_from_and_can_be_loaded_again(
    layers: Layers, tmp_path: Path
) -> None:
    """All values survive but the secret, which is not shown at all."""
    odd = 'x: "y" # \u00e9 \u2028 \t\U0001f600'
    path = layers.write("1.yaml", "timeout: 12.5\ntoken: sesame\n")
    argv = ["--listen", "*:1", "--listen", "[::1]:2", "--name", odd, "--background", "--evens", "2"]
    first = layers.load(*argv, environ={"TEST_WORKERS": "3"})
    printed = format_config(first)
    assert f"timeout: 12.5  # {path}:1\n" in printed
    assert "workers: 3  # environment TEST_WORKERS\n" in printed
    assert 'listen: ["*:1", "[::1]:2"]  # flag --listen\n' in printed
    assert 'level: "info"  # default\n' in printed
    assert "sesame" not in printed

    copy = tmp_path / "copy.yaml"
    copy.write_text(printed)
    again = layers.load("--no-default-config", "--config", str(copy), "--no-background")
    expected = {**vars(first.settings), "token": "", "background": False}
    assert vars(again.settings) == expected


def test_a_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    """Not even the reader's own words about it are shown."""

    def refuse(text: str) -> str:
        raise ValueError(f"{text} is bad")

    @dataclass(frozen=True)
    class Secretive(Settings):
        token: str = option("", secret=True, kind=refuse, help="a password")

    with pytest.raises(ConfigError) as caught:
        load(Secretive, prog="x", argv=[], environ={"X_TOKEN": "sesame"}, config_dirs=[])
    assert str(caught.value) == "X_TOKEN: is not valid"


def test_help_is_grouped_and_shows_variable_and_default(
    layers: Layers, capsys: pytest.CaptureFixture[str]
) -> None:
    """--help ends with 0 and tells the default of the class."""
    layers.write("1.yaml", "this: is not looked at\n")
    with pytest.raises(SystemExit) as caught:
        layers.load("--help", defaults={"timeout": 5})
    printed = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    assert "people: -n NAME, --name NAME" in printed or "people: -n STR, --name STR" in printed
    assert "how | long (default: 5; TEST_TIMEOUT)" in printed
    assert "100% detached" in printed
    assert "--no-background" in printed


def test_version_needs_no_valid_config(layers: Layers, capsys: pytest.CaptureFixture[str]) -> None:
    """--version ends with 0."""
    layers.write("1.yaml", "\t\n")
    with pytest.raises(SystemExit) as caught:
        layers.load("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("test-server ")


def test_check_and_print_are_left_to_the_caller(layers: Layers) -> None:
    """The server knows more to check than the options do."""
    assert not layers.load().check_config
    assert layers.load("--check-config").check_config
    assert layers.load("--print-config").print_config


def test_the_reference_is_markdown() -> None:
    """One row for each option, cells kept apart."""
    text = options_reference(Derived, "TEST_")
    rows = [line for line in text.split("\n") if line.startswith("| `")]
    assert len(rows) == 9
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)
    assert "### people\n" in text
    assert "| `--background`, `--no-background` | `TEST_BACKGROUND` | false |" in text
    assert "| `--timeout` | `TEST_TIMEOUT` | 600 | how \\| long |" in text


def test_names_follow_from_the_program() -> None:
    """Prefix of variables, and the directories of config files."""
    assert environment_prefix("pop3-server") == "POP3_"
    assert environment_prefix("/usr/bin/net-server") == "NET_SERVER_"
    assert environment_prefix("finger.py") == "FINGER_"
    system, own = default_config_dirs("p", {"HOME": "/home/a"})
    assert (system, own) == ("/etc/p", "/home/a/.config/p")
    assert default_config_dirs("p", {"XDG_CONFIG_HOME": "/x", "HOME": "/h"})[1] == "/x/p"


def test_only_declared_fields_are_options() -> None:
    """A field without option() is a programmer's mistake and told at once."""

    @dataclass(frozen=True)
    class Bare(Settings):
        name: str = "x"

    with pytest.raises(TypeError, match=r"Bare\.name"):
        load(Bare, prog="x", argv=[], environ={}, config_dirs=[])
