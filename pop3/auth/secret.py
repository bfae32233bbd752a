"""A password on its way from the wire to the one place that compares it."""

import hmac
from typing import ClassVar, NoReturn

_SHOWN = "<secret>"


class Secret:
    """Octets that no log, title, traceback or pickle can show.

    Deliberately no `bytes`: a subclass would still print by `%`, slices, iteration and `.decode()`.
    Take the octets out with `reveal()` as late as possible, and never into a local variable of a
    frame an error can leave: some tracebacks show local variables.
    """

    __slots__ = ("_octets",)

    #: The log set-up looks for this mark, so it needs no import of this package.
    __netserver_secret__: ClassVar[bool] = True

    # An equal hash would be a way to test guesses; a set of passwords is a mistake anyway.
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(self, octets: bytes) -> None:
        self._octets = bytes(octets)

    def reveal(self) -> bytes:
        """Return the octets, for the one call that needs them."""
        return self._octets

    def equals(self, other: bytes) -> bool:
        """Compare in a time that does not depend on where the two differ."""
        return hmac.compare_digest(self._octets, other)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return _SHOWN

    def __str__(self) -> str:
        return _SHOWN

    def __format__(self, spec: str) -> str:
        return _SHOWN

    def __bool__(self) -> NoReturn:
        # `if secret:` reads as "is there one" and would mean "is it empty".
        raise TypeError("a secret has no truth value: compare with None")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret can be neither pickled nor copied")
