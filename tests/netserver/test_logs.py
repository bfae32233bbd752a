"""Log lines: one event, one line, no secret; and a log that breaks harms nobody."""

import datetime as dt
import enum
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from netserver import log_targets, logs
from netserver.errors import ConfigError
from netserver.logs import configure

ROOT = Path(__file__).parents[2]

Logged = Callable[..., list[str]]


class Secret:
    """A password that tells itself by mistake."""

    __netserver_secret__ = True

    def __repr__(self) -> str:
        """Return what must never be seen."""
        return "tiger-tiger"

    __str__ = __repr__


class Unprintable:
    """A value whose text cannot be had."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no text")


class Colour(enum.StrEnum):
    """A string that is not quite one."""

    RED = "red"


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    """Return a function that logs one event with these fields and returns the file's lines."""

    def log_one(form: str, event: str = "something happened", **fields: Any) -> list[str]:
        path = tmp_path / f"{form}.log"
        path.unlink(missing_ok=True)
        configure(format=form, file=str(path)).info(event, **fields)
        return path.read_text(encoding="utf-8").split("\n")[:-1]

    return log_one


def read(lines: list[str]) -> dict[str, Any]:
    """Return the one JSON event."""
    (line,) = lines
    fields: dict[str, Any] = json.loads(line)
    return fields


# -- forms ----------------------------------------------------------------------------------------


def test_logfmt_is_read_by_words(logged: Logged) -> None:
    """Plain values stand bare, others in quotes, and the own fields come first."""
    (line,) = logged(
        "logfmt",
        user="alice",
        n=3,
        empty="",
        text='say "hi"\\',
        ok=True,
        no=None,
        x=1.5,
        l=[1, "a b"],
    )
    stamp, rest = line.split(" ", 1)
    when = dt.datetime.fromisoformat(stamp.removeprefix("timestamp="))
    assert abs(dt.datetime.now(dt.UTC) - when) < dt.timedelta(seconds=30)
    assert re.fullmatch(r"timestamp=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert rest == (
        f'level=info pid={os.getpid()} event="something happened" user=alice n=3 empty="" '
        r'text="say \"hi\"\\" ok=true no=null x=1.5 l="[1,\"a b\"]"'
    )


def test_json_is_json(logged: Logged) -> None:
    """Every event is one object with its fields' types kept."""
    fields = read(logged("json", user="Zoë", n=3, ok=True, no=None, x=1.5, l=[1, "a b"]))
    assert list(fields)[:4] == ["timestamp", "level", "pid", "event"]
    kept = {key: fields[key] for key in ("user", "n", "ok", "no", "x", "l")}
    assert kept == {"user": "Zoë", "n": 3, "ok": True, "no": None, "x": 1.5, "l": [1, "a b"]}


def test_console_has_no_colours_in_a_file(logged: Logged) -> None:
    """It reads well and has no escape sequences."""
    (line,) = logged("console", user="alice", n=3)
    assert re.fullmatch(r"\S+Z info     something happened {7}pid=\d+ user=alice n=3", line)


def test_values_of_any_type_are_shown(logged: Logged) -> None:
    """Bytes as text, sets as lists, numbers that JSON lacks and foreign objects as text."""
    endless: list[Any] = []
    endless.append(endless)
    fields = read(
        logged(
            "json",
            octets=b"RETR \xff\r\n",
            view=memoryview(b"abc"),
            inf=float("inf"),
            colour=Colour.RED,
            bad=Unprintable(),
            error=ValueError("x"),
            tup=(1, {2}),
            mapping=MappingProxyType({1: b"x"}),
            endless=endless,
            path=Path("/a"),
            long="x" * 100_000,
        )
    )
    assert fields["octets"] == "RETR \\xff\r\n"
    assert fields["view"] == "abc"
    assert fields["inf"] == "inf"
    assert fields["colour"] == "red"
    assert fields["bad"] == "<unprintable Unprintable>"
    assert fields["error"] == "ValueError: x"
    assert fields["tup"] == [1, [2]]
    assert fields["mapping"] == {"1": "x"}
    assert fields["endless"] == [[[[[["…"]]]]]]
    assert fields["path"] == "/a"
    assert len(fields["long"]) < 10_000


