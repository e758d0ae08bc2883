"""AWS Signature Version 4 for S3, in the form of presigned URLs. Pure: no I/O, no clock.

Source: the S3 API reference, "Authenticating Requests: Using Query Parameters".
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
#: What S3 allows.
MAX_EXPIRY_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """Who signs, for which region."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str


def presign(
    method: str, url: str, credentials: Credentials, *, now: datetime, expires_seconds: int
) -> str:
    """The URL by which anybody may do `method` on an object until it expires.

    `url` has scheme, host and the object's path as it is, not percent-encoded, and no query. Any
    body and any further header may be sent with it: only the host is signed.
    """
    parts = urlsplit(url)
    instant = now.astimezone(UTC)
    stamp, day = f"{instant:%Y%m%dT%H%M%SZ}", f"{instant:%Y%m%d}"
    scope = f"{day}/{credentials.region}/s3/aws4_request"
    path = quote(parts.path, safe="/-_.~")
    query = "&".join(
        f"{name}={quote(value, safe='-_.~')}"
        for name, value in (
            ("X-Amz-Algorithm", _ALGORITHM),
            ("X-Amz-Credential", f"{credentials.access_key}/{scope}"),
            ("X-Amz-Date", stamp),
            ("X-Amz-Expires", str(expires_seconds)),
            ("X-Amz-SignedHeaders", "host"),
        )
    )
    canonical = "\n".join(
        (method, path, query, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD")
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (day, credentials.region, "s3", "aws4_request"):
        key = _hmac(key, part)
    signature = _hmac(key, to_sign).hex()
    return f"{parts.scheme}://{parts.netloc}{path}?{query}&X-Amz-Signature={signature}"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
