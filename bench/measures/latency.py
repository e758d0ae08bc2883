"""How long it takes from just before a trigger is called to the first line of the task's code."""

import asyncio
import time
from dataclasses import dataclass, field

from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.quiet import wait_until_quiet
from bench.stats import percentile
from bench.tables import markdown_table
from runwell import configure, runs, tasks

_SAMPLES = 200
_PAUSE_SECONDS = 0.03
# All samples together wait this long at most for the machine to be quiet.
_PATIENCE_SECONDS = 120.0

# When each step of a run happened, in microseconds since its trigger was called.
_STEPS = """
SELECT event, (extract(epoch FROM created_at) * 1e6)::bigint AS at_us FROM run_snapshots
WHERE run_id = $1
"""


@dataclass
class _Samples:
    """All in milliseconds since just before the trigger was called."""

    started: list[float] = field(default_factory=list[float])
    #: How many of them began while nothing else ran on the machine.
    quiet: int = 0
    steps: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, step: str, milliseconds: float) -> None:
        self.steps.setdefault(step, []).append(milliseconds)


async def measure(*, is_quick: bool) -> Section:
    """Trigger one run after the other with the SDK, each on an idle system."""
    count = 50 if is_quick else _SAMPLES
    async with open_instance() as instance:
        configure(base_url=instance.url, secret_key=instance.secret_key)
        # By turns, so that what else the machine does meets both alike.
        found = {"clock": _Samples(), "clock-kept": _Samples()}
        for task_id in found:
            await _sample(instance, task_id, _Samples(), 20)
        for _ in range(10):
            for task_id, samples in found.items():
                await _sample(instance, task_id, samples, count // 10)
    fresh = found["clock"].started
    return Section(
        title="Start latency",
        how=f"From just before `tasks.trigger` is called to the first line of the task's code, "
        f"{len(fresh)} samples, each in a process of its own; {found['clock'].quiet} of them began "
        "on an idle machine, the others after waiting in vain for it to be. The steps "
        "are times since the call of the trigger: of the rows that the database writes, of the "
        "trigger's return, of the task's code.",
        figures=[
            Figure(name="start, p50", value=percentile(fresh, 0.5), unit="ms", bar=8, digits=2),
            Figure(name="start, p95", value=percentile(fresh, 0.95), unit="ms", bar=20, digits=2),
            Figure(name="start, p99", value=percentile(fresh, 0.99), unit="ms", digits=2),
            Figure(
                name="start in a kept process, p50",
                value=percentile(found["clock-kept"].started, 0.5),
                unit="ms",
                digits=2,
            ),
        ],
        tables=[_steps_table(found)],
    )


async def _sample(instance: Instance, task_id: str, samples: _Samples, count: int) -> None:
    for _ in range(count):
        samples.quiet += await wait_until_quiet(_PATIENCE_SECONDS / 2 / _SAMPLES)
        epoch_us = time.time_ns() // 1000
        start = time.monotonic_ns()
        handle = await tasks.trigger(task_id)
        returned = time.monotonic_ns()
        # Asking how it goes would be work for the server that the run needs.
        await asyncio.sleep(_PAUSE_SECONDS)
        run = await runs.poll(handle.id, poll_interval=0.02)
        if not isinstance(run.output, int):
            raise RuntimeError(f"run {handle.id} ended as {run.status}: {run.error}")
        samples.started.append((run.output - start) / 1e6)
        samples.add("trigger returned", (returned - start) / 1e6)
        samples.add("task code", (run.output - start) / 1e6)
        for row in await instance.database.fetch(_STEPS, handle.id):
            samples.add(f"row {row['event']}", (row["at_us"] - epoch_us) / 1000)


def _steps_table(found: dict[str, _Samples]) -> str:
    steps = sorted(
        found["clock"].steps, key=lambda step: percentile(found["clock"].steps[step], 0.5)
    )
    rows = [
        [
            step,
            *(
                f"{percentile(samples.steps.get(step, []), part):.2f}"
                for samples in found.values()
                for part in (0.5, 0.95)
            ),
        ]
        for step in steps
    ]
    header = ["step, ms since the call", "fresh p50", "fresh p95", "kept p50", "kept p95"]
    return markdown_table(header, rows)
