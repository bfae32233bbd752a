"""Make the mail message of an item, exact or of a given size."""

import posixpath
import quopri
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import unquote, urlsplit

from pop3 import wire
from pop3.compose import Attachment, compose
from pop3.scrape import filters, html_text
from pop3.scrape.fetch import Fetcher
from pop3.scrape.spec import MessageForm, Spec
from pop3.scrape.templates import Template

_TRANSFER = b"\r\nContent-Transfer-Encoding: 7bit\r\n"
_MOST_ATTACHMENTS = 20
_NAME_AND_ADDRESS = re.compile(r"(.*)<([^<>\s]+)>", re.DOTALL)
_LONGEST_SUBJECT = 200  # letters, in a padded message
_LINE = 76


@dataclass(frozen=True)
class Draft:
    """The finished fields of a message, before it is octets."""

    sender: str
    subject: str
    date: datetime
    message_id: str
    to: str | None = None
    text: str | None = None
    html: str | None = None
    headers: Mapping[str, str] | None = None
    attachments: tuple[Attachment, ...] = ()


def draft(spec: Spec, uid: str, values: Mapping[str, Any], now: datetime) -> Draft:
    """Fill the templates; `now` is the date of an item that has none. Raises ScrapeError."""
    form = spec.message
    written = _filled(form.date, values)
    html = _filled(form.html, values)
    text = _filled(form.text, values)
    if text is None and html is not None:
        text = html_text.text_of(html, links=True) + "\n"
    return Draft(
        sender=_mailbox(form.sender(values)),
        subject=form.subject(values),
        date=(filters.read_date(written) if written else None) or now,
        message_id=message_id(spec.name, uid),
        to=None if form.to is None else _mailbox(form.to(values)),
        text=text,
        html=html,
        headers=_headers(form, values),
    )


def message_id(site: str, uid: str) -> str:
    """Return the same id for the same item, for whoever reads it."""
    digest = sha256(f"{site}\0{uid}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"<{digest[:28]}@scrape.localhost>"


def _mailbox(text: str) -> str:
    """Quote the name before an address: it may be a stranger's, with any marks in it."""
    found = _NAME_AND_ADDRESS.fullmatch(text.strip())
    if found is None:
        return text
    name = found[1].strip()
    if re.fullmatch('"[^"]*"', name):
        name = name[1:-1]
    name = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{found[2]}>' if name else found[2]


def _filled(template: Template | None, values: Mapping[str, Any]) -> str | None:
    return None if template is None else template(values)


def _headers(form: MessageForm, values: Mapping[str, Any]) -> dict[str, str]:
    made = {name: template(values) for name, template in form.headers.items()}
    return {name: value for name, value in made.items() if value.strip()}


def attachments(
    spec: Spec, values: Mapping[str, Any], base: str, fetcher: Fetcher
) -> tuple[Attachment, ...]:
    """Get what the spec attaches: each template gives URLs, one a line. Raises FetchError."""
    found = []
    for template in spec.message.attachments:
        for line in template(values).split():
            page = fetcher.get(filters.join_url(base, line))
            name = posixpath.basename(unquote(urlsplit(page.url).path))
            found.append(Attachment(name, page.content_type, page.body))
            if len(found) == _MOST_ATTACHMENTS:
                return tuple(found)
    return tuple(found)


def with_attachments(made: Draft, files: tuple[Attachment, ...]) -> Draft:
    """Return the draft with files."""
    return replace(made, attachments=files)


def octets(made: Draft) -> bytes:
    """Return the message as sent, with CRLF."""
    with compose(
        subject=made.subject,
        sender=made.sender,
        date=made.date,
        text=made.text,
        html=made.html,
        to=made.to,
        message_id=made.message_id,
        headers=made.headers,
        attachments=made.attachments,
    ) as stream:
        return wire.crlf(stream.read())


def padded(made: Draft, size: int) -> bytes:
    """Return the message as plain text of exactly `size` octets: cut, or filled with blanks.

    What is a header field of the spec's own, an attachment or HTML has no place in it.
    """
    head = octets(
        Draft(
            sender=made.sender[:_LONGEST_SUBJECT],
            subject=made.subject[:_LONGEST_SUBJECT],
            date=made.date,
            message_id=made.message_id,
            to=None if made.to is None else made.to[:_LONGEST_SUBJECT],
            text="",
        )
    ).removesuffix(b"\r\n")
    head = head.replace(_TRANSFER, b"\r\nContent-Transfer-Encoding: quoted-printable\r\n")
    if len(head) > size - 2:  # letters that are long when encoded
        subject = made.subject[: _LONGEST_SUBJECT // 4]
        return padded(Draft("unknown@localhost", subject, made.date, made.message_id), size)
    text = re.sub(r"\r\n?", "\n", made.text or "").rstrip("\n") + "\n"
    text = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", " ", text)
    lines = quopri.encodestring(text[:size].encode()).replace(b"\n", b"\r\n")
    room = size - len(head)
    if len(lines) > room:
        end = lines.rfind(b"\r\n", 0, room)
        lines = lines[: end + 2] if end >= 0 else b"\r\n"
        if lines.endswith(b"=\r\n"):  # a line that would go on
            lines = lines[:-3] + b"\r\n"
    return _filled_up(head + lines, size)


def _filled_up(message: bytes, size: int) -> bytes:
    """Add lines of blanks before the last line end; trailing blanks are nothing (RFC 2045 §6.7)."""
    left = size - len(message)
    padding = b""
    while left > _LINE + 2:
        padding += b"\r\n" + b" " * _LINE
        left -= _LINE + 2
    padding += b" " if left == 1 else b"\r\n" + b" " * (left - 2) if left else b""
    return message[:-2] + padding + b"\r\n"
