"""Password hashes: `{SCHEME}text` as users files hold it.

crypt(3) hashes are computed by the system's libxcrypt, which knows the most forms and lets other
threads run; libpass does it where that library is missing. Either, and argon2, is loaded when the
first hash that needs it is checked.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

#: Longer passwords never verify: libxcrypt stops there, and some schemes work longer on them.
MAX_SECRET = 511
#: Verifications estimated to take less (milliseconds) are done in place: a thread costs as much.
CHEAP_BELOW = 0.1
# What an unknown user costs where no hash is there to imitate.
_DEFAULT_SAMPLE = "{SHA512-CRYPT}$6$" + "." * 16 + "$" + "." * 86

_Match = re.Match[str]


def verify(hash_text: str, secret: bytes) -> bool:
    """Tell whether the password belongs to the hash. Blocks for as long as the scheme takes.

    An empty password, one with a NUL and one over MAX_SECRET octets belong to no hash. bcrypt looks
    at the first 72 octets and DES at the first 8, as they did when the hash was made. ValueError: a
    hash that `check` would have refused.
    """
    if not 1 <= len(secret) <= MAX_SECRET or b"\0" in secret:
        return False
    form, match = _find(hash_text)
    return form.verify(match, secret)


def check(hash_text: str) -> str | None:
    """Check a stored hash and make ready what verifies it; return its shape, None for "no login".

    The shape is the scheme with its parameters: what decides how much work it is. ValueError,
    without the hash in it: the scheme is unknown, the hash is broken, or nothing here verifies it.
    """
    if not hash_text or hash_text[0] in "!*":
        return None
    scheme, body = _split(hash_text)
    if not body or (body[0] in "!*" and scheme not in _PLAIN):
        if scheme not in _SCHEMES and scheme != "CRYPT":
            raise ValueError(f"unknown scheme {{{scheme}}}")
        return None
    form, match = _matched(scheme, body)
    form.prepare(match)
    return form.name + match["shape"]


def cost(hash_text: str) -> float:
    """Estimate the milliseconds one verification takes; only good for comparing."""
    form, match = _find(hash_text)
    return form.cost(match)


def cost_class(hash_text: str) -> Literal["cheap", "expensive"]:
    """Tell whether a verification may be done in place or belongs in the "hash" pool."""
    return "cheap" if cost(hash_text) < CHEAP_BELOW else "expensive"


def dummy_for(hashes: Iterable[str]) -> str:
    """Make a hash no password is known for, of the shape most of these have, for unknown users."""
    counts: Counter[str] = Counter()
    samples: dict[str, str] = {}
    for hash_text in hashes:
        shape = check(hash_text)
        if shape is not None:
            counts[shape] += 1
            samples.setdefault(shape, hash_text)
    return dummy_like(samples[counts.most_common(1)[0][0]] if counts else None)


def dummy_like(sample: str | None) -> str:
    """Replace the digest of a hash by a random one of the same form; needs no hashing."""
    hash_text = sample or _DEFAULT_SAMPLE
    _, match = _find(hash_text)
    start, end = match.span("digest")
    # Hex digits belong to every alphabet in use. A last letter with bits that must be zero is left
    # out of `digest` by the patterns.
    digest = secrets.token_hex(end - start)[: end - start]
    body = match.string
    return hash_text.removesuffix(body) + body[:start] + digest + body[end:]


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to write a hash; in its pattern, `digest` is what a dummy may make up."""

    name: str
    pattern: re.Pattern[str]
    verify: Callable[[_Match, bytes], bool]
    cost: Callable[[_Match], float]
    prepare: Callable[[_Match], object] = bool


def _split(hash_text: str) -> tuple[str, str]:
    if hash_text[:1] != "{":
        return "CRYPT", hash_text
    scheme, brace, body = hash_text[1:].partition("}")
    if not brace:
        raise ValueError("broken {SCHEME}")
    if scheme not in _SCHEMES:
        scheme = scheme.upper()
        if not re.fullmatch(r"[A-Z0-9.-]{1,32}", scheme):
            raise ValueError("broken {SCHEME}")
    return scheme, body


def _find(hash_text: str) -> tuple[_Form, _Match]:
    return _matched(*_split(hash_text))


