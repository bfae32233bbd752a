"""What robots.txt allows (RFC 9309): groups, longest match, `*` and `$`."""

from typing import NamedTuple

MAX_OCTETS = 500 * 1024  # RFC 9309 §2.5
_LONGEST_DELAY = 30.0
_MOST_RULES = 5000


class _Rule(NamedTuple):
    pattern: str
    allow: bool


class Robots:
    """The rules for one agent on one site; `delay` is the seconds between requests it asks for."""

    def __init__(self, text: str, agent: str) -> None:
        """Read a robots.txt; what cannot be read is no rule."""
        groups = _groups(text)
        product = agent.partition("/")[0].partition(" ")[0].lower()
        rules = groups.get(product)
        if rules is None:
            rules = groups.get("*", ([], 0.0))
        self._rules, self.delay = rules

    def allows(self, path: str) -> bool:
        """Tell whether a path with its query may be fetched: the longest pattern decides."""
        best = _Rule("", allow=True)
        for rule in self._rules:
            if not _matches(rule.pattern, path):
                continue
            longer = len(rule.pattern) > len(best.pattern)
            if longer or (len(rule.pattern) == len(best.pattern) and rule.allow):
                best = rule
        return best.allow


def _groups(text: str) -> dict[str, tuple[list[_Rule], float]]:
    groups: dict[str, tuple[list[_Rule], float]] = {}
    agents: list[str] = []
    in_rules = False
    for line in text.splitlines()[: _MOST_RULES * 2]:
        key, colon, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon:
            continue
        if key == "user-agent":
            agents = [*([] if in_rules else agents), value.lower()]
            in_rules = False
            groups.setdefault(value.lower(), ([], 0.0))
        elif key in ("allow", "disallow", "crawl-delay"):
            in_rules = True
            for agent in agents:
                _note(groups, agent, key, value)
    return groups


def _note(groups: dict[str, tuple[list[_Rule], float]], agent: str, key: str, value: str) -> None:
    rules, delay = groups[agent]
    if key == "crawl-delay":
        try:
            delay = min(max(float(value), 0.0), _LONGEST_DELAY)
        except ValueError:
            return
        groups[agent] = (rules, delay)
    elif value and len(rules) < _MOST_RULES:
        rules.append(_Rule(value, key == "allow"))


def _matches(pattern: str, path: str) -> bool:
    """Match without backtracking, since the pattern is a stranger's."""
    anchored = pattern.endswith("$")
    first, *others = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if not others:
        return not anchored or at == len(path)
    for part in others[:-1]:
        found = path.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    last = others[-1]
    if anchored:
        return len(path) - len(last) >= at and path.endswith(last)
    return path.find(last, at) >= 0
