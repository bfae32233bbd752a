"""Who may log in: names, secrets, password hashes and the chain of backends that know them."""

from pop3.auth.backend import Backend, Identity
from pop3.auth.chain import AuthChain
from pop3.auth.names import LoginName
from pop3.auth.secret import Secret

__all__ = ["AuthChain", "Backend", "Identity", "LoginName", "Secret"]
