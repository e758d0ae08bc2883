"""`schedules.task`: tasks that schedules trigger, and the schedules that their code declares."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from runwell import Cron, ScheduledPayload, schedules
from runwell.core.errors import TaskPayloadParsedError
from runwell.core.schedules import MissedTicks, ScheduleManifest
from runwell.sdk.catalog import catalog
from runwell.sdk.runtime import RunContext
from runwell.sync import schedules as blocking_schedules
from tests.sdk.conftest import ProjectFolder

SENT: dict[str, Any] = {
    "scheduleId": "sched_1",
    "type": "IMPERATIVE",
    "timestamp": "2026-03-02T09:00:00.000Z",
    "lastTimestamp": "2026-03-01T09:00:00.000Z",
    "timezone": "Europe/Berlin",
    "externalId": "u_1",
    "upcoming": ["2026-03-03T09:00:00.000Z"],
}
RECEIVED = ScheduledPayload(
    schedule_id="sched_1",
    timestamp=datetime(2026, 3, 2, 9, tzinfo=UTC),
    last_timestamp=datetime(2026, 3, 1, 9, tzinfo=UTC),
    timezone="Europe/Berlin",
    external_id="u_1",
    upcoming=[datetime(2026, 3, 3, 9, tzinfo=UTC)],
)


def manifest_of(cron: Any) -> ScheduleManifest | None:
    @schedules.task(id="report", cron=cron)
    async def report() -> None: ...

    catalog.tasks.remove(report)
    found = report.manifest("trigger/report.py", "report")
    assert found.trigger_source == "schedule"
    return found.schedule


def test_a_task_may_be_scheduled_without_declaring_a_schedule() -> None:
    assert manifest_of(None) is None


def test_a_text_is_a_pattern_in_utc() -> None:
    assert manifest_of("0  */2 * * *") == ScheduleManifest(cron="0 */2 * * *", timezone="UTC")


def test_a_cron_has_a_zone_environments_and_policies() -> None:
    cron = Cron(
        "0 5 * * *",
        timezone="Asia/Tokyo",
        environments=["PRODUCTION", "STAGING"],
        missed_ticks="catch-up",
        spread="10m",
    )
    assert manifest_of(cron) == ScheduleManifest(
        cron="0 5 * * *",
        timezone="Asia/Tokyo",
        environments=["PRODUCTION", "STAGING"],
        missed_ticks=MissedTicks.CATCH_UP,
        spread_seconds=600,
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pattern": "0 25 * * *"}, "its hour '25' can't be"),
        ({"pattern": 5}, "cron=5: it takes a text"),
        ({"timezone": "Asia/Tokio"}, "did you mean 'Asia/Tokyo'"),
        ({"environments": ["prod"]}, "it takes a list of 'DEVELOPMENT', 'STAGING', 'PRODUCTION'"),
        ({"missed_ticks": "never"}, "it takes 'skip' or 'catch-up'"),
        ({"spread": "25h"}, "it takes up to a day"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_where_it_is_written(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Cron(**cast("dict[str, Any]", {"pattern": "0 9 * * *", **wrong}))


def test_something_else_than_a_cron_is_refused() -> None:
    with pytest.raises(ValueError, match="it takes a text like"):
        schedules.task(id="report", cron={"pattern": "0 9 * * *"})  # pyright: ignore[reportArgumentType]


def test_the_payload_is_read_as_what_it_is() -> None:
    @schedules.task(id="report")
    def report(payload: ScheduledPayload) -> None: ...

    catalog.tasks.remove(report)
    payload = report.parse_payload(SENT)
    assert payload == RECEIVED
    with pytest.raises(TaskPayloadParsedError, match="timestamp"):
        report.parse_payload({"scheduleId": "sched_1"})


def test_a_scheduled_task_may_take_nothing_or_its_context_alone() -> None:
    @blocking_schedules.task(id="nothing")
    def nothing() -> int:
        return 1

    @schedules.task(id="context")
    async def context(ctx: RunContext) -> str:
        return ctx.run.id

    for task in (nothing, context):
        catalog.tasks.remove(task)
        assert task.parse_payload(SENT) is None


def test_a_scheduled_task_can_be_triggered_by_hand() -> None:
    @schedules.task(id="report")
    async def report(payload: ScheduledPayload) -> None: ...

    catalog.tasks.remove(report)
    text = report.encode_payload(
        ScheduledPayload(timestamp=datetime(2026, 3, 2, 9, tzinfo=UTC), schedule_id="sched_1234")
    )
    assert text is not None
    assert '"scheduleId":"sched_1234"' in text


def test_declared_schedules_are_told_to_the_server(folder: ProjectFolder) -> None:
    folder.write(
        "trigger/reports.py",
        """
        from runwell import Cron, schedules

        @schedules.task(id="daily", cron=Cron("0 9 * * *", timezone="Europe/Berlin"))
        async def daily(payload): ...
        """,
    )
    found = folder.import_tasks()
    assert found.problems == []
    (task,) = found.metadata().tasks
    # A payload without an annotation is what schedules send.
    assert found.catalog.tasks["daily"].parse_payload(SENT) == RECEIVED
    sent = task.model_dump(mode="json", by_alias=True)
    assert sent["triggerSource"] == "schedule"
    assert sent["schedule"] == {
        "cron": "0 9 * * *",
        "timezone": "Europe/Berlin",
        "environments": None,
        "missedTicks": "skip",
        "spreadSeconds": 0,
    }


def test_a_bad_pattern_is_a_problem_of_its_file_and_line(folder: ProjectFolder) -> None:
    folder.write(
        "trigger/reports.py",
        """
        from runwell import schedules

        @schedules.task(id="daily", cron="0 99 * * *")
        async def daily() -> None: ...
        """,
    )
    (problem,) = folder.import_tasks().problems
    assert problem.file.name == "reports.py"
    assert problem.line == 4
    assert "its hour '99' can't be" in problem.message
