"""The specs that ship: against the schema, their saved pages and the messages expected of them."""

import json
import shutil
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import jsonschema
import pytest
import yaml

from netserver.errors import ConfigError
from pop3.scrape import filters, regression, selection, spec, spec_parts
from tests.support.servers import ROOT

SCRAPES = ROOT / "share" / "scrapes"
SPECS = sorted(SCRAPES.glob("*.yaml"))
SCHEMA = json.loads((SCRAPES / "schema.json").read_text())


def test_there_are_specs() -> None:
    """None of the tests below is empty."""
    assert {path.stem for path in SPECS} >= {"jobserve", "job-board", "issue-tracker", "json-api"}
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_does_what_is_expected(path: Path) -> None:
    """Its saved pages give exactly the expected messages."""
    assert regression.check(path, path.with_suffix("")) == []
    jsonschema.validate(yaml.safe_load(path.read_text()), SCHEMA)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_messages_are_mail(path: Path) -> None:
    """Every message parses without defects, in all its parts, and has short lines."""
    for octets in regression.messages(path, path.with_suffix("")).values():
        assert octets.count(b"\n") == octets.count(b"\r\n")
        assert max(map(len, octets.split(b"\r\n"))) <= 78
        message = message_from_bytes(octets, policy=default)
        assert not [defect for part in message.walk() for defect in part.defects]
        assert message["From"].addresses
        assert message["Date"].datetime
        assert not {"Bcc", "X-Evil"} & set(message.keys())
        names = [name.lower() for name in message.keys()]  # noqa: SIM118 - fields, not a dict
        assert len(set(names)) == len(names)


def test_a_change_is_told(tmp_path: Path) -> None:
    """A page that has changed shows as a diff of the message that comes of it."""
    copy = tmp_path / "job-board"
    shutil.copytree(SCRAPES / "job-board", copy)
    page = copy / "pages" / "job-95.html"
    page.write_text(page.read_text().replace("Break what", "Mend what"))
    lines = regression.check(SCRAPES / "job-board.yaml", copy)
    assert "-Break what others built." in lines
    assert "+Mend what others built." in lines
    assert regression.write_expected(SCRAPES / "job-board.yaml", copy)
    assert regression.check(SCRAPES / "job-board.yaml", copy) == []
    (copy / "test.yaml").write_text("user: a:b:c\n")
    with pytest.raises(ConfigError, match=r"test\.yaml:1: user: more than 2 fields"):
        regression.check(SCRAPES / "job-board.yaml", copy)


def test_the_schema_knows_what_the_reader_knows() -> None:
    """Neither has a key that the other has not."""
    properties = SCHEMA["properties"]
    assert set(properties) == spec._KEYS
    assert set(properties["limits"]["properties"]) == {
        *(*spec_parts._SECONDS, *spec_parts._OCTETS, *spec_parts._COUNTS, "pages", "items")
    }
    field = SCHEMA["$defs"]["field"]["anyOf"][1]["properties"]
    assert set(field) == selection._FIELD_KEYS
    names, mapping = SCHEMA["$defs"]["filter"]["anyOf"]
    assert {*names["enum"], *mapping["properties"]} == filters.NAMES


def test_the_documents_show_specs_that_work(tmp_path: Path) -> None:
    """The smallest spec of the manual is one."""
    text = (ROOT / "share" / "doc" / "scrape-spec.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "x.yaml").write_text(example)
    assert [one.name for one in spec.load(str(tmp_path / "x.yaml")).item.fields] == [
        "title",
        "text",
    ]
    jsonschema.validate(yaml.safe_load(example), SCHEMA)
    for name in filters.NAMES | spec._KEYS | set(SCHEMA["properties"]["limits"]["properties"]):
        assert f"`{name}" in text, name
