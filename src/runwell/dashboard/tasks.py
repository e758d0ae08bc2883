"""The page of tasks: what the current version has, and what each did in the last day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request

from runwell.dashboard.charts import Bar, draw_bars
from runwell.dashboard.places import Place
from runwell.dashboard.views import View
from runwell.engine import tasks
from runwell.engine.tasks import Activity, TaskSummary
from runwell.server.backend import Backend

_HOURS = 24


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task with its last day."""

    task: TaskSummary
    total: int
    failed: int
    running: int
    queue_ms: float | None
    duration_ms: float | None
    chart: str


async def show_tasks(_request: Request, backend: Backend, place: Place) -> View:
    """The tasks of the current version, each with its last day."""
    now = backend.now()
    since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=_HOURS - 1)
    async with backend.db.transaction() as tx:
        found = await tasks.list_tasks(tx, place.environment)
        versions = await tasks.list_versions(tx, place.environment, most=1)
        activity = await tasks.read_activity(
            tx, place.environment, since=since, interval=timedelta(hours=1)
        )
    return View(
        template="tasks.html",
        title="Tasks",
        nav="tasks",
        place=place,
        values={
            "rows": [_row(task, activity, since) for task in found],
            "version": versions[0] if versions else None,
        },
    )


def _row(task: TaskSummary, activity: Sequence[Activity], since: datetime) -> TaskRow:
    mine = [one for one in activity if one.task_id == task.id]
    by_hour = {round((one.begins_at - since).total_seconds() / 3_600): one for one in mine}
    bars = [_bar(by_hour.get(hour), since + timedelta(hours=hour)) for hour in range(_HOURS)]
    return TaskRow(
        task=task,
        total=sum(one.total for one in mine),
        failed=sum(one.failed for one in mine),
        running=sum(one.running for one in mine),
        queue_ms=_mean([(one.queue_ms, one.total) for one in mine]),
        duration_ms=_mean([(one.duration_ms, one.total) for one in mine]),
        chart=draw_bars(bars, label=f"Runs of {task.id} in the last {_HOURS} hours"),
    )


def _bar(found: Activity | None, begins_at: datetime) -> Bar:
    total, failed = (0, 0) if found is None else (found.total, found.failed)
    title = f"{begins_at:%H:%M} UTC: {total:,} runs, {failed:,} failed"
    return Bar(good=total - failed, bad=failed, title=title)


def _mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in values if value is not None]
    weights = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / weights if weights else None
