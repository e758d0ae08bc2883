"""A real server for a test: in the test's own event loop, or as a process of its own."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from runwell.core.timing import SystemClock
from runwell.engine import environments
from runwell.engine.db import Database
from runwell.engine.file_store import FileStore
from runwell.engine.notifications import Signals
from runwell.engine.object_store import ObjectStore
from runwell.server.application import create_app
from runwell.server.backend import Backend
from runwell.server.listening import HttpServer, open_socket, url_of
from tests.support.waiting import wait_until_sync

_numbers = itertools.count(1)
WORKER_ACTIONS = "/engine/v1/worker-actions"


@dataclass(kw_only=True)
class Served:
    """A server of this event loop, and a client with the key of its development environment."""

    url: str
    keys: dict[str, str]
    client: httpx.AsyncClient
    backend: Backend
    server: HttpServer

    async def trigger(self, task_id: str = "hello", **body: object) -> str:
        """Trigger a run; returns its id."""
        answer = await self.client.post(f"/api/v1/tasks/{task_id}/trigger", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def register(self, *task_ids: str, content_hash: str = "hash-of-1") -> str:
        """Register a version with these tasks; returns the id of the background worker."""
        answer = await self.client.post(
            "/api/v1/projects/~/background-workers",
            json={"metadata": manifest(*task_ids, content_hash=content_hash)},
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def act(self, action: str, **body: object) -> dict[str, Any]:
        """Do a worker action that succeeds."""
        answer = await self.client.post(f"{WORKER_ACTIONS}/{action}", json=body)
        assert answer.status_code == 200, answer.text
        return cast("dict[str, Any]", answer.json())

    async def connect(self) -> str:
        """Connect a worker; returns its id."""
        answer = await self.act("connect", name="w", capacity=10, packageVersion="1")
        return str(answer["workerId"])

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """Get what is there."""
        answer = await self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return cast("dict[str, Any]", answer.json())


def manifest(*task_ids: str, content_hash: str = "hash-of-1") -> dict[str, Any]:
    """The metadata of a version with these tasks."""
    return {
        "packageVersion": "1",
        "contentHash": content_hash,
        "tasks": [
            {"id": task_id, "filePath": "trigger/t.py", "exportName": "t"} for task_id in task_ids
        ],
    }


@contextlib.asynccontextmanager
async def serving(database_url: str, store: ObjectStore | None = None) -> AsyncGenerator[Served]:
    """A server over a migrated database, in this event loop; its packets are files by default."""
    with tempfile.TemporaryDirectory(prefix="rw-packets-") as folder:
        made = store or FileStore(Path(folder), b"signing-key")
        async with _serving(database_url, made) as served:
            yield served


@contextlib.asynccontextmanager
async def _serving(database_url: str, store: ObjectStore) -> AsyncGenerator[Served]:
    async with await Database.open(database_url, min_size=1) as db:
        async with db.transaction() as tx:
            now = SystemClock().now()
            keys = await environments.create_first_project(tx, now=now)
            keys = keys or await environments.list_local_keys(tx, now=now)
        signals = Signals(database_url)
        await signals.start()
        backend = Backend(db, signals, store)
        server = HttpServer(create_app(backend), before_stop=backend.polls.stop, stop_seconds=5)
        listener = open_socket("127.0.0.1", 0)
        url = url_of(listener)
        task = asyncio.create_task(server.listen(listener))
        headers = {"authorization": f"Bearer {keys['dev']}"}
        try:
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
                yield Served(url=url, keys=keys, client=client, backend=backend, server=server)
        finally:
            server.stop()
            await task
            await backend.changes.aclose()
            await signals.stop()


class ServerProcess:
    """`python -m runwell.app` on a data directory, with its log as JSON."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        """Start it; see `server_process`."""
        data_dir.mkdir(exist_ok=True)
        self.data_dir = data_dir
        self.log_path = data_dir / f"server-{next(_numbers)}.log"
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("RUNWELL", "DATABASE"))
        }
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runwell.app"],
                env={
                    **inherited,
                    "RUNWELL_PORT": "0",
                    "RUNWELL_DATA_DIR": str(data_dir),
                    "RUNWELL_LOG_FORMAT": "json",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def log(self) -> list[dict[str, Any]]:
        """The events so far."""
        lines = self.log_path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def find(self, event: str) -> dict[str, Any] | None:
        """The last event of a name."""
        return next((line for line in reversed(self.log) if line["event"] == event), None)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Wait for an event."""

        def look() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.log_path.read_text(encoding="utf-8")
            return self.find(event)

        found = wait_until_sync(look, f"the log has {event}", timeout=30)
        assert found is not None
        return found

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.wait_for("server_ready")["url"])

    @property
    def local(self) -> dict[str, Any]:
        """What `local.json` says."""
        return cast(
            "dict[str, Any]", json.loads((self.data_dir / "local.json").read_text(encoding="utf-8"))
        )

    def client(self) -> httpx.Client:
        """A client with the key of the development environment."""
        url = self.url
        headers = {"authorization": f"Bearer {self.local['secretKey']}"}
        return httpx.Client(base_url=url, headers=headers, timeout=30)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Stop it; returns what it printed. Fails when it does not end well."""
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, self.log_path.read_text(encoding="utf-8")
        return output


@contextlib.contextmanager
def server_process(
    data_dir: Path, database_url: str | None = None, **environment: str
) -> Generator[ServerProcess]:
    """A server as a process of its own, killed at the end of the block if it still runs."""
    if database_url is not None:
        environment["DATABASE_URL"] = database_url
    server = ServerProcess(data_dir, environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
        try:
            server.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.communicate()


def seconds_since(start: float) -> float:
    """How long ago a `time.monotonic()` was."""
    return time.monotonic() - start


def error_of(answer: httpx.Response) -> str:
    """The sentence of an error answer, which has nothing of our insides in it."""
    assert answer.headers["content-type"] == "application/json"
    message = answer.json()["error"]
    assert isinstance(message, str)
    assert not re.search(r"Traceback|File \"|asyncpg", message), message
    return message
