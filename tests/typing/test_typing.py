"""What users write is checked as they would check it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests/typing/sample_source.py"
EXAMPLES = ROOT / "share/examples"


def mypy(cache: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy --strict on files that import the packages."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), *map(str, files)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )


@pytest.mark.timeout(300)
def test_sources_pass_strict_checks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The sample and the examples have no type error, and a wrong source has one."""
    cache = tmp_path_factory.getbasetemp() / "mypy"
    right = mypy(cache, SAMPLE, *sorted(EXAMPLES.glob("*.py")))
    assert right.returncode == 0, right.stdout + right.stderr
    text = SAMPLE.read_text()
    mistakes = {
        "return BytesIO(text.encode())": "return text",
        "session.box.names[message.uid]": "session.box.nowhere[message.uid]",
        "self.settings.topics": "self.settings.topic",
        "messages: Sequence[Message]": "messages: int",
        "session.secret.equals": "session.secret.decode",
    }
    for position, (good, bad) in enumerate(mistakes.items()):
        assert good in text
        wrong = tmp_path_factory.getbasetemp() / f"wrong_source_{position}.py"
        wrong.write_text(text.replace(good, bad))
        assert mypy(cache, wrong).returncode == 1, bad
