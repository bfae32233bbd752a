"""What each key of a Mail::POP3 configuration is for pop3-server."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import yaml

from netserver.declarations import Origin, options_of
from netserver.errors import ConfigError
from pop3.sources.maildir import MaildirSettings
from pop3.sources.mbox import MboxSettings
from pop3.sources.webscrape import WebscrapeSettings
from pop3.tools.perl_data import Code, Item, PerlData, Value

_OPTIONS = {
    one.key: one
    for settings in (MaildirSettings, MboxSettings, WebscrapeSettings)
    for one in options_of(settings)
}
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_PLAIN = ("maildir", "mbox", "mmdf", "debug", "info", "double")  # not "off": YAML has a false
_MMDF = re.compile(r"\^?(?:\x01{4}|(?:\\(?:x01|001|cA)){4}|\\(?:x01|001|cA)\{4\}|\x01\{4\})")


@dataclass(frozen=True)
class Converted:
    """One old key: the options it becomes as YAML, and what there is to say about it."""

    key: str
    line: int
    options: tuple[tuple[str, str], ...] = ()
    note: str = ""
    by_hand: bool = False


class NotConverted(Exception):
    """The value has no counterpart; the text says what to do by hand."""


Made = tuple[dict[str, str | list[str]], str]
"""Options with their values, and a remark."""
Rule = Callable[[Value, PerlData], Made]


def convert(key: str, item: Item, data: PerlData) -> Converted:
    """Convert one key; what has no counterpart comes back as a note on what to do by hand."""
    try:
        values, note = _made(key, item, data)
        return Converted(key, item.line, tuple(_checked(values)), note)
    except NotConverted as error:
        return Converted(key, item.line, note=str(error), by_hand=True)


def _made(key: str, item: Item, data: PerlData) -> "Made":
    if key not in RULES:
        raise NotConverted("no key that Mail::POP3 is known to have")
    if key not in REPLACED and (lines := [code.line for code in _code_in(item.value)]):
        hint = f"; {BY_HAND[key]}" if key in BY_HAND else ""
        where = ", ".join(map(str, sorted(set(lines))[:5]))
        raise NotConverted(f"code in line {where} cannot be read as data{hint}")
    return RULES[key](item.value, data)


def is_scrape(data: PerlData) -> bool:
    """Tell whether the old server made mail of a website."""
    return "mailbox_class" in data.items and _class_name(data) == "webscrape"


def _checked(values: dict[str, str | list[str]]) -> Iterator[tuple[str, str]]:
    for option, value in values.items():
        if not "".join(value).isprintable():
            raise NotConverted("the value has control characters")
        try:
            _OPTIONS[option].read(value, Origin("default"))
        except ConfigError:
            raise NotConverted(f"the value does not suit {option}") from None
        yield option, _yaml(value)


def _yaml(value: str | list[str]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if _NUMBER.fullmatch(value) or value in _PLAIN:
        return value
    quoted: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=float("inf"))
    return quoted.rstrip("\n")


def _code_in(value: Value) -> Iterator[Code]:
    if isinstance(value, Code):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _code_in(one)


def _scalar(value: Value) -> str:
    if not isinstance(value, str) or not value:
        raise NotConverted("a single value was expected")
    return value


def _number(value: Value) -> str:
    text = _scalar(value)
    if not _NUMBER.fullmatch(text):
        raise NotConverted("a number was expected")
    return str(int(text))


def _true(value: Value) -> bool:
    return value not in (None, "", "0", [], {})


def _class_name(data: PerlData) -> str:
    """Return what of mailbox_class (v3) or use_maildir (v2) says where mail is."""
    item = data.items.get("mailbox_class")
    if item is not None and isinstance(item.value, str):
        return item.value.rpartition("Folder::")[2]
    old = data.items.get("use_maildir")
    return "maildir" if old is not None and _true(old.value) else "mbox"


# the rules


def _port(value: Value, _: PerlData) -> Made:
    port = int(_number(value))
    if not 0 < port < 65536:  # noqa: PLR2004 TCP
        raise NotConverted("no port of TCP")
    note = "on all addresses, as before; name one to listen on it alone"
    return {"listen": [f"*:{port}"]}, note


def _max_servers(value: Value, _: PerlData) -> Made:
    return {
        "max-servers": _number(value)
    }, "counts with the personalities fork and prefork; with gevent max-connections limits clients"


def _timeout(value: Value, _: PerlData) -> Made:
    return {
        "timeout": _number(value)
    }, "RFC 1939 asks for at least 600 seconds; login-timeout is 60"


def _source(value: Value, _: PerlData) -> Made:
    name = _scalar(value).rpartition("Folder::")[2]
    if name in {"mbox", "mbox::parse_to_disk"}:
        return {"source": "mbox"}, "an index takes the place of copies in a spool directory"
    if name == "maildir":
        return {"source": "maildir"}, "~/Maildir unless maildir says otherwise"
    if name == "webscrape":
        return {"source": "webscrape"}, "what the site looks like is said by a spec: scrape"
    if name == "virtual::jobserve":
        raise NotConverted("source webscrape; its spec is share/scrapes/jobserve.yaml")
    raise NotConverted("a class of your own: write a source (share/doc/writing-a-source.md)")


def _use_maildir(value: Value, data: PerlData) -> Made:
    if "mailbox_class" in data.items:
        return {}, "mailbox_class decides"
    return {"source": "maildir" if _true(value) else "mbox"}, ""


def _spool_dir(value: Value, data: PerlData) -> Made:
    directory = _scalar(value).rstrip("/")
    if not directory.startswith("/"):
        raise NotConverted("not an absolute path: set mbox to one, with {user} in it")
    if _class_name(data) not in {"mbox", "mbox::parse_to_disk"}:
        return {}, "of no use where mail is not in mbox files"
    values: dict[str, str | list[str]] = {"mbox": directory + "/{user}"}
    if not {"mailbox_class", "use_maildir"} & set(data.items):
        values["source"] = "mbox"
    return values, "one file per user in this directory; see mailbox_args if it put files elsewhere"


def _message_edge(value: Value, data: PerlData) -> Made:
    pattern = _scalar(value)
    if _MMDF.search(pattern):
        if _class_name(data) not in {"mbox", "mbox::parse_to_disk"}:
            return {}, "of no use where mail is not in mbox files"
        return {"mbox-format": "mmdf"}, ""
    if pattern.startswith("^From ") or pattern in {r"^\s*$", "^$", r"^\s*\n", "^From"}:
        return {}, "what mbox-format: mbox does"
    raise NotConverted("a pattern of your own: there are mbox-format mbox and mmdf")


def _allow_non_fqdn(value: Value, _: PerlData) -> Made:
    return {"reverse-lookup": "off" if _true(value) else "double"}, ""


def _debug(value: Value, _: PerlData) -> Made:
    return {"log-level": "debug" if _true(value) else "info"}, ""


def _auth_type(value: Value, _: PerlData) -> Made:
    kinds = dict(zip("1234567", AUTH_KINDS, strict=True))
    kind = kinds.get(value if isinstance(value, str) else "")
    raise NotConverted(f"{kind or 'no kind of authentication there was'}; set auth")


AUTH_KINDS = (
    "1 was the system's passwords",
    "2 was the system's passwords, then a user list by the client's host name",
    "3 was as 2, and the full address as user name",
    "4 was a user list by the client's host name",
    "5 was as 4, and the full address as user name",
    "6 was one user list with the central spool",
    "7 was a plug-in",
)


def _text(option: str) -> Rule:
    return lambda value, _: ({option: _scalar(value)}, "")


def _number_of(option: str) -> Rule:
    return lambda value, _: ({option: _number(value)}, "")


def _replaced(note: str) -> Rule:
    return lambda _value, _data: ({}, note)


def _left(note: str) -> Rule:
    def rule(value: Value, _: PerlData) -> Made:
        if not _true(value):
            return {}, "was off: nothing to do"
        raise NotConverted(note)

    return rule


REPLACED = {
    "mpopd_conf_version": "the version of the old program",
    "mpopd_spool": "no copies of mail are made",
    "parse_to_disk": "no copies of mail are made: an index does it",
    "reject_bogus_user": "an unknown user and a wrong password now get the same answer",
    "passsecret": "passwords are never logged",
    "fork_alert": "the log says when no process can be started",
}
"""Keys without an option because there is nothing left to choose."""

_CHECK = "name who may log in by auth; rules of your own are a subclass of the server"
_USERS = 'make a users file, set auth: ["passwd-file:PATH"]'
_PASSWORDS = f"a hash says its own scheme: {_USERS}"
_RECEIVED = "no Received field is added yet"
_USER_LOG = "no logs of single users yet: the log names the user of every line"
BY_HAND = {
    "greeting": "the greeting cannot be set yet",
    "mailbox_args": "set mbox or maildir to where the mail of a {user} is",
    "mailgroup": "start the server with the group that may write in the spool: group",
    "path_to_homedir": "name it in the pattern: maildir or mbox",
    "host_mail_path": "name it in the pattern with {initial}, {domain} and {localpart}; " + _USERS,
    "userlist": "its lines suit a users file, with user@domain where there are several: " + _USERS,
    "user_auth": "one kind for each user: " + _USERS,
    "use_pam": "PAM is not there yet: " + _USERS,
    "mpopd_pam_service": "PAM is not there yet: " + _USERS,
    "md5_no_pam": _PASSWORDS,
    "shadow": _PASSWORDS,
    "user_check": _CHECK,
    "password_check": _CHECK,
    "connection_class": "override allow_deny_hook (share/doc/hooks.md)",
    "addreceived": _RECEIVED,
    "forwardto": _RECEIVED + "; its sense was the inverse of addreceived",
    "receivedfrom": _RECEIVED,
    "timezone": _RECEIVED,
    "user_log": _USER_LOG,
    "user_log_dir": _USER_LOG,
    "user_debug": 'not for single users: "delete: ignore" is for all of a server',
    "mpopd_failed_mail": "no counterpart: mail is never taken out of its mailbox to be sent",
    "switch": "no counterpart: see log-level",
}
"""Keys that have no option, and what to do about them."""

RULES: dict[str, Rule] = {
    "port": _port,
    "max_servers": _max_servers,
    "mpopd_pid_file": _text("pid-file"),
    "timeout": _timeout,
    "mailbox_class": _source,
    "use_maildir": _use_maildir,
    "mail_spool_dir": _spool_dir,
    "message_start": _message_edge,
    "message_end": _message_edge,
    "retry_on_lock": _number_of("lock-wait"),
    "auth_type": _auth_type,
    "trusted_networks": _text("trusted-file"),
    "hosts_allow_deny": _text("access-file"),
    "allow_non_fqdn": _allow_non_fqdn,
    "debug": _debug,
    "debug_log": _text("log-file"),
    **{key: _replaced(note) for key, note in REPLACED.items()},
    **{key: _left(note) for key, note in BY_HAND.items()},
}
