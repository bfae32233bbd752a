"""The seven kinds of authentication of old, `kind-1` … `kind-7`, as chains of backends."""

from netserver.errors import ConfigError

KINDS = tuple(f"kind-{number}" for number in range(1, 8))

_BY_LOGIN = "userlist:{list}?domain=login"
_BY_CLIENT = "userlist:{list}?domain=client"
#: What each kind means; {system} is system or pam:SERVICE, {list} the path or pattern of the lists.
_CHAINS: dict[str, tuple[str, ...]] = {
    "kind-1": ("{system}",),
    "kind-2": ("{system}", _BY_CLIENT),
    "kind-3": ("{system}", _BY_LOGIN, _BY_CLIENT),
    "kind-4": (_BY_CLIENT,),
    "kind-5": (_BY_LOGIN, _BY_CLIENT),
    "kind-6": ("userlist:{list}",),
    "kind-7": ("{list}",),
}


def expand(spec: str) -> list[str]:
    """Return the specs that `kind-N[:ARG]` stands for, and any other spec as it is.

    ARG is PATTERN[?pam=SERVICE]; of kind 7 it is module:Class[:ARG]. Raises ConfigError.
    """
    name, _, argument = spec.partition(":")
    if name not in _CHAINS:
        return [spec]
    chain = _CHAINS[name]
    wanted = "".join(chain)
    pattern, mark, query = argument.partition("?") if name != "kind-7" else (argument, "", "")
    service = query.removeprefix("pam=")
    if mark and ("{system}" not in wanted or not query.startswith("pam=") or not service):
        after = "?pam=SERVICE" if "{system}" in wanted else "nothing"
        raise ConfigError(f"--auth {name}: after its path stands {after}")
    if bool(pattern) != ("{list}" in wanted):
        raise ConfigError(f"--auth {name}: {_NEEDS.get(name, _NEEDS_LISTS)}")
    if name == "kind-6" and "{" in pattern:
        raise ConfigError("--auth kind-6: takes the path of one list, without fields")
    if "{list}" in wanted and name not in ("kind-6", "kind-7") and "{domain}" not in pattern:
        raise ConfigError(f"--auth {name}: {_NEEDS_LISTS}")
    system = f"pam:{service}" if mark else "system"
    return [one.replace("{system}", system).replace("{list}", pattern) for one in chain]


_NEEDS_LISTS = "needs the place of the lists, such as /srv/vmail/{initial}/{domain}/userlist"
_NEEDS = {
    "kind-1": "takes no path",
    "kind-6": "needs the path of the list",
    "kind-7": "needs module:Class",
}
