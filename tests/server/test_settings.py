"""The settings of storage: what they mean, and what is wrong with others."""

from datetime import timedelta
from pathlib import Path

import pytest

from runwell.core.errors import ConfigurationError
from runwell.engine.backlogs import QueueSizes
from runwell.engine.file_store import FileStore
from runwell.engine.retention import Retention
from runwell.engine.s3_store import S3Store
from runwell.server.object_stores import FileStoreSettings, S3StoreSettings, open_object_store
from runwell.server.settings import read_settings

KEYS = {"RUNWELL_S3_ACCESS_KEY": "ak", "RUNWELL_S3_SECRET_KEY": "sk"}


def test_packets_are_files_in_the_data_directory_by_default() -> None:
    settings = read_settings({}).object_store
    assert settings == FileStoreSettings(folder=None)
    assert isinstance(open_object_store(settings, data_dir=Path("d"), signing_key=b"k"), FileStore)


def test_a_file_url_names_the_folder() -> None:
    settings = read_settings({"RUNWELL_OBJECT_STORE": "file:///srv/my%20packets"}).object_store
    assert settings == FileStoreSettings(folder=Path("/srv/my packets"))


def test_how_many_runs_may_wait_depends_on_the_environment() -> None:
    assert read_settings({}).queue_sizes == QueueSizes(
        development=100_000, staging=10_000_000, production=10_000_000
    )
    given = {
        "RUNWELL_QUEUE_SIZE_DEV": "1",
        "RUNWELL_QUEUE_SIZE_STAGING": "2",
        "RUNWELL_QUEUE_SIZE_PROD": "3",
    }
    expected = QueueSizes(development=1, staging=2, production=3)
    assert read_settings(given).queue_sizes == expected


def test_runs_and_lines_are_kept_for_a_month_or_as_the_settings_say() -> None:
    month = timedelta(days=30)
    assert read_settings({}).retention == Retention(runs=month, lines=month)
    given = {"RUNWELL_RUN_RETENTION_DAYS": "0", "RUNWELL_LOG_RETENTION_DAYS": "7"}
    assert read_settings(given).retention == Retention(runs=None, lines=timedelta(days=7))
    with pytest.raises(ConfigurationError, match="RUNWELL_RUN_RETENTION_DAYS is 'x': it must be"):
        read_settings({"RUNWELL_RUN_RETENTION_DAYS": "x"})


@pytest.mark.parametrize(
    ("given", "bucket_url"),
    [
        ({}, "https://runs.s3.us-east-1.amazonaws.com/"),
        ({"RUNWELL_S3_REGION": "eu-west-1"}, "https://runs.s3.eu-west-1.amazonaws.com/"),
        ({"RUNWELL_S3_ENDPOINT": "http://minio:9000/"}, "http://minio:9000/runs/"),
        (
            {"RUNWELL_OBJECT_STORE": "s3://runs/a/b/", "RUNWELL_S3_ENDPOINT": "http://minio:9000"},
            "http://minio:9000/runs/a/b/",
        ),
    ],
)
def test_a_bucket_is_amazons_or_that_of_an_endpoint(given: dict[str, str], bucket_url: str) -> None:
    settings = read_settings({"RUNWELL_OBJECT_STORE": "s3://runs", **KEYS, **given}).object_store
    assert isinstance(settings, S3StoreSettings)
    assert settings.bucket_url == bucket_url
    assert "sk" not in repr(settings.credentials).replace("secret", "")
    assert isinstance(open_object_store(settings, data_dir=Path("d"), signing_key=b"k"), S3Store)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"RUNWELL_OBJECT_STORE": "packets"}, "RUNWELL_OBJECT_STORE is 'packets': it must be like"),
        ({"RUNWELL_OBJECT_STORE": "file://"}, "it must be like"),
        ({"RUNWELL_OBJECT_STORE": "file://host/a"}, "it must be like"),
        ({"RUNWELL_OBJECT_STORE": "s3://"}, "it must be like"),
        ({"RUNWELL_OBJECT_STORE": "s3://key:secret@b"}, "it must be like"),
        ({"RUNWELL_OBJECT_STORE": "s3://[b"}, "it must be like"),
        ({"RUNWELL_OBJECT_STORE": "https://b.s3.amazonaws.com"}, "it must be like"),
        ({"RUNWELL_OBJECT_STORE": "s3://b"}, "set RUNWELL_S3_ACCESS_KEY"),
        (
            {"RUNWELL_OBJECT_STORE": "s3://b", **KEYS, "RUNWELL_S3_ENDPOINT": "minio:9000"},
            "RUNWELL_S3_ENDPOINT is 'minio:9000': it must be like",
        ),
        (
            {"RUNWELL_OBJECT_STORE": "s3://b", **KEYS, "RUNWELL_S3_ENDPOINT": "http://m/path"},
            "RUNWELL_S3_ENDPOINT",
        ),
    ],
)
def test_a_setting_that_names_no_store_is_an_error(given: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason.replace("[", r"\[")):
        read_settings(given)
