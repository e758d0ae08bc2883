"""How fast a backlog of runs that do nothing is worked off, and what each costs which process."""

import time
from dataclasses import dataclass

from bench.figures import Figure, Section
from bench.instance import PARTS, Instance, open_instance
from bench.load import Job, run_in_process
from bench.tables import markdown_table

_RUNS = 5_000
_ROUNDS = 3

_SPAN = """
SELECT count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
    extract(epoch FROM max(finished_at) - min(started_at))::float AS seconds
FROM runs WHERE task_id = $1 AND created_at >= $2
"""


@dataclass(kw_only=True)
class Drain:
    """One drain: its rate, and the processor time of each run by part, in microseconds."""

    rate: float
    cpu_us: dict[str, float]


async def measure(*, is_quick: bool) -> Section:
    """Fill a queue whose limit is zero, lift the limit, and watch."""
    count = 1_000 if is_quick else _RUNS
    async with open_instance() as instance:
        # The first runs of a worker and of PostgreSQL's connections say nothing about the rest.
        for task_id in ("noop", "noop-kept"):
            await drain(instance, task_id, 100)
        rounds = [
            [await drain(instance, task_id, count) for task_id in ("noop", "noop-kept")]
            for _ in range(1 if is_quick else _ROUNDS)
        ]
    fresh, kept = (_middle([drains[number] for drains in rounds]) for number in (0, 1))
    rows = [
        [part, f"{fresh.cpu_us[part]:.0f}", f"{kept.cpu_us[part]:.0f}"] for part in (*PARTS, "sum")
    ]
    return Section(
        title="Draining a backlog",
        how=f"{count:,} runs that do nothing wait in a queue whose limit is zero; then it is "
        "lifted. The time is from the first start to the last end; a worker with its default "
        "capacity works them off, with a fresh process for each run or with kept ones. "
        f"Of {len(rounds)} rounds, the one in the middle by its rate.",
        figures=[
            Figure(
                name="drained, a fresh process for each run",
                value=fresh.rate,
                unit="runs/s",
                bar=300,
                more_is_better=True,
                digits=0,
            ),
            Figure(
                name="drained, kept processes",
                value=kept.rate,
                unit="runs/s",
                bar=800,
                more_is_better=True,
                digits=0,
            ),
            Figure(
                name="processor time a run, fresh",
                value=fresh.cpu_us["sum"] / 1000,
                unit="ms",
                digits=2,
            ),
            Figure(
                name="processor time a run, kept",
                value=kept.cpu_us["sum"] / 1000,
                unit="ms",
                digits=2,
            ),
        ],
        tables=[markdown_table(["processor time a run, us", "fresh", "kept"], rows)],
    )


def _middle(drains: list[Drain]) -> Drain:
    return sorted(drains, key=lambda found: found.rate)[len(drains) // 2]


async def drain(instance: Instance, task_id: str, count: int) -> Drain:
    """Queue `count` runs of a task and let them go."""
    connection = await instance.connect()
    path = f"/api/v1/tasks/{task_id}/trigger"
    begin = await instance.database.fetchval("SELECT clock_timestamp()")
    await connection.post(path, {"options": {"queue": {"concurrencyLimit": 0}}})
    job = Job(
        port=instance.port,
        path=path,
        body="{}",
        clients=8,
        requests=count - 2,
        secret_key=instance.secret_key,
        seconds=60,
    )
    await run_in_process(job)
    before, start = instance.cpu_ns(), time.monotonic()
    # The last of them takes the limit away.
    await connection.post(path, {"options": {"queue": {"concurrencyLimit": None}}})
    await instance.wait_until_idle(seconds=max(60, count / 50))
    after, watched = instance.cpu_ns(), time.monotonic() - start
    connection.close()
    row = await instance.database.fetchrow(_SPAN, task_id, begin)
    assert row is not None
    if row["completed"] != count:
        raise RuntimeError(
            f"{row['completed']} of {count} runs of {task_id} completed in {watched:.0f} s"
        )
    cpu_us = {part: (after[part] - before[part]) / 1000 / count for part in PARTS}
    return Drain(rate=count / row["seconds"], cpu_us={**cpu_us, "sum": sum(cpu_us.values())})
