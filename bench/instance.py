"""A running Runwell to measure: server and worker as processes of their own, in a fresh folder."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import asyncpg

from bench import proc
from bench.connection import HttpConnection

_PROJECT = Path(__file__).with_name("project")
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0

#: The parts whose processor time and memory are told apart, in the order they are shown.
PARTS: tuple[str, ...] = ("server", "PostgreSQL", "supervisor", "warm parent", "run processes")


class Instance:
    """A server with its PostgreSQL, and workers. Use `open_instance`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / ".runwell"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.server: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None
        self.secret_key = ""
        self.environment_id = 0
        self._database: asyncpg.Connection | None = None

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> "asyncpg.Connection":
        """A connection to the instance's PostgreSQL, to look and to fill."""
        assert self._database is not None
        return self._database

    @property
    def postgres_pid(self) -> int:
        """The postmaster."""
        path = self.data_dir / "postgres" / "postmaster.pid"
        return int(path.read_text().splitlines()[0])

    async def start_server(self, **settings: str) -> None:
        """Start the server and wait until it is ready; `settings` are environment variables."""
        place = {"RUNWELL_PORT": str(self.port), "RUNWELL_DATA_DIR": str(self.data_dir)}
        self.server = self._spawn(["server"], log="server.log", settings={**place, **settings})
        await _wait_until(self._is_ready, "the server is ready", self.server)
        dsn = f"postgresql://runwell@/runwell?host={self.data_dir / 'postgres'}&port=5432"
        self._database = await asyncpg.connect(dsn)
        # Not the development environment, where runs expire after ten minutes in a queue.
        row = await self.database.fetchrow(
            "SELECT k.secret_key, e.id FROM api_keys k"
            " JOIN environments e ON e.id = k.environment_id WHERE e.slug = 'prod'"
        )
        assert row is not None
        self.secret_key, self.environment_id = row["secret_key"], row["id"]

    async def start_worker(self, *options: str) -> None:
        """Start a worker on the project and wait until it is connected and has its version."""
        before = await self.database.fetchval("SELECT count(*) FROM workers")
        self.worker = self._spawn(
            ["worker", *options],
            log="worker.log",
            settings={"TRIGGER_API_URL": self.url, "TRIGGER_SECRET_KEY": self.secret_key},
        )

        async def is_connected() -> bool:
            return await self.database.fetchval(
                "SELECT current_background_worker_id IS NOT NULL"
                " AND (SELECT count(*) FROM workers) > $2 FROM environments WHERE id = $1",
                *(self.environment_id, before),
            )

        await _wait_until(is_connected, "the worker is connected", self.worker)

    async def stop_worker(self) -> None:
        """Stop the worker, gracefully if it can."""
        if self.worker is not None:
            await _stop(self.worker)
            self.worker = None

    async def stop(self) -> None:
        """Stop everything."""
        await self.stop_worker()
        if self._database is not None:
            await self._database.close()
            self._database = None
        if self.server is not None:
            await _stop(self.server)
            self.server = None

    async def connect(self) -> HttpConnection:
        """A connection to the server, with the key."""
        return await HttpConnection.open(self.port, self.secret_key)

    def cpu_ns(self) -> dict[str, int]:
        """Processor time so far, by part; of processes that have ended too."""
        parts = dict.fromkeys(PARTS, 0)
        if self.server is not None:
            parts["server"] = proc.cpu_ns(self.server.pid)
            postmaster = self.postgres_pid
            parts["PostgreSQL"] = proc.tree_cpu_ns(postmaster) + proc.ended_children_cpu_ns(
                postmaster
            )
        if self.worker is not None:
            parts["supervisor"] = proc.cpu_ns(self.worker.pid)
            for parent in proc.children(self.worker.pid):
                parts["warm parent"] += proc.cpu_ns(parent)
                parts["run processes"] += proc.ended_children_cpu_ns(parent)
                parts["run processes"] += sum(map(proc.tree_cpu_ns, proc.children(parent)))
            parts["run processes"] += proc.ended_children_cpu_ns(self.worker.pid)
        return parts

    def pss_kb(self) -> dict[str, int]:
        """Memory by part, in kB."""
        parts = dict.fromkeys(PARTS, 0)
        if self.server is not None:
            parts["server"] = proc.pss_kb(self.server.pid)
            parts["PostgreSQL"] = sum(map(proc.pss_kb, proc.tree(self.postgres_pid)))
        if self.worker is not None:
            parts["supervisor"] = proc.pss_kb(self.worker.pid)
            for parent in proc.children(self.worker.pid):
                parts["warm parent"] += proc.pss_kb(parent)
                for child in proc.children(parent):
                    parts["run processes"] += sum(map(proc.pss_kb, proc.tree(child)))
        return parts

    async def wait_until_idle(self, *, seconds: float = 120) -> None:
        """Wait until no run waits or executes."""

        async def is_idle() -> bool:
            return await self.database.fetchval(
                "SELECT NOT EXISTS (SELECT FROM queued_runs) AND NOT EXISTS"
                " (SELECT FROM environment_concurrency WHERE running > 0)"
            )

        await _wait_until(is_idle, "all runs have ended", seconds=seconds)

    async def wait_until_ended(self, run_id: str, *, seconds: float = 120) -> None:
        """Wait until a run has ended."""

        async def has_ended() -> bool:
            return await self.database.fetchval(
                "SELECT finished_at IS NOT NULL FROM runs WHERE id = $1", run_id
            )

        await _wait_until(has_ended, f"run {run_id} has ended", seconds=seconds)

    def read_log(self, name: str) -> str:
        """The last lines that a process wrote."""
        path = self.folder / name
        return (
            "\n".join(path.read_text(errors="replace").splitlines()[-15:]) if path.exists() else ""
        )

    def _spawn(
        self, arguments: list[str], *, log: str, settings: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        return spawn_cli(arguments, self.folder, self.folder / log, settings)

    async def _is_ready(self) -> bool:
        try:
            connection = await HttpConnection.open(self.port, "none")
        except OSError:
            return False
        with contextlib.suppress(RuntimeError, json.JSONDecodeError):
            await connection.send(connection.prepare("/readyz", b"", method="GET"))
            return True
        return False


@contextlib.asynccontextmanager
async def open_instance(
    *, worker: bool = True, worker_options: tuple[str, ...] = (), **settings: str
) -> AsyncGenerator[Instance]:
    """A server, and a worker, for the length of a block; what they wrote is shown when it fails."""
    with project_folder() as folder:
        instance = Instance(folder)
        try:
            await instance.start_server(**settings)
            if worker:
                await instance.start_worker(*worker_options)
            yield instance
        except BaseException:
            for name in ("server.log", "worker.log"):
                sys.stderr.write(f"--- {name}\n{instance.read_log(name)}\n")
            raise
        finally:
            await instance.stop()


@contextlib.contextmanager
def project_folder() -> Generator[Path]:
    """A copy of the project in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="runwell-bench-") as name:
        folder = Path(name)
        # PostgreSQL runs as another account when we are root, and has to enter.
        folder.chmod(0o755)
        shutil.copytree(
            _PROJECT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        yield folder


def spawn_cli(
    arguments: list[str], folder: Path, log: Path, settings: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start `runwell ARGUMENTS` in a folder, as a user does, but for the terminal."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RUNWELL_", "TRIGGER_", "DATABASE_URL", "PYTHON"))
    }
    program = Path(sys.executable).with_name("runwell")
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(program), *arguments],
            cwd=folder,
            env={**kept, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def _wait_until(
    condition: Callable[[], Coroutine[Any, Any, bool]],
    what: str,
    process: subprocess.Popen[bytes] | None = None,
    *,
    seconds: float = _START_SECONDS,
) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"waited until {what}: the process ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:.0f} s until {what}, in vain")
        await asyncio.sleep(0.02)


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.to_thread(process.wait, _STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
