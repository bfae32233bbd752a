"""The arguments of the old webscrape become a spec that can be read."""

from pathlib import Path

import pytest

from pop3.scrape import spec
from pop3.tools import update_conf
from pop3.tools.old_scrape import NoSpec, spec_text
from pop3.tools.perl_data import Code, read

FILES = Path(__file__).parents[3] / "tests/data/mail-pop3"


def test_a_configuration_gives_a_spec(tmp_path: Path) -> None:
    """Every part has its place; what was code is marked."""
    new = tmp_path / "new.yaml"
    assert update_conf.main([str(FILES / "scrape.conf"), "-o", str(new)]) == 1
    path = tmp_path / "new.scrape.yaml"
    assert f'scrape: ["site={path}"]' in new.read_text()
    made = spec.load(str(path))
    assert made.user.read("perl:Berlin") == {"words": "perl", "place": "Berlin"}
    assert made.start.url({"user": {}, "site": ""}) == "http://jobs.example/search"
    assert made.form is not None
    values = {"user": {"words": "perl", "place": "x"}, "site": ""}
    filled = {name: template(values) for name, template in made.form.fields.items()}
    assert filled == {"words": "perl", "place": "x", "age": "7", "order": ""}
    assert str(made.listing.items) == 'regex: href="(/job/[^"]*)"'
    assert str(made.listing.page) == "regex: page ([0-9]+)"
    assert "by hand: 'title' was code in line" in path.read_text()
    before = path.read_text()
    assert update_conf.main([str(FILES / "scrape.conf"), "-o", str(new)]) == 1
    assert path.read_text() == before


def test_a_full_set_of_arguments(tmp_path: Path) -> None:
    """All nine of them, with names that are none here and patterns that are Perl's alone."""
    code = Code(9)
    value = [
        "https://x.example/",
        ["ctl00$key", "url"],
        {"ctl00$key": "no", "a": "{{ b }}\n", "c": code, "d": None},
        {"itemurls": "(?{x})", "num_pages": code, "nextlink": "n=(.)", "pageno": "p"},
        {"Job title": "<b>(.*?)</b>", "id": "i=(.)", "bad": "(", "1": code},
        {"x": code},
        code,
        code,
        "800",
    ]
    path = tmp_path / "x.yaml"
    path.write_text(spec_text(value, "old.conf"))
    made = spec.load(str(path))
    assert made.size == 1000
    assert made.form is not None
    assert made.form.fields["a"]({}) == "{{ b }}\n"
    assert [one.name for one in made.user.fields] == ["ctl00_key", "url_"]
    assert [one.name for one in made.item.fields] == ["Job_title", "id_", "bad", "f_1"]
    assert path.read_text().count("by hand") >= 7


@pytest.mark.parametrize("value", [None, "x", [], [None], ["ftp://x"], ["x"], {}, [Code(1)]])
def test_what_is_no_site(value: object) -> None:
    """No spec is made of anything else."""
    with pytest.raises(NoSpec):
        spec_text(value, "x")  # type: ignore[arg-type] # on purpose


def test_nothing_in_an_old_file_becomes_a_template(tmp_path: Path) -> None:
    """Braces in an old value are braces here."""
    octets = b"{ mailbox_class => 'X::Folder::webscrape', mailbox_args => ['http://h/{{1}}'], }"
    (tmp_path / "old.conf").write_bytes(octets)
    assert read(octets).items["mailbox_args"].value == ["http://h/{{1}}"]
    assert update_conf.main([str(tmp_path / "old.conf"), "-o", str(tmp_path / "n.yaml")]) == 1
    assert spec.load(str(tmp_path / "n.scrape.yaml")).start.url({}) == "http://h/%7B%7B1}}"
