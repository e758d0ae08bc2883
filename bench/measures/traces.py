"""What ten thousand lines, and a thousand spans, add to a run; how fast a large trace opens."""

import time
from typing import Any

from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.stats import median
from runwell import configure, tasks
from runwell.core.spans import attempt_span_id

_LINES, _SPANS, _MANY_LINES = 10_000, 1_000, 50_000


async def measure(*, is_quick: bool) -> Section:
    """Runs that write much and runs that write nothing, by turns; then the trace of a long one."""
    rounds = 3 if is_quick else 7
    durations: dict[str, list[float]] = {"nothing": [], "lines": [], "spans": []}
    async with open_instance() as instance:
        configure(base_url=instance.url, secret_key=instance.secret_key)
        for _ in range(rounds):
            for kind, payload in (
                ("nothing", {"lines": 0, "spans": 0}),
                ("lines", {"lines": _LINES, "spans": 0}),
                ("spans", {"lines": 0, "spans": _SPANS}),
            ):
                durations[kind].append(await _run_ms(payload))
        opened = await _open_ms(instance, 20 if is_quick else 100)
    nothing = median(durations["nothing"])
    return Section(
        title="Traces",
        how=f"A run that writes {_LINES:,} lines with `logger`, one with {_SPANS:,} blocks of "
        f"`logger.trace`, and one that does neither, by turns, from trigger to end: what each adds "
        f"to the last, by the median of {rounds}. Then the parts of a trace with {_MANY_LINES:,} "
        "lines, over HTTP, one after the other.",
        figures=[
            Figure(
                name=f"{_LINES:,} lines add to a run",
                value=median(durations["lines"]) - nothing,
                unit="ms",
                bar=500,
            ),
            Figure(
                name=f"{_SPANS:,} spans add to a run",
                value=median(durations["spans"]) - nothing,
                unit="ms",
            ),
            *(
                Figure(name=name, value=median(found), unit="ms", bar=150)
                for name, found in opened.items()
            ),
        ],
    )


async def _run_ms(payload: dict[str, int]) -> float:
    run = await tasks.trigger_and_poll("writes", payload, poll_interval=0.02)
    if run.finished_at is None or not run.is_success:
        raise RuntimeError(f"the run did not complete: {run.error}")
    return (run.finished_at - run.created_at).total_seconds() * 1000


async def _open_ms(instance: Instance, looks: int) -> dict[str, list[float]]:
    payload = {"lines": _MANY_LINES, "spans": 0}
    run: Any = await tasks.trigger_and_poll("writes", payload, poll_interval=0.1)
    connection = await instance.connect()
    url = f"/api/v1/runs/{run.id}"
    children = f"{url}/spans/{attempt_span_id(run.id, 1)}/children"
    middle = f"?after=0..1.{_MANY_LINES // 2}"
    found: dict[str, list[float]] = {}
    for name, path in (
        ("the tree, cut at 1,000", f"{url}/trace"),
        ("the first 200 lines", children),
        ("200 lines from the middle", f"{children}{middle}"),
    ):
        times: list[float] = []
        for _ in range(looks):
            begun = time.perf_counter()
            await connection.get(path)
            times.append((time.perf_counter() - begun) * 1000)
        found[name] = times
    connection.close()
    return found
