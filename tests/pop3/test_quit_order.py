"""What is done before the answer to QUIT, and what after it."""

from pathlib import Path

from tests.pop3.fakes import LOGIN, FakeConnection, POP3Erasable, make_server


def test_the_maildrop_is_free_when_quit_is_answered(tmp_path: Path) -> None:
    """Who logs in upon the answer finds the box closed and the lock given up."""
    server = make_server(tmp_path, [b"A: b\n\nx\n"], kind=POP3Erasable)
    connection = FakeConnection(LOGIN + b"DELE 1\r\nQUIT\r\n")
    seen: list[list[str]] = []

    def on_write(data: bytes) -> None:
        if data == b"+OK bye\r\n":
            again = FakeConnection(LOGIN + b"QUIT\r\n")
            server.process_request(again)  # type: ignore[arg-type]
            assert b"+OK logged in" in again.out
            seen.append(list(server.store.calls))

    connection.on_write = on_write
    server.process_request(connection)  # type: ignore[arg-type]
    assert seen
    assert seen[0][:4] == ["open_box", "list_messages", "delete_messages", "close_box"]
