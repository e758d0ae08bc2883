"""A schedule as the API shows it."""

from runwell.core.cron import describe_pattern
from runwell.core.schedules import ScheduleEnvironment, ScheduleGenerator, ScheduleObject
from runwell.engine.environments import Environment
from runwell.engine.schedules import Schedule


def schedule_object(schedule: Schedule, environment: Environment) -> ScheduleObject:
    """The whole of a schedule."""
    rule = schedule.rule
    return ScheduleObject(
        id=schedule.public_id,
        type=schedule.type,
        task=rule.task_id,
        active=schedule.is_active,
        deduplication_key=schedule.deduplication_key,
        external_id=rule.external_id,
        generator=generator_of(schedule),
        timezone=rule.timezone,
        next_run=schedule.due_at,
        environments=[ScheduleEnvironment(id=environment.public_id, type=environment.type)],
        missed_ticks=rule.missed_ticks,
        spread=rule.spread_seconds,
    )


def generator_of(schedule: Schedule) -> ScheduleGenerator:
    """What makes the ticks of a schedule."""
    cron = schedule.rule.cron
    return ScheduleGenerator(expression=cron, description=describe_pattern(cron))
