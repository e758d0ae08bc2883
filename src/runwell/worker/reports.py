"""Telling the server what happened to runs: as few calls as can be, and nothing lost on the way.

One call is under way at most, and the next one carries all that gathered meanwhile: alone, a result
goes out at once; under load, one call carries dozens, and where processors are short results wait a
moment for company. A start is held back for a moment, because most short runs have ended by then
and need no report of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from runwell.client.transport import ApiError
from runwell.client.workers import WorkerClient
from runwell.core.errors import ErrorCode, InternalError
from runwell.core.payloads import MIN_STORED_BYTES
from runwell.core.protocol import (
    CompleteReport,
    DequeuedRun,
    FailReport,
    HandBackReport,
    LogsReport,
    MetadataReport,
    ReportBody,
    RunReport,
    StartReport,
)
from runwell.worker.contention import Contention
from runwell.worker.controller import EndReport
from runwell.worker.events import OutboxFull, ReportRefused, WorkerEvent
from runwell.worker.large_packets import LargeOutputs
from runwell.worker.link import ServerLink
from runwell.worker.outbox import Outbox
from runwell.worker.run_process import RunProcess
from runwell.worker.session import Session

_START_SECONDS = 0.01
_LINES_SECONDS = 0.05
# A page that shows it is a second behind at most.
_METADATA_SECONDS = 0.5
_GATHER_SECONDS = 0.01
# What one call carries at most, but for a single report that is larger by itself.
_MAX_BATCH_BYTES = 4 * 1024 * 1024
_MAX_BATCH_REPORTS = 1000
_START_BYTES = 150


@dataclass(frozen=True)
class _Item:
    report: RunReport
    size: int
    number: int = 0
    """Its number in the outbox; 0 for one that is not kept there."""


class Reports:
    """What is to be reported, and the loop that does it."""

    def __init__(
        self,
        client: WorkerClient,
        link: ServerLink,
        outbox: Outbox,
        session: Session,
        tell: Callable[[WorkerEvent], None],
        contention: Contention,
    ) -> None:
        self._client = client
        self._link = link
        self._outputs = LargeOutputs(client, link, tell)
        self._outbox = outbox
        self._session = session
        self._tell = tell
        self._contention = contention
        self._last_ends = 0
        self._starts: dict[RunProcess, StartReport] = {}
        self._with_lines: dict[RunProcess, None] = {}
        self._with_metadata: dict[RunProcess, None] = {}
        self._ends: deque[tuple[object, _Item]] = deque()
        #: Runs whose end the server has not acknowledged, with their leases: they are still ours.
        self.unacknowledged: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._due_at = float("inf")
        self._due_timer: asyncio.TimerHandle | None = None
        self._due = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._is_sending = False
        self._was_full = False

    @property
    def is_full(self) -> bool:
        """Whether too many results wait for the server to take more runs."""
        return self._outbox.is_full

    def add_start(self, run: RunProcess, report: StartReport) -> None:
        """A run's code starts."""
        self._starts[run] = report
        self._send_within(_START_SECONDS)

    def add_lines(self, run: RunProcess) -> None:
        """A run has lines."""
        self._with_lines[run] = None
        self._send_within(_LINES_SECONDS)

    def add_metadata(self, run: RunProcess, *, is_urgent: bool) -> None:
        """A run has changed metadata."""
        self._with_metadata[run] = None
        self._send_within(0 if is_urgent else _METADATA_SECONDS)

    def add_end(self, run: RunProcess, report: EndReport | None) -> None:
        """A run is over; kept on disk from here on until the server has acknowledged it."""
        if report is None:
            # Its lease is another's: nobody wants its lines either.
            self._starts.pop(run, None)
            self._with_lines.pop(run, None)
            self._with_metadata.pop(run, None)
            run.lines.take()
            return
        # With the end, which is kept on disk: neither is stored without the other.
        self._with_metadata.pop(run, None)
        report.metadata = run.metadata.take()
        self._add_end(run, report)

    def give_back(self, run: DequeuedRun, reason: str) -> None:
        """A run that was given to us can't begin here."""
        report = HandBackReport(run_id=run.run_id, snapshot_id=run.snapshot_id, reason=reason)
        self._add_end(object(), report)

    def _add_end(self, key: object, report: EndReport) -> None:
        number, size = self._outbox.append(report)
        self._ends.append((key, _Item(report, size, number)))
        self.unacknowledged[report.run_id] = report.snapshot_id
        if self._outbox.is_full and not self._was_full:
            self._was_full = True
            self._tell(OutboxFull(size_bytes=self._outbox.waiting_bytes))
        is_gathering = self._last_ends > 1 and self._contention.is_high
        self._send_within(_GATHER_SECONDS if is_gathering else 0)

    async def deliver(self) -> None:
        """Send whatever is there, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            self._is_sending = True
            batch = self._collect()
            while batch:
                await self._send(await self._settle_outputs(batch))
                self._acknowledge(batch)
                batch = self._collect() if self._is_due() else []
            self._is_sending = False
            if self._has_any():
                self._schedule()
            else:
                self._empty.set()

    async def drain(self) -> None:
        """Wait until the server has all there is."""
        self._send_within(0)
        await self._empty.wait()

    # When.

    def _send_within(self, seconds: float) -> None:
        self._empty.clear()
        due_at = self._loop.time() + seconds
        if due_at >= self._due_at:
            return
        self._due_at = due_at
        if not self._is_sending:
            self._schedule()

    def _schedule(self) -> None:
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None
        if self._is_due():
            self._due.set()
        else:
            self._due_timer = self._loop.call_at(self._due_at, self._due.set)

    def _is_due(self) -> bool:
        return self._due_at <= self._loop.time()

    def _has_any(self) -> bool:
        return bool(self._starts or self._with_lines or self._with_metadata or self._ends)

    # What.

    def _collect(self) -> list[_Item]:
        """The next batch: of each run its start, its lines and its end in this order."""
        self._due_at = float("inf")
        ending: dict[object, _Item] = {}
        size = 0
        while self._ends and len(ending) < _MAX_BATCH_REPORTS and size < _MAX_BATCH_BYTES:
            run, item = self._ends.popleft()
            ending[run] = item
            size += item.size
        self._last_ends = len(ending)
        batch = self._collect_starts(ending)
        size += _START_BYTES * len(batch)
        for run in [*self._with_lines]:
            # The lines of a run that ends here must go before its end, however many there are.
            if run in ending or size < _MAX_BATCH_BYTES:
                item = self._take_lines(run)
                batch.append(item)
                size += item.size
        batch += self._collect_metadata()
        batch += ending.values()
        if self._has_any():
            self._due_at = self._loop.time() + (0 if self._ends else _LINES_SECONDS)
        return batch

    def _collect_starts(self, ending: dict[object, _Item]) -> list[_Item]:
        starts = [
            _Item(report, _START_BYTES)
            for run, report in self._starts.items()
            # An end says when it started, too.
            if run not in ending or run in self._with_lines or run in self._with_metadata
        ]
        self._starts.clear()
        return starts

    def _collect_metadata(self) -> list[_Item]:
        runs, self._with_metadata = self._with_metadata, {}
        return [
            _Item(
                MetadataReport(
                    run_id=run.run.run_id,
                    snapshot_id=run.run.snapshot_id,
                    metadata=run.metadata.take(),
                ),
                _START_BYTES,
            )
            for run in runs
        ]

    def _take_lines(self, run: RunProcess) -> _Item:
        del self._with_lines[run]
        size = run.lines.unsent_bytes
        lines, spans = run.lines.take_all()
        run.resume_output()
        report = LogsReport.model_construct(
            run_id=run.run.run_id,
            snapshot_id=run.run.snapshot_id,
            attempt_number=run.run.attempt_number,
            lines=lines,
            spans=spans,
        )
        return _Item(report, size)

    # How.

    async def _settle_outputs(self, batch: list[_Item]) -> list[_Item]:
        if all(item.size < MIN_STORED_BYTES for item in batch):
            return batch
        return [replace(item, report=await self._outputs.settle(item.report)) for item in batch]

    async def _send(self, batch: list[_Item]) -> None:
        body = ReportBody.model_construct(
            worker_id=self._session.worker_id, reports=[item.report for item in batch]
        )
        try:
            await self._link.call(lambda: self._client.report(body))
        except ApiError as error:
            await self._send_refused(batch, error)

    async def _send_refused(self, batch: list[_Item], error: ApiError) -> None:
        """The server can't take something in the batch: find out what, and do without it."""
        if len(batch) > 1:
            for item in batch:
                await self._send([item])
            return
        report = batch[0].report
        self._tell(ReportRefused(run_id=report.run_id, message=str(error)))
        replacement = replace_refused(report, str(error))
        if replacement is not None:
            await self._send([_Item(replacement, 0)])

    def _acknowledge(self, batch: list[_Item]) -> None:
        number = max(item.number for item in batch)
        if number:
            self._outbox.acknowledge(number)
            for item in batch:
                report = item.report
                if item.number and self.unacknowledged.get(report.run_id) == report.snapshot_id:
                    del self.unacknowledged[report.run_id]
            self._was_full = self._was_full and self._outbox.is_full


def replace_refused(report: RunReport, message: str) -> RunReport | None:
    """What to report in place of a result that the server can't take; None for nothing."""
    if not isinstance(report, CompleteReport | FailReport):
        return None
    if isinstance(report, FailReport) and isinstance(report.error, InternalError):
        # That is as plain as it gets, and nothing of the user's is in it.
        return None
    what = "output" if isinstance(report, CompleteReport) else "error"
    return FailReport(
        run_id=report.run_id,
        snapshot_id=report.snapshot_id,
        error=InternalError(
            code=ErrorCode.TASK_OUTPUT_ERROR,
            message=f"the server refused the run's {what}: {message}"[:2000],
        ),
        skip_retrying=isinstance(report, CompleteReport) or report.skip_retrying,
        started_at=report.started_at,
        finished_at=report.finished_at,
        duration_ms=report.duration_ms,
    )
