"""Make a mail message of fields (RFC 5322), for sources whose items are no mail.

The fields may come from strangers: no value can start a new header line, lines have at most 78
octets, and the same fields always give the same octets, as a unique id promises. Header lines are
made here and not by `email.message`, which decodes encoded words in what it is given and so lets
"=?utf-8?q?=0D=0ABcc:…?=" through as a line of its own (seen in Python 3.11).
"""

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from hashlib import sha256
from io import BytesIO
from types import ModuleType
from typing import BinaryIO, NamedTuple

# C0 and C1 controls (NEL is one), LS, PS and half surrogate pairs
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_UNSAFE_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FIELD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,40}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,30}@[!-;=?-~]{1,30}>")
_LOCALPART = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*", re.ASCII)
_DOMAIN = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)
_ATOMS = re.compile(r"[\w !#$%&'*+/=?^`{|}~-]+", re.ASCII)
_LINE = 78
_ENCODED_WORD = 66  # beside "Subject: " on one line
_LONGEST_WORD = 60
_LONGEST_ADDRESS = 70
_LONGEST_VALUE = 4000
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,40}/[A-Za-z0-9][A-Za-z0-9.+-]{0,40}")
_UNKNOWN_TYPE = "application/octet-stream"
_UNSAFE_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 60
_OURS = frozenset(("subject", "from", "to", "date", "message-id", "mime-version"))


class Attachment(NamedTuple):
    """A file to go with a message: its name, its media type, its octets."""

    name: str
    kind: str
    content: bytes


def compose(
    *,
    subject: str,
    sender: str,
    date: float | datetime,
    text: str | None = None,
    html: str | None = None,
    to: str | None = None,
    message_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    attachments: Sequence[Attachment] = (),
) -> BinaryIO:
    """Return a message to read from.

    `sender` and `to` are "Name <user@domain>" or just one of the two; `date` is in seconds since
    1970 or a datetime (without a zone: UTC). With `text` and `html` it is multipart/alternative,
    with `attachments` multipart/mixed. A missing or unusable `message_id` is derived from the
    contents. Raises ValueError for a name in `headers` that is no field name, or that this function
    sets itself.
    """
    fields = [("Date", _date(date)), ("From", _address(sender))]
    if to is not None:
        fields.append(("To", _address(to)))
    fields.append(("Subject", _value(subject)))
    for name, value in (headers or {}).items():
        if not is_settable(name):
            raise ValueError(f"not a header field to set: {name!r}")
        fields.append((name, _value(value)))
    head = "".join([_field(name, value) for name, value in fields]).encode("ascii")
    body = _body(text, html)
    for attachment in attachments:
        _attach(body, attachment)
    containers = [part for part in body.walk() if part.is_multipart()]
    for number, part in enumerate(containers):
        part.set_boundary(f"={number or ''}")  # a random one would be in the digest
    digest = sha256(head + body.as_bytes()).hexdigest()
    for number, part in enumerate(containers):
        # no boundary may be how another one begins (RFC 2046 §5.1.2)
        part.set_boundary(f"={number or ''}{'.' if number else ''}{digest[:40]}")
    if message_id is None or not _MESSAGE_ID.fullmatch(message_id):
        message_id = f"<{digest[:32]}@localhost>"
    return BytesIO(head + f"Message-ID: {message_id}\r\n".encode("ascii") + body.as_bytes())


def is_settable(name: str) -> bool:
    """Tell whether `headers` of `compose` may name a field: not what this module sets itself."""
    lower = name.lower()
    ours = lower in _OURS or lower.startswith("content-")
    return _FIELD_NAME.fullmatch(name) is not None and not ours


def _attach(body: EmailMessage, attachment: Attachment) -> None:
    """Add a file; of a name or type that is a stranger's only plain letters come through."""
    kind = attachment.kind.lower() if _MEDIA_TYPE.fullmatch(attachment.kind) else _UNKNOWN_TYPE
    if kind.partition("/")[0] in ("multipart", "message"):
        kind = _UNKNOWN_TYPE  # the octets are encoded, as these may not be
    maintype, _, subtype = kind.partition("/")
    name = _UNSAFE_NAME.sub("_", attachment.name)[-_LONGEST_NAME:].strip("._") or "attachment"
    body.add_attachment(attachment.content, maintype=maintype, subtype=subtype, filename=name)


def _date(date: float | datetime) -> str:
    moment = date if isinstance(date, datetime) else datetime.fromtimestamp(date, UTC)
    offset = moment.utcoffset()
    if offset is not None and offset.seconds % 60:  # a zone has hours and minutes (RFC 5322 §3.3)
        moment = moment.astimezone(UTC)
    return format_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _body(text: str | None, html: str | None) -> EmailMessage:
    """Make the body with its own header fields, none of which holds anything of a stranger's."""
    body = EmailMessage(policy=SMTP)
    if html is None:
        body.set_content(_text(text or ""), charset="utf-8")
    elif text is None:
        body.set_content(_text(html), subtype="html", charset="utf-8")
    else:
        body.set_content(_text(text), charset="utf-8")
        body.add_alternative(_text(html), subtype="html", charset="utf-8")
    return body


def _text(text: str) -> str:
    return _UNSAFE_TEXT.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))


def _clean(value: str) -> str:
    return " ".join(_UNSAFE.sub(" ", value)[:_LONGEST_VALUE].split())


def _is_plain(value: str) -> bool:
    """Tell whether a value can stand as it is: ASCII, foldable, nothing that looks encoded."""
    return (
        value.isascii()
        and "=?" not in value
        and all(len(word) <= _LONGEST_WORD for word in value.split(" "))
    )


def _value(value: str) -> str:
    value = _clean(value)
    return value if _is_plain(value) else _encoded(value)


def _encoded(value: str) -> str:
    """Encode all of a value (RFC 2047), in words that fit a line of their own."""
    return Header(value, "utf-8", maxlinelen=_ENCODED_WORD).encode(linesep="").replace("\t", " ")


def _field(name: str, value: str) -> str:
    lines = [f"{name}:"]
    for word in value.split(" "):
        if len(lines[-1]) + 1 + len(word) > _LINE:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines) + "\r\n"


def _address(value: str) -> str:
    """Read one address; what cannot be one becomes a name beside an address that goes nowhere."""
    name, address = parseaddr(_UNSAFE.sub(" ", value)[:_LONGEST_VALUE])
    localpart, _, domain = address.rpartition("@")
    if (
        len(address) > _LONGEST_ADDRESS
        or not _LOCALPART.fullmatch(localpart)
        or not _DOMAIN.fullmatch(domain)
    ):
        name, address = value, "unknown@localhost"
    name = _clean(name)
    if not name:
        return address
    if not _is_plain(name):
        name = _encoded(name)
    elif not _ATOMS.fullmatch(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{name} <{address}>"


class _CallableModule(ModuleType):
    """This module, called like its function.

    `from pop3 import compose` finds the function or, once this module has been imported under its
    own name, the module: both must work.
    """

    __call__ = staticmethod(compose)


sys.modules[__name__].__class__ = _CallableModule
