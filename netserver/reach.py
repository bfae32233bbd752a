"""What serving needs of the file system and the network; see `sandbox`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reach:
    """The directories and files that serving needs, and whether it connects to other machines."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool = False

    def __or__(self, other: Reach) -> Reach:
        return Reach(
            self.read + other.read, self.write + other.write, self.network or other.network
        )
