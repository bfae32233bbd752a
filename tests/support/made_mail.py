"""Reading mail that the server has made itself, and judging it on the way."""

from email import message_from_bytes
from email.policy import default

from tests.support.wire import Wire


def uids(wire: Wire) -> list[bytes]:
    """Return the unique ids."""
    return [line.split()[1] for line in wire.lines(b"UIDL")]


def subjects(wire: Wire) -> list[str]:
    """Return all subjects; every message is as long as LIST says and parses without defects."""
    found = []
    for line in wire.lines(b"LIST"):
        number, size = line.split()
        octets = wire.message(b"RETR " + number)
        assert len(octets) == int(size)
        assert max(map(len, octets.split(b"\r\n"))) <= 78
        message = message_from_bytes(octets, policy=default)
        assert not message.defects
        found.append(str(message["Subject"]))
    return found
