"""What can go wrong between a site and its mailbox. No text of a site is ever in them."""


class ScrapeError(Exception):
    """The base of the others; its text is for the log and the preview."""


class FetchError(ScrapeError):
    """A page could not be had: it is not there, too large, too slow, or leads in a circle."""

    def __init__(self, text: str, url: str = "", status: int = 0) -> None:
        """Keep the URL and, if there was an answer, its status."""
        super().__init__(f"{url}: {text}" if url else text)
        self.text = text
        self.url = url
        self.status = status


class AddressRefused(FetchError):
    """A URL leads to an address that the policy does not allow."""


class OutOfBudget(FetchError):
    """The seconds, octets or requests of this session are used up."""


class SiteChanged(ScrapeError):
    """A page is not what the spec expects."""

    def __init__(self, text: str, page: object = None) -> None:
        """Keep the page (a `fetch.Page`), for whoever is to mend the spec."""
        super().__init__(text)
        self.page = page