def _matched(scheme: str, body: str) -> tuple[_Form, _Match]:
    form = _SCHEMES.get(scheme)
    if form is None:
        if scheme != "CRYPT":
            raise ValueError(f"unknown scheme {{{scheme}}}")
        form = _crypt_form(body)
    match = form.pattern.fullmatch(body)
    if match is None:
        hint = "; `openssl passwd -6` makes one" if form is _CRYPT[""] else ""
        raise ValueError(f"broken {{{scheme}}} hash{hint}")
    return form, match


# Plain passwords and digests.

_B64 = "[A-Za-z0-9+/]"
_B64_GROUPS = f"(?:{_B64}{{4}})*(?:{_B64}{{4}}|{_B64}{{3}}=|{_B64}{{2}}==)"


def _verify_plain(match: _Match, secret: bytes) -> bool:
    return hmac.compare_digest(match.string.encode(), secret)


def _digest_form(algorithm: str, *, salted: bool) -> _Form:
    """LDAP's {SHA} and {SSHA}: base64 of the digest and, behind it, the salt."""
    size = hashlib.new(algorithm).digest_size

    def verify_digest(match: _Match, secret: bytes) -> bool:
        stored = base64.b64decode(match.string)
        digest = hashlib.new(algorithm, secret + stored[size:]).digest()
        return hmac.compare_digest(digest, stored[:size])

    tail = f"(?:{_B64}{{4}})+(?:{_B64}{{3}}=|{_B64}{{2}}==)?" if salted else _B64_ENDS[size % 3]
    pattern = f"(?P<shape>)(?P<digest>{_B64}{{{size // 3 * 4}}}){tail}"
    name = f"S{algorithm}" if salted else algorithm
    return _Form(name.upper(), re.compile(pattern), verify_digest, lambda _: 0.01)


_B64_ENDS = {1: f"{_B64}{{2}}==", 2: f"{_B64}{{3}}="}

# PBKDF2, and the stored keys of SCRAM (RFC 5802 section 3).


def _scram_form(algorithm: str) -> _Form:
    """Dovecot's `iterations,salt,StoredKey,ServerKey`, the last three in base64."""
    size = hashlib.new(algorithm).digest_size

    def verify_scram(match: _Match, secret: bytes) -> bool:
        rounds, salt, stored_key, _ = match.string.split(",")
        salted = hashlib.pbkdf2_hmac(algorithm, secret, base64.b64decode(salt), int(rounds))
        client_key = hmac.digest(salted, b"Client Key", algorithm)
        made = hashlib.new(algorithm, client_key).digest()
        return hmac.compare_digest(made, base64.b64decode(stored_key))

    letters, end = f"{_B64}{{{size // 3 * 4}}}", _B64_ENDS[size % 3]
    pattern = (
        f"(?P<shape>[1-9][0-9]{{0,6}}),{_B64_GROUPS},(?P<digest>{letters}){end},{letters}{end}"
    )
    return _Form("SCRAM-" + algorithm, re.compile(pattern), verify_scram, _cost_pbkdf2)


def _cost_pbkdf2(match: _Match) -> float:
    return 0.0005 * int(match["shape"])


def _verify_pbkdf2(match: _Match, secret: bytes) -> bool:
    _, _, salt, rounds, stored = match.string.split("$")
    made = hashlib.pbkdf2_hmac("sha1", secret, salt.encode(), int(rounds))
    return hmac.compare_digest(made, bytes.fromhex(stored))


def _prepare_argon2(match: _Match) -> None:
    if int(match["memory"]) < 8 * int(match["lanes"]):
        raise ValueError("broken argon2 hash: less memory than its lanes need")
    import argon2.low_level  # noqa: F401, PLC0415 - 20 ms, and only some files need it


def _verify_argon2(match: _Match, secret: bytes) -> bool:
    from argon2 import exceptions, low_level  # noqa: PLC0415

    kind = low_level.Type.ID if match["kind"] == "id" else low_level.Type.I
    try:
        return low_level.verify_secret(match.string.encode(), secret, kind)
    except exceptions.VerifyMismatchError:
        return False


