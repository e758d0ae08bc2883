"""Ten thousand schedules that are due at once: how late the last one is, and who waits for them."""

import asyncio
import time

from bench.connection import HttpConnection
from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.stats import percentile
from bench.versions import register_version
from runwell.core.cron import list_timezones

_SCHEDULES = 10_000
_ROUNDS = 3
_BODY = b'{"payload":"{}"}'

# Each has a pattern or a zone of its own, so that no answer about one serves another.
_FILL = """
INSERT INTO schedules (public_id, environment_id, type, task_id, deduplication_key, cron, timezone,
    missed_ticks, spread_seconds, is_active, created_at, updated_at)
SELECT 'sched_' || i, $1, 'IMPERATIVE', 'report', 'key-' || i,
    format('%s %s-23 * * *', i % 60, i % 20), ($2::text[])[1 + (i / 60) % cardinality($2::text[])],
    'skip', 0, true, now(), now()
FROM generate_series(1, $3::integer) i
"""
_MAKE_DUE = """
UPDATE schedules SET next_tick_at = date_trunc('minute', now()) - $1 * interval '1 second',
    due_at = now() + interval '2 seconds'
RETURNING due_at
"""
_ARE_DONE = "SELECT NOT EXISTS (SELECT FROM schedules WHERE due_at <= $1)"
_LATENESS = """
SELECT extract(epoch FROM s.created_at - $1::timestamptz) AS seconds
FROM runs r JOIN run_snapshots s ON s.id = r.snapshot_id
WHERE r.schedule_id IS NOT NULL AND r.created_at >= $1::timestamptz ORDER BY 1
"""


async def measure(*, is_quick: bool) -> Section:
    """Let all be due at once, and trigger other runs meanwhile."""
    lateness: list[float] = []
    alone: list[float] = []
    beside: list[float] = []
    async with open_instance(worker=False) as instance:
        connection = await instance.connect()
        await register_version(connection, ["noop", "report"], scheduled=("report",))
        zones = list_timezones()[1:401]
        await instance.database.execute(_FILL, instance.environment_id, zones, _SCHEDULES)
        for number in range(1 if is_quick else _ROUNDS):
            alone += await _trigger_until(connection, seconds=2)
            lateness += await _let_all_tick(instance, connection, beside, number)
        connection.close()
    return Section(
        title="Schedules",
        how=f"{_SCHEDULES:,} schedules, each with a pattern or a time zone of its own, are due at "
        "the same instant, on one server without a worker, while a client triggers other runs one "
        "by one; all rounds together. Lateness is from the instant to the row of the run.",
        figures=[
            Figure(name="lateness, p50", value=percentile(lateness, 0.5), unit="s"),
            Figure(name="lateness, last", value=percentile(lateness, 1), unit="s", bar=10),
            Figure(
                name="trigger meanwhile, p95", value=percentile(beside, 0.95), unit="ms", bar=100
            ),
            Figure(name="trigger meanwhile, slowest", value=percentile(beside, 1), unit="ms"),
            Figure(name="trigger before, p95", value=percentile(alone, 0.95), unit="ms"),
        ],
    )


async def _let_all_tick(
    instance: Instance, connection: HttpConnection, beside: list[float], number: int
) -> list[float]:
    # A tick of another second each round: the same one would have its runs already.
    rows = await instance.database.fetch(_MAKE_DUE, number + 1)
    due_at = rows[0]["due_at"]
    await asyncio.sleep(2)
    while True:
        beside += await _trigger_until(connection, seconds=0.5)
        if await instance.database.fetchval(_ARE_DONE, due_at):
            rows = await instance.database.fetch(_LATENESS, due_at)
            return [float(row["seconds"]) for row in rows]


async def _trigger_until(connection: HttpConnection, *, seconds: float) -> list[float]:
    """Trigger one run after the other for so long; returns how long each took, in ms."""
    request = connection.prepare("/api/v1/tasks/noop/trigger", _BODY)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        await connection.send(request)
        times.append((time.perf_counter() - start) * 1000)
        await asyncio.sleep(0.005)
    return times
