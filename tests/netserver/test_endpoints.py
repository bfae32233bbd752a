"""The values that name places: listen specs and addresses."""

import socket

import pytest

from netserver.endpoints import Address, ListenSpec
from netserver.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "place", "tls"),
    [
        ("127.0.0.1:1110", "tcp", ("127.0.0.1", 1110), False),
        ("mail.example.org:0", "tcp", ("mail.example.org", 0), False),
        ("[::1]:110", "tcp", ("::1", 110), False),
        ("*:65535", "tcp", ("*", 65535), False),
        ("tls://*:995", "tcp", ("*", 995), True),
        ("tls://[::]:995?tls-min-version=1.3", "tcp", ("::", 995), True),
        ("unix:/run/x:y.sock", "unix", "/run/x:y.sock", False),
        ("unix:x.sock?tls=implicit", "unix", "x.sock", True),
        ("systemd:pop3s?tls=implicit", "systemd", "pop3s", True),
        ("fd:3", "fd", "3", False),
        ("stdin", "stdin", "", False),
        ("tls:stdin", "stdin", "", True),
    ],
)
def test_spec_forms_are_read(text: str, kind: str, place: tuple[str, int] | str, tls: bool) -> None:
    """Every promised form gives its parts."""
    spec = ListenSpec.parse(text)
    assert spec.kind == kind
    assert ((spec.host, spec.port) if kind == "tcp" else spec.name) == place
    assert spec.tls is tls
    assert spec.text == text


def test_spec_options_are_read() -> None:
    """Options stand behind the question mark; a server class may know more of them."""
    spec = ListenSpec.parse(
        "*:110?allow=10.0.0.0/8,::1&plaintext-auth=always", extra_keys={"plaintext-auth"}
    )
    assert spec.options == {"allow": "10.0.0.0/8,::1", "plaintext-auth": "always"}
    more = ListenSpec.parse("*:110?greeting=hi", extra_keys=frozenset({"greeting"}))
    assert more.options == {"greeting": "hi"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no port"),
        ("localhost", "no port"),
        ("localhost:", "'' is no port number"),
        ("localhost:pop3", "'pop3' is no port number"),
        ("localhost:65536", "'65536' is no port number"),
        ("localhost:-1", "'-1' is no port number"),
        ("localhost:\u0661\u0661\u0660", "is no port number"),
        ("localhost:1_0", "is no port number"),
        (":110", "'' is no host; * stands for all"),
        ("::1:110", "in brackets"),
        ("[::1]", "no port number"),
        ("[::g]:110", "'::g' is no IPv6 address"),
        ("[127.0.0.1]:110", "is no IPv6 address"),
        ("127.1:110", "'127.1' is no IPv4 address"),
        ("256.0.0.1:110", "is no IPv4 address"),
        ("a b:110", "'a b' is no host"),
        ("tls://localhost", "no port"),
        ("tls+unix:x", "is no port number"),
        ("unix:", "nothing usable stands after unix:"),
        ("unix:" + "x" * 108, "longer than 107 octets"),
        ("systemd:", "nothing usable"),
        ("fd:x", "'x' is no descriptor number"),
        ("fd:\u0663", "is no descriptor number"),
        ("*:110?", "unknown option ''"),
        ("*:110?colour=red", "unknown option 'colour'"),
        ("*:110?allow", "option allow has no value"),
        ("*:110?allow=", "option allow has no value"),
        ("*:110?allow=::1&allow=::2", "option allow stands twice"),
        ("unix:x?tls=yes", "tls=yes: the only value is implicit"),
    ],
)
def test_wrong_spec_is_named_with_the_reason(text: str, why: str) -> None:
    """A mistake gives one line that has the spec and what is wrong."""
    with pytest.raises(ConfigError) as caught:
        ListenSpec.parse(text)
    assert str(caught.value).startswith(f"--listen {text}: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "family", "text", "key", "loopback"),
    [
        (("192.0.2.1", 4711), socket.AF_INET, "192.0.2.1:4711", b"\xc0\x00\x02\x01", False),
        (("127.8.0.1", 1), socket.AF_INET, "127.8.0.1:1", b"\x7f\x08\x00\x01", True),
        (("::1", 9, 0, 0), socket.AF_INET6, "[::1]:9", bytes(8), True),
        (("::ffff:192.0.2.1", 9, 0, 0), socket.AF_INET6, "192.0.2.1:9", b"\xc0\x00\x02\x01", False),
        (("::ffff:127.0.0.1", 9, 0, 0), socket.AF_INET6, "127.0.0.1:9", b"\x7f\x00\x00\x01", True),
        (
            ("fe80::1%eth0", 9, 0, 2),
            socket.AF_INET6,
            "[fe80::1]:9",
            b"\xfe\x80\x00\x00\x00\x00\x00\x00",
            False,
        ),
        (
            ("2001:db8:1:2:3::4", 9, 0, 0),
            socket.AF_INET6,
            "[2001:db8:1:2:3::4]:9",
            b"\x20\x01\x0d\xb8\x00\x01\x00\x02",
            False,
        ),
        ("", socket.AF_UNIX, "unix", b"", True),
        (b"", socket.AF_UNIX, "unix", b"", True),
        (None, socket.AF_UNIX, "unix", b"", True),
        (None, socket.AF_INET, "unknown", b"", False),
    ],
)
def test_address_is_shown_and_counted(
    raw: object, family: int, text: str, key: bytes, loopback: bool
) -> None:
    """IPv4 in IPv6 is IPv4, scopes are dropped, limits count IPv6 by /64."""
    address = Address.of(raw, family)
    assert str(address) == text
    assert address.network_key() == key
    assert address.is_loopback is loopback
