"""What server and worker take while they idle, and what each concurrent run takes more."""

import asyncio

from bench.figures import Figure, Section
from bench.instance import PARTS, Instance, open_instance
from bench.tables import markdown_table

_SETTLE_SECONDS = 3.0


async def measure(*, is_quick: bool) -> Section:
    """Look at memory (PSS) with no run and with many that sleep."""
    runs = 10 if is_quick else 50
    async with open_instance(worker_options=("--capacity", str(runs))) as instance:
        await _hold(instance, 2, seconds=0.1)
        await instance.wait_until_idle()
        await asyncio.sleep(_SETTLE_SECONDS)
        idle = instance.pss_kb()
        await _hold(instance, runs, seconds=_SETTLE_SECONDS * 2)
        await asyncio.sleep(_SETTLE_SECONDS)
        busy = instance.pss_kb()
        held = await instance.database.fetchval("SELECT sum(running) FROM environment_concurrency")
        if held != runs:
            raise RuntimeError(f"{runs} runs were to execute while memory was read, not {held}")
    total_idle, total_busy = sum(idle.values()), sum(busy.values())
    rows = [[part, f"{idle[part] / 1024:.1f}", f"{busy[part] / 1024:.1f}"] for part in PARTS]
    rows.append(["sum", f"{total_idle / 1024:.1f}", f"{total_busy / 1024:.1f}"])
    ours = total_idle - idle["PostgreSQL"]
    return Section(
        title="Memory",
        how="PSS: a page that n processes share counts one n-th for each. Idle is with the spare "
        f"processes that the worker keeps; busy is with {runs} runs that sleep.",
        figures=[
            Figure(name="server and worker idle", value=ours / 1024, unit="MB"),
            Figure(name="with PostgreSQL", value=total_idle / 1024, unit="MB"),
            Figure(
                name="each concurrent run",
                value=(total_busy - total_idle) / runs / 1024,
                unit="MB",
                digits=2,
            ),
        ],
        tables=[markdown_table(["PSS in MB", "idle", f"{runs} runs"], rows)],
    )


async def _hold(instance: Instance, count: int, *, seconds: float) -> None:
    connection = await instance.connect()
    for _ in range(count):
        await connection.post("/api/v1/tasks/sleeper/trigger", {"payload": str(seconds)})
    connection.close()
