"""Ids that clients know from another server, so that nobody downloads mail twice after a move."""

from pop3.uidl.diff import UidlDiff, read_listing, uidl_diff

__all__ = ["UidlDiff", "read_listing", "uidl_diff"]
