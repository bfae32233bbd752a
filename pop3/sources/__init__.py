"""The mail sources that come with the server, by the name that --source takes.

Names only: a source's module is imported when it is asked for.
"""

SOURCES = {
    "feed": "pop3.sources.feed:POP3Feed",
    "maildir": "pop3.sources.maildir:POP3Maildir",
    "mbox": "pop3.sources.mbox:POP3Mbox",
    "webscrape": "pop3.sources.webscrape:POP3Webscrape",
}
