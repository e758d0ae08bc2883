"""What a store of large payloads and outputs can do; the file and S3 stores are two of them.

An object has a key, a data type and bytes. It is written whole or not at all. Whoever holds a
signed URL may read or write that one object until the URL expires, without any other key.
"""

from datetime import datetime
from typing import Protocol

from runwell.core.errors import RunwellError

#: A signed URL is good for this long (`protocol.md` 11.4).
URL_SECONDS = 300


class ObjectStoreError(RunwellError):
    """The object store can't be reached, is full, or refuses the server's key."""


class ObjectStore(Protocol):
    """Where packets are kept that are too large for a row."""

    def sign_upload(self, key: str, *, base_url: str, now: datetime) -> str:
        """The URL to PUT an object at; `base_url` is how the asker reaches this server."""
        ...

    def sign_download(self, key: str, *, base_url: str, now: datetime) -> str:
        """The URL to GET an object at; `base_url` is how the asker reaches this server."""
        ...

    async def find_size(self, key: str) -> int | None:
        """How many bytes an object has, None when it isn't there; raises ObjectStoreError."""
        ...

    async def write(self, key: str, data: bytes, data_type: str) -> None:
        """Write an object, durable when this returns; raises ObjectStoreError."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; one that isn't there is no error. Raises ObjectStoreError."""
        ...

    async def tidy(self, now: datetime) -> None:
        """Remove what writes left that were cut short."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
