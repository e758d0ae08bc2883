"""What a dequeue costs with ten thousand concurrency keys: by turns with a queue without any."""

import contextlib
import re
import time
from dataclasses import dataclass, field

from bench.connection import HttpConnection
from bench.figures import Figure, Section
from bench.instance import open_instance
from bench.stats import median, percentile
from bench.tables import markdown_table
from bench.versions import WorkerCalls, register_version

_RUN = re.compile(rb'"runId":"([^"]+)","snapshotId":(\d+)')
_RUNS, _KEYS = 20_000, 10_000
_ITEMS = 1_000
_AT_ONCE = 10
_BAR = 1.5


@dataclass
class _Backlog:
    connection: HttpConnection
    calls: WorkerCalls
    times_ms: list[float] = field(default_factory=list[float])

    async def dequeue(self) -> None:
        """Dequeue once, timed, and complete what came."""
        request = self.calls.prepare_dequeue(_AT_ONCE)
        start = time.perf_counter_ns()
        answer = await self.connection.send(request)
        self.times_ms.append((time.perf_counter_ns() - start) / 1e6)
        found = _RUN.findall(answer)
        if len(found) != _AT_ONCE:
            raise RuntimeError(f"asked for {_AT_ONCE} runs and got {len(found)}")
        await self.calls.complete([(run.decode(), int(lease)) for run, lease in found])


async def measure(*, is_quick: bool) -> Section:
    """Fill two servers, one with a key for every two runs, and dequeue from them by turns."""
    rounds = 60 if is_quick else 300
    async with contextlib.AsyncExitStack() as stack:
        backlogs = {keys: await _open_backlog(stack, keys) for keys in (1, _KEYS)}
        for number in range(rounds):
            for backlog in [*backlogs.values()][:: 1 if number % 2 else -1]:
                await backlog.dequeue()
    times = {keys: backlog.times_ms for keys, backlog in backlogs.items()}
    return Section(
        title="Concurrency keys",
        how=f"A dequeue of {_AT_ONCE} over HTTP, by turns from a server with {_RUNS:,} runs of one "
        f"queue without keys and from one with as many under {_KEYS:,} keys; each run is completed "
        "before the next dequeue.",
        figures=[
            Figure(
                name=f"dequeue of {_AT_ONCE}: {_KEYS:,} keys, by none",
                value=median(times[_KEYS]) / median(times[1]),
                unit="",
                bar=_BAR,
                digits=2,
            )
        ],
        tables=[
            markdown_table(
                ["dequeue", "p50 ms", "p95 ms"],
                [
                    [
                        f"{keys:,} keys" if keys > 1 else "no keys",
                        *(f"{percentile(found, part):.2f}" for part in (0.5, 0.95)),
                    ]
                    for keys, found in times.items()
                ],
            )
        ],
    )


async def _open_backlog(stack: contextlib.AsyncExitStack, keys: int) -> _Backlog:
    instance = await stack.enter_async_context(
        # Nobody sends heartbeats here.
        open_instance(worker=False, RUNWELL_LEASE_SECONDS="3600")
    )
    connection = await instance.connect()
    stack.callback(connection.close)
    version_id = await register_version(connection, ["noop"])
    for begin in range(0, _RUNS, _ITEMS):
        items = [
            {"task": "noop", "options": {"concurrencyKey": f"key-{number % keys}"}}
            if keys > 1
            else {"task": "noop"}
            for number in range(begin, begin + _ITEMS)
        ]
        await connection.post("/api/v1/tasks/batch", {"items": items})
    await instance.database.execute("VACUUM ANALYZE")
    await instance.database.execute("CHECKPOINT")
    backlog = _Backlog(connection, await WorkerCalls.connect(connection, version_id))
    for _ in range(20):
        await backlog.dequeue()
    backlog.times_ms.clear()
    return backlog
