"""A whole platform for a test: server, worker on the sample project, client, and a look inside."""

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncGenerator, Collection, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Unpack, get_args

import asyncpg

from runwell.client.api import ApiClient
from runwell.client.management import Tasks
from runwell.client.options import Retry
from runwell.client.runs import Runs
from runwell.client.transport import ClientSettings
from runwell.client.triggering import TriggerOptions
from runwell.core import failpoints
from runwell.core.payloads import Json
from tests.support.processes import ServerProcess, WorkerProcess
from tests.support.waiting import wait_until, wait_until_sync

SAMPLE_PROJECT = Path(__file__).parent / "sample_project"

FINISH_SECONDS = 30.0
"""What is promised: so soon the runs of a dead worker go on."""

_SHOWN_LOG_CHARACTERS = 20_000
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""How a database that is away is met."""


Victim = Literal["task_process", "warm_parent", "supervisor", "server", "postgres"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One execution of a gated task, as it said itself."""

    run_id: str
    attempt: int
    pid: int
    parent_pid: int


class Platform:
    """Server and worker processes, which outlive any event loop: see `temporary_platform`."""

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str | None,
        lease_seconds: int | None,
        worker_options: tuple[str, ...],
    ) -> None:
        """Start both, and wait for the server."""
        self.folder = folder
        self._worker_options = worker_options
        self.failpoints = folder / "failpoints"
        self.failpoints.mkdir()
        (self.failpoints / failpoints.PERMISSION).touch()
        self.server = ServerProcess(
            folder / "server",
            database_url=database_url,
            lease_seconds=lease_seconds,
            failpoints=self.failpoints,
        )
        try:
            self.server.wait_until_ready()
            self.secret_key = self.server.secret_key
            self.worker = self.start_worker("worker")
        except BaseException:
            self.server.end()
            raise
        socket_folder = self.server.data_dir / "postgres"
        self.dsn = database_url or f"postgresql://runwell@/runwell?host={socket_folder}&port=5432"

    @property
    def postmaster_pid(self) -> int:
        """The process id of the server's embedded PostgreSQL."""
        text = (self.server.data_dir / "postgres/postmaster.pid").read_text(encoding="utf-8")
        return int(text.splitlines()[0])

    def start_worker(
        self, name: str, *, url: str | None = None, options: tuple[str, ...] = ()
    ) -> WorkerProcess:
        """Start a worker beside those that there are; whoever calls this ends it."""
        return WorkerProcess(
            self.folder / name,
            SAMPLE_PROJECT,
            url=url or self.server.url,
            secret_key=self.secret_key,
            options=(*self._worker_options, *options),
            failpoints=self.failpoints,
        )

    def mend(self) -> None:
        """Start again what doesn't run."""
        if not self.server.is_running:
            self.server.restart()
        if not self.worker.is_running:
            self.worker.start_again()

    def arm(self, point: str, action: str) -> None:
        """Let something happen when the next process comes by a failpoint."""
        written = self.failpoints / f"{point}.new"
        written.write_text(action, encoding="utf-8")
        written.rename(self.failpoints / point)

    def is_hit(self, point: str) -> bool:
        """Whether a process has come by since it was armed."""
        return any((self.failpoints / f"{point}.{end}").exists() for end in ("hit", "passed"))

    def release(self, point: str) -> None:
        """Let the process go on that was armed to stand still at a point."""
        (self.failpoints / f"{point}.hit").rename(self.failpoints / f"{point}.passed")

    def has_lost_a_process(self, point: str) -> bool:
        """Whether the process that a point kills has ended; a worker's own are its own affair."""
        if point.startswith("worker-"):
            return not self.worker.is_running
        return point.startswith(("task-", "parent.")) or not self.server.is_running

    def disarm(self) -> None:
        """Forget all points, also those that were hit."""
        for path in self.failpoints.iterdir():
            if path.name != failpoints.PERMISSION:
                path.unlink(missing_ok=True)

    def wait_until_whole(self) -> None:
        """Wait until all of it is there: the server is ready, and the worker to run tasks."""

        def has_spares() -> bool:
            assert self.worker.is_running, f"the worker ended:\n{self.worker.log}"
            return bool(self.worker.task_processes)

        self.server.wait_until_ready()
        wait_until_sync(has_spares, "the worker has spares", timeout=FINISH_SECONDS)

    def end(self) -> None:
        """End both."""
        self.worker.end()
        self.server.end()


