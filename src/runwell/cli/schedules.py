"""`runwell schedules`: list, show, create, switch on and off, delete."""

import itertools

import click

from runwell.cli.api import Api
from runwell.cli.options import with_api
from runwell.cli.output import Output, styled, time_text, with_output
from runwell.core.schedules import MissedTicks, ScheduleObject

_SCHEDULES = click.argument("schedule_ids", metavar="SCHEDULE...", nargs=-1, required=True)


@click.group()
def schedules() -> None:
    """Look at schedules, create them, switch them on and off."""


@schedules.command("list", epilog="Example: runwell schedules list")
@click.option("--limit", "-n", default=25, show_default=True, type=click.IntRange(1, 100_000))
@with_output
@with_api
def list_(output: Output, api: Api, limit: int) -> None:
    """List schedules, newest first, with when each runs next."""
    page = api.schedules.list(per_page=min(limit, 100))
    found = list(itertools.islice(page, limit))
    output.document(found)
    if not found:
        output.note(styled("there are no schedules yet: `runwell schedules create`", "dim"))
        return
    output.table(
        ["SCHEDULE", "TASK", "CRON", "TIMEZONE", "NEXT RUN", "TYPE", "EXTERNAL ID"],
        [
            [
                schedule.id,
                schedule.task,
                schedule.generator.expression,
                schedule.timezone,
                time_text(schedule.next_run) if schedule.active else styled("inactive", "yellow"),
                schedule.type.lower(),
                schedule.external_id or "",
            ]
            for schedule in found
        ],
    )
    if len(found) < page.pagination.count:
        output.note(styled(f"{len(found)} of {page.pagination.count}: --limit shows more", "dim"))


@schedules.command(epilog="Example: runwell schedules show sched_1234")
@click.argument("schedule_id", metavar="SCHEDULE")
@with_output
@with_api
def show(output: Output, api: Api, schedule_id: str) -> None:
    """Show a schedule."""
    _show(output, api.schedules.retrieve(schedule_id))


@schedules.command(
    epilog="""\b
Examples:
  runwell schedules create report '0 9 * * *' --key daily-report
  runwell schedules create remind '0 8 * * 1-5' --timezone Europe/Berlin --key u1 --external-id u1
"""
)
@click.argument("task_id", metavar="TASK")
@click.argument("cron")
@click.option(
    "--key",
    "deduplication_key",
    required=True,
    help="There is one schedule of this key: if it is there, it is changed.",
)
@click.option("--timezone", metavar="ZONE", help="An IANA name. [default: UTC]")
@click.option("--external-id", metavar="ID", help="Passed to the task's runs.")
@click.option(
    "--missed",
    "missed_ticks",
    type=click.Choice([choice.value for choice in MissedTicks]),
    default=MissedTicks.SKIP.value,
    show_default=True,
    help="What becomes of ticks at which no server ran.",
)
@click.option(
    "--spread",
    default="0s",
    metavar="DURATION",
    help="Let runs come at a moment of the schedule's own within this time after each tick.",
)
@with_output
@with_api
def create(  # noqa: PLR0913 (the options of a schedule)
    output: Output,
    api: Api,
    task_id: str,
    cron: str,
    deduplication_key: str,
    timezone: str | None,
    external_id: str | None,
    missed_ticks: str,
    spread: str,
) -> None:
    """Attach a schedule to a scheduled task: CRON is minute, hour, day, month, weekday."""
    made = api.schedules.create(
        task=task_id,
        cron=cron,
        deduplication_key=deduplication_key,
        timezone=timezone,
        external_id=external_id,
        missed_ticks=MissedTicks(missed_ticks),
        spread=spread,
    )
    _show(output, made)


@schedules.command(epilog="Example: runwell schedules activate sched_1234")
@_SCHEDULES
@with_output
@with_api
def activate(output: Output, api: Api, schedule_ids: tuple[str, ...]) -> None:
    """Let schedules tick, from their next tick on."""
    changed = [api.schedules.activate(schedule_id) for schedule_id in schedule_ids]
    output.document(changed)
    for schedule in changed:
        output.line(f"{schedule.id}: next run ", time_text(schedule.next_run))


@schedules.command(epilog="Example: runwell schedules deactivate sched_1234")
@_SCHEDULES
@with_output
@with_api
def deactivate(output: Output, api: Api, schedule_ids: tuple[str, ...]) -> None:
    """Stop schedules."""
    changed = [api.schedules.deactivate(schedule_id) for schedule_id in schedule_ids]
    output.document(changed)
    for schedule in changed:
        output.line(f"{schedule.id}: inactive")


@schedules.command(epilog="Example: runwell schedules delete sched_1234")
@_SCHEDULES
@with_output
@with_api
def delete(output: Output, api: Api, schedule_ids: tuple[str, ...]) -> None:
    """Forget schedules; their runs stay."""
    deleted = [api.schedules.delete(schedule_id) for schedule_id in schedule_ids]
    output.document(deleted)
    for schedule in deleted:
        output.line(f"{schedule.id}: deleted")


def _show(output: Output, schedule: ScheduleObject) -> None:
    output.document(schedule)
    spread = f"{schedule.spread} s after each tick at most" if schedule.spread else None
    output.facts(
        {
            "schedule": schedule.id,
            "task": schedule.task,
            "type": schedule.type.lower(),
            "cron": schedule.generator.expression,
            "": schedule.generator.description,
            "timezone": schedule.timezone,
            "next run": time_text(schedule.next_run) or styled("inactive", "yellow"),
            "deduplication key": schedule.deduplication_key,
            "external id": schedule.external_id,
            "missed ticks": schedule.missed_ticks.value,
            "spread": spread,
        }
    )
