"""Who could log in to Mail::POP3: the keys that are `auth` and `auth-for` of pop3-server."""

import re

from pop3.extras import user_name
from pop3.tools.old_values import Made, NotConverted, Rule, by_user, scalar, true
from pop3.tools.perl_data import Code, PerlData, Value

_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_DEFAULT_SERVICE = "mpopd"
_KINDS = ("auth_type", "user_auth")
_WITH_PAM = "123"
_WITH_LISTS = "2345"
_BY_HAND = {
    "6": 'one user list: auth: ["kind-6:PATH"]',
    "7": 'a plug-in: auth: ["kind-7:module:Class"] (share/doc/authentication.md)',
}


def _auth_type(value: Value, data: PerlData) -> Made:
    return {"auth": [_spec(scalar(value), data)]}, "the kinds are in share/doc/logging-in.md"


def _user_auth(value: Value, data: PerlData) -> Made:
    rules = [f"{_user(user)}={_spec(kind, data)}" for user, kind in by_user(value).items()]
    return ({"auth-for": rules}, "") if rules else ({}, "was empty: nothing to do")


def _host_mail_path(value: Value, data: PerlData) -> Made:
    if not true(value):
        return {}, "was off: nothing to do"
    mail = "set mbox or maildir to where mail is, with {initial}, {domain} and {localpart}"
    if _has_kind(data):
        raise NotConverted(f"the lists are part of auth; {mail}")
    raise NotConverted(f'auth: ["userlist:{_lists(data)}?domain=client"]; {mail}')


def _userlist(value: Value, data: PerlData) -> Made:
    if not true(value) or _has_kind(data):
        return {}, "counts in auth, if at all"
    raise NotConverted(
        'its lines suit auth: ["userlist:PATTERN?domain=client"]; see host_mail_path'
    )


def _pam(_: Value, data: PerlData) -> Made:
    service = _service(data)
    if service is None:
        return {}, "PAM was not used: nothing to do"
    if _has_kind(data):
        return {}, "counts in auth, if at all"
    raise NotConverted(f'auth: ["pam:{service}"]')


def _has_kind(data: PerlData) -> bool:
    return any(key in data.items and true(data.items[key].value) for key in _KINDS)


def _spec(kind: str, data: PerlData) -> str:
    """Return what an old kind of authentication is for --auth. Raises NotConverted."""
    if not re.fullmatch(r"[1-7]", kind):
        raise NotConverted("no kind of authentication there was; set auth")
    service = _service(data) if kind in _WITH_PAM else None
    query = f"?pam={service}" if service else ""
    if kind == "1":
        return f"kind-1:{query}" if query else "kind-1"
    if kind in _WITH_LISTS:
        return f"kind-{kind}:{_lists(data)}{query}"
    path = _value("userlist", data)
    if kind == "6" and path.startswith("/") and not set(path) & set("{}?"):
        return f"kind-6:{path}"
    raise NotConverted(f"kind {kind} was {_BY_HAND[kind]}")


def _lists(data: PerlData) -> str:
    """Return the pattern of the lists of virtual domains. Raises NotConverted."""
    directory = _value("host_mail_path", data).rstrip("/")
    name = _value("userlist", data) or "userlist"
    if not directory.startswith("/") or set(directory + name) & set("{}?"):
        raise NotConverted("lists of users, but host_mail_path does not say where; set auth")
    return f"{directory}/{{initial}}/{{domain}}/{name.strip('/')}"


def _service(data: PerlData) -> str | None:
    """Return the service of PAM, None if it was not used. Raises NotConverted."""
    asked = data.items.get("use_pam")
    if asked is None or not true(asked.value):
        return None
    service = _value("mpopd_pam_service", data) or _DEFAULT_SERVICE
    if isinstance(asked.value, Code) or not _SERVICE.fullmatch(service):
        raise NotConverted("PAM, but it does not say by which service; set auth")
    return service


def _value(key: str, data: PerlData) -> str:
    item = data.items.get(key)
    return scalar(item.value) if item is not None and true(item.value) else ""


def _user(text: str) -> str:
    try:
        user = user_name(text)
    except ValueError:
        user = ""
    if not user or set(user) & set("*=~"):
        raise NotConverted("one of its users is no name that can log in")
    return user


AUTH_RULES: dict[str, Rule] = {
    "auth_type": _auth_type,
    "user_auth": _user_auth,
    "host_mail_path": _host_mail_path,
    "userlist": _userlist,
    "use_pam": _pam,
    "mpopd_pam_service": _pam,
}
"""The keys about who may log in."""
