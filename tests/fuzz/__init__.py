"""Octets of strangers and broken files, by the million; see share/doc/testing.md."""