@contextlib.contextmanager
def temporary_platform(
    *worker_options: str, database_url: str | None = None, lease_seconds: int | None = 3
) -> Generator[Platform]:
    """A platform for the length of a block; a lease of None is the real one."""
    # Not pytest's folders: their names are too long for a socket on some systems.
    with tempfile.TemporaryDirectory(prefix="rw-", ignore_cleanup_errors=True) as made:
        platform = Platform(
            Path(made),
            database_url=database_url,
            lease_seconds=lease_seconds,
            worker_options=worker_options,
        )
        try:
            platform.wait_until_whole()
            yield platform
        finally:
            platform.end()


class Session:
    """What one test does with a platform, in its own event loop; `open_session` makes one."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        """Make a client with patience for servers that are away."""
        self.platform = platform
        self.folder = folder
        settings = ClientSettings(
            base_url=platform.server.url,
            secret_key=platform.secret_key,
            retry=Retry(max_attempts=60, min_timeout=0.1, factor=1, randomize=False),
            timeout=20,
        )
        client = self.client = ApiClient(lambda: settings)
        self.tasks, self.runs = Tasks(client), Runs(client)
        self._gate, self._record = folder / "gate", folder / "record"

    async def trigger(
        self, task_id: str, payload: Json = None, **options: Unpack[TriggerOptions]
    ) -> str:
        """Trigger a run and return its id; tried again while the server is away."""
        return (await self.tasks.trigger(task_id, payload, **options)).id

    async def trigger_gated(
        self, task_id: str = "wait-for-file", **options: Unpack[TriggerOptions]
    ) -> str:
        """Trigger a run that executes until `open_gate`."""
        payload: Json = {"record": str(self._record), "gate": str(self._gate)}
        return await self.trigger(task_id, payload, **options)

    def open_gate(self) -> None:
        """Let gated runs finish, those that come too."""
        self._gate.touch()

    def list_executions(self, run_id: str | None = None) -> list[Execution]:
        """The executions of gated runs that have begun."""
        if not self._record.exists():
            return []
        lines = [json.loads(line) for line in self._record.read_text(encoding="utf-8").splitlines()]
        return [
            Execution(
                run_id=line["run"],
                attempt=line["attempt"],
                pid=line["pid"],
                parent_pid=line["parent"],
            )
            for line in lines
            if run_id in (None, line["run"])
        ]

    async def wait_for_execution(self, run_id: str) -> Execution:
        """Wait until a gated run executes, and return its last execution."""
        found = await wait_until(
            lambda: self.list_executions(run_id), f"{run_id} executes", timeout=FINISH_SECONDS
        )
        return found[-1]

    def kill(self, victim: Victim) -> None:
        """End a part of the platform without a chance to say anything."""
        worker = self.platform.worker
        match victim:
            case "task_process":
                executing = {execution.pid for execution in self.list_executions()}
                _kill_all(executing or worker.task_processes)
            case "warm_parent":
                assert worker.parents
                _kill_all(worker.parents)
            case "supervisor":
                worker.kill()
            case "server":
                self.platform.server.kill()
            case "postgres":
                _kill_all([self.platform.postmaster_pid])

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection of the test's own, which says so."""
        settings = {"application_name": "tests"}
        return await asyncpg.connect(self.platform.dsn, server_settings=settings)

    async def fetch(self, query: str, *values: object) -> list[asyncpg.Record]:
        """Ask the database."""
        connection = await self.connect()
        try:
            return await connection.fetch(query, *values)
        finally:
            await connection.close()

    async def wait_for_row(self, what: str, query: str, *values: object) -> asyncpg.Record:
        """Wait until a query has an answer; the database may be away meanwhile."""

        async def look() -> list[asyncpg.Record]:
            with contextlib.suppress(*AWAY):
                return await self.fetch(query, *values)
            return []

        return (await wait_until(look, what, timeout=FINISH_SECONDS))[0]

    async def wait_for_status(self, run_id: str, *statuses: str) -> str:
        """Wait until the database has a run in one of these statuses; returns which."""
        query = "SELECT status FROM runs WHERE id = $1 AND status = ANY($2::text[])"
        row = await self.wait_for_row(f"{run_id} is {statuses}", query, run_id, list(statuses))
        return str(row["status"])

    async def wait_until_all_finished(self, run_ids: Collection[str]) -> dict[str, str]:
        """Wait until runs have ended, and return their statuses by id."""
        query = """
        SELECT array_agg(status) AS statuses, array_agg(id) AS ids FROM runs
        WHERE id = ANY($1::text[]) AND execution_status = 'FINISHED' HAVING count(*) = $2
        """
        what = f"all of {len(run_ids)} runs have ended"
        row = await self.wait_for_row(what, query, list(run_ids), len(run_ids))
        return dict(zip(row["ids"], row["statuses"], strict=True))

    @contextlib.asynccontextmanager
    async def hold(self, statement: str, *values: object) -> AsyncGenerator[None]:
        """Hold the locks that a statement takes, so that whoever needs them stays where it is."""
        connection = await asyncpg.connect(self.platform.dsn)
        try:
            await connection.execute("BEGIN")
            await connection.fetch(statement, *values)
            yield
        finally:
            # Its PostgreSQL may have been killed meanwhile.
            with contextlib.suppress(*AWAY):
                await connection.close(timeout=5)

    async def wait_until_blocked(self) -> None:
        """Wait until a server waits for a lock that `hold` holds."""
        await self.wait_for_row(
            "a server waits for a lock",
            """
            SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                AND datname = current_database() AND application_name = 'runwell'
            """,
        )

    async def check_settled(self, run_ids: Iterable[str]) -> None:
        """Check that runs ended once each, and that nothing is counted or queued any more."""
        for run_id in run_ids:
            rows = await self.fetch(
                "SELECT event FROM run_snapshots WHERE run_id = $1 "
                "AND execution_status = 'FINISHED'",
                run_id,
            )
            assert len(rows) == 1, f"{run_id} ended {len(rows)} times: {rows}"
            (attempts,) = await self.fetch(
                "SELECT count(*) FILTER (WHERE status = 'EXECUTING') AS executing, "
                "count(*) FILTER (WHERE status = 'COMPLETED') AS completed "
                "FROM run_attempts WHERE run_id = $1",
                run_id,
            )
            assert attempts["executing"] == 0, f"an attempt of {run_id} never ended"
            assert attempts["completed"] == (rows[0]["event"] == "COMPLETE")
        (counts,) = await self.fetch("""
            SELECT (SELECT sum(running) FROM environment_concurrency) AS environments,
                (SELECT sum(running) FROM subqueues) AS subqueues,
                (SELECT count(*) FROM queued_runs) AS queued,
                (SELECT count(*) FROM runs WHERE lease_id IS NOT NULL) AS leases
        """)
        assert dict(counts) == {"environments": 0, "subqueues": 0, "queued": 0, "leases": 0}


@contextlib.asynccontextmanager
async def open_session(platform: Platform) -> AsyncGenerator[Session]:
    """A session with a folder of its own; what it had executing may finish at its end."""
    session = Session(platform, Path(tempfile.mkdtemp(prefix="session-", dir=platform.folder)))
    try:
        yield session
    except BaseException:
        for process in (platform.server, platform.worker):
            print(f"--- {process.name} ---", process.log[-_SHOWN_LOG_CHARACTERS:], sep="\n")
        raise
    finally:
        session.open_gate()


def _kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        # It may have ended by itself, as after a task has returned.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
