"""Which object store the server uses: files by default, or a bucket, as the settings say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runwell.core.errors import ConfigurationError
from runwell.engine.file_store import FileStore
from runwell.engine.object_store import ObjectStore
from runwell.engine.s3_store import S3Store
from runwell.engine.sigv4 import Credentials

_DEFAULT_REGION = "us-east-1"
_EXAMPLES = "file:///var/lib/runwell/packets or s3://bucket"


@dataclass(frozen=True, kw_only=True)
class FileStoreSettings:
    """Files in a folder; None for the one in the data directory."""

    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class S3StoreSettings:
    """A bucket; see `S3Store`."""

    bucket_url: str
    credentials: Credentials


ObjectStoreSettings = FileStoreSettings | S3StoreSettings


def read_object_store(given: Mapping[str, str]) -> ObjectStoreSettings:
    """The object store that the settings name; raises ConfigurationError."""
    url = given.get("RUNWELL_OBJECT_STORE", "").strip()
    if not url:
        return FileStoreSettings()
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    path = unquote(parts.path)
    if parts.query or parts.fragment:
        raise _unusable(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and len(path) > 1:
        return FileStoreSettings(folder=Path(path))
    if parts.scheme == "s3" and parts.hostname and parts.netloc == parts.hostname:
        return _read_s3(given, parts.hostname, path.strip("/"))
    raise _unusable(url)


def open_object_store(
    settings: ObjectStoreSettings, *, data_dir: Path, signing_key: bytes
) -> ObjectStore:
    """The object store of these settings; nothing is connected or created yet."""
    match settings:
        case FileStoreSettings():
            return FileStore(settings.folder or data_dir / "packets", signing_key)
        case S3StoreSettings():
            return S3Store(settings.bucket_url, settings.credentials)


def _read_s3(given: Mapping[str, str], bucket: str, prefix: str) -> S3StoreSettings:
    access_key = given.get("RUNWELL_S3_ACCESS_KEY", "").strip()
    secret_key = given.get("RUNWELL_S3_SECRET_KEY", "").strip()
    if not access_key or not secret_key:
        raise ConfigurationError(
            "RUNWELL_OBJECT_STORE is a bucket: set RUNWELL_S3_ACCESS_KEY and RUNWELL_S3_SECRET_KEY "
            "to a key that may read, write and delete its objects"
        )
    region = given.get("RUNWELL_S3_REGION", "").strip() or _DEFAULT_REGION
    endpoint = given.get("RUNWELL_S3_ENDPOINT", "").strip().rstrip("/")
    if endpoint and not _is_endpoint(endpoint):
        raise ConfigurationError(
            f"RUNWELL_S3_ENDPOINT is {endpoint!r}: it must be like https://minio.example.com:9000"
        )
    base = f"{endpoint}/{bucket}/" if endpoint else f"https://{bucket}.s3.{region}.amazonaws.com/"
    return S3StoreSettings(
        bucket_url=f"{base}{prefix}/" if prefix else base,
        credentials=Credentials(access_key=access_key, secret_key=secret_key, region=region),
    )


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(is_usable) and not (parts.path or parts.query or parts.fragment or parts.username)


def _unusable(url: str) -> ConfigurationError:
    # What is before an @ may be a key.
    shown = repr(url.rpartition("@")[2])
    return ConfigurationError(f"RUNWELL_OBJECT_STORE is {shown}: it must be like {_EXAMPLES}")
