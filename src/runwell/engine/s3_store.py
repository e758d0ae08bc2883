"""Large payloads and outputs in a bucket of S3, or of anything that speaks its protocol.

Clients and workers read and write the bucket themselves, by presigned URLs. The server does the
same for what it has to do there.
"""

import asyncio
from datetime import UTC, datetime
from typing import Literal

import httpx

from runwell.engine.object_store import URL_SECONDS, ObjectStoreError
from runwell.engine.sigv4 import Credentials, presign

_TIMEOUT_SECONDS = 10.0
_TRIES = 3
_PAUSE_SECONDS = 0.2
_OK, _NO_CONTENT, _NOT_FOUND, _SERVER_ERROR = 200, 204, 404, 500


class S3Store:
    """A bucket. `bucket_url` is the URL that object keys are appended to, with a slash at its end.

    For S3 itself that is `https://<bucket>.s3.<region>.amazonaws.com/`, for others mostly
    `<endpoint>/<bucket>/`.
    """

    def __init__(self, bucket_url: str, credentials: Credentials) -> None:
        self._bucket_url = bucket_url
        self._credentials = credentials
        self._client: httpx.AsyncClient | None = None

    def sign_upload(self, key: str, *, base_url: str, now: datetime) -> str:  # noqa: ARG002
        """The URL to PUT an object at, in the bucket."""
        return self._sign("PUT", key, now)

    def sign_download(self, key: str, *, base_url: str, now: datetime) -> str:  # noqa: ARG002
        """The URL to GET an object at, in the bucket."""
        return self._sign("GET", key, now)

    async def find_size(self, key: str) -> int | None:
        """How many bytes an object has, None when it isn't there; raises ObjectStoreError."""
        found = await self._ask("HEAD", key)
        if found.status_code == _NOT_FOUND:
            return None
        return int(found.headers.get("content-length", 0))

    async def write(self, key: str, data: bytes, data_type: str) -> None:
        """Write an object, durable when this returns; raises ObjectStoreError."""
        await self._ask("PUT", key, data=data, data_type=data_type)

    async def delete(self, key: str) -> None:
        """Delete an object; one that isn't there is no error. Raises ObjectStoreError."""
        await self._ask("DELETE", key)

    async def tidy(self, now: datetime) -> None:
        """S3 shows no object that was not written whole."""

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    def _sign(self, method: str, key: str, now: datetime) -> str:
        url = self._bucket_url + key
        return presign(method, url, self._credentials, now=now, expires_seconds=URL_SECONDS)

    async def _ask(
        self,
        method: Literal["HEAD", "PUT", "DELETE"],
        key: str,
        *,
        data: bytes | None = None,
        data_type: str | None = None,
    ) -> httpx.Response:
        """The answer with 2xx or 404; tried again while the store fails or can't be reached."""
        self._client = self._client or httpx.AsyncClient(timeout=_TIMEOUT_SECONDS)
        headers = {} if data_type is None else {"content-type": data_type}
        reason = ""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE_SECONDS * attempt)
            # S3 compares with its own clock: the server's injected one may be of another day.
            url = self._sign(method, key, datetime.now(UTC))
            try:
                found = await self._client.request(method, url, content=data, headers=headers)
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                continue
            if found.status_code in (_OK, _NO_CONTENT) or (
                found.status_code == _NOT_FOUND and method != "PUT"
            ):
                return found
            reason = f"it answered {found.status_code} {_first_line(found.text)}".rstrip()
            if found.status_code < _SERVER_ERROR:
                break
        raise ObjectStoreError(f"the object store can't {method} {key}: {reason}")


def _first_line(text: str) -> str:
    return " ".join(text.split())[:300]
