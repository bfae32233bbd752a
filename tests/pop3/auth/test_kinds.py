"""The seven kinds of old are chains of today's backends."""

import pytest

from netserver.errors import ConfigError
from pop3.auth import kinds

LISTS = "/srv/{initial}/{domain}/userlist"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("kind-1", ["system"]),
        ("kind-1:?pam=mpopd", ["pam:mpopd"]),
        (f"kind-2:{LISTS}", ["system", f"userlist:{LISTS}?domain=client"]),
        (f"kind-2:{LISTS}?pam=mpopd", ["pam:mpopd", f"userlist:{LISTS}?domain=client"]),
        (
            f"kind-3:{LISTS}",
            ["system", f"userlist:{LISTS}?domain=login", f"userlist:{LISTS}?domain=client"],
        ),
        (f"kind-4:{LISTS}", [f"userlist:{LISTS}?domain=client"]),
        (f"kind-5:{LISTS}", [f"userlist:{LISTS}?domain={way}" for way in ("login", "client")]),
        ("kind-6:/etc/userlist", ["userlist:/etc/userlist"]),
        ("kind-7:my.place:Mine:some:thing?x", ["my.place:Mine:some:thing?x"]),
        ("passwd-file:users", ["passwd-file:users"]),
        ("kind-8", ["kind-8"]),
    ],
)
def test_each_kind_is_a_chain(spec: str, expected: list[str]) -> None:
    """A kind stands for its backends in order; what is no kind stays as it is."""
    assert kinds.expand(spec) == expected


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("kind-1:/path", "--auth kind-1: takes no path"),
        ("kind-2", "--auth kind-2: needs the place of the lists"),
        ("kind-4:/etc/userlist", "--auth kind-4: needs the place of the lists"),
        (f"kind-4:{LISTS}?pam=mpopd", "--auth kind-4: after its path stands nothing"),
        (f"kind-3:{LISTS}?pam=", "--auth kind-3: after its path stands ?pam=SERVICE"),
        (f"kind-6:{LISTS}", "--auth kind-6: takes the path of one list"),
        ("kind-6", "--auth kind-6: needs the path"),
        ("kind-7", "--auth kind-7: needs module:Class"),
    ],
)
def test_mistakes_are_one_line(spec: str, what: str) -> None:
    """An argument that cannot work is told with the kind it belongs to."""
    with pytest.raises(ConfigError, match=r"\A.+\Z") as caught:
        kinds.expand(spec)
    assert what in str(caught.value)
