"""AUTH: lines of a conversation, and decoded responses given to each mechanism."""

import contextlib
import re
import secrets
from functools import cache

from pop3.auth import sasl
from pop3.auth.names import LoginName
from pop3.errors import POP3Error
from tests.fuzz.client import connection_of
from tests.fuzz.on_session import memory_server
from tests.fuzz.target import pieces, target
from tests.pop3.fakes import Log, POP3Erasable

MECHANISMS = sasl.AVAILABLE


@cache
def _server() -> POP3Erasable:
    # nobody knows this password, so nobody may get in
    users = f"joe:{{PLAIN}}{secrets.token_hex(20)}\nann:{{PLAIN}}{secrets.token_hex(20)}\n"
    return memory_server(users, sasl="SCRAM-SHA-256,SCRAM-SHA-1,CRAM-MD5,PLAIN,LOGIN", apop=True)


@target(
    "auth-lines",
    seeds=(
        b"\0AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n",
        b"\0AUTH LOGIN\r\nam9l\r\nc2VjcmV0\r\n",
        b"\1AUTH CRAM-MD5\r\nam9lIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\r\n",
        b"\0AUTH SCRAM-SHA-256 biwsbj1qb2Uscj1hYmNk\r\nYz1iaXdzLHI9YWJjZCxwPWFhYWE=\r\n",
        b"\0AUTH PLAIN =\r\n*\r\nAUTH PLAIN\r\n*\r\n",
        b"\0APOP joe 0123456789abcdef0123456789abcdef\r\n",
    ),
    words=(
        b"AUTH ",
        *(b"AUTH " + name for name in MECHANISMS),
        b"\r\n*\r\n",
        b" =\r\n",
        b"am9l\r\n",
    ),
    longest=2048,
)
def auth_lines(data: bytes) -> None:
    """Whatever is said, it is answered line by line, and nobody gets in."""
    sizes, said = data[:1], data[1:]
    server = _server()
    server.log = quiet = Log()  # type: ignore[assignment]
    server.store.calls.clear()
    connection, near, log = connection_of(pieces(said, sizes))
    server.process_request(connection)
    connection.close()
    assert "open_box" not in server.store.calls
    assert all(level != "exception" for level, _, _ in (*log.events, *quiet.events))
    lines = bytes(near.sent).split(b"\r\n")
    assert lines.pop() == b""
    assert all(re.fullmatch(rb"[\x20-\x7e]{0,510}", line) for line in lines)


@target(
    "sasl",
    seeds=(
        b"\0n,,n=joe,r=abcdef\nc=biws,r=$NONCE,p=YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=",
        b"\x08\0joe\0secret",
        b"\x08\0joe\0",
        b"\x09joe\nsecret",
        b"\x07\njoe b913a602c7eda7a495b4e6e7334d3890",
        b"\x05n,a=joe,\1host=h\1port=110\1auth=Bearer abc.def\1\1\n\1",
        b"\x06user=joe\1auth=Bearer abc\1\1\n",
        b"\x04joe",
        b"\x0aanonymous",
    ),
    words=(
        b"n,,n=",
        b"y,,",
        b"p=tls-unique,,",
        b"a=joe,",
        b",r=",
        b"c=biws,r=$NONCE,p=",
        b"=2C",
        b"\1",
    ),
)
def mechanisms(data: bytes) -> None:
    """A mechanism asks, refuses, or gives credentials or a proof; who has no secret fails."""
    number, said = data[:1], data[1:]
    server = _server()
    name = MECHANISMS[number[0] % len(MECHANISMS)] if number else MECHANISMS[0]
    around = sasl.Surroundings(
        chain=server.chain,
        parse=_parsed,
        salt_key=b"salt",
        offered=MECHANISMS,
    )
    exchange = sasl.exchange(name.lower(), around)
    assert exchange is not None
    nonce = b""
    responses = said.split(b"\n")
    initial: list[bytes | None] = [None] if responses[0] == b"" else []
    with contextlib.suppress(POP3Error):
        for response in (*initial, *responses):
            step = exchange.respond(response and response.replace(b"$NONCE", nonce))
            if isinstance(step, sasl.Challenge):
                found = re.search(rb"r=([^,]+)", step.data)
                nonce = found[1] if found else nonce
                continue
            login = _parsed(step.login)
            if isinstance(step, sasl.Proof) and login is not None and name != b"ANONYMOUS":
                step.identify(login)
                raise AssertionError("a proof of nothing was taken")
            break


def _parsed(raw: bytes) -> LoginName | None:
    try:
        return LoginName.parse(raw)
    except ValueError:
        return None
