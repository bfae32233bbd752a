"""SASLprep (RFC 4013): one spelling for names and passwords that look the same."""

import stringprep
from unicodedata import ucd_3_2_0

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,  # not assigned in Unicode 3.2: a stored string may not hold it
)


def prepare(octets: bytes) -> bytes | None:
    """Return the octets in their prepared form; None if they are empty or hold what is not allowed.

    Never raises, since its frame may hold a password.
    """
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if text.isascii():
        return octets if text and text.isprintable() else None
    text = "".join(
        " " if stringprep.in_table_c12(letter) else letter
        for letter in text
        if not stringprep.in_table_b1(letter)
    )
    text = ucd_3_2_0.normalize("NFKC", text)
    bad = any(is_in(letter) for letter in text for is_in in _PROHIBITED)
    return None if bad or not text or not _is_one_way(text) else text.encode()


def _is_one_way(text: str) -> bool:
    """Tell whether the text obeys the rule on letters written from the right (RFC 3454 §6)."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends and not any(map(stringprep.in_table_d2, text))
