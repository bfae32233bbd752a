"""Path patterns: what they give, and what they refuse."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netserver.errors import ConfigError
from pop3.errors import PermanentFailure
from pop3.paths import check_pattern, fill, fixed_part, path_pattern

BAD_VALUES = [
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "/etc",
    "../bob",
    "a\0b",
    "a\nb",
    "a\x7f",
    "a\x85",
    "x" * 256,
    "é" * 128,
    "\ud800",
]


def user_path(pattern: str, user: str, domain: str | None = None) -> Path:
    """Fill a pattern for a user whose home is known."""
    return fill(pattern, user=user, domain=domain, home="/home/anna")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/srv/mail/{user}", "/srv/mail/anna@example.org"),
        ("/srv/mail/{domain}/{initial}/{localpart}", "/srv/mail/example.org/a/anna"),
        ("/srv/mail/box-{localpart}.d/x", "/srv/mail/box-anna.d/x"),
        ("~/Maildir", "/home/anna/Maildir"),
        ("~", "/home/anna"),
        ("{home}/mail/{domain}", "/home/anna/mail/example.org"),
        ("/srv/~/x", "/srv/~/x"),
    ],
)
def test_fill_puts_the_fields_in(pattern: str, path: str) -> None:
    """Every field stands for what its name says."""
    check_pattern(pattern)
    assert user_path(pattern, "anna@example.org", "example.org") == Path(path)


@pytest.mark.parametrize("user", BAD_VALUES)
def test_fill_refuses_what_is_no_plain_component(user: str) -> None:
    """A login name cannot leave its directory or hide in it."""
    with pytest.raises(PermanentFailure):
        user_path("/srv/mail/{user}", user)


@pytest.mark.parametrize("domain", [None, *BAD_VALUES])
def test_fill_refuses_a_bad_domain_only_where_it_is_used(domain: str | None) -> None:
    """The domain is held to the same rule as the user, where the pattern has it."""
    assert user_path("/srv/{user}", "anna", domain) == Path("/srv/anna")
    with pytest.raises(PermanentFailure):
        user_path("/srv/{domain}/{user}", "anna", domain)


@pytest.mark.parametrize("user", ["~", "~root", "{home}", "{domain}", "%u", "$HOME", "a b", "*"])
def test_fill_never_expands_a_value(user: str) -> None:
    """What a client typed is taken as it is, also where it looks like a field."""
    assert user_path("/srv/{user}/x", user, "d") == Path("/srv", user, "x")
    assert user_path("~/{user}", user, "d") == Path("/home/anna", user)


@pytest.mark.parametrize("home", [None, "", "relative", "/a\0b"])
def test_fill_needs_a_real_home_where_it_is_used(home: str | None) -> None:
    """A user without a home directory has no mailbox in it."""
    with pytest.raises(PermanentFailure):
        fill("~/Maildir", user="anna", domain=None, home=home)
    assert fill("/srv/{user}", user="anna", domain=None, home=home) == Path("/srv/anna")


@given(user=st.text(max_size=300))
def test_fill_stays_below_the_mail_root(user: str) -> None:
    """Whatever the name, the path is one component below the root, or is refused."""
    try:
        path = user_path("/srv/mail/{user}/Maildir", user)
    except PermanentFailure:
        return
    assert path.parts == ("/", "srv", "mail", user, "Maildir")


@pytest.mark.parametrize(
    "pattern",
    ["", "/srv/{usr}", "/srv/{user", "/srv/user}", "/srv/{}", "/srv/{{user}}", "/srv/{User}",
     "/srv/{home}", "~anna/Maildir", "~{user}/x", "{home}{user}", "/a\0b", "/{user!r}", "/{0}"],
)  # fmt: skip
def test_check_pattern_refuses_what_cannot_work(pattern: str) -> None:
    """A mistake in a pattern is found at start, by both ways of reading one."""
    with pytest.raises(ConfigError):
        check_pattern(pattern)
    with pytest.raises(ValueError):
        path_pattern(pattern)


def test_path_pattern_makes_a_relative_pattern_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory the server was started in counts, wherever it goes later."""
    monkeypatch.chdir(tmp_path)
    assert path_pattern("mail/{user}") == f"{tmp_path}/mail/{{user}}"
    for pattern in ("/srv/{user}", "~/Maildir", "{home}/x"):
        assert path_pattern(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "root"),
    [
        ("/srv/mail/{domain}/{user}", "/srv/mail"),
        ("/srv/mail/box-{user}/x", "/srv/mail"),
        ("/{user}", "/"),
        ("/srv/one", "/srv/one"),
        ("~/Maildir", "/home/anna"),
        ("{home}/mail/{user}", "/home/anna"),
    ],
)
def test_fixed_part_is_what_stands_before_the_first_field(pattern: str, root: str) -> None:
    """The mail root is the longest directory that is the same for all; in a home, the home."""
    assert fixed_part(pattern, "/home/anna") == Path(root)


def test_fixed_part_of_a_relative_pattern_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative pattern has its root in the present directory."""
    monkeypatch.chdir(tmp_path)
    assert fixed_part("mail/{user}") == tmp_path / "mail"
    assert fixed_part("box-{user}") == tmp_path
