"""Every scheme verifies what other programs made, and nothing else."""

import base64
import hashlib
import hmac
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3.auth import schemes

PASSWORD = "pass wörd".encode()
A16, A22 = "a" * 16, "a" * 22
# Made by `openssl passwd`, `openssl dgst`, `openssl kdf`, crypt(3) and argon2; and RFC 7677's user.
VECTORS = [
    ("{PLAIN}pass wörd", PASSWORD),
    ("{CLEARTEXT}pass wörd", PASSWORD),
    ("abZKnLUO6M512", PASSWORD),
    ("{DES-CRYPT}abZKnLUO6M512", PASSWORD),
    ("_J9..rasmgb4ABzPPqMQ", PASSWORD),
    ("{MD5-CRYPT}$1$saltsalt$d8bx2rClEHaETLtmz/uvT.", PASSWORD),
    ("{SHA256-CRYPT}$5$saltsalt$O3DgkgVdwEGnrAcDVtvaqYxWTBw0Sj38EpEpXegATXA", PASSWORD),
    (
        (
            "{sha512-crypt}$6$saltsalt$J.H9QZDjpzl5MVWaDSQ2DkuaqqTAVM918ixk3DjS3bDVO.oeFRjcxXcBQJ6F.JVcHM"
            "bcRKdZIFPSFAyI0kB0H."
        ),
        PASSWORD,
    ),
    (
        (
            "{CRYPT}$6$rounds=1000$saltsalt$COk9WGwRxFX7iGffLTT4mtAqyxAFq9jLIAKSnAy8z8ABbwQo/QEzLr9QGE7cf"
            "8xjoUIaR0Gilt8GNDTD33y4i1"
        ),
        PASSWORD,
    ),
    ("$sha1$1000$abcdefgh$X6ED5PIEoPcEuJQYOkNokaosx6wV", PASSWORD),
    ("$md5,rounds=1000$abcdefgh$$IVqjZ0DmFmf2XnGXELWC70", PASSWORD),
    ("{BLF-CRYPT}$2y$04$abcdefghijklmnopqrstuubAecMWGbmQxiv.1AEZk7PUTbAqyEGMO", PASSWORD),
    ("$2b$04$abcdefghijklmnopqrstuubAecMWGbmQxiv.1AEZk7PUTbAqyEGMO", PASSWORD),
    ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U"),
    ("$y$j75$F5Jx5fExrKuPp53xLKQ..1$2XvKDVE7qdyqEUwwkuEsfNvFF5oOzjFHew.7XfJqqU/", PASSWORD),
    ("$gy$j75$F5Jx5fExrKuPp53xLKQ..1$K5GrmACGoVjmxOF298gJNx6eFa6SZyabXC1Ln.PttY6", PASSWORD),
    ("$7$4U..../....abcdefgh$pw5gg/PJeCDDP8W4sq4IJlmcstEUHiNIHM.4LKSeid3", PASSWORD),
    ("{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$awFVsaV7dFrfKBzRD5T9Mg", PASSWORD),
    ("{ARGON2I}$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$5jTYoCvmq1KOAQ6mtN15aA", PASSWORD),
    ("{CRYPT}$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$awFVsaV7dFrfKBzRD5T9Mg", PASSWORD),
    ("{SHA}B/PcQHeAKywePq/ztWiCWf9lImE=", PASSWORD),
    ("{SSHA}8WRJtS7+9ao8yvpjciD96J3Tx4JzYWx0MTIzNA==", PASSWORD),
    ("{SHA256}OiJnkCVYiolCxym6OY5vSw4KcK5/4byVl4xwY92nKW4=", PASSWORD),
    ("{SSHA256}XTsn7ZaUTeTvjfObXjmKd87W9AfNimQDPlKPFMRnmmpzYWx0MTIzNA==", PASSWORD),
    (
        (
            "{SHA512}zNC2/6f2hn0TF9T9rZD547wrjHSb4QzAd6Ka2pPoW8SpdvPx3wCEucqGdC89XUEQapM6HFqXiGHAibw6tmkzK"
            "g=="
        ),
        PASSWORD,
    ),
    (
        (
            "{SSHA512}kRioh63RfAghuxEo543496ItfSOqjC3AmKHC7moXmUmoPnaQAguzEl0mR9yycESEAJ/YBQkwHm6oVHQk9zmn"
            "kHNhbHQxMjM0"
        ),
        PASSWORD,
    ),
    ("{PBKDF2}$1$abcdefgh$5000$18da00d79bf67c3ce00d724294fe218fb2c69402", PASSWORD),
    (
        (
            "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,"
            "D+CSWLOshSulAsxiupA+qs2/fTE="
        ),
        b"pencil",
    ),
    (
        (
            "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
            "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        ),
        b"pencil",
    ),
]
HASHES = [hash_text for hash_text, _ in VECTORS]


@pytest.mark.parametrize(("hash_text", "password"), VECTORS)
def test_verify_vector(hash_text: str, password: bytes) -> None:
    """The password verifies; another, an empty one, and one with or behind a NUL do not."""
    assert schemes.check(hash_text)
    assert schemes.verify(hash_text, password)
    assert not schemes.verify(hash_text, b"x" + password)
    assert not schemes.verify(hash_text, password.swapcase())
    for never in (b"", b"\0", password + b"\0", password + b"\0x", b"x" * 512):
        assert not schemes.verify(hash_text, never)


@pytest.mark.parametrize(("hash_text", "password"), VECTORS)
def test_comparing_takes_no_hint_of_where(
    hash_text: str, password: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Octets are compared by hmac.compare_digest; argon2 does the same in its own library."""
    compared: list[bytes] = []
    compare_digest = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.extend((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert schemes.verify(hash_text, password)
    assert {type(one) for one in compared} <= {bytes}  # texts that are not ASCII would be an error
    assert len(compared) == 2 or "argon2" in hash_text


@pytest.mark.parametrize(("hash_text", "password"), VECTORS)
def test_dummy_is_the_same_work_and_nobodys(hash_text: str, password: bytes) -> None:
    """A dummy has the shape and cost of its model, passes the check and verifies nothing."""
    dummy = schemes.dummy_like(hash_text)
    assert dummy != hash_text
    assert len(dummy) == len(hash_text)
    assert schemes.check(dummy) == schemes.check(hash_text)
    assert schemes.cost(dummy) == schemes.cost(hash_text)
    assert not schemes.verify(dummy, password)


def test_scram_vector_is_the_rfcs() -> None:
    """The stored key of the vector is the one behind the proof in RFC 7677 section 3."""
    stored = base64.b64decode("WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=")
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    nonce = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = (
        f"n=user,r=rOprNGfwEbeRWgbNEkqO,{nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,{nonce}"
    )
    signature = hmac.digest(stored, message.encode(), "sha256")
    key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(key).digest() == stored


@pytest.mark.parametrize(
    ("handler", "hash_text"),
    [
        ("des_crypt", "abZKnLUO6M512"),
        ("bsdi_crypt", "_J9..rasmgb4ABzPPqMQ"),
        ("md5_crypt", "$1$saltsalt$d8bx2rClEHaETLtmz/uvT."),
        ("sha256_crypt", "$5$saltsalt$O3DgkgVdwEGnrAcDVtvaqYxWTBw0Sj38EpEpXegATXA"),
        ("sha1_crypt", "$sha1$1000$abcdefgh$X6ED5PIEoPcEuJQYOkNokaosx6wV"),
        ("sun_md5_crypt", "$md5,rounds=1000$abcdefgh$$IVqjZ0DmFmf2XnGXELWC70"),
    ],
)
def test_libpass_takes_over(monkeypatch: pytest.MonkeyPatch, handler: str, hash_text: str) -> None:
    """Without libxcrypt, libpass verifies the same hashes."""
    monkeypatch.setattr(schemes, "_system_crypt", lambda: None)
    assert schemes._libpass(handler) is not None
    assert schemes.verify(hash_text, PASSWORD)
    assert not schemes.verify(hash_text, b"wrong")


def test_hash_nothing_here_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libxcrypt, yescrypt is refused when it is checked and not when somebody logs in."""
    monkeypatch.setattr(schemes, "_system_crypt", lambda: None)
    form = schemes._crypt3("yescrypt", "$y$", "", schemes._YESCRYPT, lambda _: 1)
    monkeypatch.setitem(schemes._CRYPT, "$y$", form)
    yescrypt = next(hash_text for hash_text in HASHES if hash_text.startswith("$y$"))
    with pytest.raises(ValueError, match="nothing on this machine verifies yescrypt"):
        schemes.check(yescrypt)


def test_bcrypt_compares_72_octets() -> None:
    """As when the hash was made, bcrypt looks at 72 octets; a longer password raises nothing."""
    crypt = schemes._system_crypt()
    if crypt is None:
        pytest.skip("this machine has no libxcrypt")
    long = b"0123456789" * 7 + b"ab"
    made = (crypt[0](long, b"$2b$04$" + A22.encode()) or b"").decode()
    assert schemes.verify(made, long)
    assert schemes.verify(made, long + b"tail")
    assert not schemes.verify(made, long[:71])
    assert not schemes.verify(made, long[:71] + b"x")


@pytest.mark.parametrize(
    "hash_text",
    [
        *("!", "*", "", "!$6$a$b", "*LK*", "!!", "{PLAIN}", "{SSHA}", "{CRYPT}!", "{CRYPT}*"),
        *("{SHA512-CRYPT}!$6$x", "{CRYPT}"),
    ],
)
def test_check_no_login(hash_text: str) -> None:
    """The usual ways to lock a user mean no login."""
    assert schemes.check(hash_text) is None


def test_check_plain_password_may_begin_with_a_mark() -> None:
    """What would lock a hashed user is a letter like others in a plain password."""
    assert schemes.check("{PLAIN}!x") == schemes.check("{PLAIN}*") == "PLAIN"


@pytest.mark.parametrize(
    "hash_text",
    [
        *("x", "secret", "ab:cdefghijklm", "abcdefghijklmn", "$", "$$", "$6", "$6$", "$99$a$b"),
        *(
            "$6$salt$short",
            f"$6${A16}a${'a' * 86}",
            f"$6$rounds=x$a${'a' * 86}",
            "$2y$99$" + "a" * 53,
        ),
        *(
            "$2x$04$" + "a" * 53,
            "$1$salt$" + "a" * 21,
            "_" + "a" * 18,
            "$y$j9T$salt$x",
            "$apr1$a$b",
        ),
        *("{", "{}", "{}x", "{PLAIN", "{P L}x", "{NOSUCH}x", "{NOSUCH}"),
        *(
            "{SHA}x",
            "{SHA}" + "a" * 28,
            "{SSHA}" + "a" * 28 + "=",
            "{SSHA}B/PcQHeAKywePq/ztWiCWf9lImE=",
        ),
        *("{SHA512-CRYPT}$1$saltsalt$d8bx2rClEHaETLtmz/uvT.", "{SCRAM-SHA-256}4096,a,b,c"),
        *("{SCRAM-SHA-256}0,aaaa,bbbb,cccc", "{PBKDF2}$1$a$0$" + "a" * 40, "{ARGON2ID}$argon2id$x"),
        "{ARGON2ID}$argon2id$v=19$m=64,t=1,p=9$c2FsdHNhbHQ$awFVsaV7dFrfKBzRD5T9Mg",
        "{ARGON2ID}$argon2d$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$awFVsaV7dFrfKBzRD5T9Mg",
        "{SHA256}OiJnkCVYiolCxym6OY5vSw4KcK5/4byVl4xwY92nKW4=\n",
        (
            "$6$saltsalt$J.H9QZDjpzl5MVWaDSQ2DkuaqqTAVM918ixk3DjS3bDVO.oeFRjcxXcBQJ6F.JVcHMbcRKdZIFPSFAyI0k"
            "B0H\u0661"
        ),
    ],
)
def test_check_refuses_broken_hashes(hash_text: str) -> None:
    """What no scheme made is refused, without showing it."""
    with pytest.raises(ValueError) as caught:
        schemes.check(hash_text)
    assert type(caught.value) is ValueError
    assert len(hash_text) < 12 or hash_text not in str(caught.value)


@given(
    text=st.one_of(
        st.text(max_size=120),
        st.builds(
            lambda base, at, put: base[: at % len(base)] + put + base[at % len(base) + 1 :],
            st.sampled_from(HASHES),
            st.integers(0, 200),
            st.text(max_size=3),
        ),
    )
)
def test_check_raises_only_value_errors(text: str) -> None:
    """Arbitrary and slightly broken hashes are refused by ValueError or are well-formed."""
    try:
        shape = schemes.check(text)
    except UnicodeError:
        raise AssertionError("an error that holds its input") from None
    except ValueError:
        return
    if shape is not None:
        assert schemes.check(schemes.dummy_like(text)) == shape


def test_cost_class() -> None:
    """Digests are verified in place, whatever stretches the password in a pool."""
    cheap = [text for text in HASHES if schemes.cost_class(text) == "cheap"]
    assert {text[1 : text.index("}")] for text in cheap} == {
        *("PLAIN", "CLEARTEXT", "SHA", "SSHA", "SHA256", "SSHA256", "SHA512", "SSHA512")
    }
    assert schemes.cost("$2b$12$" + "a" * 53) == 4 * schemes.cost("$2b$10$" + "a" * 53)


def test_dummy_follows_the_majority() -> None:
    """Scheme and parameters of the dummy are the most frequent ones; locked users do not count."""
    weak, strong = "$2y$04$" + "a" * 53, "$2y$05$" + "a" * 53
    assert schemes.dummy_for([weak, strong, strong, "!", "!", "!"]).startswith("$2y$05$")
    assert (
        schemes.dummy_for([strong, weak, "{SHA}B/PcQHeAKywePq/ztWiCWf9lImE=", weak])[:7]
        == "$2y$04$"
    )
    assert schemes.check(schemes.dummy_for([])) == "SHA512-CRYPT$6$"
    assert schemes.dummy_for([]) != schemes.dummy_for([])


def test_slow_libraries_are_loaded_when_needed() -> None:
    """Digests need neither argon2 nor libpass nor ctypes."""
    code = (
        "import sys; from pop3.auth import schemes\n"
        "assert schemes.verify('{SHA}B/PcQHeAKywePq/ztWiCWf9lImE=', 'pass wörd'.encode())\n"
        "loaded = {'argon2', 'passlib', 'ctypes', 'socket', 'ssl', 'logging'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "schemes.check('{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$awFVsaV7dFrfKBzRD5T9Mg')\n"
        "assert 'argon2' in sys.modules\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
