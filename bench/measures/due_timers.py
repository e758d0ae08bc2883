"""How late runs go on whose instant has come, as more and more instants are pending."""

import asyncio
import time
from datetime import UTC, datetime

from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.stats import percentile
from bench.tables import markdown_table
from runwell import configure, runs, tasks

_AHEAD_SECONDS = 0.4
_ITEMS = 1_000
_BAR_MS = 50

# Waits of nobody, an hour ahead: what the index of those that are due has to hold.
_ADD_WAITPOINTS = """
INSERT INTO waitpoints (id, environment_id, type, due_at, created_at)
SELECT 'waitpoint_bench_' || i, $1, 'DATETIME', now() + interval '1 hour' + i * interval '1 ms',
    now()
FROM generate_series($2::integer + 1, $3::integer) i
"""


async def measure(*, is_quick: bool) -> Section:
    """Add pending instants in steps, and at each step measure some that come due."""
    samples = 10 if is_quick else 40
    rows: list[list[str]] = []
    figures: list[Figure] = []
    async with open_instance() as instance:
        configure(base_url=instance.url, secret_key=instance.secret_key)
        await _lateness_of_delays(3)
        await _lateness_of_waits(3)
        pending = 0
        for wanted in (1, 1_000, 10_000 if is_quick else 100_000):
            await _add_pending(instance, pending, wanted)
            pending = wanted
            for what, late in (
                ("delay", await _lateness_of_delays(samples)),
                ("wait", await _lateness_of_waits(samples)),
            ):
                figures.append(
                    Figure(
                        name=f"end of a {what}, {wanted:,} pending, p95",
                        value=percentile(late, 0.95),
                        unit="ms",
                        bar=_BAR_MS,
                    )
                )
                rows.append(
                    [
                        f"{what}, {wanted:,} pending",
                        *(f"{percentile(late, part):.1f}" for part in (0.5, 0.95, 1)),
                    ]
                )
    return Section(
        title="Instants that come due",
        how="From the instant of a delay to the first line of the run's code, and from that of "
        f"`wait.until` to the next line; {samples} of each, in kept processes, while that many "
        "delays and as many waits are pending.",
        figures=figures,
        tables=[markdown_table(["late, ms", "p50", "p95", "most"], rows)],
    )


async def _add_pending(instance: Instance, before: int, wanted: int) -> None:
    connection = await instance.connect()
    item = {"task": "noop", "options": {"delay": "1h"}}
    for begin in range(before, wanted, _ITEMS):
        count = min(_ITEMS, wanted - begin)
        await connection.post("/api/v1/tasks/batch", {"items": [item] * count})
    connection.close()
    await instance.database.execute(_ADD_WAITPOINTS, instance.environment_id, before, wanted)
    await instance.database.execute("VACUUM ANALYZE")
    await instance.database.execute("CHECKPOINT")


async def _lateness_of_delays(count: int) -> list[float]:
    late: list[float] = []
    for _ in range(count):
        due = time.time() + _AHEAD_SECONDS
        handle = await tasks.trigger("delayed", delay=datetime.fromtimestamp(due, UTC))
        late.append((await _ended_at(handle.id) - due) * 1000)
    return late


async def _lateness_of_waits(count: int) -> list[float]:
    late: list[float] = []
    for _ in range(count):
        due = time.time() + _AHEAD_SECONDS
        handle = await tasks.trigger("waiter", due)
        late.append((await _ended_at(handle.id) - due) * 1000)
    return late


async def _ended_at(run_id: str) -> float:
    # Asking how it goes would be work for the server that the run needs.
    await asyncio.sleep(_AHEAD_SECONDS + 0.03)
    run = await runs.poll(run_id, poll_interval=0.05)
    if not isinstance(run.output, float):
        raise RuntimeError(f"run {run_id} ended as {run.status}: {run.error}")
    return run.output
