"""What `@task` and the config file say about a task besides its function, read and checked."""

from dataclasses import dataclass, replace

from runwell.client.options import Queue
from runwell.core.machines import MachineName
from runwell.core.schedules import ScheduleManifest
from runwell.core.timing import RetryOptions
from runwell.sdk.signature import Parser


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDefaults:
    """What holds for tasks that don't say otherwise: the part of the config file about tasks."""

    retry: RetryOptions | None = None
    machine: MachineName | None = None
    max_duration: int | None = None
    ttl: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOptions:
    """What `@task` was given besides the function, read and checked."""

    id: str
    retry: RetryOptions | None
    queue: Queue | None
    machine: MachineName | None
    max_duration: int | None
    ttl: int | None
    description: str | None
    keep_process: bool
    #: Whether schedules trigger it, and the schedule that it declares.
    is_scheduled: bool = False
    schedule: ScheduleManifest | None = None
    #: The type of a payload whose parameter has no annotation.
    payload_type: type[object] | None = None
    #: What reads payloads in place of the annotation.
    parser: Parser | None = None

    def with_schedule(
        self, schedule: ScheduleManifest | None, payload_type: type[object]
    ) -> "TaskOptions":
        """The options of a task that schedules trigger."""
        return replace(self, is_scheduled=True, schedule=schedule, payload_type=payload_type)
