"""The server that `pop3-try source` talks to: a source that locks and deletes nothing."""

import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netserver import boot
from netserver.options import Settings, load, option
from pop3.tools.talk import octets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pop3.message import Listing, Message
    from pop3.server import POP3Server


@dataclass
class Trial:
    """What the source did in the dialogue: its own ids, and the seconds its methods took."""

    uids: list[bytes] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Take the time of what is in the `with`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = time.perf_counter() - began


@dataclass(frozen=True)
class _Source(Settings):
    source: str = option("maildir", help="")


def server(arguments: list[str], trial: Trial, *, as_login: bool) -> "POP3Server[Any]":
    """Return the source's server, changed in what a trial must not do. Raises ConfigError."""
    from pop3.sources import SOURCES  # noqa: PLC0415 - with all the server

    read = {"prog": "pop3-server", "argv": arguments, "environ": os.environ}
    name = load(_Source, **read, ignore_unknown=True).settings.source  # type: ignore[arg-type]
    found: type[POP3Server[Any]] = boot.resolve(name, SOURCES, "pop3.sources")
    loaded = load(
        found.settings_class,
        prog="pop3-server",
        argv=arguments,
        environ=os.environ,
        defaults=found.default_values(),
    )
    settings = replace(
        loaded.settings,
        auth=("any",),
        auth_for=(),
        delete="ignore",
        expire=None,
        login_delay=0.0,
        plaintext_auth="always",
        sasl=None,
        apop=False,
        add_received=(),
        user_log=(),
        user_debug=(),
        admin_listen=None,
        chroot=None,
        log_file=None,
        log_level="warning",
        sandbox="off",
    )
    return _trial_class(found, trial, loaded.settings, as_login=as_login)(settings, prog="pop3-try")


def _trial_class(
    found: "type[POP3Server[Any]]", trial: Trial, settings: Any, *, as_login: bool
) -> "type[POP3Server[Any]]":
    from pop3.auth.chain import AuthChain  # noqa: PLC0415 - see server
    from pop3.message import Listing  # noqa: PLC0415 - same

    class Tried(found):  # type: ignore[misc, valid-type] # the class is an argument
        def _make_chain(self) -> AuthChain | None:
            return None if self.authenticates_upstream else AuthChain([_trusting(settings)])

        def lock_path(self, session: Any) -> Path | None:
            return super().lock_path(session) if as_login else None

        def open_box(self, session: Any) -> Any:
            with trial.timing("open"):
                return super().open_box(session)

        def list_messages(self, session: Any) -> "Iterable[Message] | Listing":
            with trial.timing("list"):
                listed = super().list_messages(session)
                messages = listed if isinstance(listed, Listing) else list(listed)
            trial.uids = (
                list(messages.uids)
                if isinstance(messages, Listing)
                else [octets(message.uid) for message in messages]
            )
            return messages

        def commit(self, session: Any) -> None:
            """Delete nothing."""

    Tried.__name__ = found.__name__  # the state goes by it
    Tried.__qualname__ = found.__qualname__
    return Tried


def _trusting(settings: Any) -> Any:
    """Return a backend that lets in any user, with the home that --auth or the system knows."""
    from pop3.auth.backend import Backend, Identity, Setup  # noqa: PLC0415 - see server
    from pop3.auth.chain import AuthChain  # noqa: PLC0415 - see server
    from pop3.errors import POP3Error  # noqa: PLC0415 - same

    known: AuthChain | None = None
    if settings.auth:
        known = AuthChain.from_specs(
            settings.auth, base_directory=os.getcwd(), overrides=settings.auth_for
        )

    class Trusting(Backend):
        name = "any"
        open_to_all = True

        def __init__(self, argument: str, setup: Setup) -> None:
            """Need nothing."""

        def lookup(self, login: Any, run_blocking: Any) -> Identity:
            try:
                found = None if known is None else known.lookup(login, run_blocking)
            except POP3Error:
                found = None
            if found is not None and found.home is not None:
                return found
            try:
                entry = pwd.getpwnam(login.user)
            except (KeyError, ValueError):
                return found or Identity(login.user)
            return Identity(login.user, entry.pw_uid, entry.pw_gid, entry.pw_dir)

        def verify(self, login: Any, secret: Any, run_blocking: Any) -> Identity:
            del secret
            return self.lookup(login, run_blocking)

    return Trusting("", Setup())
