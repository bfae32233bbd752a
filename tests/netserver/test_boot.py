"""Stage one: gevent patches before anything else is imported, and every mistake is one line."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]

# runs boot.main and notes what is imported before gevent is
PROGRAM: Final = """
import sys

class Spy:
    early = []

    def find_spec(self, name, path=None, target=None):
        if "gevent" not in sys.modules:
            self.early.append(name)

sys.meta_path.insert(0, Spy())
from netserver import boot

sys.exit(boot.main(
    prog="probe-server",
    default="probe",
    sources={"probe": "probe:Server", "broken": "no_such:Server"},
    group="pop3.sources",
    personality=%r,
))
"""

PROBE: Final = """
import sys
patched = "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("ssl")
import socket, ssl, threading, logging, structlog
from netserver import NetServer

HEAVY = {"socket", "ssl", "threading", "logging", "structlog", "asyncio", "subprocess", "queue",
         "importlib.metadata"}

class Server(NetServer):
    def process_request(self, connection):
        pass

    @classmethod
    def main(cls, *, prog, argv, environ):
        early = HEAVY.intersection(next(s for s in sys.meta_path if hasattr(s, "early")).early)
        print(cls.__name__, prog, list(argv), patched, sorted(early) if patched else "")
        return 0

class Abstract(NetServer):
    pass

class Other(Server):
    pass

NotOne = 3
"""


def boot(
    home: Path,
    *argv: str,
    default_personality: str = "single",
    env: dict[str, str] | None = None,
    program: Sequence[str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Boot in a fresh interpreter in which every warning is an error."""
    (home / "probe.py").write_text(PROBE)
    program = program or ["-c", PROGRAM % default_personality]
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-W", "error", *program, *argv],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=home,
        env={**environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{home}", **(env or {})},
    )


def printed(home: Path, *argv: str, **keywords: object) -> str:
    """Return what the probe prints; nothing goes wrong and nothing warns."""
    done = boot(home, *argv, **keywords)  # type: ignore[arg-type] # passed through
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def refused(home: Path, *argv: str, **keywords: object) -> str:
    """Return the one line on stderr of a boot that ends with 2."""
    done = boot(home, *argv, **keywords)  # type: ignore[arg-type] # passed through
    assert done.returncode == 2, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_a_flag_chooses_gevent_and_patches_first(tmp_path: Path) -> None:
    """Nothing that gevent replaces was imported before, and nobody warns."""
    argv = ["--personality", "gevent", "--other", "x"]
    assert printed(tmp_path, *argv) == f"Server probe-server {argv} True []"


def test_the_environment_chooses_gevent(tmp_path: Path) -> None:
    """A variable is as early as a flag."""
    env = {"PROBE_PERSONALITY": "gevent"}
    assert printed(tmp_path, env=env) == "Server probe-server [] True []"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "other: 1\npersonality: gevent\n"),
        ("a.toml", 'other = 1\npersonality = "gevent"\n'),
        ("a.ini", "[x]\nother = 1\npersonality = gevent\n"),
    ],
)
def test_a_file_chooses_gevent(tmp_path: Path, name: str, text: str) -> None:
    """A file named by a flag and one in the user's directory are as early as a flag."""
    (tmp_path / name).write_text(text)
    assert printed(tmp_path, "-c", name).endswith(" True []")
    own = tmp_path / ".config" / "probe-server"
    own.mkdir(parents=True)
    (own / name).write_text(text)
    assert printed(tmp_path).endswith(" True []")
    assert printed(tmp_path, "--no-default-config").endswith(" False")
    assert printed(tmp_path, "--personality", "fork").endswith(" False")


def test_the_default_personality_is_the_programs(tmp_path: Path) -> None:
    """And a list takes the first that can run here."""
    assert printed(tmp_path, default_personality="gevent").endswith(" True []")
    (tmp_path / "gevent.py").write_text("raise ImportError('hidden')\n")
    assert printed(tmp_path, default_personality="gevent,fork").endswith(" False")
    line = refused(tmp_path, default_personality="gevent")
    assert line == "probe-server: personality: gevent cannot run here (gevent: hidden)"


def test_a_source_is_a_name_or_a_class(tmp_path: Path) -> None:
    """Flag, variable and the current directory."""
    assert printed(tmp_path).startswith("Server ")
    assert printed(tmp_path, "--source", "probe:Other").startswith("Other ")
    assert printed(tmp_path, env={"PROBE_SOURCE": "probe:Other"}).startswith("Other ")
    here = {"PYTHONPATH": str(ROOT)}
    assert printed(tmp_path, "--source=probe:Other", env=here).startswith("Other ")


