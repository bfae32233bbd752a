"""Make a scrape spec of the arguments that Mail::POP3's webscrape had.

In their order: starturl, userfieldnames, otherfields, listre, itemre, itempostpro, itemurl2id,
itemformat, messagesize. Code among them cannot be read as data; it is marked to be done by hand.
"""

import re
from collections.abc import Iterator

import yaml

from pop3.tools.perl_data import Code, Value

_LEAST = 1000  # octets of a padded message here
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_TAKEN = frozenset({"user", "url", "id", "site", "page", "fields"})
_LIST_KEYS = (("itemurls", "items"), ("pageno", "page"), ("num_pages", "pages"))


class NoSpec(ValueError):
    """The arguments are not those of a site."""


def spec_text(value: Value, where: str) -> str:
    """Return the spec as YAML text; `where` names the old file. Raises NoSpec."""
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise NoSpec("no list that begins with the start URL")
    given: list[Value] = [*value, *[None] * 9][:9]
    start, users, others, lists, items, postpro, url2id, form, size = given
    if not isinstance(start, str) or not re.match(r"https?://[^/\s]", start):
        raise NoSpec("the start URL is none of http or https")
    fields = list(_item_fields(items))
    lines = [
        f"# Made by pop3-update-conf from {where}.",
        '# Where it says "by hand" the old file had code, which was not run.',
        f"start: {_literal(start)}",
        *_user(users),
        *_form(users, others),
        *_list(lists),
        "item:",
        *_by_hand("id", url2id, "itemurl2id"),
        *_by_hand("filters of the fields", postpro, "itempostpro"),
        "  fields:",
        *[f"    {name}: {rule}" for name, rule in fields],
        *([] if fields else ["    title: title  # by hand: itemre had no fields"]),
        *_message([name for name, _ in fields] or ["title"], form),
    ]
    if isinstance(size, str) and size.isascii() and size.isdigit() and int(size):
        lines.append(f"size: padded {max(int(size), _LEAST)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    made: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))
    return made.rstrip("\n")


def _literal(text: str) -> str:
    """Quote a text for where a template is read: it is none."""
    return _quoted(text.replace("{", "{{ '{' }}"))


def _field_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text)[-60:].strip("_") or "field"
    name = name if _NAME.fullmatch(name) else f"f_{name}"
    return f"{name}_" if name in _TAKEN else name


def _names(users: Value) -> list[str]:
    return [one for one in users if isinstance(one, str)] if isinstance(users, list) else []


def _user(users: Value) -> Iterator[str]:
    if names := _names(users):
        yield "user:"
        yield "  fields:"
        yield from (
            f'    {name}: {{default: ""}}' for name in dict.fromkeys(map(_field_name, names))
        )


def _form(users: Value, others: Value) -> Iterator[str]:
    if not _names(users) and not others:
        return
    yield "form:"
    yield "  css: form"
    yield "  fields:"
    for name in _names(users):
        yield f'    {_quoted(name)}: "{{{{ user.{_field_name(name)} }}}}"'
    for name, value in others.items() if isinstance(others, dict) else ():
        if name in _names(users):
            continue
        if isinstance(value, str):
            yield f"    {_quoted(name)}: {_literal(value)}"
        elif isinstance(value, Code):
            yield f"    # by hand: {name!r}: code in line {value.line}"
        else:
            yield f'    {_quoted(name)}: ""'
    if not _names(users) and not isinstance(others, dict):
        yield "    {}"


def _pattern(value: Value) -> str | None:
    """Return a selector of a pattern that Python's re takes as well."""
    if not isinstance(value, str):
        return None
    try:
        re.compile(value)
    except re.error:
        return None
    return f"{{regex: {_quoted(value)}}}"


def _list(lists: Value) -> Iterator[str]:
    found = lists if isinstance(lists, dict) else {}
    yield "list:"
    for old, new in (*_LIST_KEYS, ("nextlink", "next")):
        rule = _pattern(found.get(old))
        if rule is not None:
            yield f"  {new}: {rule}"
        elif new == "items":
            yield f"  items: a  # by hand: {_was(old, found.get(old))}"
        elif old in found:
            yield f"  # by hand: {new}: {_was(old, found[old])}"


def _was(name: str, value: Value) -> str:
    if isinstance(value, Code):
        return f"{name} was code in line {value.line}"
    return f"{name} is no pattern that is understood here"


def _item_fields(items: Value) -> Iterator[tuple[str, str]]:
    seen = set()
    for old, value in items.items() if isinstance(items, dict) else ():
        name = _field_name(old)
        if name in seen:
            continue
        seen.add(name)
        rule = _pattern(value)
        yield name, rule or f"title  # by hand: {_was(repr(old), value)}"


def _by_hand(what: str, value: Value, name: str) -> Iterator[str]:
    if value not in (None, {}, []):
        line = f" in line {value.line}" if isinstance(value, Code) else ""
        yield f"  # by hand: {what}: see {name}{line}"


def _message(names: list[str], form: Value) -> Iterator[str]:
    subject = next((name for name in names if "title" in name.lower()), names[0])
    yield "message:"
    yield from _by_hand("the message", form, "itemformat")
    yield '  from: "{{ site }} <scrape@localhost>"'
    yield f'  subject: "{{{{ {subject} }}}}"'
    yield "  text: |"
    yield from (f"    {name}: {{{{ {name} }}}}" for name in names)
    yield ""
    yield "    {{ url }}"
