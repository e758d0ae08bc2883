"""Public access tokens for tests, good ones and forged ones."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from runwell.core.public_tokens import sign_token

FAR = 4_000_000_000


def make_token(
    secret_key: str, sub: str, *scopes: str, expires_at: int = FAR, **claims: Any
) -> str:
    """A token as a client with the secret key signs it."""
    return sign_token(
        secret_key,
        {"sub": sub, "pub": True, **claims},
        scopes=scopes,
        expires_at=expires_at,
        now=datetime.now(UTC),
    )


def forge_token(
    header: Mapping[str, Any],
    claims: Mapping[str, Any],
    key: str = "",
    hash_name: str = "sha256",
    *,
    signature: bytes | None = None,
) -> str:
    """A token with any header and claims, signed in any way."""
    signed = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(claims).encode())}"
    if signature is None:
        signature = hmac.new(key.encode(), signed.encode(), getattr(hashlib, hash_name)).digest()
    return f"{signed}.{_encode(signature)}"


def claims_of(token: str) -> dict[str, Any]:
    """What is in a token."""
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return found


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
