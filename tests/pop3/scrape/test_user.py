"""User names as search terms."""

import pytest

from pop3.scrape.user import UserField, UserRules, WrongName

RULES = UserRules(
    ":",
    (UserField("words"), UserField("miles", "25", ("5", "25")), UserField("place", "")),
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("perl:5:Berlin", ("perl", "5", "Berlin")),
        ("perl", ("perl", "25", "")),
        ("perl::Berlin", ("perl", "25", "Berlin")),
        ("perl+developer:5:New+York", ("perl developer", "5", "New York")),
        ("a%3Ab%2Bc:5:%C3%BC%40", ("a:b+c", "5", "\u00fc@")),
        ("words=perl;place=Berlin", ("perl", "25", "Berlin")),
        ("place=a:b;words=c++;miles=5", ("c", "5", "a:b")),
        ("other=perl", ("other=perl", "25", "")),
    ],
)
def test_names_are_read(text: str, values: tuple[str, ...]) -> None:
    """In order or by name, with blanks, escapes and defaults; each has one canonical form."""
    read = RULES.read(text)
    assert tuple(read.values()) == values
    assert RULES.read(RULES.name(read)) == read


@pytest.mark.parametrize(
    "text",
    [
        *("", ":5", "a:b", "a:5:c:d", "words=a;words=b", "words=a;x=b", "words=a;b"),
        *("a%0D%0Ab", "a%00", "%FF", "x" * 201, "%E2%80%A8"),
    ],
)
def test_wrong_names_are_refused(text: str) -> None:
    """Missing, too many, not allowed, twice, controls, too long; the name is not repeated."""
    with pytest.raises(WrongName) as caught:
        RULES.read(text)
    assert "x" * 100 not in str(caught.value)


def test_a_site_without_fields_takes_any_name() -> None:
    """A name is just a name where there is nothing to search for."""
    assert UserRules().read("anna:x") == {}
    assert UserRules().name({}) == ""
