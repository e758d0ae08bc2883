"""Public access tokens: what is in one, how it is signed, and when it ends.

A token is a JSON web token (HS256) whose key is the secret key of its environment, so that every
client with that key makes tokens without asking. Reading one is the server's (`server/auth.py`).
Source: `protocol.md` section 1.2.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from runwell.core.payloads import Json

#: Constants of the protocol, whoever runs the server.
ISSUER: Final = "https://id.trigger.dev"
AUDIENCE: Final = "https://api.trigger.dev"

#: How long a token is good: one that is asked for, and one that comes with a handle.
DEFAULT_EXPIRATION: Final = "15m"
HANDLE_EXPIRATION: Final = "1h"

#: When a token ends: a length of time, seconds since 1970, or an aware instant.
Expiration = str | int | float | timedelta | datetime

_HEADER: Final = '{"alg":"HS256"}'
_SPAN = re.compile(
    r"(?P<sign>[+-])? ?(?P<number>\d{1,9}(?:\.\d{1,9})?) ?"
    r"(?P<unit>s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|w(?:eeks?)?"
    r"|y(?:(?:ea)?rs?)?)(?: (?P<ago>ago|from now))?",
    re.IGNORECASE,
)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_557_600}
_MAX_TIMESTAMP: Final = 253_402_300_799


def sign_token(
    secret_key: str,
    claims: Mapping[str, Json],
    *,
    scopes: Sequence[str] = (),
    expires_at: int,
    now: datetime,
) -> str:
    """A token with the claims that the server has said (`sub`, `pub`), and ours.

    `expires_at` is in seconds since 1970.
    """
    payload: dict[str, Json] = dict(claims)
    if scopes:
        payload["scopes"] = list(scopes)
    payload |= {
        "iat": int(now.timestamp()),
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": expires_at,
    }
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    signed = f"{_encode(_HEADER.encode())}.{_encode(text.encode())}"
    signature = hmac.digest(secret_key.encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{_encode(signature)}"


def read_expiration(value: Expiration, *, now: datetime) -> int:
    """When a token ends, in seconds since 1970; raises ValueError for what is no such thing.

    A text is a length of time from now: `15m`, `1hr`, `2 days`, `1h ago`. A number is seconds since
    1970 already.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: give it one (datetime.now(UTC))")
        moment = value.timestamp()
    elif isinstance(value, timedelta):
        moment = now.timestamp() + value.total_seconds()
    elif isinstance(value, str):
        moment = now.timestamp() + _read_span(value)
    else:
        moment = value
    if isinstance(moment, bool) or not 0 <= moment <= _MAX_TIMESTAMP:
        raise ValueError(f"{str(value)[:64]} is no time at which a token could end")
    return int(moment)


def hash_credential(credential: str) -> str:
    """What is kept of a credential that must not be readable: SHA-256 in hexadecimal digits."""
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()


def as_instant(seconds: int) -> datetime:
    """Seconds since 1970 as an instant."""
    return datetime.fromtimestamp(seconds, UTC)


def _read_span(text: str) -> float:
    match = _SPAN.fullmatch(text.strip())
    if match is None or (match["sign"] and match["ago"]):
        raise ValueError(
            f"{text[:64]!r} is no length of time: write it like '15m', '1hr' or '2 days'"
        )
    seconds = float(match["number"]) * _SECONDS[match["unit"][0].lower()]
    return -seconds if match["sign"] == "-" or (match["ago"] or "").lower() == "ago" else seconds


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
