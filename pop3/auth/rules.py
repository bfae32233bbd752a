"""Other backends for some users or domains: `--auth-for PATTERN=BACKEND[:ARG][,BACKEND…]`."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netserver.errors import ConfigError
from pop3.auth.names import LoginName

if TYPE_CHECKING:
    from pop3.auth.chain import AuthChain

_PLUGIN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(:|,|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Override:
    """A chain of its own for one user, or for all of a domain."""

    localpart: str | None
    """None: everybody of the domain."""
    domain: str | None
    chain: "AuthChain"

    def matches(self, login: LoginName) -> bool:
        """Tell whether this login is meant; a view makes no difference."""
        return login.domain == self.domain and self.localpart in (None, login.localpart)


def split_rule(rule: str, known: Collection[str]) -> tuple[str | None, str | None, list[str]]:
    """Return local part (None: all), domain and specs of a rule. Raises ConfigError.

    A comma begins the next backend only before the name of one: arguments may have commas too.
    """
    pattern, _, text = rule.partition("=")
    if not pattern or not text:
        raise ConfigError(f"--auth-for {rule!r}: not PATTERN=BACKEND[:ARG]")
    specs = [""]
    for piece in text.split(","):
        name = piece.partition(":")[0]
        if specs == [""]:
            specs = [piece]
        elif name in known or _PLUGIN.match(piece):
            specs.append(piece)
        else:
            specs[-1] += f",{piece}"
    everybody = pattern.startswith("*@")
    try:
        login = LoginName.parse((pattern.replace("*", "x", 1) if everybody else pattern).encode())
        if login.view is not None or "*" in login.user:
            raise ValueError("not a name")  # noqa: TRY301 - gets its rule below
    except ValueError:
        raise ConfigError(
            f"--auth-for {rule!r}: PATTERN is user, user@domain or *@domain"
        ) from None
    return None if everybody else login.localpart, login.domain, specs
