"""Presigned URLs are those of AWS: its published example, and what botocore makes."""

from datetime import UTC, datetime
from typing import Any
from unittest import mock
from urllib.parse import quote

import botocore.auth
import botocore.awsrequest
import botocore.credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from runwell.engine.sigv4 import Credentials, presign

# The example of the S3 API reference, "Authenticating Requests: Using Query Parameters".
EXAMPLE = Credentials(
    access_key="AKIAIOSFODNN7EXAMPLE",
    secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    region="us-east-1",
)
MIDNIGHT = datetime(2013, 5, 24, tzinfo=UTC)


def test_the_published_example_gets_its_published_signature() -> None:
    url = presign(
        "GET",
        "https://examplebucket.s3.amazonaws.com/test.txt",
        EXAMPLE,
        now=MIDNIGHT,
        expires_seconds=86400,
    )
    assert url == (
        "https://examplebucket.s3.amazonaws.com/test.txt"
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@settings(max_examples=50)
@given(
    method=st.sampled_from(["GET", "PUT", "HEAD", "DELETE"]),
    origin=st.sampled_from(["https://s3.example.com", "http://127.0.0.1:9000"]),
    key=st.text(
        st.characters(codec="utf-8", exclude_characters="?#", min_codepoint=32), min_size=1
    ).filter(lambda key: not any(part in ("", ".", "..") for part in key.split("/"))),
    secret_key=st.text(st.characters(categories=["L", "N"]), min_size=1),
    region=st.sampled_from(["us-east-1", "eu-central-1", "auto"]),
    now=st.integers(946_684_800, 4_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC)),
    seconds=st.integers(1, 604_800),
)
def test_a_url_is_the_one_that_botocore_makes(
    method: str,
    origin: str,
    key: str,
    secret_key: str,
    region: str,
    now: datetime,
    seconds: int,
) -> None:
    credentials = Credentials(access_key="AK", secret_key=secret_key, region=region)
    made = presign(method, f"{origin}/b/{key}", credentials, now=now, expires_seconds=seconds)
    assert made == presign_with_botocore(
        method, f"{origin}/b/{quote(key)}", credentials, now, seconds
    )


def presign_with_botocore(
    method: str, url: str, credentials: Credentials, now: datetime, seconds: int
) -> str:
    request: Any = botocore.awsrequest.AWSRequest(method=method, url=url)
    auth: Any = botocore.auth.S3SigV4QueryAuth(
        botocore.credentials.Credentials(credentials.access_key, credentials.secret_key),
        "s3",
        credentials.region,
        expires=seconds,
    )
    with mock.patch("botocore.auth.get_current_datetime", return_value=now.replace(tzinfo=None)):
        auth.add_auth(request)
    return str(request.url)


def test_a_secret_key_is_not_shown() -> None:
    assert EXAMPLE.secret_key not in repr(EXAMPLE)
