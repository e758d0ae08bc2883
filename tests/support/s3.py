"""A real S3 server for tests: moto's, as a process of its own on the loopback."""

import contextlib
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import count

import httpx

from runwell.engine.sigv4 import Credentials
from tests.support.api_server import unused_url
from tests.support.waiting import wait_until_sync

CREDENTIALS = Credentials(access_key="key", secret_key="secret", region="eu-central-1")
_numbers = count(1)


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """Where it listens."""

    url: str
    process: "subprocess.Popen[bytes]" = field(repr=False)

    def make_bucket(self) -> str:
        """A new bucket; returns its URL, with a slash at its end."""
        url = f"{self.url}/bucket-{next(_numbers)}"
        headers = {"authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/x"}
        httpx.put(url, headers=headers).raise_for_status()
        return f"{url}/"

    def list_keys(self, bucket_url: str) -> list[str]:
        """The objects of a bucket."""
        text = httpx.get(bucket_url).raise_for_status().text
        return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]


@contextlib.contextmanager
def s3_server() -> Generator[S3Server]:
    """A server for the length of a block; it takes seconds to start."""
    url = unused_url()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", url.rpartition(":")[2]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "moto ended"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/moto-api/").status_code == 200
        return False

    try:
        wait_until_sync(answers, "moto answers", timeout=60)
        yield S3Server(url=url, process=process)
    finally:
        process.kill()
        process.wait()
