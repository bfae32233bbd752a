"""Feeds as mail: RSS, Atom and JSON Feed read, rendered as messages, and kept.

A page of a feed is read by `parse`, an item made a message by `render`; `look` goes through all of
that for one feed, and `rounds` for several side by side.
"""
