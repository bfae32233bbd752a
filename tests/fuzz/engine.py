"""What runs inside of atheris, in a process of its own: it never returns from its loop."""

import sys

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["netserver", "pop3"]):
    from tests.fuzz.target import targets

    known = targets()


def main() -> None:
    """Fuzz one target; the other arguments are libFuzzer's."""
    name, *arguments = sys.argv[1:]
    atheris.Setup([sys.argv[0], *arguments], known[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
