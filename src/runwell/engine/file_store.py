"""Large payloads and outputs as files, behind URLs of this server that are signed.

A file is named by the hash of its key: no key, whatever is in it, names a place outside of the
folder. It begins with a line that has the data type. Several servers may share the folder.
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from runwell.engine.object_store import URL_SECONDS, ObjectStoreError

#: Where the server answers for this store.
URL_PREFIX = "/packets/"
# A write takes seconds; what is older than this was cut short.
_ABANDONED_SECONDS = 3600.0


class StoredObject(NamedTuple):
    """An object that was read."""

    data: bytes
    data_type: str


class FileStore:
    """A folder of objects. `secret` signs URLs: servers that share the folder share it too."""

    def __init__(self, folder: Path, secret: bytes) -> None:
        self._folder = folder
        self._writing = folder / "writing"
        self._secret = secret

    def sign_upload(self, key: str, *, base_url: str, now: datetime) -> str:
        """The URL to PUT an object at, on this server."""
        return self._sign("PUT", key, base_url, now)

    def sign_download(self, key: str, *, base_url: str, now: datetime) -> str:
        """The URL to GET an object at, on this server."""
        return self._sign("GET", key, base_url, now)

    def may(self, method: str, key: str, *, expires: str, signature: str, now: datetime) -> bool:
        """Whether a URL's signature lets its holder do this now."""
        expected = self._signature(method, key, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            return False
        # Signed by us, so it is a number.
        return now.timestamp() <= int(expires)

    async def read(self, key: str) -> StoredObject | None:
        """An object, None when it isn't there; raises ObjectStoreError."""
        return await asyncio.to_thread(self._read, key)

    async def find_size(self, key: str) -> int | None:
        """How many bytes an object has, None when it isn't there; raises ObjectStoreError."""
        return await asyncio.to_thread(self._find_size, key)

    async def write(self, key: str, data: bytes, data_type: str) -> None:
        """Write an object: beside its place first, and moved there once it is on the disk."""
        await asyncio.to_thread(self._write, key, data, data_type)

    async def delete(self, key: str) -> None:
        """Delete an object; one that isn't there is no error. Raises ObjectStoreError."""
        await asyncio.to_thread(self._delete, key)

    async def tidy(self, now: datetime) -> None:
        """Remove files of writes that a crash cut short."""
        await asyncio.to_thread(self._tidy, now.timestamp() - _ABANDONED_SECONDS)

    async def close(self) -> None:
        """Nothing is held open."""

    def _sign(self, method: str, key: str, base_url: str, now: datetime) -> str:
        expires = str(int(now.timestamp()) + URL_SECONDS)
        signature = self._signature(method, key, expires)
        path = quote(key, safe="/")
        return f"{base_url}{URL_PREFIX}{path}?expires={expires}&signature={signature}"

    def _signature(self, method: str, key: str, expires: str) -> str:
        text = f"{method}\n{key}\n{expires}".encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / name[:2] / name[2:]

    def _read(self, key: str) -> StoredObject | None:
        try:
            head, _, data = self._path(key).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure(error) from error
        return StoredObject(data, head.decode())

    def _find_size(self, key: str) -> int | None:
        try:
            with self._path(key).open("rb") as file:
                return os.fstat(file.fileno()).st_size - len(file.readline())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure(error) from error

    def _write(self, key: str, data: bytes, data_type: str) -> None:
        path = self._path(key)
        try:
            for folder in (self._folder, self._writing, path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            written = self._writing / secrets.token_hex(16)
            try:
                with written.open("xb") as file:
                    file.write(data_type.encode() + b"\n")
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                written.replace(path)
            except BaseException:
                written.unlink(missing_ok=True)
                raise
            for folder in (path.parent, self._folder):
                _sync_folder(folder)
        except OSError as error:
            raise _failure(error) from error

    def _delete(self, key: str) -> None:
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _failure(error) from error

    def _tidy(self, before: float) -> None:
        # Another server may tidy the same folder just now.
        with contextlib.suppress(FileNotFoundError):
            for path in self._writing.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < before:
                        path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(error: OSError) -> ObjectStoreError:
    return ObjectStoreError(
        f"the object store's files can't be used: {error.strerror or error} "
        "(RUNWELL_OBJECT_STORE says where they are)"
    )
