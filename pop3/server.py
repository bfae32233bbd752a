"""The POP3 server: one subclass per mail source, one object per process, one session per client."""

import math
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Generic, final

import netserver
from netserver.endpoints import ListenSpec
from netserver.errors import ConfigError
from netserver.server import NetServer
from pop3 import conversation, extras, login, paths, spool, state, texts
from pop3.auth import sasl
from pop3.auth.chain import AuthChain
from pop3.auth.children import AuthChildren
from pop3.auth.penalty import SIZE as PENALTY_SIZE
from pop3.auth.penalty import PenaltyTable
from pop3.capabilities import capa_reply
from pop3.errors import PermanentFailure, POP3Error, TemporaryFailure
from pop3.lock import lock_file
from pop3.message import UNKNOWN, Listing, Message
from pop3.session import BoxT, Session, State
from pop3.settings import PLAINTEXT_POLICIES, POP3Settings
from pop3.uidl import announced

if TYPE_CHECKING:
    import ssl

    from netserver.connection import Connection
    from netserver.personalities.side import SideChild
    from pop3.auth.secret import Secret

_SHORTEST_TIMEOUT = 600  # seconds, RFC 1939 §3


class POP3Server(NetServer, ABC, Generic[BoxT]):
    """Serve mail from one kind of source; a subclass says where the mail is.

    Required are `open_box`, `list_messages` and `read_message`; with `delete_messages` the source
    can delete, without it deleted messages are hidden from the user who deleted them. A source
    keeps what belongs to one login in `session.box`, never on `self`: one object serves all.
    """

    settings: POP3Settings
    settings_class: ClassVar[type[POP3Settings]] = POP3Settings

    alpn: ClassVar[tuple[str, ...]] = ("pop3",)

    listen_options: ClassVar[frozenset[str]] = frozenset({"plaintext-auth"})
    descriptors_per_client: ClassVar[int] = 2  # the connection, and the lock of the maildrop

    authenticates_upstream: ClassVar[bool] = False
    """True: `open_box` checks `session.secret` and raises AuthFailed; nobody else is asked."""

    strict_login_names: ClassVar[bool] = True
    """False: the local part of a name may be any text without controls (search terms)."""

    program: ClassVar[str] = "pop3-server"

    delete_policies: ClassVar[frozenset[str]] = frozenset({"expunge"})
    """What `delete_messages` can do: "expunge", "trash"; `self.delete_policy` says what to do."""

    uidl_presets: ClassVar[frozenset[str]] = frozenset()
    """What --uidl can be for this source, besides the presets that need headers only."""

    # -- what a source writes -----------------------------------------------------------------

    @abstractmethod
    def open_box(self, session: Session[BoxT]) -> BoxT:
        """Open the user's mail; what is returned becomes `session.box`.

        Called once per login, with the maildrop locked and the user authenticated (but see
        `authenticates_upstream`). May raise POP3Error, OSError.
        """

    @abstractmethod
    def list_messages(self, session: Session[BoxT]) -> Iterable[Message] | Listing:
        """Return all messages in the order of their numbers: once per login, after `open_box`.

        A Listing spares an object for each message. A uid is never given to another message.
        """

    @abstractmethod
    def read_message(self, session: Session[BoxT], message: Message) -> BinaryIO:
        """Open one message, with any line ends; the server closes it.

        Raises FileNotFoundError for one that is gone; any OSError or POP3Error becomes an -ERR.
        """

    def delete_messages(self, session: Session[BoxT], messages: Sequence[Message]) -> None:
        """Delete, durably: called on QUIT, at most once per login, with at least one message.

        Raises TemporaryFailure ("2 of 3 messages not deleted") or PermanentFailure if it could not
        delete all; the client gets that text. A message that is gone already counts as deleted.
        """
        del session, messages
        raise PermanentFailure("this mailbox is read-only")

    def close_box(self, session: Session[BoxT]) -> None:
        """Close the user's mail: called once if `open_box` returned, however the session ends."""

    def read_top(self, session: Session[BoxT], message: Message, lines: int) -> BinaryIO:
        """Open a message of which only the header and some lines of the body are needed."""
        del lines
        return self.read_message(session, message)

    def apop_secret(self, session: Session[BoxT]) -> str | None:
        """Return the password of `session.user` for APOP, None if there is none."""
        del session
        return None

    def valid_user(self, user: str) -> bool:
        """Refuse names that this source cannot serve, right password or not."""
        del user
        return True

    def maildrop_name(self, session: Session[BoxT]) -> str:
        """Name the maildrop, for its lock and in the state: one name where users share one."""
        return f"{type(self).__name__}/{session.user}"

    def uidl_directory(self, session: Session[BoxT]) -> Path | None:
        """Return where another server has left its list of ids; None: in the messages' headers."""
        del session
        return None

    def read_envelope(self, session: Session[BoxT], message: Message) -> bytes:
        """Return the "From " line before a message, for --uidl qpopper; b"" if there is none."""
        del session, message
        return b""

    def lock_path(self, session: Session[BoxT]) -> Path | None:
        """Name the lock file of the maildrop; None: any number of sessions at once."""
        return lock_file(self.state_directory, self.maildrop_name(session))

    @final
    def path(self, pattern: str, session: Session[BoxT]) -> Path:
        """Fill the user into a pattern such as "~/notes/{user}"; safe against traversal.

        Raises PermanentFailure when the name or the home directory does not allow that.
        """
        domain = None if session.login is None else session.login.domain
        return paths.fill(pattern, user=session.user, domain=domain, home=session.home)

    # -- start and end of the process ---------------------------------------------------------

    def post_configure(self) -> None:
        """Check the options and make what all processes share; call it first in an override.

        Raises ConfigError.
        """
        super().post_configure()
        self._prepare()

    @final
    def _prepare(self) -> None:
        """Do our part of `post_configure`. Raises ConfigError."""
        settings = self.settings
        self.delete_policy = self._choose_delete_policy()
        self.auth_children = AuthChildren(self)
        self.chain: AuthChain | None = self._make_chain()
        self.mechanisms = sasl.mechanisms(settings.sasl)
        self.penalties = PenaltyTable(
            memoryview(mmap.mmap(-1, PENALTY_SIZE)), settings.auth_failure_delay
        )
        self.release = netserver.__version__
        self.replies = texts.Replies(texts.load(settings.texts, settings.greeting))
        self._check_options()
        directory = state.state_directory(settings)
        state.make_directory(directory, self._owner())
        # both as they are seen by those who use them: inside --chroot
        self.state_directory = state.seen_from(settings.chroot, directory)
        self.extras = extras.Extras.from_settings(
            settings,
            directory,
            owner=self._owner(),
            anybody=self.chain is not None and self.chain.open_to_all,
        )
        self.state = state.State(state.state_url(settings, self.state_directory))
        self.uidl = announced.prepare(self)
        needed = self.uidl or self.delete_policy == "hide" or settings.chroot is not None
        if needed or state.needs_library(settings):
            self.state.prepare()  # once for all, and before the libraries are out of reach

    def refresh_files(self) -> None:
        """Look whether the users changed as well."""
        super().refresh_files()
        if self.chain is not None:
            self.chain.refresh()

    def check_rights(self) -> None:
        """See whether those who serve can use the state. Raises ConfigError."""
        super().check_rights()
        if not os.access(self.state_directory, os.W_OK | os.X_OK):
            raise ConfigError(
                f"--state: {self.state_directory} is not writable for who serves; chown it"
            )
        if self.extras is not None:
            self.extras.check_rights()

    def side_children(self) -> "list[SideChild]":
        """Add those that check passwords with rights others do not have."""
        one_client = self.personality.name in ("single", "inetd")
        count = 1 if one_client else self.settings.auth_workers
        return [*super().side_children(), *self.auth_children.wanted(count)]

    def child_init(self) -> None:
        """Leave the questions to the auth children to them."""
        super().child_init()
        if self.personality.name != "single":  # which has to replace these children itself
            self.auth_children.only_ask()

    def child_finish(self) -> None:
        """Close what this process has open."""
        self.state.close()
        super().child_finish()

    def _choose_delete_policy(self) -> str:
        able = type(self).delete_messages is not POP3Server.delete_messages
        policies = self.delete_policies if able else frozenset[str]()
        asked = self.settings.delete
        if asked is None:
            return "expunge" if "expunge" in policies else "hide"
        if asked not in ("hide", "ignore") and asked not in policies:
            can = ", ".join(sorted({*policies, "hide", "ignore"}))
            raise ConfigError(f"--delete {asked}: this source cannot do that; there are: {can}")
        return asked

    def _make_chain(self) -> AuthChain | None:
        if self.authenticates_upstream:
            return None
        if not self.settings.auth:
            raise ConfigError(
                "no --auth given: nobody could log in; "
                "try --auth passwd-file:/etc/pop3-server/users"
            )
        chain = AuthChain.from_specs(
            self.settings.auth,
            base_directory=os.getcwd(),
            warn=self._warn,
            overrides=self.settings.auth_for,
        )
        if chain.open_to_all and self.delete_policy not in ("hide", "ignore"):
            raise ConfigError("--auth any: anybody could delete mail; add --delete hide or ignore")
        return chain.map(self.auth_children.stand_in)

    def _owner(self) -> tuple[int, int] | None:
        """Who must be able to write to the state: whom the workers become."""
        uid, gid = self.rights.uid, self.rights.gid
        if uid is None and gid is None:
            return None
        return (-1 if uid is None else uid, -1 if gid is None else gid)

    def _warn(self, text: str) -> None:
        self.log.warning(text)

    def _check_options(self) -> None:
        settings = self.settings
        if settings.apop and type(self).apop_secret is POP3Server.apop_secret:
            raise ConfigError("--apop: this source does not know the passwords")
        if settings.auth_workers < 1:
            raise ConfigError("--auth-workers: at least 1 is needed")
        for text in settings.listen:
            spec = ListenSpec.parse(text, extra_keys=self.listen_options)
            policy = spec.options.get("plaintext-auth")
            if policy not in (None, *PLAINTEXT_POLICIES):
                known = ", ".join(PLAINTEXT_POLICIES)
                raise ConfigError(f"--listen {text}: plaintext-auth is one of {known}")
        if 0 < settings.timeout < _SHORTEST_TIMEOUT:
            self.log.warning("--timeout is less than the 10 minutes of RFC 1939")

    # -- one client ---------------------------------------------------------------------------

    @final
    def process_request(self, connection: "Connection") -> None:
        """Serve one client from the greeting to the last reply."""
        session: Session[BoxT] = Session(connection)
        try:
            conversation.hold(self, session)
        finally:
            self.close_maildrop(session)
            conversation.log_end(session)

    @final
    def plaintext_allowed(self, connection: "Connection") -> bool:
        """Tell whether a password may be sent as it is on this connection."""
        policy = connection.listener.options.get("plaintext-auth", self.settings.plaintext_auth)
        if policy in ("always", "never"):
            return policy == "always"
        return connection.tls is not None or (policy == "loopback" and connection.peer.is_loopback)

    @final
    def stls_context(self, connection: "Connection") -> "ssl.SSLContext | None":
        """Return the TLS context for STLS, None where TLS cannot be started."""
        return None if connection.tls is not None else self.tls_context(connection.listener)

    @final
    def capabilities(self, session: Session[BoxT]) -> bytes:
        """Return the reply to CAPA for this client at this moment."""
        logged_in = session.state is State.TRANSACTION
        return capa_reply(
            logged_in=logged_in,
            plaintext=self.plaintext_allowed(session.connection),
            stls=not logged_in and self.stls_context(session.connection) is not None,
            mechanisms=self.mechanisms,
            release=self.release,
        )

    @final
    def log_in(
        self, session: Session[BoxT], name: bytes, secret: "Secret", *, apop: bool = False
    ) -> None:
        """Check who it is and open the maildrop; raises POP3Error."""
        login.log_in(self, session, name, secret, apop=apop)
        if self.extras is not None:
            self.extras.begin(session)
        session.bad_commands = 0
        session.connection.limit_phase(None)
        session.connection.idle_timeout = self.settings.timeout or math.inf

    @final
    def demand_known(self, session: Session[BoxT], name: bytes) -> None:
        """Refuse a name nobody has; raises POP3Error."""
        login.demand_known(self, session, name)

    def delete_policy_for(self, session: Session[BoxT]) -> str:
        """Return what QUIT does with what this session has deleted."""
        del session
        return self.delete_policy

    @final
    def hides(self, session: Session[BoxT]) -> bool:
        """Tell whether this session hides messages instead of deleting them; a view always does."""
        policy = self.delete_policy_for(session)
        return policy == "hide" or (session.view is not None and policy != "ignore")

    @final
    def find_sizes(self, session: Session[BoxT], indexes: Sequence[int]) -> None:
        """Read messages to find their sizes, each once in its life. Raises TemporaryFailure."""
        maildrop = session.maildrop
        assert maildrop is not None
        for index in indexes:
            try:
                size = spool.measure(self.read_message(session, maildrop.listing.message(index)))
            except OSError as error:
                session.log.exception("message not readable")
                raise TemporaryFailure("a message cannot be read") from error
            self.note_size(session, index, size)

    @final
    def note_size(self, session: Session[BoxT], index: int, size: int) -> None:
        """Take the size that was found: one not known before, or other than the source said."""
        maildrop = session.maildrop
        assert maildrop is not None
        said = maildrop.listing.sizes[index]
        maildrop.set_size(index, size)
        if said != UNKNOWN:
            session.log.warning("size was wrong", number=index + 1, said=said, sent=size)
            return
        if session.found_sizes is None:
            session.found_sizes = {}
        session.found_sizes[maildrop.listing.uids[index].decode("ascii")] = size

    @final
    def commit(self, session: Session[BoxT]) -> None:
        """Delete what is marked (RFC 1939 §6); raises POP3Error if not all of it could be."""
        maildrop = session.maildrop
        if maildrop is None or not maildrop.deleted or self.delete_policy_for(session) == "ignore":
            return
        if session.debug:
            session.log.info("nothing deleted: debug", marked=len(maildrop.deleted))
            return
        connection = session.connection
        marked = len(maildrop.deleted)
        try:
            with connection.uninterrupted():
                if self.hides(session):
                    uids = [
                        maildrop.listing.uids[index].decode("ascii") for index in maildrop.deleted
                    ]
                    name = self.maildrop_name(session)
                    connection.run_blocking("disk", self.state.hide, name, session.view or "", uids)
                else:
                    self.delete_messages(session, maildrop.deleted_messages())
        except POP3Error as error:
            session.log.warning("not all deleted", marked=marked, reason=error.text)
            raise
        except Exception as error:
            session.log.exception("not all deleted", marked=marked)
            raise TemporaryFailure(f"some of {marked} messages not deleted") from error
        session.deleted = marked

    @final
    def close_maildrop(self, session: Session[BoxT]) -> None:
        """Close the box and give the lock back, each once; never raises."""
        if session.box_is_open:
            session.box_is_open = False
            try:
                self.close_box(session)
                if found := session.found_sizes:
                    session.found_sizes = None
                    name = self.maildrop_name(session)
                    session.connection.run_blocking("disk", self.state.remember_sizes, name, found)
            except Exception:
                session.log.exception("mailbox not closed well")
        if session.lock is not None:
            lock, session.lock = session.lock, None
            lock.release()
