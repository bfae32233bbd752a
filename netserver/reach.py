"""What serving needs of the file system and the network; see `sandbox`."""

from __future__ import annotations

import os
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

    @property
    def has_everything(self) -> bool:
        """Whether no file is out of reach."""
        return any(os.path.realpath(path) == "/" for path in (*self.read, *self.write))


def around(path: str) -> str:
    """Return the directory of a file, as a new file may take its name; for one in "/" only itself.

    That directory would be all there is.
    """
    directory = os.path.dirname(os.path.abspath(path))
    return path if os.path.realpath(directory) == "/" else directory
