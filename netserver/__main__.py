"""Run any server class: `net-server [module:Class] [options]`; without one, an echo server."""

import sys

from netserver import boot


def main() -> int:
    """Run `net-server` and return its exit code."""
    return boot.main(prog="net-server", default="netserver.echo:EchoServer")


if __name__ == "__main__":
    sys.exit(main())
