"""The client against the real server and a real PostgreSQL."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from runwell.client.api import ApiClient
from runwell.client.connections import HttpTransport
from runwell.client.management import BlockingTasks, Tasks
from runwell.client.options import Queue, Retry
from runwell.client.runs import BlockingRuns, Runs
from runwell.client.transport import (
    ApiConnectionError,
    AuthenticationError,
    BadRequestError,
    ClientSettings,
    NotFoundError,
    Outcome,
    RequestOptions,
    Response,
    Step,
)
from runwell.client.workers import WorkerClient
from runwell.core.errors import BuiltInError
from runwell.core.protocol import (
    CompleteReport,
    ConnectBody,
    DequeueBody,
    DequeuedRun,
    DisconnectBody,
    FailReport,
    HeartbeatBody,
    HeldRun,
    LogsReport,
    RegisterBody,
    ReportBody,
    StartReport,
    TaskManifest,
    WorkerMetadata,
)
from runwell.core.spans import CapturedLine
from tests.server.serving import Served, serving

ONCE = RequestOptions(retry=Retry(max_attempts=1))


def client_of(served: Served, key: str | None = None) -> ApiClient:
    settings = ClientSettings(base_url=served.url, secret_key=key or served.keys["dev"])
    return ApiClient(lambda: settings)


Report = StartReport | LogsReport | CompleteReport | FailReport


class LosesAnswers:
    """The real transport, but for the answers to the first requests, which never arrive."""

    def __init__(self, count: int) -> None:
        self._real = HttpTransport()
        self._left = count

    async def perform(self, step: Step) -> Outcome:
        return self._lose(await self._real.perform(step))

    def perform_blocking(self, step: Step) -> Outcome:
        return self._lose(self._real.perform_blocking(step))

    def _lose(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Response) and self._left:
            self._left -= 1
            return ApiConnectionError("the answer was lost")
        return outcome


class Worker:
    """A worker of one version with the task `hello`, driven by hand."""

    def __init__(self, served: Served) -> None:
        self.client = WorkerClient(served.url, served.keys["dev"])
        self.id = ""
        self.version_id = ""

    async def start(self) -> None:
        task = TaskManifest(id="hello", file_path="trigger/a.py", export_name="hello")
        metadata = WorkerMetadata(package_version="1", content_hash="h" * 8, tasks=[task])
        registered = await self.client.register("~", RegisterBody(metadata=metadata))
        connected = await self.client.connect(
            ConnectBody(name="w", capacity=10, package_version="1")
        )
        self.id, self.version_id = connected.worker_id, registered.id

    async def take(self) -> DequeuedRun:
        body = DequeueBody(
            worker_id=self.id,
            request_id=str(uuid.uuid4()),
            background_worker_ids=[self.version_id],
            max_runs=1,
            wait_ms=5000,
        )
        return (await self.client.dequeue(body)).runs[0]

    async def report(
        self, *reports: StartReport | LogsReport | CompleteReport | FailReport
    ) -> None:
        answer = await self.client.report(ReportBody(worker_id=self.id, reports=list(reports)))
        assert answer.results == ["accepted"] * len(reports)


async def test_a_run_goes_from_trigger_to_its_output_and_log(database_url: str) -> None:
    async with serving(database_url) as served:
        worker, client = Worker(served), client_of(served)
        await worker.start()
        runs = Runs(client)
        handle = await Tasks(client).trigger(
            "hello",
            {"name": "Ada"},
            tags=["a", "b"],
            metadata={"k": 1},
            queue=Queue(name="q", concurrency_limit=2),
            concurrency_key="user_1",
            max_attempts=2,
            max_duration="1h",
            machine="micro",
            ttl="10m",
            priority=5,
        )
        assert (await runs.retrieve(handle)).status == "QUEUED"
        polled = asyncio.ensure_future(runs.poll(handle, poll_interval=0.02))
        taken = await worker.take()
        assert (taken.run_id, taken.payload, taken.queue.name) == (handle.id, '{"name":"Ada"}', "q")
        now = datetime.now(UTC)
        run_id, fence = taken.run_id, taken.snapshot_id
        line = CapturedLine(seq=1, time=now, level="INFO", message="hi", attributes={"a": None})
        await worker.report(
            StartReport(run_id=run_id, snapshot_id=fence, started_at=now),
            LogsReport(run_id=run_id, snapshot_id=fence, attempt_number=1, lines=[line]),
            CompleteReport(
                run_id=run_id,
                snapshot_id=fence,
                output='{"said":"hello"}',
                started_at=now,
                finished_at=now,
                duration_ms=1,
            ),
        )
        run = await polled
        assert (run.status, run.output, run.payload) == (
            "COMPLETED",
            {"said": "hello"},
            {"name": "Ada"},
        )
        assert (run.tags, run.metadata, run.ttl) == (["a", "b"], {"k": 1}, "600s")
        page = await runs.logs(handle)
        assert [(found.message, found.attributes) for found in page.data] == [("hi", {"a": None})]
        assert (await runs.logs(handle, after=page.next)).data == []
        await worker.client.disconnect(DisconnectBody(worker_id=worker.id))


async def test_a_failed_run_shows_its_error(database_url: str) -> None:
    async with serving(database_url) as served:
        worker, client = Worker(served), client_of(served)
        await worker.start()
        handle = await Tasks(client).trigger("hello", max_attempts=1)
        taken, now = await worker.take(), datetime.now(UTC)
        error = BuiltInError(name="ValueError", message="bad", stack_trace="line 1")
        await worker.report(
            FailReport(
                run_id=taken.run_id,
                snapshot_id=taken.snapshot_id,
                error=error,
                started_at=now,
                finished_at=now,
                duration_ms=1,
            )
        )
        run = await Runs(client).poll(handle, poll_interval=0.02)
        assert run.error is not None
        assert (run.status, run.error.name, run.error.message) == ("FAILED", "ValueError", "bad")


async def test_a_canceled_run_is_told_to_its_worker(database_url: str) -> None:
    async with serving(database_url) as served:
        worker, client = Worker(served), client_of(served)
        await worker.start()
        handle = await Tasks(client).trigger("hello")
        taken = await worker.take()
        held = HeldRun(run_id=taken.run_id, snapshot_id=taken.snapshot_id)
        beat = asyncio.ensure_future(
            worker.client.heartbeat(HeartbeatBody(worker_id=worker.id, runs=[held], wait_ms=10_000))
        )
        await Runs(client).cancel(handle)
        assert (await beat).canceled == [handle.id]
        assert (await Runs(client).retrieve(handle)).status == "CANCELED"


async def test_an_idempotency_key_gives_the_same_run(database_url: str) -> None:
    async with serving(database_url) as served:
        tasks = Tasks(client_of(served))
        first = await tasks.trigger("hello", idempotency_key=["user", "1"])
        again = await tasks.trigger("hello", idempotency_key="user-1", idempotency_key_ttl="1h")
        other = await tasks.trigger("hello", idempotency_key="user-2")
        assert (first.is_cached, again.is_cached, other.is_cached) == (False, True, False)
        assert first.id == again.id != other.id


async def test_a_delayed_run_waits(database_url: str) -> None:
    async with serving(database_url) as served:
        tasks, runs = Tasks(client_of(served)), Runs(client_of(served))
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
        by_instant = await runs.retrieve(await tasks.trigger("hello", delay=until))
        assert (by_instant.status, by_instant.delayed_until) == ("DELAYED", until)
        by_length = await runs.retrieve(await tasks.trigger("hello", delay=timedelta(days=2)))
        assert by_length.status == "DELAYED"


async def test_runs_are_listed_by_filters_over_pages(database_url: str) -> None:
    async with serving(database_url) as served:
        client = client_of(served)
        tasks, runs = Tasks(client), Runs(client)
        made = [(await tasks.trigger("hello", tags=f"t{i % 2}")).id for i in range(5)]
        newest_first = made[::-1]
        assert [run.id async for run in runs.list(limit=2)] == newest_first
        assert [run.id async for run in runs.list(tag="t0")] == newest_first[::2]
        assert [run.id async for run in runs.list(tag=["t0", "t1"])] == newest_first
        assert [run.id async for run in runs.list(status="COMPLETED")] == []
        assert [run.id async for run in runs.list(period="1h", is_test=False)] == newest_first
        assert [run.id async for run in runs.list(to=datetime(2025, 1, 1, tzinfo=UTC))] == []
        page = await runs.list(limit=2)
        back = await (await page.get_next_page()).get_previous_page()
        assert [run.id for run in back.data] == newest_first[:2]


async def test_blocking_callers_get_the_same(database_url: str) -> None:
    async with serving(database_url) as served:
        client = client_of(served)

        def work() -> None:
            handle = BlockingTasks(client).trigger("hello", [1])
            runs = BlockingRuns(client)
            assert runs.retrieve(handle).payload == [1]
            assert [run.id for run in runs.list()] == [handle.id]
            assert runs.logs(handle).data == []
            assert runs.cancel(handle).id == handle.id
            assert runs.poll(handle).status == "CANCELED"

        await asyncio.to_thread(work)


async def test_refusals_are_errors_by_their_status(database_url: str) -> None:
    async with serving(database_url) as served:
        client = client_of(served)
        with pytest.raises(NotFoundError, match="404 on GET"):
            await Runs(client).retrieve("run_none", request_options=ONCE)
        with pytest.raises(NotFoundError):
            await Runs(client).cancel("run_none")
        with pytest.raises(BadRequestError, match="status"):
            await Runs(client).list(status="NO_SUCH")
        with pytest.raises(AuthenticationError):
            await Runs(client_of(served, "tr_dev_wrong")).list()


async def test_a_trigger_whose_answer_is_lost_makes_one_run(database_url: str) -> None:
    async with serving(database_url) as served:
        retry = Retry(max_attempts=3, min_timeout=0, max_timeout=0)
        settings = ClientSettings(base_url=served.url, secret_key=served.keys["dev"], retry=retry)
        losing = ApiClient(lambda: settings, LosesAnswers(2))
        handle = await Tasks(losing).trigger("hello")
        assert [run.id async for run in Runs(client_of(served)).list()] == [handle.id]
