"""How long a run waits for a thousand children that it triggers in one batch."""

from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.stats import median
from bench.tables import markdown_table
from runwell import configure, runs, tasks

_CHILDREN = 1_000
_ROUNDS = 5
_BARS = {"fan-out": 6.0, "fan-out-kept": 3.0}
_NAMES = {"fan-out": "a fresh process for each child", "fan-out-kept": "kept processes"}


async def measure(*, is_quick: bool) -> Section:
    """One parent after the other, by turns with fresh and with kept processes."""
    found: dict[str, list[float]] = {task_id: [] for task_id in _BARS}
    async with open_instance() as instance:
        configure(base_url=instance.url, secret_key=instance.secret_key)
        for task_id in found:
            await _fan_out(instance, task_id, 50)
        for _ in range(1 if is_quick else _ROUNDS):
            for task_id, seconds in found.items():
                seconds.append(await _fan_out(instance, task_id, _CHILDREN))
    return Section(
        title="Fan-out",
        how=f"From a run's call of `batch_trigger_and_wait` with {_CHILDREN:,} items, of a task "
        "that does nothing, until it has all results; one worker with its default capacity; the "
        f"median of {len(found['fan-out'])}.",
        figures=[
            Figure(
                name=f"{_CHILDREN:,} children, {_NAMES[task_id]}",
                value=median(seconds),
                unit="s",
                bar=_BARS[task_id],
                digits=2,
            )
            for task_id, seconds in found.items()
        ],
        tables=[
            markdown_table(
                ["seconds", "least", "most"],
                [
                    [_NAMES[task_id], f"{min(seconds):.2f}", f"{max(seconds):.2f}"]
                    for task_id, seconds in found.items()
                ],
            )
        ],
    )


async def _fan_out(instance: Instance, task_id: str, count: int) -> float:
    handle = await tasks.trigger(task_id, count)
    # Not by the API: it shows all children each time, which is work for the server.
    await instance.wait_until_ended(handle.id)
    run = await runs.retrieve(handle.id)
    if not isinstance(run.output, float):
        raise RuntimeError(f"run {handle.id} ended as {run.status}: {run.error}")
    return run.output
