"""Reading specs: what is wrong is told with file, line and key."""

from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.scrape import spec

GOOD = """\
start: https://example.org/
user: {fields: {words: }}
list:
  items: li
item:
  fields:
    title: h1
message:
  from: a@example.org
  subject: "{{ title }}"
  text: "{{ title }}"
"""


def load(tmp_path: Path, text: str) -> spec.Spec:
    """Read a spec of this text."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return spec.load(str(path))


def test_a_short_spec_has_good_defaults(tmp_path: Path) -> None:
    """Everything that is not said has a careful value."""
    made = load(tmp_path, GOOD)
    assert made.name == "x"
    assert (made.size, made.delete, made.robots) == (None, "hide", True)
    assert made.limits.page_octets == 2 * 1024 * 1024
    assert made.cache.list == 900


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("start: https://example.org/\n", "", "x.yaml: start is missing"),
        ("https://", "ftp://", "x.yaml:1: start: expected a URL of http or https"),
        ("items: li", "itms: li", "x.yaml:4: list.itms: no such key; there are empty, fields"),
        ("items: li", "items: 'li['", "x.yaml:4: list.items: no css: "),
        ("items: li", "items: {xpath: '//['}", "x.yaml:4: list.items.xpath: no xpath: "),
        ("items: li", "items: {regex: '('}", "list.items.regex: no regular expression: missing )"),
        ("items: li", "items: {jmespath: '['}", "x.yaml:4: list.items.jmespath: no jmespath: "),
        ("items: li", "items: {css: a, regex: b}", "list.items: only one of css, regex"),
        ("items: li", "items: [li]", "x.yaml:4: list.items: expected lines of the form"),
        ("title: h1", "ti-tle: h1", 'item.fields.ti-tle: "ti-tle" is no name of letters'),
        ("title: h1", "url: h1", "item.fields.url: url means something else"),
        ("title: h1", "title: {css: h1, filters: [x]}", "filters[1]: no such filter"),
        ("title: h1", "title: {css: h1, filters: [{cut: x}]}", '"x" is not a whole number'),
        ("title: h1", "title: {css: h1, filters: [{replace: [a, '\\2']}]}", "the replacement: "),
        ("title: h1", "title: {css: h1, required: maybe}", '"maybe" is not yes or no'),
        ("title: h1", "title: {from: list}", "item.fields.title: expected a selector"),
        ("title: h1", "title: {value: '{{ later }}'}", "template: no such name: later"),
        ('"{{ title }}"\n  text', '"{{ titel }}"\n  text', "x.yaml:10: message.subject: template"),
        ('  text: "{{ title }}"\n', "", "message: text or html is needed"),
        ('text: "{{ title }}"', 'text: "{% if %}"', "x.yaml:11: message.text: template: "),
        ("user:", "user : ", None),
        ("words: ", "words: {default: a, allowed: [b]}", '"a" is not one of b'),
        ("{fields", "{separator: a, fields", "is not one mark other than"),
        ("message:", "limits: {pages: 0}\nmessage:", "limits.pages: "),
        ("message:", "limits: {seconds: soon}\nmessage:", '"soon" is no time such as 90s'),
        ("message:", "limits: {octets: big}\nmessage:", '"big" is no size such as 500k'),
        ("message:", "size: padded 10\nmessage:", "padded N with N at least 1000"),
        ("message:", "addresses: [here]\nmessage:", '"here" is no network'),
        ("message:", "delete: yes\nmessage:", 'delete: "yes" is not one of hide, ignore'),
        ("message:", "postprocess: no.such:x\nmessage:", "cannot import no.such:x: ModuleNotFound"),
        ("message:", "postprocess: os:sep\nmessage:", "postprocess: os:sep is no function"),
        ("message:", "list: {items: a}\nmessage:", "list: given twice (first in line 3)"),
        ("message:", "site: &a x\nrobots: *a\nmessage:", "anchors and aliases are not supported"),
        ("message:", "site: !!python/name:os.system\nmessage:", "YAML tags are not supported"),
        ("message:", "site: [\nmessage:", "x.yaml:"),
        ("  from:", "  headers: {Content-Type: x}\n  from:", "not a header field to set"),
        ("start: https://example.org/", "start: {url: 'https://e/', headers: {Host: x}}", "to set"),
        ("item:\n", "item:\n  fetch: no\n", "x.yaml:5: item: id is missing"),
    ],
)
def test_mistakes_have_a_place(tmp_path: Path, old: str, new: str, told: str | None) -> None:
    """One line with file, line and key, and what is wrong."""
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if told is None:
        load(tmp_path, text)
        return
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "x.yaml"))


@pytest.mark.parametrize("octets", [b"", b"\xff", b"a: \x00", b"a:\n\tb", b"[" * 5000])
def test_what_is_no_yaml(tmp_path: Path, octets: bytes) -> None:
    """No file, however odd, gives more than one line."""
    (tmp_path / "x.yaml").write_bytes(octets)
    with pytest.raises(ConfigError) as caught:
        spec.load(str(tmp_path / "x.yaml"))
    assert "\n" not in str(caught.value)


def test_a_search_term_cannot_leave_its_place_in_a_url(tmp_path: Path) -> None:
    """Values are percent-encoded: no term becomes another host, path or parameter."""
    made = load(tmp_path, GOOD.replace("example.org/", "example.org/{{ user.words }}?a=1"))
    url = made.start.url({"user": {"words": "../@evil.example/?x=1&y#z \u00fc"}, "site": ""})
    assert url == "https://example.org/..%2F%40evil.example%2F%3Fx%3D1%26y%23z%20%C3%BC?a=1"


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ title.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ lipsum }}",
        "{% include '/etc/passwd' %}",
        "{{ [1].append(2) }}",
    ],
)
def test_templates_stay_in_their_sandbox(tmp_path: Path, text: str) -> None:
    """What would leave it is an error, or nothing."""
    from pop3.scrape.errors import ScrapeError  # noqa: PLC0415 - for this test alone

    try:
        made = load(tmp_path, GOOD.replace('text: "{{ title }}"', f'text: "{text}"'))
        assert made.message.text is not None
        assert made.message.text({"title": "x"}).strip() == ""
    except (ConfigError, ScrapeError):
        pass
