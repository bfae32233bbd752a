"""The rule that a server object holds nothing of one client, made mechanical."""

from __future__ import annotations

from typing import final

from netserver.errors import SealedError


class Sealed:
    """An object whose attributes cannot be set any more once it is sealed.

    Under every personality, so that the mistake shows on its author's desk and not with two clients
    at once.
    """

    _sealed = False

    def __setattr__(self, name: str, value: object) -> None:
        if self._sealed:
            raise SealedError(
                f"{type(self).__name__}.{name} is set after start-up: one object serves all;"
                " keep what belongs to a client on its connection"
            )
        super().__setattr__(name, value)

    @final
    def seal(self) -> None:
        """Let no attribute be set from now on."""
        object.__setattr__(self, "_sealed", True)

    @final
    def unseal(self) -> None:
        """Lift the seal, while a process begins or ends."""
        object.__setattr__(self, "_sealed", False)
