"""What is in a public access token, and when it ends."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from runwell.core.public_tokens import (
    Expiration,
    as_instant,
    hash_credential,
    read_expiration,
    sign_token,
)

NOW = datetime(2025, 1, 4, 12, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
KEY = "tr_dev_abcdefghijklmnopqrst"


def test_a_token_is_what_the_official_clients_sign() -> None:
    token = sign_token(
        KEY,
        {"sub": "env_abc", "pub": True},
        scopes=["read:runs:run_1"],
        expires_at=SECONDS + 3600,
        now=NOW,
    )
    header, payload, signature = token.split(".")
    assert base64.urlsafe_b64decode(header + "==") == b'{"alg":"HS256"}'
    assert json.loads(base64.urlsafe_b64decode(payload + "==")) == {
        "sub": "env_abc",
        "pub": True,
        "scopes": ["read:runs:run_1"],
        "iat": SECONDS,
        "iss": "https://id.trigger.dev",
        "aud": "https://api.trigger.dev",
        "exp": SECONDS + 3600,
    }
    expected = hmac.digest(KEY.encode(), f"{header}.{payload}".encode(), hashlib.sha256)
    assert base64.urlsafe_b64decode(signature + "==") == expected


def test_a_token_without_scopes_has_no_such_claim() -> None:
    token = sign_token(KEY, {"sub": "env_abc"}, expires_at=SECONDS, now=NOW)
    assert "scopes" not in json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("15m", 900),
        ("1hr", 3600),
        ("1 hour", 3600),
        ("2 days", 172_800),
        ("90 secs", 90),
        ("10 minutes", 600),
        ("1.5h", 5400),
        ("1w", 604_800),
        ("1 year", 31_557_600),
        ("2 weeks from now", 1_209_600),
        ("1h ago", -3600),
        ("-5m", -300),
        ("+5M", 300),
        (timedelta(minutes=2), 120),
        (SECONDS + 60, 60),
        (NOW + timedelta(seconds=30), 30),
        ((NOW + timedelta(seconds=30)).astimezone(timezone(timedelta(hours=2))), 30),
    ],
)
def test_a_token_ends_when_the_grammar_says(given: Expiration, seconds: int) -> None:
    assert read_expiration(given, now=NOW) == SECONDS + seconds


@pytest.mark.parametrize(
    "given",
    [
        "",
        "soon",
        "15",
        "1 month",
        "- 5m ago",
        "9" * 40 + "s",
        -1,
        True,
        float("nan"),
        float("inf"),
        10**15,
        timedelta(days=-365 * 100),
        NOW.replace(tzinfo=None),
    ],
)
def test_what_is_no_such_time_is_refused(given: Expiration) -> None:
    with pytest.raises(ValueError, match=r"length of time|no time at which|time zone"):
        read_expiration(given, now=NOW)


def test_a_credential_is_kept_as_its_hash() -> None:
    assert hash_credential("a") == hashlib.sha256(b"a").hexdigest()
    assert len(hash_credential("\udc80")) == 64


def test_seconds_are_an_instant() -> None:
    assert as_instant(SECONDS) == NOW
