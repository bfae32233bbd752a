"""Login names are taken apart strictly and have one normal form."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3.auth.names import LoginName

NAMES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text("aB.@~/-_\u0130\u00e9e\u0301\0", max_size=12).map(str.encode),
)


@pytest.mark.parametrize(
    ("raw", "localpart", "view", "domain"),
    [
        (b"joe", "joe", None, None),
        (b"Joe@Example.COM", "Joe", None, "example.com"),
        (b"joe~phone@example.com", "joe", "phone", "example.com"),
        (b"joe~work-2.x", "joe", "work-2.x", None),
        (b"a@b@example.com", "a@b", None, "example.com"),
        (b"a.b+c@1.2", "a.b+c", None, "1.2"),
        ("Jose\u0301@b\u00dccher.de".encode(), "Jos\u00e9", None, "b\u00fccher.de"),
        (
            "x@\u0909\u0926\u093e\u0939\u0930\u0923".encode(),
            "x",
            None,
            "\u0909\u0926\u093e\u0939\u0930\u0923",
        ),
        (b"x" * 255, "x" * 255, None, None),
    ],
)
def test_name_parts(raw: bytes, localpart: str, view: str | None, domain: str | None) -> None:
    """The last @ begins the domain, a ~ before it the view; the domain is folded."""
    assert LoginName.parse(raw) == LoginName(localpart, view, domain)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"x" * 256,
        b"\xff",
        b"\xed\xa0\x80",
        b"a/b",
        b"/",
        b"a\0b",
        b"a\nb",
        b"a\x7fb",
        "a\u0085b".encode(),
        "a\u2028b".encode(),
        "a\u202eb".encode(),
        b".hidden",
        b"..",
        b"a..b",
        b"a@",
        b"@example.com",
        b"@",
        b"a@b..c",
        b"a@.c",
        b"a@c.",
        b"a@b/c",
        b"a@b c",
        b"a@b_c",
        b"a@-b",
        b"a@b-.c",
        b"a@b\\c",
        "a@b\u2460".encode(),
        b"~v",
        b"a~",
        b"a~@c",
        b"a~b/c",
        b"a~.",
        b"a~..",
        b"a~b..c",
        b"a~b~c",
        b"a~" + b"v" * 33,
        ("a@" + "\u0130" * 126).encode(),
    ],
)
def test_name_refused_without_echo(raw: bytes) -> None:
    """What is no strict name is a ValueError that does not repeat it, nor does its context."""
    with pytest.raises(ValueError) as caught:
        LoginName.parse(raw)
    error = caught.value
    assert type(error) is ValueError
    assert error.__context__ is None
    assert str(error).startswith("login name ")
    assert "hidden" not in str(error)


def test_name_user_and_full() -> None:
    """The user is the name without the view; the full name has all of it."""
    name = LoginName.parse(b"joe~phone@Example.com")
    assert name.user == "joe@example.com"
    assert name.full == "joe~phone@example.com"
    assert LoginName.parse(b"joe").user == LoginName.parse(b"joe").full == "joe"


@pytest.mark.parametrize(
    ("raw", "localpart", "view", "domain"),
    [
        (b"perl/gevent: jobs", "perl/gevent: jobs", None, None),
        (b"..", "..", None, None),
        (b"@", "@", None, None),
        (b"a@b c", "a@b c", None, None),
        (b"c~", "c~", None, None),
        (b"a~b~v1@x.org", "a~b", "v1", "x.org"),
    ],
)
def test_wide_name_takes_more(
    raw: bytes, localpart: str, view: str | None, domain: str | None
) -> None:
    """A source with a wider alphabet gets what is no domain or view as part of the name."""
    assert LoginName.parse(raw, strict=False) == LoginName(localpart, view, domain)


@pytest.mark.parametrize("raw", [b"", b"a\0", b"a\rb", b"\xc2\x9b", b"\xff", b"x" * 256])
def test_wide_name_still_refuses_controls(raw: bytes) -> None:
    """No alphabet has NUL, controls or broken UTF-8."""
    with pytest.raises(ValueError):
        LoginName.parse(raw, strict=False)


@given(raw=NAMES, strict=st.booleans())
def test_name_is_a_value_error_or_in_its_normal_form(raw: bytes, strict: bool) -> None:
    """Whatever comes, a name parses again to itself, or ValueError is all that is raised."""
    try:
        name = LoginName.parse(raw, strict=strict)
    except UnicodeError:
        raise AssertionError("an error that holds its input") from None
    except ValueError:
        return
    assert LoginName.parse(name.full.encode(), strict=strict) == name
    assert name.localpart
    assert unicodedata.is_normalized("NFC", name.localpart)
    assert not any(unicodedata.category(letter) == "Cc" for letter in name.full)
    if strict:
        assert "/" not in name.user
        assert not name.user.startswith(".")
        assert ".." not in name.user
