"""What each key of a Mail::POP3 configuration is for pop3-server."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from netserver.declarations import Origin, options_of
from netserver.errors import ConfigError
from pop3.sources.maildir import MaildirSettings
from pop3.sources.mbox import MboxSettings
from pop3.sources.webscrape import WebscrapeSettings
from pop3.tools.old_auth import AUTH_RULES
from pop3.tools.old_values import (
    NUMBER,
    Made,
    NotConverted,
    Rule,
    by_user,
    left,
    number,
    number_of,
    replaced,
    scalar,
    text,
    true,
)
from pop3.tools.perl_data import Code, Item, PerlData, Value

_OPTIONS = {
    one.key: one
    for settings in (MaildirSettings, MboxSettings, WebscrapeSettings)
    for one in options_of(settings)
}
_PLAIN = ("maildir", "mbox", "mmdf", "custom", "debug", "info", "double", "true")
"""Written without quotes; not "off": YAML has a false."""
_MMDF = re.compile(r"\^?(?:\x01{4}|(?:\\(?:x01|001|cA)){4}|\\(?:x01|001|cA)\{4\}|\x01\{4\})")
_MBOX_CLASSES = frozenset({"mbox", "mbox::parse_to_disk"})
_BLANK_LINES = frozenset({r"^\s*$", "^$", r"^\s*\n"})
_LEVELS = {"1": "brief", "2": "full"}


@dataclass(frozen=True)
class Converted:
    """One old key: the options it becomes as YAML, and what there is to say about it."""

    key: str
    line: int
    options: tuple[tuple[str, str], ...] = ()
    note: str = ""
    by_hand: bool = False


def convert(key: str, item: Item, data: PerlData) -> Converted:
    """Convert one key; what has no counterpart comes back as a note on what to do by hand."""
    try:
        values, note = _made(key, item, data)
        return Converted(key, item.line, tuple(_checked(values)), note)
    except NotConverted as error:
        return Converted(key, item.line, note=str(error), by_hand=True)


def _made(key: str, item: Item, data: PerlData) -> Made:
    if key not in RULES:
        raise NotConverted("no key that Mail::POP3 is known to have")
    if key not in REPLACED and (lines := [code.line for code in _code_in(item.value)]):
        hint = f"; {HINTS[key]}" if key in HINTS else ""
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
    if NUMBER.fullmatch(value) or value in _PLAIN:
        return value
    quoted: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=float("inf"))
    return quoted.rstrip("\n")


def _code_in(value: Value) -> Iterator[Code]:
    if isinstance(value, Code):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _code_in(one)


def _class_name(data: PerlData) -> str:
    """Return what of mailbox_class (v3) or use_maildir (v2) says where mail is."""
    item = data.items.get("mailbox_class")
    if item is not None and isinstance(item.value, str):
        return item.value.rpartition("Folder::")[2]
    old = data.items.get("use_maildir")
    return "maildir" if old is not None and true(old.value) else "mbox"


# the rules


def _port(value: Value, _: PerlData) -> Made:
    port = int(number(value))
    if not 0 < port < 65536:  # noqa: PLR2004 TCP
        raise NotConverted("no port of TCP")
    note = "on all addresses, as before; name one to listen on it alone"
    return {"listen": [f"*:{port}"]}, note


def _max_servers(value: Value, _: PerlData) -> Made:
    return {
        "max-servers": number(value)
    }, "counts with the personalities fork and prefork; with gevent max-connections limits clients"


def _timeout(value: Value, _: PerlData) -> Made:
    return {"timeout": number(value)}, "RFC 1939 asks for at least 600 seconds; login-timeout is 60"


def _source(value: Value, _: PerlData) -> Made:
    name = scalar(value).rpartition("Folder::")[2]
    if name in _MBOX_CLASSES:
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
    return {"source": "maildir" if true(value) else "mbox"}, ""


def _spool_dir(value: Value, data: PerlData) -> Made:
    directory = scalar(value).rstrip("/")
    if not directory.startswith("/"):
        raise NotConverted("not an absolute path: set mbox to one, with {user} in it")
    if _class_name(data) not in _MBOX_CLASSES:
        return {}, "of no use where mail is not in mbox files"
    values: dict[str, str | list[str]] = {"mbox": directory + "/{user}"}
    if not {"mailbox_class", "use_maildir"} & set(data.items):
        values["source"] = "mbox"
    return values, "one file per user in this directory; see mailbox_args if it put files elsewhere"


def _message_start(value: Value, data: PerlData) -> Made:
    if _class_name(data) not in _MBOX_CLASSES:
        return {}, "of no use where mail is not in mbox files"
    pattern = scalar(value)
    if _MMDF.search(pattern):
        return {"mbox-format": "mmdf"}, ""
    if _is_custom(pattern):
        _compiled(pattern)
        made: dict[str, str | list[str]] = {"mbox-format": "custom", "message-start": pattern}
        return made, "a regular expression of Python now: look whether it means the same"
    return {}, "what mbox-format: mbox does"


def _message_end(value: Value, data: PerlData) -> Made:
    if _class_name(data) not in _MBOX_CLASSES:
        return {}, "of no use where mail is not in mbox files"
    pattern = scalar(value)
    item = data.items.get("message_start")
    start = item.value if item is not None and isinstance(item.value, str) else None
    if start and _is_custom(start):
        _compiled(pattern)
        return {"message-end": pattern}, ""
    if _MMDF.search(pattern) and (start is None or _MMDF.search(start)):
        return {} if start else {"mbox-format": "mmdf"}, ""
    if pattern in _BLANK_LINES:
        return {}, "what mbox-format: mbox does"
    raise NotConverted("a pattern of your own: mbox-format: custom, with message-start as well")


def _is_custom(pattern: str) -> bool:
    return not (_MMDF.search(pattern) or pattern.startswith("^From"))


def _compiled(pattern: str) -> None:
    """Raise NotConverted for what is no pattern of Python, or finds every line."""
    try:
        found = re.compile(pattern.encode())
    except (re.error, ValueError):
        raise NotConverted("no pattern of Python: set message-start and message-end") from None
    if found.search(b"") and pattern not in _BLANK_LINES:
        raise NotConverted("a pattern that finds every line")


def _mailgroup(value: Value, data: PerlData) -> Made:
    if _class_name(data) not in _MBOX_CLASSES:
        return {}, "of no use where mail is not in mbox files"
    note = "of dotlocks; if only this group may write in the spool, it is also the one for group"
    return {"mailgroup": scalar(value)}, note


def _reject_bogus_user(value: Value, _: PerlData) -> Made:
    if not true(value):
        return {}, "a wrong name and a wrong password get one answer"
    return {"reject-bogus-user": "true"}, "tells everybody who can connect which users exist"


def _users(option: str, note: str) -> Rule:
    def rule(value: Value, _: PerlData) -> Made:
        users = [user for user, wanted in by_user(value).items() if true(wanted)]
        return ({option: users}, note) if users else ({}, "for nobody: nothing to do")

    return rule


def _user_log(value: Value, _: PerlData) -> Made:
    users = {user: level for user, level in by_user(value).items() if true(level)}
    if not users:
        return {}, "for nobody: nothing to do"
    if not set(users.values()) <= set(_LEVELS):
        raise NotConverted("a level other than 1 and 2: user-log: [USER=brief or USER=full]")
    return {"user-log": [f"{user}={_LEVELS[level]}" for user, level in users.items()]}, ""


def _allow_non_fqdn(value: Value, _: PerlData) -> Made:
    return {"reverse-lookup": "off" if true(value) else "double"}, ""


def _debug(value: Value, _: PerlData) -> Made:
    return {"log-level": "debug" if true(value) else "info"}, ""


REPLACED = {
    "mpopd_conf_version": "the version of the old program",
    "mpopd_spool": "no copies of mail are made",
    "parse_to_disk": "no copies of mail are made: an index does it",
    "passsecret": "passwords are never logged",
    "fork_alert": 'the log says "fork failed", and why',
    "md5_no_pam": "a hash says its own scheme",
    "shadow": "system, which is kind 1 of auth, reads passwd and shadow",
}
"""Keys without an option because there is nothing left to choose."""

_CHECK = "name who may log in by auth; rules of your own are a backend, module:Class"
BY_HAND = {
    "mailbox_args": "set mbox or maildir to where the mail of a {user} is",
    "path_to_homedir": "name it in the pattern: maildir or mbox",
    "user_check": _CHECK,
    "password_check": _CHECK,
    "connection_class": "override allow_deny_hook (share/doc/hooks.md)",
    "forwardto": "its sense was the inverse of add-received, which is a list of users",
    "timezone": "the time zone is that of the machine; another is TZ in the server's environment",
    "mpopd_failed_mail": "no counterpart: mail is never taken out of its mailbox to be sent",
    "switch": "no counterpart: see log-level",
}
"""Keys that have no option, and what to do about them."""

HINTS = {
    **BY_HAND,
    "auth_type": "auth: [kind-1] to kind-7 (share/doc/logging-in.md)",
    "greeting": "greeting: TEXT",
    "receivedfrom": "received-from: NAME; unset means the name of this machine",
    "user_auth": "auth-for: [USER=kind-3:…]",
    "user_log": "user-log: [USER=brief or USER=full]",
}
"""What to say of keys whose value is code."""

RULES: dict[str, Rule] = {
    "port": _port,
    "max_servers": _max_servers,
    "mpopd_pid_file": text("pid-file"),
    "timeout": _timeout,
    "mailbox_class": _source,
    "use_maildir": _use_maildir,
    "mail_spool_dir": _spool_dir,
    "message_start": _message_start,
    "message_end": _message_end,
    "mailgroup": _mailgroup,
    "greeting": text("greeting"),
    "retry_on_lock": number_of("lock-wait"),
    **AUTH_RULES,
    "reject_bogus_user": _reject_bogus_user,
    "trusted_networks": text("trusted-file"),
    "hosts_allow_deny": text("access-file"),
    "allow_non_fqdn": _allow_non_fqdn,
    "addreceived": _users("add-received", "sizes count the header now"),
    "receivedfrom": text("received-from"),
    "user_log": _user_log,
    "user_log_dir": text("user-log-dir", "not writable for everybody, as the old one was"),
    "user_debug": _users("user-debug", "logged in full, and nothing is deleted for them"),
    "debug": _debug,
    "debug_log": text("log-file"),
    **{key: replaced(note) for key, note in REPLACED.items()},
    **{key: left(note) for key, note in BY_HAND.items()},
}
