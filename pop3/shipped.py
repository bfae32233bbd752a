"""Where the files are that come with the programs: themes, specs, units."""

import sysconfig
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1] / "share"


def shipped(*parts: str) -> Path:
    """Return the path of such a file or directory, of a checkout or of an installed package."""
    directory = _CHECKOUT
    if not directory.is_dir():
        directory = Path(sysconfig.get_path("data")) / "share" / "netserver-pop3"
    return directory.joinpath(*parts)
