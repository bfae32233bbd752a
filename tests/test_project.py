"""The project's own papers agree with each other and with the code."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAIL = ("tests/data/mail/", "share/demo/mail/")  # not ours to word
# in pieces, so that this file does not find itself
UNWANTED = {
    "a package registry's host": "|".join(
        [r"py" + r"pi\.org", r"python" + r"hosted\.org", r"npm" + r"js\.", r"deb\.deb" + r"ian\."]
    ),
    "a path of one machine": "/" + "work/|/" + "root/",
    "unfinished work": "TO" + "DO|FIX" + "ME|X" + "XX",
    "a private key": "BEGIN [A-Z ]*PRIVATE " + "KEY",
}


def text_of(name: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def own_files() -> Iterator[Path]:
    """Yield the files of the repository, those not added yet included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip(f"not in a git checkout: {listed.stderr.strip()}")
    for name in listed.stdout.split("\0"):
        if name.startswith(MAIL) or name.endswith(".png"):  # a picture's octets spell anything
            continue
        if name and (ROOT / name).is_file():
            yield ROOT / name


def project() -> dict[str, object]:
    """Return the [project] table of pyproject.toml."""
    table = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert isinstance(table, dict)
    return table


def test_changelog_begins_with_the_version_of_the_package() -> None:
    """The newest numbered entry of the changelog is the version that is installed."""
    changelog = text_of("CHANGELOG.md")
    newest = re.search(r"^## \[([0-9][^\]]*)\] - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == project()["version"]


def test_manual_page_is_of_the_version_of_the_package() -> None:
    """The man page names the version that is installed."""
    title = text_of("share/man/pop3-server.1").split("\n", 1)[0]
    assert f"netserver-pop3 {project()['version']}" in title


@pytest.mark.parametrize("what", UNWANTED)
def test_no_file_holds(what: str) -> None:
    """No file names what only one machine has, is left unfinished or is secret."""
    pattern = re.compile(UNWANTED[what].encode())
    found = [
        str(path.relative_to(ROOT)) for path in own_files() if pattern.search(path.read_bytes())
    ]
    assert found == []


@pytest.mark.parametrize("paper", ["README.md", "CONTRIBUTING.md"])
def test_make_commands_in_the_papers_exist(paper: str) -> None:
    """Every `make X` that a reader is told to type is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    told = set(re.findall(r"(?:^|`)make ([a-z]+)", text_of(paper), re.MULTILINE))
    assert told
    assert told <= targets


def test_files_that_the_readme_names_exist() -> None:
    """Every path under share/ and every upper-case file in the README is there."""
    readme = text_of("README.md")
    named = set(re.findall(r"share/[\w./-]*\w|\b[A-Z]+\.md\b", readme))
    assert "CHANGELOG.md" in named
    missing = sorted(
        name for name in named if not any((ROOT / d / name).exists() for d in ("", "share/doc"))
    )
    assert missing == []


def test_readme_shows_the_example_that_is_tested() -> None:
    """The source in the README is share/examples/notes.py, to the letter."""
    readme = text_of("README.md")
    shown = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert shown == [text_of("share/examples/notes.py")]


def test_constraints_pin_exact_releases() -> None:
    """constraints.txt has name==version on each line, each name once and in order."""
    lines = text_of("constraints.txt").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    names = [pin.partition("==")[0].lower() for pin in pins]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    assert names == sorted(set(names))


def test_licence_credits_and_holds_both_texts() -> None:
    """LICENSE names the authors of Mail::POP3 and has the two licences it offers."""
    text = text_of("LICENSE")
    for part in (
        "Mark Tiramani",
        "Ed J",
        "Mail::POP3",
        '"Artistic License"',
        "Version 1, February",
    ):
        assert part in text
    assert project()["license"] == "Artistic-1.0-Perl OR GPL-1.0-or-later"
