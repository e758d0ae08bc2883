"""The backend of Django's tasks: what is enqueued is a run, and its result is read from the run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from runwell.client.options import MAX_DURATION_SECONDS, check_queue_name, read_duration, read_whole
from runwell.client.transport import NotFoundError
from runwell.client.triggering import TriggerOptions
from runwell.django.framework import BaseTaskBackend, TaskResultDoesNotExist, task_enqueued
from runwell.django.requests import TaskRequest, make_result, read_result
from runwell.sdk.client import blocking_runs, blocking_tasks, runs, tasks

if TYPE_CHECKING:
    from runwell.django.framework import AnyResult, AnyTask

DEFAULT_TASK_ID = "django-task"
_MOST_ATTEMPTS = 250
#: Django's priorities go from -100 to 100.
_MOST_PRIORITY = 100
_OPTIONS = ("max_attempts", "priority_step", "task_id")


class RunwellBackend(BaseTaskBackend):
    """Django's tasks as runs.

    Each is a run of one Runwell task, tagged with the path of the function; its queue is the queue
    of that name. Options (`OPTIONS` of the setting): `task_id`, the id of the Runwell task
    ("django-task"); `max_attempts`, how often a task is tried (1, as with Django's own backends);
    `priority_step`, how much of a head start each step of priority is (a length of time, "1h").
    Raises ImproperlyConfigured for options that can't be. `enqueue` raises ApiError when the server
    does not take the run, and TypeError for arguments that are not JSON.
    Source: "Tasks" in Django's documentation.
    """

    supports_defer: ClassVar[bool] = True
    supports_async_task: ClassVar[bool] = True
    supports_get_result: ClassVar[bool] = True
    supports_priority: ClassVar[bool] = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        options = self.options
        try:
            unknown = sorted(set(options) - set(_OPTIONS))
            if unknown:
                raise ValueError(f"{unknown[0]!r} is none: there are {', '.join(_OPTIONS)}")
            self.task_id = str(options.get("task_id", DEFAULT_TASK_ID))
            self._max_attempts = read_whole(
                "max_attempts", options.get("max_attempts", 1), 1, _MOST_ATTEMPTS
            )
            step = read_duration("priority_step", options.get("priority_step", "1h"))
            self._priority_step = step.total_seconds()
            if self._priority_step * _MOST_PRIORITY > MAX_DURATION_SECONDS:
                raise ValueError(f"priority_step={options['priority_step']!r} is too long")
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"TASKS['{alias}']['OPTIONS']: {error}") from None

    def enqueue(
        self, task: "AnyTask", args: Sequence[object], kwargs: Mapping[str, object]
    ) -> "AnyResult":
        """Trigger a run; when this returns, the run is stored and will start."""
        request, result = self._prepare(task, args, kwargs)
        handle = blocking_tasks.trigger(self.task_id, request.payload, **self._options_of(task))
        return self._note(result, handle.id)

    async def aenqueue(
        self, task: "AnyTask", args: Sequence[object], kwargs: Mapping[str, object]
    ) -> "AnyResult":
        """Trigger a run without blocking the event loop."""
        request, result = self._prepare(task, args, kwargs)
        handle = await tasks.trigger(self.task_id, request.payload, **self._options_of(task))
        return self._note(result, handle.id)

    def get_result(self, result_id: str) -> "AnyResult":
        """Read a run as a result; raises TaskResultDoesNotExist when it is none of this backend."""
        try:
            run = blocking_runs.retrieve(result_id)
        except (NotFoundError, ValueError):
            raise _missing(result_id) from None
        if run.task_identifier != self.task_id:
            raise _missing(result_id)
        return read_result(run)

    async def aget_result(self, result_id: str) -> "AnyResult":
        """Read a run as a result without blocking the event loop."""
        try:
            run = await runs.retrieve(result_id)
        except (NotFoundError, ValueError):
            raise _missing(result_id) from None
        if run.task_identifier != self.task_id:
            raise _missing(result_id)
        return read_result(run)

    def check(self, **_kwargs: object) -> Iterable[checks.CheckMessage]:
        """What Django's `check` command says: queues whose names Runwell can't have."""
        found: list[checks.CheckMessage] = []
        for name in sorted(self.queues):
            try:
                check_queue_name(name)
            except ValueError as error:
                place = f"TASKS['{self.alias}']['QUEUES']"
                found.append(checks.Error(f"{place}: {error}", id="runwell.E001"))
        return found

    def _prepare(
        self, task: "AnyTask", args: Sequence[object], kwargs: Mapping[str, object]
    ) -> "tuple[TaskRequest, AnyResult]":
        self.validate_task(task)
        request = TaskRequest.of_task(task, args, kwargs)
        return request, make_result(request, task, self.alias)

    def _options_of(self, task: "AnyTask") -> TriggerOptions:
        options: TriggerOptions = {
            "queue": task.queue_name,
            "max_attempts": self._max_attempts,
            "priority": task.priority * self._priority_step,
            # A tag has 128 characters at most; the end of a path says more than its beginning.
            "tags": task.module_path[-128:],
        }
        if task.run_after is not None:
            moment = task.run_after
            options["delay"] = moment if timezone.is_aware(moment) else timezone.make_aware(moment)
        return options

    def _note(self, result: "AnyResult", run_id: str) -> "AnyResult":
        result = replace(result, id=run_id, enqueued_at=timezone.now())
        task_enqueued.send(type(self), task_result=result)
        return result


def _missing(result_id: str) -> Exception:
    return TaskResultDoesNotExist(result_id)
