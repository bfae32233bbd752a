"""A Secret never shows its octets."""

import copy
import io
import json
import pickle
import traceback
from collections.abc import Callable

import pytest
import structlog

from pop3.auth.secret import Secret

OCTETS = b"correct-horse"


@pytest.mark.parametrize(
    "show",
    [repr, str, format, ascii, "{}".format, "{:>40}".format, "{!r}".format, lambda s: f"{s}{[s]}"],
)
def test_secret_prints_as_a_placeholder(show: Callable[[object], str]) -> None:
    """Every way of making text of it gives the placeholder."""
    shown = show(Secret(OCTETS))
    assert "<secret>" in shown
    assert "correct" not in shown


def test_secret_in_percent_formats() -> None:
    """The old formatting shows it neither as text nor as octets."""
    assert "%s %r" % (Secret(OCTETS), Secret(OCTETS)) == "<secret> <secret>"  # noqa: UP031
    with pytest.raises(TypeError):
        b"%s" % Secret(OCTETS)


@pytest.mark.parametrize(
    "leak",
    [bytes, list, len, hash, bool, json.dumps, pickle.dumps, copy.copy, copy.deepcopy, vars],
)
def test_secret_refuses_other_ways_out(leak: Callable[[object], object]) -> None:
    """What would copy, hash or test the octets raises, and the error does not hold them."""
    with pytest.raises(TypeError) as caught:
        leak(Secret(OCTETS))
    assert "correct" not in str(caught.value)


def test_secret_has_no_other_attributes() -> None:
    """Nothing can be hung on it that a log might show."""
    with pytest.raises(AttributeError):
        Secret(OCTETS).note = "x"  # type: ignore[attr-defined]


def test_secret_equals_and_reveals() -> None:
    """The octets come out by name only; two secrets are never the same object's equal."""
    secret = Secret(OCTETS)
    assert secret.reveal() == OCTETS
    assert secret.equals(OCTETS)
    assert not secret.equals(b"correct-hors")
    assert secret == secret  # noqa: PLR0124
    assert secret != Secret(OCTETS)
    assert secret != OCTETS
    assert Secret.__netserver_secret__ is True


def fail(secret: Secret) -> None:
    """Raise with the secret as the error's argument."""
    local = {"password": secret}
    raise KeyError(local, secret)


def test_structlog_shows_no_secret_however_deep() -> None:
    """JSON events with a nested secret and a traceback with its frames hold the placeholder."""
    out = io.StringIO()
    log = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()],
    )
    secret = Secret(OCTETS)
    try:
        fail(secret)
    except KeyError:
        log.exception("x", plain=secret, deep={"a": [secret, (secret,)]})
    assert "<secret>" in out.getvalue()
    assert "correct" not in out.getvalue()


def test_chained_traceback_shows_no_secret() -> None:
    """Chained exceptions with the secret as argument and as local variable do not print it."""
    secret = Secret(OCTETS)

    def fail_again() -> None:
        try:
            fail(secret)
        except KeyError as error:
            raise RuntimeError(secret, [secret]) from error

    with pytest.raises(RuntimeError) as caught:
        fail_again()
    shown = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    assert "<secret>" in shown
    assert "correct" not in shown
