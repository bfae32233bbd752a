"""The POP3 server: one subclass per mail source, one object per process, one session per client."""

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

import netserver
from netserver.errors import ConfigError
from netserver.reach import Reach
from netserver.server import NetServer
from pop3 import become_user, conversation, expire, extras, login, spool, start, state, texts
from pop3.auth import ban_command, guard, penalty_store, sasl
from pop3.auth.children import AuthChildren
from pop3.capabilities import capa_reply
from pop3.errors import POP3Error, TemporaryFailure
from pop3.message import UNKNOWN
from pop3.session import BoxT, Session, State
from pop3.settings import POP3Settings
from pop3.source import Source
from pop3.uidl import announced

if TYPE_CHECKING:
    import ssl

    from netserver.connection import Connection
    from netserver.personalities.side import SideChild
    from pop3.auth.chain import AuthChain
    from pop3.auth.names import LoginName
    from pop3.auth.secret import Secret


class POP3Server(NetServer, Source[BoxT]):
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

    program: ClassVar[str] = "pop3-server"

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
        self.delete_policy = start.delete_policy(self)
        self.auth_children = AuthChildren(self)
        self.chain: AuthChain | None = start.chain(self)
        self.mechanisms = sasl.mechanisms(settings.sasl)
        sasl.check(settings.sasl, self.chain)
        self.release = netserver.__version__
        self.replies = texts.Replies(texts.load(settings.texts, settings.greeting))
        start.check_options(self)
        directory = state.state_directory(settings)
        state.make_directory(directory, self._owner())
        self.guard = guard.prepare(self, directory, self._owner())
        if settings.become_user:
            become_user.open_to_users(directory)
        # both as they are seen by those who use them: inside --chroot
        self.state_directory = state.seen_from(settings.chroot, directory)
        self.salt_key = state.secret_key(directory / "salts", self._owner())
        self.extras = extras.Extras.from_settings(
            settings,
            directory,
            owner=self._owner(),
            anybody=self.chain is not None and self.chain.open_to_all,
        )
        self.state = state.State(state.state_url(settings, self.state_directory))
        self.uidl = announced.prepare(self)
        self.expiry = expire.prepare(self)
        needed = self.uidl or self.delete_policy == "hide" or settings.chroot is not None
        if needed or self.expiry or state.needs_library(settings):
            self.state.prepare()  # once for all, and before the libraries are out of reach

    @final
    def reach(self) -> Reach | None:
        """Return what source, backends, state and logs need together."""
        mail = self.mail_reach()
        users = Reach(network=True) if self.chain is None else self.chain.reach()
        if mail is None or users is None:
            return None
        settings = self.settings
        write = [str(self.state_directory)]
        if self.extras is not None:
            write.append(str(self.extras.directory))
        to_file = settings.log_file not in (None, "syslog", "journald")
        if to_file and not self.rights_are_given_up:  # else only the master opens it again
            write.append(os.path.dirname(os.path.abspath(settings.log_file or "")))
        network = settings.state is not None and not settings.state.startswith("sqlite")
        return mail | users | Reach(write=tuple(write), network=network)

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
        bans = [*ban_command.side_children(self.guard, self), *penalty_store.side_children(self)]
        others = self.auth_children.keep_out([*super().side_children(), *bans])
        return [*self.auth_children.wanted(count), *others]

    def control_directory(self) -> str | None:
        """Keep the control socket with the state."""
        return str(state.state_directory(self.settings))

    def control_hook(self, command: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Ban, and tell and forget the failed logins of a user or an address."""
        return self.guard.control(command, request)

    def child_init(self) -> None:
        """Leave the questions to the auth children to them; keep temporary files in the state."""
        if self.personality.name != "single":  # which is not shut in, or embedded in a program
            tempfile.tempdir = str(self.state_directory)
            os.environ["SQLITE_TMPDIR"] = tempfile.tempdir
        super().child_init()
        if self.personality.name != "single":  # which has to replace these children itself
            self.auth_children.only_ask()

    def child_finish(self) -> None:
        """Close what this process has open."""
        self.state.close()
        if self.chain is not None:
            self.chain.close()
        super().child_finish()

    def _owner(self) -> tuple[int, int] | None:
        """Who must be able to write to the state: whom the workers become."""
        uid, gid = self.rights.uid, self.rights.gid
        if uid is None and gid is None:
            return None
        return (-1 if uid is None else uid, -1 if gid is None else gid)

    # -- one client ---------------------------------------------------------------------------

    def allow_deny(self, connection: "Connection") -> bool:
        """Do not let in who is banned: closed without a word, like others who may not connect."""
        return self.guard.admits(connection) and super().allow_deny(connection)

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

    @property
    def takes_passwords(self) -> bool:
        """Whether somebody can log in by a password."""
        return self.chain is None or self.chain.takes_passwords

    @property
    def apop_by_chain(self) -> bool:
        """Whether the backends know the passwords for APOP, as the source does not."""
        return type(self).apop_secret is Source.apop_secret

    @final
    def mechanisms_for(self, connection: "Connection") -> tuple[bytes, ...]:
        """Return the mechanisms of AUTH that work for this client at this moment, best first."""
        return sasl.offered(
            self.mechanisms,
            self.chain,
            connection.tls,
            plaintext=self.plaintext_allowed(connection),
            asked=self.settings.sasl is not None,
        )

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
            plaintext=self.plaintext_allowed(session.connection) and self.takes_passwords,
            stls=not logged_in and self.stls_context(session.connection) is not None,
            mechanisms=() if logged_in else self.mechanisms_for(session.connection),
            release=self.release,
            login_delay=math.ceil(self.settings.login_delay),
            expire=self.settings.expire,
        )

    @final
    def log_in(
        self,
        session: Session[BoxT],
        name: bytes,
        secret: "Secret",
        *,
        proof: "sasl.Proof | None" = None,
    ) -> None:
        """Check who it is and open the maildrop; raises POP3Error."""
        login.log_in(self, session, name, secret, proof=proof)
        if self.extras is not None:
            self.extras.begin(session)
        if self.expiry is not None:
            self.expiry.begin(session)
        session.bad_commands = 0
        session.connection.limit_phase(None)
        session.connection.idle_timeout = self.settings.timeout or math.inf

    @final
    def parse_login(self, session: Session[BoxT], name: bytes) -> "LoginName | None":
        """Return a name from the wire in its normal form, None if it is none."""
        return login.parse(self, session, name)

    @final
    def demand_known(self, session: Session[BoxT], name: bytes) -> None:
        """Refuse a name nobody has; raises POP3Error."""
        login.demand_known(self, session, name)

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
        if self.expiry is not None:
            self.expiry.mark(self, session)
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
