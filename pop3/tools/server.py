"""The program `pop3-server`."""

import sys

from netserver import boot
from pop3.sources import SOURCES


def main() -> int:
    """Run the server that --source names and return its exit code."""
    return boot.main(
        prog="pop3-server",
        default="maildir",
        sources=SOURCES,
        group="pop3.sources",
        personality="gevent",
    )


if __name__ == "__main__":
    sys.exit(main())
