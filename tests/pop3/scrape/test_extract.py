"""Finding things in pages: selectors, filters, text of HTML."""

from pathlib import Path
from typing import Any

import pytest

from pop3.scrape import filters, html_text, selection, yaml_tree
from pop3.scrape.errors import SiteChanged
from pop3.scrape.extract import Source, _sanitised, find, read_field
from pop3.scrape.page import Page
from pop3.scrape.robots import Robots

HTML = Page(
    "https://example.org/a/b",
    200,
    {"content-type": "text/html"},
    b"""<html><head><title>The title</title></head><body>
    <h1>  One &amp;
    two </h1><ul><li class=x>a</li><li>b <a href="../c">link</a></li></ul>
    <p>Price: <b>1.234,50 &euro;</b></p><!-- c --><script>var h1 = 1</script>
    <div id=bad onclick="x()"><b>ok</b><script>no</script><a href="javascript:x">y</a></div>
    </body></html>""",
)
JSON = Page(
    "https://example.org/j",
    200,
    {"content-type": "application/json"},
    b'{"a": [{"b": 1, "c": "x"}, {"b": 2, "c": null}], "d": true}',
)


def read(tmp_path: Path, text: str, page: Page = HTML) -> Any:
    """Return the value of a field that is written so."""
    path = tmp_path / "f.yaml"
    path.write_text(f"f: {text}")
    value = yaml_tree.read(str(path)).mapping()["f"]
    field = selection.read_field("f", value, ("page", "url"), ["x"])
    return read_field(field, {"page": Source.of(page), "url": page.url}, {"x": "X"}).value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("h1", "One & two"),
        ("title", "The title"),
        ("li", "a"),
        ("{css: li, all: true}", ["a", "b link"]),
        ("{css: li, all: true, join: ', '}", "a, b link"),
        ("{css: 'li:not(.x) a::attr(href)', filters: [absolute]}", "https://example.org/c"),
        ("{xpath: 'string(//h1)'}", "One & two"),
        ("{xpath: 'count(//li)'}", "2.0"),
        ("{regex: 'Price: <b>([^<]*)', filters: [unescape]}", "1.234,50 \u20ac"),
        ("{css: b, filters: [{regex: '[0-9.,]+'}, {replace: ['[.]', '']}]}", "1234,50"),
        ("{from: url, filters: [{after: 'org/'}, upper]}", "A/B"),
        ("{value: '{{ x }}{{ x }}'}", "XX"),
        ("{css: h6, default: none}", "none"),
        ("{css: h6}", ""),
        ("{css: h1, filters: [{cut: 5}, {suffix: '!'}, {prefix: '>'}]}", ">One\u2026!"),
        ("{css: '#bad', html: true}", '<div><b>ok</b><a rel="noopener noreferrer">y</a></div>'),
        ("{css: '#bad'}", "oky"),
        ("{jmespath: a}", None),
    ],
)
def test_fields_of_html(tmp_path: Path, text: str, value: Any) -> None:
    """Every kind of selector and filter; what does not fit the page is a change of the site."""
    if value is None:
        with pytest.raises(SiteChanged):
            read(tmp_path, text)
    else:
        assert read(tmp_path, text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{jmespath: 'a[0].c'}", "x"),
        ("{jmespath: 'a[].b', all: true}", ["1", "2"]),
        ("{jmespath: 'a[1].c'}", ""),
        ("{jmespath: d}", "true"),
        ("{jmespath: 'length(a)'}", "2"),
        ("{jmespath: 'length(d)'}", None),
        ("{css: h1}", ""),
    ],
)
def test_fields_of_json(tmp_path: Path, text: str, value: Any) -> None:
    """JMESPath finds texts, numbers and nothing; CSS finds nothing in JSON."""
    if value is None:
        with pytest.raises(SiteChanged):
            read(tmp_path, text, JSON)
    else:
        assert read(tmp_path, text, JSON) == value


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b'{"a":', b"\xff\xfe", b"1" * 10_000])
def test_odd_json_is_a_change(tmp_path: Path, body: bytes) -> None:
    """Whatever a site sends as JSON, nothing but SiteChanged comes of it."""
    with pytest.raises(SiteChanged):
        read(tmp_path, "{jmespath: a.b}", Page("https://e/", 200, JSON.headers, body))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\0", b"<", b"<!DOCTYPE x [<!ENTITY a 'aa'>]>&a;", b"<div>" * 50_000),
        *(b"<a " * 20_000, "\ud800".encode("utf-8", "surrogatepass"), b"<?x ?><!-->", b"\xff" * 99),
    ],
)
def test_odd_html_is_a_page(tmp_path: Path, body: bytes) -> None:
    """Whatever a site sends as HTML, it is parsed, and its text is found without recursion."""
    page = Page("https://e/", 200, HTML.headers, body)
    assert isinstance(read(tmp_path, "body", page), str)
    for one in find(selection.Selection("css", "*", 1, "//*"), Source.of(page))[:50]:
        assert isinstance(one.text, str)


