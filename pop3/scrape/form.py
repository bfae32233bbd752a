"""Fill in a form of a page and say what request it makes; hidden fields stay as they are."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from form2request import form2request

from pop3.scrape.errors import SiteChanged
from pop3.scrape.extract import Source, find
from pop3.scrape.fetch import Request
from pop3.scrape.page import Page
from pop3.scrape.spec import Form


def submit(form: Form, page: Page, values: Mapping[str, Any]) -> Request:
    """Return the request that submits the form. Raises SiteChanged if the form is not there."""
    source = Source.of(page)
    found = find(form.selection, source)
    node = found[0].node if found else None
    if node is None or getattr(node.root, "tag", "") != "form":
        raise SiteChanged(f"no form: {form.selection}", page)
    click: Any = form.submit
    if click is not None and click is not False:
        buttons = find(click, source)
        button = buttons[0].node if buttons else None
        if button is None or not hasattr(button.root, "tag"):
            raise SiteChanged(f"no button: {click}", page)
        click = button
    data = {name: template(values) for name, template in form.fields.items()}
    try:
        made = form2request(node, data, click=click)
    except (ValueError, NotImplementedError) as error:  # the latter: a file, a dialog
        raise SiteChanged(f"form cannot be sent: {type(error).__name__}", page) from error
    return Request(made.url, made.method, bytes(made.body), dict(made.headers))


def encoded(fields: Mapping[str, str]) -> bytes:
    """Return fields as a form sends them."""
    return urlencode(fields).encode("ascii")


def origin(url: str) -> tuple[str, str]:
    """Return what tells one site from another: scheme, and host with port."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