_ARGON2 = _Form(
    "argon2",
    re.compile(
        r"(?P<shape>\$argon2(?P<kind>id?)\$(?:v=1[69]\$)?"
        r"m=(?P<memory>[1-9][0-9]{0,6}),t=(?P<passes>[1-9][0-9]{0,3}),p=(?P<lanes>[1-9][0-9]{0,2})\$)"
        rf"(?:{_B64}{{4}}){{2,}}(?:{_B64}{{2,3}})?\$(?P<digest>(?:{_B64}{{4}}){{3,}})(?:{_B64}{{2,3}})?"
    ),
    _verify_argon2,
    lambda match: 0.2 + 0.0005 * int(match["memory"]) * int(match["passes"]),
    _prepare_argon2,
)

_SystemCrypt = tuple[Callable[[bytes, bytes], bytes | None], Callable[[bytes], bool]]
_CRYPT_DATA = 32768  # sizeof(struct crypt_data) of libxcrypt; crypt_rn checks it


@cache
def _system_crypt() -> _SystemCrypt | None:
    """Find libxcrypt's crypt and its check of a setting; None where the library is another."""
    import ctypes  # noqa: PLC0415 - only users files with crypt hashes need it

    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            library = ctypes.CDLL(name)
            crypt_rn, checksalt = library.crypt_rn, library.crypt_checksalt
        except (OSError, AttributeError):
            continue
        crypt_rn.restype = ctypes.c_char_p
        crypt_rn.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)
        checksalt.argtypes = (ctypes.c_char_p,)

        break
    else:
        return None

    def crypt(secret: bytes, setting: bytes) -> bytes | None:
        data = ctypes.create_string_buffer(_CRYPT_DATA)
        result: bytes | None = crypt_rn(secret, setting, data, _CRYPT_DATA)
        ctypes.memset(data, 0, _CRYPT_DATA)
        return result

    # 1: unknown here, 2: switched off; what is merely old still verifies.
    return crypt, lambda setting: checksalt(setting) not in (1, 2)


@cache
def _libpass(handler: str) -> Any:
    """Return a libpass handler that can work here, or None."""
    if not handler:
        return None
    from passlib.registry import get_crypt_handler  # noqa: PLC0415

    found = get_crypt_handler(handler)
    return found if not hasattr(found, "has_backend") or found.has_backend() else None


def _crypt3(
    name: str, setting: str, handler: str, pattern: str, milliseconds: Callable[[_Match], float]
) -> _Form:
    """Make the form of one crypt(3) method.

    `setting` is a short one of it, `handler` libpass's name for it ("": none). In the pattern, A is
    crypt's alphabet and N a count of rounds.
    """
    letters = pattern.replace("A", "[./0-9A-Za-z]").replace("N", "(?P<rounds>[1-9][0-9]{0,8})")

    @cache
    def missing() -> bool:
        system = _system_crypt()
        return not (system and system[1](setting.encode())) and not _libpass(handler)

    def prepare(_: _Match) -> None:
        if missing():
            raise ValueError(f"nothing on this machine verifies {name} hashes")

    def verify_crypt(match: _Match, secret: bytes) -> bool:
        stored = match.string
        system = _system_crypt()
        made = system[0](secret, stored.encode()) if system else None
        if made is not None:
            return hmac.compare_digest(made, stored.encode())
        libpass = _libpass(handler)
        if libpass is None:
            raise ValueError(f"{name} hash cannot be computed")
        # bcrypt never saw more than 72 octets; newer bindings raise instead of stopping there.
        return bool(libpass.verify(secret[:72] if handler == "bcrypt" else secret, stored))

    return _Form(name, re.compile(letters), verify_crypt, milliseconds, prepare)


def _crypt_form(body: str) -> _Form:
    """Choose by what the hash begins with, as crypt(3) does."""
    if body[:1] != "$":
        return _CRYPT["_" if body[:1] == "_" else ""]
    form = _CRYPT.get(body[: body.find("$", 1) + 1])
    if form is None and body.startswith("$md5,"):
        form = _CRYPT["$md5$"]
    if form is None:
        raise ValueError("unknown kind of {CRYPT} hash")
    return form


def _by_rounds(milliseconds: float, default: int) -> Callable[[_Match], float]:
    return lambda match: milliseconds * int(match["rounds"] or default) / default