def test_an_installed_package_adds_a_source(tmp_path: Path) -> None:
    """An entry point of the group is found, after the patch."""
    info = tmp_path / "extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pop3.sources]\nextra = probe:Other\n")
    told = printed(tmp_path, "--source", "extra", "--personality", "gevent")
    assert told.startswith("Other ")
    assert told.endswith(" True []")


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--source", "prob"], '--source: "prob" is unknown (known are broken, '),
        (["--source", "broken"], '--source: "broken": there is no module "no_such"'),
        (["--source", "no.such:X"], '"no.such:X": there is no module "no.such"'),
        (["--source", "probe:Nobody"], '"probe:Nobody": probe has no Nobody'),
        (["--source", "probe:"], '"probe:": '),
        (["--source", ":X"], '":X": '),
        (["--source", ".probe:X"], '".probe:X": '),
        (["--source", "probe:NotOne"], "NotOne is not a subclass of NetServer"),
        (["--source", "probe:socket"], "socket is not a subclass of NetServer"),
        (["--source", "probe:Abstract"], "Abstract does not define process_request"),
        (["--source", "needs:X"], 'needs needs "what_it_needs", not installed'),
        (["--source", "wrong:X"], "cannot import wrong: SyntaxError: "),
        (["--source", "raises:X"], "cannot import raises: ZeroDivisionError: division by zero ("),
        (["--personality", "thread"], '--personality: "thread": no such personality'),
        (["--config", "nowhere.yaml"], "--config: nowhere.yaml: cannot be read: No such file"),
        (["--config", "bad.yaml"], "bad.yaml:2: personality: "),
        (["--config", "tab.yaml"], "tab.yaml:1: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    tmp_path: Path, argv: Sequence[str], problem: str
) -> None:
    """Never a traceback, always the program's name and the option."""
    (tmp_path / "needs.py").write_text("import what_it_needs\n")
    (tmp_path / "wrong.py").write_text("def\n")
    (tmp_path / "raises.py").write_text("\n1 / 0\n")
    (tmp_path / "bad.yaml").write_text("\npersonality: many\n")
    (tmp_path / "tab.yaml").write_text("\ta: 1\n")
    line = refused(tmp_path, *argv)
    assert line.startswith("probe-server: ")
    assert problem in line


def test_the_file_that_names_a_wrong_source_is_told(tmp_path: Path) -> None:
    """With its line."""
    (tmp_path / "a.yaml").write_text("\nsource: nothing\n")
    line = refused(tmp_path, "-c", "a.yaml")
    assert line.startswith(f"probe-server: {tmp_path}/a.yaml:2: source: ")


def test_net_server_takes_the_class_first(tmp_path: Path) -> None:
    """`python -m netserver module:Class options`; the class is not an option of the full parse."""
    program = ["-c", "import sys; sys.meta_path[0].early = []; " + NET_SERVER]
    told = printed(tmp_path, "probe:Other", "--x", program=program)
    assert told == "Other net-server ['--x'] False"
    line = refused(tmp_path, "probe:Nobody", program=["-m", "netserver"])
    assert line == 'net-server: class: "probe:Nobody": probe has no Nobody'


NET_SERVER: Final = "from netserver.__main__ import main; sys.exit(main())"


def test_under_inetd_the_client_reads_no_complaint(tmp_path: Path) -> None:
    """Descriptors 0 to 2 are one socket there; the line goes to syslog instead."""
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(10)
        done = subprocess.run(
            [sys.executable, "-m", "netserver", "no.such:X", "--personality", "inetd"],
            stdin=far.fileno(),
            stdout=far.fileno(),
            stderr=far.fileno(),
            timeout=30,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        far.close()
        assert done.returncode == 2
        assert near.recv(100) == b""


@pytest.mark.parametrize("program", ["pop3-server", "net-server"])
def test_help_and_version_of_the_programs(tmp_path: Path, program: str) -> None:
    """The stubs in bin/ run from a checkout."""
    path = str(ROOT / "bin" / program)
    assert printed(tmp_path, "--version", program=[path]).startswith(f"{program} ")
    told = printed(tmp_path, "--help", program=[path])
    assert told.startswith(f"usage: {program} [options]")
    assert "--personality" in told
