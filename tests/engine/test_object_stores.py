"""Both object stores do the same; files are written whole or not at all, in their folder."""

import os
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from runwell.engine.file_store import FileStore
from runwell.engine.object_store import URL_SECONDS, ObjectStore, ObjectStoreError
from runwell.engine.s3_store import S3Store
from tests.support.api_server import unused_url
from tests.support.s3 import CREDENTIALS, S3Server, s3_server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BASE = "http://runwell.test"
HOSTILE_KEYS = [
    "../../etc/passwd",
    "/etc/passwd",
    "env_1/..",
    "env_1/../env_2/payload.json",
    "a\x00b",
    "a\nb",
    "\ud800",
    "x" * 5000,
    "",
]


@pytest.fixture(scope="module")
def s3() -> Generator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["files", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "files":
        return FileStore(tmp_path / "packets", b"secret")
    server: S3Server = request.getfixturevalue("s3")
    return S3Store(server.make_bucket(), CREDENTIALS)


async def test_an_object_is_found_until_it_is_deleted(store: ObjectStore) -> None:
    assert await store.find_size("env_1/run_1/payload.json") is None
    await store.write("env_1/run_1/payload.json", b"[1]", "application/json")
    assert await store.find_size("env_1/run_1/payload.json") == 3
    assert await store.find_size("env_2/run_1/payload.json") is None
    await store.write("env_1/run_1/payload.json", b"[1,2]", "application/json")
    assert await store.find_size("env_1/run_1/payload.json") == 5
    await store.delete("env_1/run_1/payload.json")
    await store.delete("env_1/run_1/payload.json")
    assert await store.find_size("env_1/run_1/payload.json") is None
    await store.close()


async def test_an_empty_object_has_no_bytes(store: ObjectStore) -> None:
    await store.write("env_1/empty", b"", "text/plain")
    assert await store.find_size("env_1/empty") == 0
    await store.close()


async def test_s3_is_written_and_read_at_presigned_urls_with_the_exact_data_type(
    s3: S3Server,
) -> None:
    store = S3Store(s3.make_bucket(), CREDENTIALS)
    upload = store.sign_upload("env_1/a/b.json", base_url=BASE, now=NOW)
    headers = {"content-type": "application/super+json"}
    async with httpx.AsyncClient() as client:
        sent = await client.put(upload, content=b'{"json":1}', headers=headers)
        sent.raise_for_status()
        found = await client.get(store.sign_download("env_1/a/b.json", base_url=BASE, now=NOW))
    assert found.content == b'{"json":1}'
    assert found.headers["content-type"] == "application/super+json"
    assert await store.find_size("env_1/a/b.json") == 10
    await store.close()


async def test_a_bucket_that_is_not_there_or_a_store_that_is_away_is_an_error(s3: S3Server) -> None:
    missing = S3Store(f"{s3.url}/no-such-bucket/", CREDENTIALS)
    with pytest.raises(
        ObjectStoreError, match=r"can't PUT env_1/a: it answered 404 .*NoSuchBucket"
    ):
        await missing.write("env_1/a", b"1", "application/json")
    away = S3Store(f"{unused_url()}/bucket/", CREDENTIALS)
    with pytest.raises(ObjectStoreError, match="can't HEAD env_1/a: "):
        await away.find_size("env_1/a")
    await missing.close()
    await away.close()


async def test_files_are_read_with_their_data_type(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "deep" / "packets", b"secret")
    assert await store.read("env_1/a") is None
    await store.write("env_1/a", b"line\nline\n", "text/plain")
    assert await store.read("env_1/a") == (b"line\nline\n", "text/plain")


def list_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("key", HOSTILE_KEYS)
async def test_no_key_names_a_file_outside_of_the_folder(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "packets"
    store = FileStore(folder, b"secret")
    await store.write(key, b"mine", "text/plain")
    files = list_files(tmp_path)
    assert len(files) == 1
    assert files[0].resolve().is_relative_to(folder.resolve())
    assert files[0].parent.parent == folder
    assert await store.read(key) == (b"mine", "text/plain")
    assert await store.read(f"{key}/") is None


async def test_only_the_owner_reads_the_files(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "packets", b"secret")
    await store.write("env_1/a", b"1", "application/json")
    folders = [tmp_path / "packets", *(p for p in (tmp_path / "packets").rglob("*") if p.is_dir())]
    assert {folder.stat().st_mode & 0o077 for folder in folders} == {0}


async def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path, b"secret")
    await store.write("env_1/a", b"old", "text/plain")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ObjectStoreError, match="No space left on device"):
        await store.write("env_1/a", b"new", "text/plain")
    assert await store.read("env_1/a") == (b"old", "text/plain")
    assert not list((tmp_path / "writing").iterdir())


async def test_what_a_killed_write_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    store = FileStore(tmp_path, b"secret")
    await store.tidy(NOW)
    await store.write("env_1/a", b"1", "text/plain")
    left = tmp_path / "writing" / "left"
    left.write_bytes(b"half")
    os.utime(left, (NOW.timestamp(), NOW.timestamp()))
    await store.tidy(NOW + timedelta(minutes=59))
    assert left.exists()
    await store.tidy(NOW + timedelta(minutes=61))
    assert not left.exists()
    assert await store.find_size("env_1/a") == 1


def allowed(store: FileStore, method: str, key: str, url: str, now: datetime) -> bool:
    query = parse_qs(urlsplit(url).query)
    return store.may(
        method, key, expires=query["expires"][0], signature=query["signature"][0], now=now
    )


def test_a_signed_url_is_for_one_object_one_method_and_five_minutes(tmp_path: Path) -> None:
    store = FileStore(tmp_path, b"secret")
    url = store.sign_upload("env_1/a", base_url=BASE, now=NOW)
    assert url.startswith(f"{BASE}/packets/env_1/a?expires=")
    assert allowed(store, "PUT", "env_1/a", url, NOW)
    assert allowed(store, "PUT", "env_1/a", url, NOW + timedelta(seconds=URL_SECONDS))
    assert not allowed(store, "PUT", "env_1/a", url, NOW + timedelta(seconds=URL_SECONDS + 1))
    assert not allowed(store, "GET", "env_1/a", url, NOW)
    assert not allowed(store, "PUT", "env_1/b", url, NOW)
    assert not allowed(store, "PUT", "env_1/../env_1/a", url, NOW)
    other = FileStore(tmp_path, b"another secret")
    assert not allowed(other, "PUT", "env_1/a", url, NOW)


@pytest.mark.parametrize(
    ("expires", "signature"),
    [("", ""), ("x", "é"), ("9999999999", "0" * 64), ("-1", "\ud800"), ("1\n2", "0" * 64)],
)
def test_a_url_that_was_made_up_opens_nothing(tmp_path: Path, expires: str, signature: str) -> None:
    store = FileStore(tmp_path, b"secret")
    assert not store.may("GET", "env_1/a", expires=expires, signature=signature, now=NOW)
