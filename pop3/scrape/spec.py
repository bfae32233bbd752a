"""What a spec file says about one site (share/doc/scrape-spec.md), checked and compiled."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netserver.errors import ConfigError
from pop3.scrape import spec_parts as parts
from pop3.scrape import templates, yaml_tree
from pop3.scrape.addresses import AddressPolicy
from pop3.scrape.fetch import FetchLimits
from pop3.scrape.selection import Field, Selection
from pop3.scrape.templates import Template
from pop3.scrape.user import UserRules
from pop3.scrape.yaml_tree import Value

DAY = 86400.0


@dataclass(frozen=True)
class Start:
    """The first request: a form (`form`), JSON (`json`) or neither makes its body."""

    url: Template
    method: str = "GET"
    form: Mapping[str, Template] = field(default_factory=dict)
    json: Template | None = None
    headers: Mapping[str, Template] = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """The form on the start page; `submit` is its button, False: none, None: the first."""

    selection: Selection
    fields: Mapping[str, Template]
    submit: Selection | bool | None = None


@dataclass(frozen=True)
class Listing:
    """Pages that list items; `link` is None where the item itself is or holds the link."""

    items: Selection
    link: Field | None = None
    fields: tuple[Field, ...] = ()
    page: Selection | None = None
    pages: Selection | None = None
    next: Selection | None = None
    next_url: Template | None = None
    empty: Selection | None = None


@dataclass(frozen=True)
class Item:
    """One item: `fetch` says whether it has a page of its own, `url` where if not at the link."""

    id: Field | None = None
    fetch: bool = True
    url: Template | None = None
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True)
class MessageForm:
    """The templates of a message; of `text` and `html` one is there at least."""

    sender: Template
    subject: Template
    to: Template | None = None
    date: Template | None = None
    text: Template | None = None
    html: Template | None = None
    headers: Mapping[str, Template] = field(default_factory=dict)
    attachments: tuple[Template, ...] = ()


@dataclass(frozen=True)
class Cache:
    """How long (seconds) things are good.

    `list`: a list counts as fresh; `keep`: an item that is listed no more stays; `refresh`: a
    mailbox that nobody opens is still looked after in the background.
    """

    list: float = 900.0
    keep: float = 30 * DAY
    refresh: float = 7 * DAY


@dataclass(frozen=True)
class Spec:
    """A whole spec. `size` is the N of "padded N", None for exact sizes."""

    name: str
    file: str
    start: Start
    listing: Listing
    item: Item
    message: MessageForm
    user: UserRules = field(default_factory=UserRules)
    form: Form | None = None
    limits: FetchLimits = field(default_factory=FetchLimits)
    most_pages: int = 20
    most_items: int = 500
    cache: Cache = field(default_factory=Cache)
    size: int | None = None
    delete: str = "hide"
    robots: bool = True
    policy: AddressPolicy = field(default_factory=AddressPolicy)
    postprocess: Callable[..., Any] | None = None

    @property
    def required(self) -> list[Field]:
        """The fields that a sound item has."""
        return [one for one in (*self.listing.fields, *self.item.fields) if one.required]


_KEYS = frozenset(
    [
        *("site", "start", "user", "form", "list", "item", "message", "limits", "cache"),
        *("size", "delete", "robots", "addresses", "postprocess"),
    ]
)
_ALWAYS = ["user", "url", "id", "site"]


def load(path: str) -> Spec:
    """Read a spec. Raises ConfigError: one line with file, line and key."""
    top = yaml_tree.read(path)
    keys = top.mapping(_KEYS)
    for key in ("start", "list", "item", "message"):
        if key not in keys:
            raise ConfigError(f"{path}: {key} is missing")
    user = parts.user_rules(keys.get("user"))
    of_user = ["user", "site"]
    start, port = _start(keys["start"], of_user)
    listing = _listing(keys["list"], of_user)
    item = _item(keys["item"], listing)
    names = [one.name for one in (*listing.fields, *item.fields)]
    return Spec(
        name=keys["site"].string() if "site" in keys else _stem(path),
        file=path,
        start=start,
        user=user,
        form=_form(keys["form"], of_user) if "form" in keys else None,
        listing=listing,
        item=item,
        message=_message(keys["message"], _ALWAYS + names),
        **parts.limits(keys.get("limits")),
        cache=_cache(keys.get("cache")),
        size=parts.size(keys.get("size")),
        delete=keys["delete"].choice("hide", "ignore") if "delete" in keys else "hide",
        robots="robots" not in keys or keys["robots"].choice("respect", "ignore") == "respect",
        policy=parts.policy(keys.get("addresses"), port),
        postprocess=parts.hook(keys["postprocess"]) if "postprocess" in keys else None,
    )


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _start(value: Value, names: list[str]) -> tuple[Start, int | None]:
    """Read `start`; also the port its URL names."""
    if value.keys is None:
        return Start(templates.read(value, "url", names)), parts.port_of(value)
    keys = value.mapping({"url", "method", "form", "json", "headers"})
    if "url" not in keys:
        value.fail("url is missing")
    if "form" in keys and "json" in keys:
        value.fail("only one of form, json")
    method = keys["method"].choice("GET", "POST") if "method" in keys else None
    has_body = bool({"form", "json"} & set(keys))
    if method == "GET" and has_body:
        value.fail("a GET has neither form nor json")
    start = Start(
        templates.read(keys["url"], "url", names),
        method or ("POST" if has_body else "GET"),
        parts.template_map(keys.get("form"), "text", names),
        templates.read(keys["json"], "text", names) if "json" in keys else None,
        parts.template_map(keys.get("headers"), "text", names, header=True),
    )
    return start, parts.port_of(keys["url"])


def _form(value: Value, names: list[str]) -> Form:
    keys = value.mapping({*parts.KINDS, "fields", "submit"})
    selection = parts.read_selection(value, keys)
    if selection is None:
        value.fail("expected a selector of the form")
    submit: Selection | bool | None = None
    if "submit" in keys:
        wants_none = keys["submit"].text is not None and keys["submit"].string() == "none"
        submit = False if wants_none else parts.need_selection(keys["submit"])
    return Form(selection, parts.template_map(keys.get("fields"), "text", names), submit)


def _listing(value: Value, names: list[str]) -> Listing:
    keys = value.mapping({"items", "link", "fields", "page", "pages", "next", "empty"})
    if "items" not in keys:
        value.fail("items is missing")
    following = keys.get("next")
    is_url = following is not None and following.keys is not None and "url" in following.keys
    chosen = {
        key: parts.need_selection(keys[key]) for key in ("page", "pages", "empty") if key in keys
    }
    return Listing(
        items=parts.need_selection(keys["items"]),
        link=parts.read_field("link", keys["link"], ("list",), names) if "link" in keys else None,
        fields=parts.fields(keys.get("fields"), ("list", "url"), names),
        page=chosen.get("page"),
        pages=chosen.get("pages"),
        next=parts.need_selection(following) if following is not None and not is_url else None,
        next_url=_next_url(following, names) if following is not None and is_url else None,
        empty=chosen.get("empty"),
    )


def _next_url(value: Value, names: list[str]) -> Template:
    return templates.read(value.mapping({"url"})["url"], "url", [*names, "page"])


def _item(value: Value, listing: Listing) -> Item:
    keys = value.mapping({"id", "fetch", "url", "fields"})
    fetch = "fetch" not in keys or keys["fetch"].boolean()
    listed = [one.name for one in listing.fields]
    names = ["user", "site", "url", *listed]
    sources = ("page", "list", "url") if fetch else ("list", "url")
    fields = parts.fields(keys.get("fields"), sources, names)
    for one in fields:
        if one.name in listed:
            keys["fields"].fail(f"{one.name} is a field of the list already")
    identity = parts.read_field("id", keys["id"], ("url", "list"), names) if "id" in keys else None
    if identity is None and not fetch:
        value.fail("id is missing: items without a page need one")
    return Item(
        id=identity,
        fetch=fetch,
        url=templates.read(keys["url"], "url", names) if "url" in keys else None,
        fields=fields,
    )


def _message(value: Value, names: list[str]) -> MessageForm:
    keys = value.mapping(
        {"from", "to", "subject", "date", "text", "html", "headers", "attachments"}
    )
    for key in ("from", "subject"):
        if key not in keys:
            value.fail(f"{key} is missing")
    if not {"text", "html"} & set(keys):
        value.fail("text or html is needed")

    def made(key: str, kind: str = "text") -> Template | None:
        return templates.read(keys[key], kind, names) if key in keys else None

    sender, subject = made("from"), made("subject")
    assert sender is not None
    assert subject is not None
    attached = keys["attachments"].sequence() if "attachments" in keys else []
    return MessageForm(
        sender=sender,
        subject=subject,
        to=made("to"),
        date=made("date"),
        text=made("text"),
        html=made("html", "html"),
        headers=parts.message_headers(keys.get("headers"), names),
        attachments=tuple(templates.read(one, "text", names) for one in attached),
    )


def _cache(value: Value | None) -> Cache:
    if value is None:
        return Cache()
    keys = value.mapping({"list", "keep", "refresh"})
    return Cache(**{key: one.seconds() for key, one in keys.items()})
