"""What a dequeue costs as the backlog grows: its time with many queued runs by that with few.

Both backlogs are in servers of their own that live at the same time, and are dequeued from by
turns, so that what else the machine does meets both alike.
"""

import contextlib
import re
import time
from dataclasses import dataclass, field

from bench import proc
from bench.connection import HttpConnection
from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.stats import median, percentile
from bench.tables import markdown_table
from bench.versions import WorkerCalls, register_version

_RUN = re.compile(
    rb'"runId":"([^"]+)","snapshotId":(\d+),"taskId":"([^"]+)"',
)
_SMALL, _LARGE = 10_000, 1_000_000
# This part of the large backlog is in a second queue, which gets to its limit in the end.
_SHARE_AT_LIMIT = 10
_CHUNK = 50_000

_FILL = """
WITH template AS (
    SELECT r.*, q.background_worker_id AS wanted FROM runs r JOIN queued_runs q ON q.run_id = r.id
    WHERE r.task_id = $1 LIMIT 1
), run AS (
    INSERT INTO runs (id, environment_id, task_id, execution_status, status, snapshot_id, queue_id,
        subqueue_id, order_at, payload, payload_type, created_at, updated_at, queued_at)
    SELECT 'run_' || lpad(translate(i::text, '0123456789', 'abcdefghij'), 21, '1'),
        t.environment_id, t.task_id,
        'QUEUED', 'QUEUED', 0, t.queue_id, t.subqueue_id,
        t.order_at + i * interval '1 microsecond', t.payload, t.payload_type, t.created_at,
        t.updated_at, t.queued_at
    FROM template t, generate_series($2::bigint, $3::bigint) i
    RETURNING id, subqueue_id, order_at
)
INSERT INTO queued_runs (run_id, subqueue_id, background_worker_id, order_at)
SELECT run.id, run.subqueue_id, t.wanted, run.order_at FROM run, template t
"""


@dataclass
class Backlog:
    """A server with queued runs, and a worker's connection to it."""

    instance: Instance
    connection: HttpConnection
    calls: WorkerCalls
    size: int
    times_ms: list[float] = field(default_factory=list[float])
    cpu_us: list[float] = field(default_factory=list[float])
    #: Runs that are kept, with their leases, to hold a queue at its limit.
    held: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    async def dequeue(self, runs: int, *, keep: str | None = None) -> None:
        """Dequeue once, timed, and complete what came, but for runs of the task `keep`."""
        request = self.calls.prepare_dequeue(runs)
        pids = [
            *proc.tree(self.instance.postgres_pid),
            *([self.instance.server.pid] if self.instance.server else []),
        ]
        cpu = sum(map(proc.cpu_ns, pids))
        start = time.perf_counter_ns()
        answer = await self.connection.send(request)
        self.times_ms.append((time.perf_counter_ns() - start) / 1e6)
        self.cpu_us.append((sum(map(proc.cpu_ns, pids)) - cpu) / 1e3)
        found = _RUN.findall(answer)
        # A queue near its limit gives less than its share.
        if len(found) != runs and keep is None:
            raise RuntimeError(f"asked for {runs} runs and got {len(found)}")
        kept = [(run.decode(), int(lease)) for run, lease, task in found if task.decode() == keep]
        await self.calls.complete(
            [(run.decode(), int(lease)) for run, lease, task in found if task.decode() != keep]
        )
        self.held += kept

    def take_figures(self) -> tuple[list[float], list[float]]:
        """What was measured since the last time."""
        taken = self.times_ms, self.cpu_us
        self.times_ms, self.cpu_us = [], []
        return taken


