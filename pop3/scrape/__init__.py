"""Websites as mail: what fetches pages, reads them by a spec and makes messages of them.

`fetch` gets pages and knows nothing of specs; `extract` finds things in them; `spec` is what a
file says; `walk` goes through a site as its spec tells; `mailbox` keeps what was found.
"""
