"""Names of feeds, groups and their readers; OPML lists."""

from pathlib import Path

import pytest

from netserver.errors import ConfigError
from pop3.feed import opml
from pop3.feed.subscriptions import Feed, feed_key, feed_option, slug, subscribe

LIST = Path(__file__).parents[2] / "data" / "feeds" / "list.opml"


@pytest.mark.parametrize(
    "text", ["http://a.example/x", "a=https://b.example/?q=1", "a@b-2=http://[::1]:8080/"]
)
def test_options(text: str) -> None:
    """A URL, with a name, with a group."""
    assert feed_option(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "a=", "A=http://x.example/", "ftp://x.example/", "a@=http://x.example/"),
        *("http://", "http://u:p@x.example/", "http://x.example:99999/", "http://x.example/a b"),
    ],
)
def test_options_that_are_none(text: str) -> None:
    """A mistake is told, and what may be a secret in it is not repeated."""
    with pytest.raises(ValueError) as told:
        feed_option(text)
    assert "u:p" not in str(told.value)


def test_keys() -> None:
    """A feed that moves to https is the same feed."""
    assert feed_key("http://A.example/x?y") == feed_key("https://a.example:443/x?y")
    assert feed_key("http://a.example:8080/") == "a.example:8080/"
    assert feed_key("http://a.example/x") != feed_key("http://a.example/y")


def test_slugs() -> None:
    """Titles become names one can type."""
    assert slug(" Zeit für Züge! ") == "zeit-fur-zuge"
    assert slug("新闻") == ""
    assert len(slug("x" * 200)) == 60


def test_lists() -> None:
    """Folders are groups, nested ones too; names that are taken get a number."""
    made = subscribe(["deep-2=http://x.example/"], opml.read(str(LIST)))
    names = {feed.name: feed.groups for feed in made.feeds}
    assert names == {
        "deep-2": (),
        "zeit-fur-zuge": ("technik",),
        "news": ("technik", "deep", "kitchen"),  # in two folders, with http and https
        "news-2": ("kitchen",),
        "alone": ("kitchen",),
    }
    assert len(made.boxes["kitchen"]) == 3
    assert len(made.boxes["all"]) == 5


def test_who_reads_what() -> None:
    """BOX or WHO@BOX; anybody where there is one feed only; nobody else."""
    made = subscribe(["a@g=http://a.example/", "b@g=http://b.example/"], [])
    a, b = made.feeds
    assert made.of("a") == made.of("anna@a") == (a,)
    assert made.of("g") == made.of("anna@g") == made.of("all") == (a, b)
    for name in ("anna", "a@x", "", "A", "@a"):
        assert made.of(name) is None
    one = subscribe(["http://www.a.example/"], [])
    assert one.feeds[0].name == "www-a-example"
    assert one.of("anna") == one.feeds


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["a=http://x.example/", "a=http://y.example/"], "the name a is given twice"),
        (["a@b=http://x.example/", "b=http://y.example/"], "the name b is given twice"),
        (["b=http://x.example/", "a@b=http://y.example/"], "a group has the same name"),
        ([], "at least one feed is needed"),
    ],
)
def test_names_that_collide(options: list[str], told: str) -> None:
    """A name stands for one thing."""
    with pytest.raises(ConfigError, match=told):
        subscribe(options, [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<opml>\n<body>\n<outline>", "list.opml:3: this is no XML"),
        ("<html/>", "list.opml:1: this is no OPML"),
        (
            '<opml><body>\n\n<outline xmlUrl="ftp://x"/></body></opml>',
            "list.opml:3: this is no URL",
        ),
        ("<opml><body>" + '<outline text="x">' * 30 + "</outline>" * 30 + "</body></opml>", "deep"),
    ],
)
def test_broken_lists(tmp_path: Path, text: str, told: str) -> None:
    """File and line."""
    path = tmp_path / "list.opml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        opml.read(str(path))


def test_a_list_that_is_not_there() -> None:
    """One line with the reason."""
    with pytest.raises(ConfigError, match="No such file"):
        opml.read("/nowhere/list.opml")


def test_entities_in_a_list(tmp_path: Path) -> None:
    """They are not expanded."""
    path = tmp_path / "list.opml"
    path.write_text(
        '<!DOCTYPE opml [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
        '<opml><body><outline text="a" xmlUrl="http://a.example/"/>&x;</body></opml>'
    )
    assert opml.read(str(path)) == [Feed("a", "http://a.example/", (), "a")]