async def measure(*, is_quick: bool) -> Section:
    """Fill two servers and dequeue from them by turns, without and with a queue at its limit."""
    large = 100_000 if is_quick else _LARGE
    figures: list[Figure] = []
    rows: list[list[str]] = []
    async with contextlib.AsyncExitStack() as stack:
        filled = [
            await _open_filled(stack, _SMALL, _SMALL // 2),
            await _open_filled(stack, large, large // _SHARE_AT_LIMIT),
        ]
        # Filling takes longer than a server keeps a quiet connection.
        backlogs = [
            await _open_backlog(stack, instance, version_id, size)
            for (instance, version_id), size in zip(filled, (_SMALL, large), strict=True)
        ]
        for runs, rounds in ((1, 200), (10, 150)):
            await _alternate(backlogs, runs, rounds)
            _add(figures, rows, backlogs, runs, f"{large:,} queued")
        await _hold_second_queue(backlogs[1])
        blocked = f"{large:,} queued, {large // _SHARE_AT_LIMIT:,} of them at a limit"
        for runs, rounds in ((1, 200), (10, 150)):
            await _alternate(backlogs, runs, rounds)
            _add(figures, rows, backlogs, runs, blocked)
    header = ["dequeue", "p50 ms", "p95 ms", "CPU us"]
    return Section(
        title="Dequeue",
        how="A dequeue over HTTP, by turns from a server with a small and one with a large backlog "
        f"in two queues ({_SMALL:,} runs in the small one); each run is completed before the next "
        "dequeue. The ratio is of the medians; CPU is that of server and PostgreSQL.",
        figures=figures,
        tables=[markdown_table(header, rows)],
    )


async def _open_filled(
    stack: contextlib.AsyncExitStack, size: int, second: int
) -> tuple[Instance, str]:
    instance = await stack.enter_async_context(
        # Nobody sends heartbeats here.
        open_instance(worker=False, RUNWELL_LEASE_SECONDS="3600")
    )
    connection = await instance.connect()
    version_id = await register_version(connection, ["first", "second"])
    for task_id in ("first", "second"):
        await connection.post(f"/api/v1/tasks/{task_id}/trigger", {"payload": '{"n":1}'})
    connection.close()
    start = 1
    for task_id, count in (("first", size - second), ("second", second)):
        for begin in range(start, start + count - 1, _CHUNK):
            last = min(begin + _CHUNK, start + count - 1) - 1
            await instance.database.execute(_FILL, task_id, begin, last)
        start += count
    await instance.database.execute("VACUUM ANALYZE")
    await instance.database.execute("CHECKPOINT")
    return instance, version_id


async def _open_backlog(
    stack: contextlib.AsyncExitStack, instance: Instance, version_id: str, size: int
) -> Backlog:
    connection = await instance.connect()
    stack.callback(connection.close)
    backlog = Backlog(instance, connection, await WorkerCalls.connect(connection, version_id), size)
    for _ in range(30):
        await backlog.dequeue(10)
    backlog.take_figures()
    return backlog


async def _alternate(backlogs: list[Backlog], runs: int, rounds: int) -> None:
    for number in range(rounds):
        for backlog in backlogs[:: 1 if number % 2 else -1]:
            await backlog.dequeue(runs)


async def _hold_second_queue(backlog: Backlog) -> None:
    """Give the second queue a limit, and hold as many of its runs."""
    await backlog.connection.post(
        "/api/v1/tasks/second/trigger",
        {"payload": "{}", "options": {"queue": {"concurrencyLimit": 2}}},
    )
    for _ in range(4):
        await backlog.dequeue(10, keep="second")
    if len(backlog.held) != 2:
        raise RuntimeError(f"the queue's limit is 2, and {len(backlog.held)} of its runs are held")
    backlog.take_figures()


def _add(
    figures: list[Figure], rows: list[list[str]], backlogs: list[Backlog], runs: int, what: str
) -> None:
    small, large = (backlog.take_figures() for backlog in backlogs)
    figures.append(
        Figure(
            name=f"dequeue of {runs}: {what}, by {_SMALL:,} queued",
            value=median(large[0]) / median(small[0]),
            unit="",
            bar=1.5,
            digits=2,
        )
    )
    for (times, cpu), name in ((small, f"{_SMALL:,} queued"), (large, what)):
        rows.append(
            [
                f"of {runs}, {name}",
                *(f"{percentile(times, part):.2f}" for part in (0.5, 0.95)),
                f"{median(cpu):.0f}",
            ]
        )
