"""SASL mechanisms as small exchange objects (RFC 4422, RFC 5034).

They are written here on octets: pysasl's work on decoded text, know no authorization identity in
OAUTHBEARER, no error challenges and no SCRAM. Libraries do what is theirs: see `pop3.auth.oauth2`.
"""

from pop3.auth.sasl.exchange import (
    Challenge,
    Credentials,
    Exchange,
    Proof,
    Surroundings,
    decode,
    encode,
)
from pop3.auth.sasl.table import AVAILABLE, check, exchange, mechanisms, offered, reveals

__all__ = [
    "AVAILABLE",
    "Challenge",
    "Credentials",
    "Exchange",
    "Proof",
    "Surroundings",
    "check",
    "decode",
    "encode",
    "exchange",
    "mechanisms",
    "offered",
    "reveals",
]
