"""The smallest server: it sends every line back."""

from netserver.connection import Connection
from netserver.server import NetServer


class EchoServer(NetServer):
    """Answer each line with itself until the client says "quit" or leaves."""

    def process_request(self, connection: Connection) -> None:
        """Serve one client; its leaving ends this by ConnectionLost, a normal end."""
        while (line := connection.read_line()) != b"quit":
            connection.write(line + b"\r\n")
        connection.flush()