def test_text_of_html_is_readable() -> None:
    """Blocks make lines, lists marks, links their targets; what is not for people goes."""
    text = html_text.text_of(
        "<style>x</style><h1>Head</h1><p>A  <b>bold</b>\nword.<br>Next</p><ul><li>one<li>two</ul>"
        "<pre>a\nb</pre><table><tr><td>1<td>2</table><a href='https://e/'>here</a>"
        "<a href='https://e/'>https://e/</a><!-- no -->tail",
        links=True,
    )
    assert text == (
        "Head\n\nA bold word.\nNext\n\n* one\n* two\n\na\nb\n\n1 2\n\n"
        "here <https://e/>https://e/tail"
    )


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-11-25", "2026-11-25T00:00:00+00:00"),
        ("2026-11-25T10:00:00Z", "2026-11-25T10:00:00+00:00"),
        ("Wed, 25 Nov 2026 10:00:00 +0100", "2026-11-25T10:00:00+01:00"),
        ("1764064800", "2025-11-25T10:00:00+00:00"),
        ("25.11.2026", "2026-11-25T00:00:00+00:00"),
        ("99999999999999999", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00+23:00", None),
        ("", None),
    ],
)
def test_dates(text: str, iso: str | None) -> None:
    """Dates in the common forms and in one of the spec's; what is none is none."""
    found = filters.read_date(text, ["%d.%m.%Y"])
    assert (found.isoformat() if found else None) == iso


def test_robots_rules() -> None:
    """RFC 9309: groups, the longest match, wildcards, our own group before all others."""
    text = (
        "# all\nUser-agent: *\nDisallow: /\n\nUser-Agent: other\nUser-agent: netserver-pop3\n"
        "Disallow: /a\nAllow: /a/b\nDisallow: /*.pdf$\nDisallow: /x*y*z\nCrawl-delay: 2\n"
    )
    robots = Robots(text, "netserver-pop3/1.0")
    allowed = {
        path: robots.allows(path)
        for path in ("/", "/a", "/a/b/c", "/f.pdf", "/f.pdfs", "/x1y2z3", "/xzy", "/ab")
    }
    assert allowed == {
        "/": True,
        "/a": False,
        "/a/b/c": True,
        "/f.pdf": False,
        "/f.pdfs": True,
        "/x1y2z3": False,
        "/xzy": True,
        "/ab": False,
    }
    assert robots.delay == 2
    assert not Robots(text, "else").allows("/a/b")
    assert Robots("", "else").allows("/")
    assert Robots("Disallow: /" + "*a" * 5000, "x").allows("/" + "a" * 5000)


def test_deep_html_is_made_flat_before_it_is_cleaned() -> None:
    """100,000 open elements would keep the sanitiser busy for half a minute."""
    deep = "<div>" * 100_000 + "text<script>x</script>"
    cleaned = str(_sanitised(deep))
    assert cleaned.count("<div>") < 1000
    assert "script" not in cleaned
