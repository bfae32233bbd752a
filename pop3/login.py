"""From a name and a secret to an open maildrop: check, lock, open, list (RFC 1939 §4)."""

import time
from typing import TYPE_CHECKING, Any

from pop3 import become_user, commands_auth
from pop3.auth.backend import Identity
from pop3.auth.names import LoginName, Origin
from pop3.auth.sasl import Proof
from pop3.auth.secret import Secret
from pop3.errors import AuthFailed, CommandError, MailboxInUse, POP3Error, TemporaryFailure
from pop3.lock import MaildropLock
from pop3.maildrop import Maildrop
from pop3.message import Listing
from pop3.session import Session, State

if TYPE_CHECKING:
    from pop3.server import POP3Server

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.25


def log_in(
    server: "POP3Server[Any]",
    session: Session[Any],
    name: bytes,
    secret: Secret,
    *,
    proof: Proof | None = None,
) -> None:
    """Bring a session into the TRANSACTION state.

    A proof takes the place of the secret, which is then what tells attempts apart.

    Raises AuthFailed after the delay that is due, MailboxInUse, TemporaryFailure, PermanentFailure;
    the session stays in the AUTHORIZATION state then, and nothing of the user is left open.
    """
    connection = session.connection
    login = parse(server, session, name)
    user = "" if login is None else login.user
    guard = server.guard
    due = guard.due(connection, user)
    # who has waited for the failures on this connection need not wait for them again
    if due and not session.auth_failures:
        connection.pause(due)
    began = time.monotonic()
    try:
        if login is None or not guard.admits(connection):
            raise AuthFailed  # noqa: TRY301 - the one way all failures go
        session.login = login
        session.user = user
        identity = _identify(server, session, login, secret, proof)
        session.user = identity.user
        session.login = login.as_user(identity.user)
        session.home = identity.home
        session.uid = identity.uid
        if (
            not server.clients.claim_user(connection, session.user)
            and server.trusted_by(connection.peer, connection.run_blocking) is None
        ):
            raise MailboxInUse("too many sessions of this user")  # noqa: TRY301 - same
        guard.demand_delay(connection, session.user)
        open_maildrop(server, session, secret, identity)
    except BaseException as error:
        server.clients.release_user(connection)
        session.login = None
        session.user = ""
        session.home = None
        session.uid = None
        session.forget_log()
        if isinstance(error, POP3Error):
            # share/doc/brute-force.md promises this line, share/fail2ban/ reads it
            connection.log.warning("login failed", code=error.code, user=user, reason=error.text)
        if isinstance(error, AuthFailed) and (delay := guard.failed(connection, user, secret)):
            # from the beginning, so that the answer does not tell how much work there was
            connection.pause(max(0.0, began + delay - time.monotonic()))
        raise
    guard.succeeded(connection, user, session.user, forget=bool(due))


def parse(server: "POP3Server[Any]", session: Session[Any], name: bytes) -> LoginName | None:
    """Return the name in its normal form, with where it comes from; None if it is none."""
    try:
        login = LoginName.parse(name, strict=server.strict_login_names)
    except ValueError:
        return None
    connection = session.connection
    server_name = None if connection.tls is None else connection.tls.server_name
    return login.coming_from(
        Origin(server_name, lambda: server.host_names(connection.peer, connection.run_blocking))
    )


def demand_known(server: "POP3Server[Any]", session: Session[Any], name: bytes) -> None:
    """Refuse a name nobody has, before the password. For --reject-bogus-user.

    Raises CommandError, TemporaryFailure.
    """
    if server.chain is None:
        return
    login = parse(server, session, name)
    if login is None or server.chain.lookup(login, session.connection.run_blocking) is None:
        raise CommandError("no such user")


def _identify(
    server: "POP3Server[Any]",
    session: Session[Any],
    login: LoginName,
    secret: Secret,
    proof: Proof | None,
) -> Identity:
    run_blocking = session.connection.run_blocking
    if proof is not None:
        identity = commands_auth.identify(session, login, proof)
    elif server.chain is None:  # open_box will ask the far end
        identity = Identity(login.user)
    else:
        identity = server.chain.authenticate(login, secret, run_blocking)
    if not server.valid_user(identity.user) or server.guard.bans.has(identity.user):
        raise AuthFailed
    if server.chain is not None and not server.chain.may_find(login, identity.user):
        raise AuthFailed
    if proof is not None and proof.last is not None:
        commands_auth.say_last(session, proof.last)
    return identity


def open_maildrop(
    server: "POP3Server[Any]", session: Session[Any], secret: Secret, identity: Identity
) -> None:
    """Lock, open and list; whatever this or the source raises, all is closed again."""
    try:
        _lock(server, session)
        become_user.become(server, session, identity)
        session.secret = secret if server.authenticates_upstream else None
        session.box = server.open_box(session)
        session.secret = None
        session.box_is_open = True
        listing = Listing.of(server.list_messages(session))
        if server.uidl is not None:
            listing = server.uidl.announce(server, session, listing)
        session.maildrop = Maildrop(_seen_by(server, session, listing))
        session.state = State.TRANSACTION
    except OSError as error:
        server.close_maildrop(session)
        session.log.exception("mailbox not readable")
        raise TemporaryFailure("mailbox cannot be opened") from error
    except BaseException:
        server.close_maildrop(session)
        raise
    finally:
        session.secret = None


def _lock(server: "POP3Server[Any]", session: Session[Any]) -> None:
    path = server.lock_path(session)
    if path is None:
        return
    lock = MaildropLock(path)
    wait = server.settings.lock_wait
    pause = _FIRST_PAUSE
    while not lock.acquire():
        if wait <= 0:
            raise MailboxInUse("mailbox is in use by another session")
        pause = min(pause, wait)
        session.connection.pause(pause)
        wait -= pause
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    session.lock = lock


def _seen_by(server: "POP3Server[Any]", session: Session[Any], listing: Listing) -> Listing:
    """Leave out what this user has hidden; fill in sizes that an earlier session found."""
    run_blocking = session.connection.run_blocking
    if server.hides(session):
        name = server.maildrop_name(session)
        hidden = run_blocking("disk", server.state.hidden, name, session.view or "")
        listing = listing.without({uid.encode("ascii") for uid in hidden})
    if unknown := listing.unknown():
        known = run_blocking("disk", server.state.sizes, server.maildrop_name(session))
        for index in unknown:
            if (size := known.get(listing.uids[index].decode("ascii"))) is not None:
                listing.set_size(index, size)
    return listing
