"""A server that speaks the worker's protocol over real HTTP, and fails on demand.

It keeps runs in memory, and has the rules that a worker can notice: leases are fenced by snapshot,
the same dequeue request is answered with the same runs, a report of a lease that ended is stale.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from runwell.core.machines import MachineName
from runwell.core.payloads import Json
from runwell.core.protocol import (
    CanceledReport,
    CompleteReport,
    ConnectAnswer,
    ConnectBody,
    DequeueAnswer,
    DequeueBody,
    DequeuedRun,
    DisconnectBody,
    EnvironmentContext,
    FailReport,
    HandBackReport,
    HeartbeatAnswer,
    HeartbeatBody,
    LogsReport,
    MetadataReport,
    OrganizationContext,
    ProjectContext,
    QueueContext,
    RegisterAnswer,
    RegisterBody,
    ReportAnswer,
    ReportBody,
    StartReport,
)
from runwell.core.spans import CapturedLine, Span

SECRET_KEY = "tr_dev_abcdefghijklmnopqrst"
_PREFIX = "/engine/v1/worker-actions/"


@dataclass
class FakeRun:
    """A run as the server sees it."""

    run_id: str
    task_id: str
    payload: str | None
    options: dict[str, Any]
    status: str = "QUEUED"
    worker_id: str | None = None
    request_id: str | None = None
    snapshot_id: int = 0
    attempt_number: int = 0
    is_canceling: bool = False
    start: StartReport | None = None
    end: CompleteReport | FailReport | CanceledReport | None = None
    ends: list[Any] = field(default_factory=list[Any])
    hand_backs: list[HandBackReport] = field(default_factory=list[HandBackReport])
    metadata_reports: list[MetadataReport] = field(default_factory=list[MetadataReport])
    lines: dict[int, CapturedLine] = field(default_factory=dict[int, CapturedLine])
    spans: dict[str, Span] = field(default_factory=dict[str, Span])
    stale: int = 0

    @property
    def output(self) -> Json:
        """What it returned."""
        assert isinstance(self.end, CompleteReport), self.end
        return None if self.end.output is None else json.loads(self.end.output)

    @property
    def number(self) -> int:
        """What it returned, when that is a number."""
        assert isinstance(self.output, int)
        return self.output

    @property
    def items(self) -> list[Any]:
        """What it returned, when that is a list."""
        assert isinstance(self.output, list)
        return self.output

    @property
    def failure(self) -> FailReport:
        """How it failed."""
        assert isinstance(self.end, FailReport), self.end
        return self.end

    @property
    def messages(self) -> list[str]:
        """What it logged, in order."""
        return [line.message for _, line in sorted(self.lines.items())]


class FakeServer:
    """Start it with `serving()`; every request that it gets is counted by its action."""

    def __init__(self) -> None:
        self.runs: dict[str, FakeRun] = {}
        self.versions: dict[str, RegisterBody] = {}
        self.current_version: str | None = None
        self.connects: list[ConnectBody] = []
        self.workers: set[str] = set()
        self.disconnected: list[str] = []
        #: The versions that the last heartbeat named.
        self.told_versions: list[str] | None = None
        self.report_bodies: list[ReportBody] = []
        self.requests: Counter[str] = Counter()
        self.port = 0
        self._snapshots = 0
        self._faults: dict[str, list[str]] = {}
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._asking: ContextVar[asyncio.StreamReader] = ContextVar("asking")
        self.max_report_bytes = 64 * 1024 * 1024

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, on the same port as before if it was stopped."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=1024 * 1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be away: no port, no connections."""
        if self._server is not None:
            self._server.close()
            for writer in [*self._connections]:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    # What a test does.

    def trigger(self, task_id: str, payload: object = None, **options: object) -> FakeRun:
        """Queue a run; `options` are fields of DequeuedRun. Call `await notify()` afterwards."""
        run_id = f"run_{len(self.runs) + 1:021d}"
        text = None if payload is None else json.dumps(payload)
        run = FakeRun(run_id, task_id, text, dict(options))
        self.runs[run_id] = run
        return run

    async def notify(self) -> None:
        """Let those who poll look again."""
        async with self._changed:
            self._changed.notify_all()

    async def run(self, task_id: str, payload: object = None, **options: object) -> FakeRun:
        """Trigger a run and wait for its end."""
        run = self.trigger(task_id, payload, **options)
        await self.notify()
        await self.until(lambda: run.end is not None, f"{task_id} ends")
        return run

    async def until(self, predicate: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait for something that comes about by a request."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(predicate)
        except TimeoutError:
            raise AssertionError(f"not within {seconds} seconds: {what}") from None

    async def cancel(self, run: FakeRun) -> None:
        """A user cancels a run."""
        run.is_canceling = True
        await self.notify()

    async def take_away(self, run: FakeRun) -> None:
        """The run's lease becomes another's."""
        run.worker_id, run.status = "worker_of_somebody_else", "EXECUTING"
        self._snapshots += 1
        run.snapshot_id = self._snapshots
        await self.notify()

    def fail_next(self, action: str, *faults: str) -> None:
        """What happens to the next requests: `lost` (done, and no answer), `drop`, or a status."""
        self._faults.setdefault(action, []).extend(faults)

    # What the worker asks.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
        ):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                request_line, *lines = head.split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self._asking.set(reader)
                status, answer = await self._answer(request_line.split(" ")[1], headers, body)
                if status == 0:
                    break
                text = json.dumps(answer).encode() if not isinstance(answer, bytes) else answer
                writer.write(
                    f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(text)}\r\n\r\n".encode()
                    + text
                )
                await writer.drain()
        self._connections.discard(writer)
        writer.close()

    async def _answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, object]:
        action = path.rpartition("/")[2]
        self.requests[action] += 1
        faults = self._faults.get(action)
        fault = faults.pop(0) if faults else ""
        if fault:
            await self.notify()
        if fault == "drop":
            return 0, None
        if fault.isdecimal():
            return int(fault), {"error": f"made to fail with {fault}"}
        if headers.get("authorization") != f"bearer {SECRET_KEY}":
            return 401, {"error": "Invalid or missing API key"}
        act = getattr(self, f"_{action.replace('-', '_')}", None)
        if act is None:
            return 404, {"error": "no such path"}
        answer = await act(body)
        await self.notify()
        if isinstance(answer, tuple):
            return cast("tuple[int, object]", answer)
        if fault == "lost":
            return 0, None
        return 200, answer.model_dump_json(by_alias=True).encode() if answer else {}

    async def _background_workers(self, body: bytes) -> RegisterAnswer:
        parsed = RegisterBody.model_validate_json(body)
        content_hash = parsed.metadata.content_hash
        known = [v for v, b in self.versions.items() if b.metadata.content_hash == content_hash]
        version = known[0] if known else f"20260101.{len(self.versions) + 1}"
        self.versions[version] = parsed
        self.current_version = version
        return RegisterAnswer(id=f"worker_{version}", version=version, content_hash=content_hash)

    async def _connect(self, body: bytes) -> ConnectAnswer:
        parsed = ConnectBody.model_validate_json(body)
        self.connects.append(parsed)
        worker_id = f"worker_{len(self.connects)}"
        self.workers.add(worker_id)
        if parsed.previous_worker_id is not None:
            self._release(parsed.previous_worker_id)
        return ConnectAnswer(
            worker_id=worker_id,
            organization=OrganizationContext(id="org_1", slug="acme", name="Acme"),
            project=ProjectContext(id="p_1", ref="proj_abc", slug="shop", name="Shop"),
            environment=EnvironmentContext(id="env_1", slug="dev", type="DEVELOPMENT"),
        )

    async def _dequeue(self, body: bytes) -> DequeueAnswer | tuple[int, object]:
        parsed = DequeueBody.model_validate_json(body)
        if parsed.worker_id not in self.workers:
            return 409, {"error": "the lease has ended"}
        deadline = asyncio.get_running_loop().time() + parsed.wait_ms / 1000
        while not (runs := self._give(parsed)):
            left = deadline - asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(left), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                break
        return DequeueAnswer(runs=runs)

    def _give(self, body: DequeueBody) -> list[DequeuedRun]:
        if body.worker_id not in self.workers or self._asking.get().at_eof():
            # Nobody would read the answer.
            return []
        again = [
            run
            for run in self.runs.values()
            if run.request_id == body.request_id and run.status == "DEQUEUED"
        ]
        if again:
            return [self._dequeued(run) for run in again]
        given: list[DequeuedRun] = []
        for run in self.runs.values():
            version = run.options.get("version") or self.current_version
            is_wanted = f"worker_{version}" in body.background_worker_ids
            if run.status == "QUEUED" and is_wanted and len(given) < body.max_runs:
                self._snapshots += 1
                run.snapshot_id = self._snapshots
                run.status, run.worker_id = "DEQUEUED", body.worker_id
                run.request_id = body.request_id
                run.attempt_number += 1
                run.options["version"] = version
                given.append(self._dequeued(run))
        return given

    def _dequeued(self, run: FakeRun) -> DequeuedRun:
        values: dict[str, Any] = {
            "max_attempts": 3,
            "machine": MachineName.SMALL_1X,
            "queue": QueueContext(id="queue_1", name=f"task/{run.task_id}"),
            "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            **run.options,
        }
        return DequeuedRun(
            run_id=run.run_id,
            snapshot_id=run.snapshot_id,
            task_id=run.task_id,
            background_worker_id=f"worker_{values['version']}",
            attempt_id=f"attempt_{run.attempt_number}",
            attempt_number=run.attempt_number,
            payload=run.payload,
            **values,
        )

    async def _heartbeat(self, body: bytes) -> HeartbeatAnswer | tuple[int, object]:
        parsed = HeartbeatBody.model_validate_json(body)
        if parsed.worker_id not in self.workers:
            return 409, {"error": "the lease has ended"}
        self.told_versions = parsed.background_worker_ids
        deadline = asyncio.get_running_loop().time() + parsed.wait_ms / 1000
        while True:
            answer = HeartbeatAnswer()
            for held in parsed.runs:
                run = self.runs[held.run_id]
                if run.snapshot_id != held.snapshot_id or run.worker_id != parsed.worker_id:
                    answer.lost.append(run.run_id)
                elif run.is_canceling and run.end is None:
                    answer.canceled.append(run.run_id)
            if answer.lost or answer.canceled:
                return answer
            try:
                left = deadline - asyncio.get_running_loop().time()
                async with asyncio.timeout(left), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                return answer

    async def _report(self, body: bytes) -> ReportAnswer | tuple[int, object]:
        if len(body) > self.max_report_bytes:
            return 413, {"error": "the body is too large"}
        parsed = ReportBody.model_validate_json(body)
        self.report_bodies.append(parsed)
        answer = ReportAnswer(results=[])
        for report in parsed.reports:
            run = self.runs[report.run_id]
            is_held = run.status in ("DEQUEUED", "EXECUTING")
            if run.snapshot_id != report.snapshot_id or not is_held:
                run.stale += 1
                answer.results.append("stale")
                continue
            answer.results.append("accepted")
            match report:
                case StartReport():
                    run.status, run.start = "EXECUTING", report
                case LogsReport():
                    run.lines.update((line.seq, line) for line in report.lines)
                    run.spans.update((span.span_id, span) for span in report.spans)
                case HandBackReport():
                    run.hand_backs.append(report)
                    run.status, run.worker_id = "QUEUED", None
                case MetadataReport():
                    run.metadata_reports.append(report)
                case CompleteReport() | FailReport() | CanceledReport():
                    run.status, run.end, run.worker_id = "FINISHED", report, None
                    run.ends.append(report)
        return answer

    async def _disconnect(self, body: bytes) -> None:
        parsed = DisconnectBody.model_validate_json(body)
        self.disconnected.append(parsed.worker_id)
        self._release(parsed.worker_id)

    def _release(self, worker_id: str) -> None:
        self.workers.discard(worker_id)
        for run in self.runs.values():
            if run.worker_id == worker_id:
                run.status, run.worker_id = "QUEUED", None


@contextlib.asynccontextmanager
async def serving() -> AsyncGenerator[FakeServer]:
    """A server that is there for the length of a test."""
    server = FakeServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