_SHA2 = r"(?P<shape>\$%s\$(?:rounds=N\$)?)A{0,16}\$(?P<digest>A{%d})A"
_BCRYPT = r"(?P<shape>\$2[aby]\$(?P<cost>0[4-9]|[12][0-9]|3[01])\$)A{22}(?P<digest>A{30})A"
_SUN = r"(?P<shape>\$md5(?:,rounds=N)?\$)A{0,16}\${1,2}(?P<digest>A{21})A"
_YESCRYPT = r"(?P<shape>\$g?y\$A{1,30}\$)A{1,86}\$(?P<digest>A{42})A"

#: By what the hash begins with. The costs were measured with libxcrypt on one machine.
_CRYPT: dict[str, _Form] = {
    "": _crypt3("DES-CRYPT", "ab", "des_crypt", "(?P<shape>)A{2}(?P<digest>A{10})A", lambda _: 0.1),
    "_": _crypt3(
        "BSDi-CRYPT", "_", "bsdi_crypt", "(?P<shape>_A{4})A{4}(?P<digest>A{10})A", lambda _: 2
    ),
    "$1$": _crypt3(
        "MD5-CRYPT",
        "$1$",
        "md5_crypt",
        r"(?P<shape>\$1\$)A{0,8}\$(?P<digest>A{21})A",
        lambda _: 0.15,
    ),
    "$5$": _crypt3("SHA256-CRYPT", "$5$", "sha256_crypt", _SHA2 % ("5", 42), _by_rounds(1.3, 5000)),
    "$6$": _crypt3("SHA512-CRYPT", "$6$", "sha512_crypt", _SHA2 % ("6", 85), _by_rounds(1.3, 5000)),
    "$2b$": _crypt3("BLF-CRYPT", "$2b$", "bcrypt", _BCRYPT, lambda m: 0.05 * 2 ** int(m["cost"])),
    "$sha1$": _crypt3(
        "SHA1-CRYPT",
        "$sha1$",
        "sha1_crypt",
        r"(?P<shape>\$sha1\$N\$)A{1,64}\$(?P<digest>A{27})A",
        _by_rounds(0.7, 1000),
    ),
    "$md5$": _crypt3("Sun MD5", "$md5$", "sun_md5_crypt", _SUN, _by_rounds(6, 1000)),
    "$y$": _crypt3("yescrypt", "$y$", "", _YESCRYPT, lambda _: 40),
    "$gy$": _crypt3("gost-yescrypt", "$gy$", "", _YESCRYPT, lambda _: 40),
    "$7$": _crypt3(
        "scrypt", "$7$", "", r"(?P<shape>\$7\$A{11})A{0,86}\$(?P<digest>A{42})A", lambda _: 200
    ),
    "$argon2i$": _ARGON2,
    "$argon2id$": _ARGON2,
}
_CRYPT["$2a$"] = _CRYPT["$2y$"] = _CRYPT["$2b$"]

_CLEARTEXT = _Form(
    "PLAIN", re.compile("(?P<shape>)(?P<digest>.+)", re.DOTALL), _verify_plain, lambda _: 0.001
)
_PBKDF2 = _Form(
    "PBKDF2",
    re.compile(r"\$1\$[^$:]+\$(?P<shape>[1-9][0-9]{0,6})\$(?P<digest>[0-9a-fA-F]{40})"),
    _verify_pbkdf2,
    _cost_pbkdf2,
)

_PLAIN = ("PLAIN", "CLEARTEXT")
#: By the name between the braces; {CRYPT} goes by _CRYPT.
_SCHEMES: dict[str, _Form] = {
    **dict.fromkeys(_PLAIN, _CLEARTEXT),
    **{
        form.name: form
        for algorithm in ("sha1", "sha256", "sha512")
        for form in (_digest_form(algorithm, salted=True), _digest_form(algorithm, salted=False))
    },
    "SCRAM-SHA-1": _scram_form("sha1"),
    "SCRAM-SHA-256": _scram_form("sha256"),
    "PBKDF2": _PBKDF2,
    "ARGON2I": _ARGON2,
    "ARGON2ID": _ARGON2,
    "DES-CRYPT": _CRYPT[""],
    "MD5-CRYPT": _CRYPT["$1$"],
    "SHA256-CRYPT": _CRYPT["$5$"],
    "SHA512-CRYPT": _CRYPT["$6$"],
    "BLF-CRYPT": _CRYPT["$2b$"],
}
_SCHEMES["SHA"], _SCHEMES["SSHA"] = _SCHEMES["SHA1"], _SCHEMES["SSHA1"]
