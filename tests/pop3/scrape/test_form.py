"""Filling in forms: odd ones are a change of the site, whatever is odd about them."""

import random
from pathlib import Path

import pytest

from pop3.scrape import selection, yaml_tree
from pop3.scrape.errors import SiteChanged
from pop3.scrape.fetch import Request
from pop3.scrape.form import submit
from pop3.scrape.page import Page
from pop3.scrape.selection import Selection
from pop3.scrape.spec import Form

PARTS = [
    "<input name=a>",
    "<input name=a type=checkbox checked>",
    "<input name=b type=radio>",
    "<input name=c type=file>",
    "<input type=image name=d>",
    "<input name=>",
    "<input name=e value>",
    "<select name=f>",
    "<select name=g multiple><option selected>1<option>2</select>",
    "<option value=3>",
    "</select>",
    "<textarea name=h>text",
    "</textarea>",
    "<button name=i formmethod=dialog>",
    "<button name=j formaction='http://[bad'>",
    "<button formenctype=multipart/form-data>",
    "<label><fieldset disabled>",
    "<form action=/inner>",
    "</form>",
    "<!-- x -->",
]
OPENINGS = [
    "<form>",
    "<form action>",
    "<form method=post enctype=multipart/form-data>",
    "<form method=dialog>",
    "<form method=PUT action=' /x '>",
    "<form method=post action='http://[::1'>",
    "<form action=javascript:x()>",
]


def chosen(directory: Path, text: str) -> Selection:
    """Return a selector that is written so."""
    path = directory / "f.yaml"
    path.write_text(f"f: {text}")
    value = yaml_tree.read(str(path)).mapping()["f"]
    found = selection.read_field("f", value, ("page", "url"), []).selection
    assert found is not None
    return found


def page(html: str) -> Page:
    """Return a page with this text."""
    return Page("https://example.org/", 200, {"content-type": "text/html"}, html.encode())


def test_any_form_is_a_request_or_a_change(tmp_path: Path) -> None:
    """No other error comes out of it: the library's own, for what it cannot do, included."""
    form, button = chosen(tmp_path, "form"), chosen(tmp_path, "button")
    rng = random.Random(7)
    sent = refused = 0
    for _ in range(2000):
        html = rng.choice(OPENINGS) + "".join(rng.choices(PARTS, k=rng.randrange(8)))
        try:
            made = submit(Form(form, {}, rng.choice([None, False, button])), page(html), {})
        except SiteChanged:
            refused += 1
        else:
            assert isinstance(made, Request)
            sent += 1
    assert sent > 100
    assert refused > 100


@pytest.mark.parametrize("text", ["'input::attr(name)'", "{xpath: '//form/text()'}", "h6"])
def test_a_button_is_an_element(tmp_path: Path, text: str) -> None:
    """A selector for something else finds no button."""
    html = page("<form>text<input name=a type=submit></form>")
    with pytest.raises(SiteChanged, match="no button"):
        submit(Form(chosen(tmp_path, "form"), {}, chosen(tmp_path, text)), html, {})