def test_own_fields_cannot_be_forged(logged: Logged) -> None:
    """A field of the same name gets another one."""
    fields = read(logged("json", level="none", pid=1, timestamp="never"))
    assert fields["level"] == "info"
    assert fields["pid"] == os.getpid()
    assert (fields["level_"], fields["pid_"], fields["timestamp_"]) == ("none", 1, "never")


def test_an_event_that_cannot_be_shown_is_no_error(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong here, the session goes on, and the line says that something is lost."""
    monkeypatch.setattr(logs, "_fields", lambda *_: 1 / 0)
    for form in logs.FORMATS:
        (line,) = logged(form, user="alice")
        assert "log event not printable" in line
        assert "ZeroDivisionError" in line


# -- one event, one line --------------------------------------------------------------------------

NASTY = 'a\nb\r\x00\x1b[31m\x7f\x85\x9b\u2028\u2029\ud800\t\\"é'
LINE_ENDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@pytest.mark.parametrize("form", logs.FORMATS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.text() | st.binary(), event=st.text(), key=st.text(min_size=1))
@example(value=NASTY, event=NASTY, key=NASTY)
@example(value=NASTY.encode("utf-8", "surrogatepass"), event="", key="a=b c")
def test_no_value_makes_a_second_line(
    tmp_path: Path, form: str, value: str | bytes, event: str, key: str
) -> None:
    """Whatever a stranger sends stays inside its line, whoever reads it."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    fields = {key: value} if key not in ("event", "exc_info", "self") else {}
    configure(format=form, file=str(path)).info(event, value=value, nested=[{"k": value}], **fields)
    text = path.read_bytes().decode("utf-8")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert not LINE_ENDS.search(text[:-1])
    if form == "json":
        json.loads(text)


@pytest.mark.parametrize("form", logs.FORMATS)
def test_no_value_is_a_format(logged: Logged, form: str) -> None:
    """What looks like a template is written as it came, in the event as well."""
    text = "%s%n%(user)s{0}{value}${HOME}%"
    (line,) = logged(form, text, value=text)
    assert line.count(text) == 2


@pytest.mark.parametrize("form", logs.FORMATS)
def test_traceback_is_one_field_without_local_values(tmp_path: Path, form: str) -> None:
    """It tells where, but not what the variables held."""
    path = tmp_path / "log"
    log = configure(format=form, file=str(path))

    def fail(guess: str) -> None:
        raise ValueError("first\nsecond line")

    try:
        fail("tiger" * 2)
    except ValueError as error:
        log.exception("session failed", user="alice")
        log.warning("session failed", exc_info=error)
        log.warning("session failed", exc_info=sys.exc_info())
    log.exception("nothing happened")  # noqa: LOG004 - that is what is tried here
    log.error("nothing happened", exc_info=None)
    lines = path.read_text().split("\n")
    assert len(lines) == 6
    for line in lines[:3]:
        assert "Traceback" in line
        assert "ValueError: first" in line
        assert "tigertiger" not in line
    assert "exception" not in lines[3] + lines[4]


# -- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", logs.FORMATS)
def test_secrets_are_hidden_wherever_they_stand(logged: Logged, form: str) -> None:
    """By their class and by the name of their field, at any depth."""
    secret = Secret()
    (line,) = logged(
        form,
        secret,
        plain=secret,
        nested={"a": [(secret, {"b": secret})], secret: 1},
        password="tiger-tiger",
        PassWord=b"tiger-tiger",
        token=7773777,
        inner={"Secret": "tiger-tiger", "deeper": [{"pass": "tiger-tiger"}]},
        proxy=MappingProxyType({"password": "tiger-tiger"}),
    )
    assert "tiger" not in line
    assert "7773777" not in line
    assert line.count("<secret>") == 11


def test_bound_secrets_are_hidden_too(tmp_path: Path) -> None:
    """A logger that was bound to a password does not tell it either."""
    path = tmp_path / "log"
    configure(format="logfmt", file=str(path)).bind(password="tiger", who=Secret()).warning("x")
    assert path.read_text().endswith(" event=x password=<secret> who=<secret>\n")


# -- levels and configuration ---------------------------------------------------------------------


def test_levels_below_the_wanted_one_are_not_written(tmp_path: Path) -> None:
    """Nothing of them is even assembled."""
    path = tmp_path / "log"
    log = configure(level="warning", format="json", file=str(path))
    log.debug("no", value=Unprintable())
    log.info("no")
    log.warning("yes")
    log.critical("yes")
    levels = [json.loads(line)["level"] for line in path.read_text().split("\n")[:-1]]
    assert levels == ["warning", "critical"]


def test_wrong_options_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Level, format, a file that cannot be, and daemons that are not there."""
    monkeypatch.setattr(log_targets.SyslogTarget, "path", "/gone/log")
    monkeypatch.setattr(log_targets.JournalTarget, "path", "/gone/journal")
    for options, why in [
        ({"level": "loud"}, "--log-level loud: known are debug, info,"),
        ({"format": "xml"}, "--log-format xml: known are console, json, logfmt"),
        ({"file": "/gone/log"}, "--log-file /gone/log: no such file or directory"),
        ({"file": str(tmp_path)}, f"--log-file {tmp_path}: is a directory"),
        ({"file": "syslog"}, "--log-file syslog: /gone/log: no such file"),
        ({"file": "journald"}, "--log-file journald: /gone/journal: no such file"),
    ]:
        with pytest.raises(ConfigError) as caught:
            configure(**options)
        assert str(caught.value).startswith(why)


def test_standard_error_is_logfmt_in_a_pipe_and_colours_on_a_terminal() -> None:
    """The default follows what standard error is; a terminal shows the traceback's lines."""
    program = """
from netserver.logs import configure
log = configure()
log.info("hello", user="a\\x1b[31mb")
try:
    raise ValueError("x\\x1by")
except ValueError:
    log.exception("failed")
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    first, second, last = done.stderr.split("\n")
    assert first.endswith(r'event=hello user="a\x1b[31mb"')
    assert second.endswith(r'ValueError: x\x1by"')
    assert last == ""
    terminal, theirs = os.openpty()
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    subprocess.run(command, cwd=ROOT, stderr=theirs, env=env, timeout=30, check=True)
    seen = os.read(terminal, 10_000).decode()
    os.close(terminal)
    os.close(theirs)
    assert "\x1b[32minfo" in seen
    assert r"a\x1b[31mb" in seen
    assert "\r\n    Traceback" in seen
    assert r"ValueError: x\x1by" in seen


def test_a_patched_process_gets_no_hub_by_logging(tmp_path: Path) -> None:
    """Neither a file nor a socket to log to makes a hub or a thread."""
    program = """
from gevent import monkey
monkey.patch_all()
import sys, threading
from gevent._hub_local import get_hub_if_exists
from netserver import log_targets
from netserver.logs import configure
configure(file=sys.argv[1]).info("x")
log_targets.SyslogTarget.path = sys.argv[2]
configure(file="syslog").info("x")
assert get_hub_if_exists() is None
assert threading.active_count() == 1
print("clean")
"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "socket"))
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "log", tmp_path / "socket"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stdout == "clean\n", done.stderr


def test_a_hook_sees_each_event_and_may_change_it(tmp_path: Path) -> None:
    """It runs before the line is made and before secrets are hidden; its errors cost nothing."""

    def hook(level: str, event: MutableMapping[str, Any]) -> None:
        event["seen_at"] = level
        event["password"] = "open"
        if event["event"] == "bad":
            raise RuntimeError

    log = logs.configure(format="json", file=str(tmp_path / "log"), hook=hook)
    log.info("good")
    log.error("bad")
    good, bad = (json.loads(line) for line in (tmp_path / "log").read_text().splitlines())
    assert (good["event"], good["seen_at"], good["password"]) == ("good", "info", "<secret>")
    assert (bad["event"], bad["seen_at"]) == ("bad", "error")
