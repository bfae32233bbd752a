"""Real mail, fetched by the clients people use, comes out as it was stored."""

import contextlib
import io
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.clients import CLIENTS, PLAIN, STLS, TLS, Target
from tests.netserver.certs import make_certificate
from tests.support.maildirs import NASTY, make_maildir, stored_messages, with_crlf
from tests.support.servers import ROOT, RunningServer, running

CHOSEN = ROOT / "tests/data/mail"
CORPUS = ROOT.parent / "shared/corpus/mail-500.tar.xz"
PASSWORD = "correct horse"  # a space in it is a client's and a server's business
PAIRS = [(name, transport) for name, client in CLIENTS.items() for transport in client.transports]


def chosen() -> dict[str, bytes]:
    """Return the forty messages of tests/data by name."""
    return {path.name: path.read_bytes() for path in sorted(CHOSEN.glob("*.eml"))}


def corpus() -> dict[str, bytes]:
    """Return the five hundred messages by name, or none where the archive is not there."""
    if not CORPUS.exists():
        return {}
    with tarfile.open(fileobj=io.BytesIO(CORPUS.read_bytes())) as archive:
        members = sorted((m for m in archive if m.isfile()), key=lambda member: member.name)
        files = {member.name: archive.extractfile(member) for member in members}
        return {name: file.read() for name, file in files.items() if file is not None}


@dataclass(frozen=True)
class PostOffice:
    """A running server, its certificate, and its mail: user to messages by name."""

    server: RunningServer
    cert: Path
    mail: Mapping[str, Mapping[str, bytes]]


@contextlib.contextmanager
def post_office(
    home: Path, personality: str, listen: Sequence[str], mail: Mapping[str, Mapping[str, bytes]]
) -> Iterator[PostOffice]:
    """Run a server with a certificate and one maildir per user."""
    cert, key = make_certificate(home, ["localhost"], "127.0.0.1")
    with running(
        home,
        personality=personality,
        users=dict.fromkeys(mail, PASSWORD),
        listen=listen,
        options=["--tls-cert", str(cert), "--tls-key", str(key)],
    ) as server:
        for user, messages in mail.items():
            make_maildir(server.maildir(user), messages.values())
        yield PostOffice(server, cert, mail)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostOffice]:
    """Return a server on a plain and on a TLS port, with a user for each collection."""
    mail = {"chosen": chosen(), "made": NASTY, "corpus": corpus()}
    listen = ["127.0.0.1:0", "tls://127.0.0.1:0"]
    with post_office(tmp_path_factory.mktemp("office"), "gevent", listen, mail) as opened:
        yield opened


def fetch(office: PostOffice, name: str, transport: str, user: str, home: Path) -> list[bytes]:
    """Let a client fetch all of a user's mail, or skip if that client is not here."""
    client = CLIENTS[name]
    if client.program is not None and shutil.which(client.program) is None:
        pytest.skip(f"{client.program} is not installed; as root, `make test` does it")
    port = office.server.endpoint(1 if transport == TLS else 0)[1]
    return client.fetch(Target(port, transport, user, PASSWORD, office.cert, home))


def differing(name: str, messages: Mapping[str, bytes], fetched: list[bytes]) -> list[str]:
    """Return the names of messages that did not come out as they were stored."""
    client = CLIENTS[name]
    assert len(fetched) == len(messages)
    return [
        key
        for (key, stored), got in zip(messages.items(), fetched, strict=True)
        if key not in client.alters
        and client.compared(got) != client.compared(client.kept(with_crlf(stored)))
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("user", ["chosen", "made", "corpus"])
@pytest.mark.parametrize(("name", "transport"), PAIRS)
def test_client_keeps_every_message_as_stored(
    office: PostOffice, name: str, transport: str, user: str, tmp_path: Path
) -> None:
    """What a client keeps is what is stored, but for what that client changes itself."""
    messages = office.mail[user]
    if not messages:
        pytest.skip(f"{CORPUS} is not here")
    fetched = fetch(office, name, transport, user, tmp_path)
    assert differing(name, messages, fetched) == []
    assert stored_messages(office.server.maildir(user)) == list(messages.values())


def test_curl_gets_all_mail_under_every_personality(personality: str, tmp_path: Path) -> None:
    """Plain and after STLS, all messages come out the same under each process model."""
    home = tmp_path / "server"
    home.mkdir()
    with post_office(home, personality, ["127.0.0.1:0"], {"chosen": chosen()}) as office:
        for transport in (PLAIN, STLS):
            place = tmp_path / transport
            place.mkdir()
            fetched = fetch(office, "curl", transport, "chosen", place)
            assert differing("curl", chosen(), fetched) == []


def test_chosen_mail_is_what_its_description_says() -> None:
    """Forty messages, with the oddities that tests/data/README.md promises."""
    messages = chosen()
    assert len(messages) == 40
    every = b"\n".join(messages.values())
    assert max(map(len, every.split(b"\n"))) == 2420
    assert b"\n.\n" in every
    assert b"\nFrom " in every
    assert any(not message.endswith(b"\n") for message in messages.values())
    assert any(
        max(message) > 127 and b"charset" not in message.lower() for message in messages.values()
    )
