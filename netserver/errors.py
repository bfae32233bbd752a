"""What can go wrong in a server, one class per condition."""


class NetServerError(Exception):
    """Base of all errors of this package."""


class ConfigError(NetServerError):
    """An option, a config file or a users file is wrong; one line that names it. Exit code 2."""


class BindError(NetServerError):
    """A listener could not be bound. Exit code 1."""


class PrivilegeError(NetServerError):
    """User, group or chroot could not be changed as asked. Exit code 1."""


class RestartError(NetServerError):
    """A restart was refused; the running server goes on."""


class SealedError(NetServerError):
    """Per-connection state was written on the server object: a programmer's mistake."""


class ServerStopping(NetServerError):
    """The process must end now; raised out of a wait, never out of a commit."""


class Kicked(ServerStopping):
    """This client must end now, and the process goes on."""


class LineTooLong(NetServerError):
    """A line passed its limit; the rest of it has been dropped and the connection can go on."""


class ConnectionLost(NetServerError):
    """The client is gone: a normal end of a connection."""


class IdleTimeout(ConnectionLost):
    """The client said nothing for too long, or did not take what was sent."""
