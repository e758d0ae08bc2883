"""A task of Django on its way: as the payload of a run, and the run as the result Django knows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, cast

from django.utils.module_loading import import_string

from runwell.core.errors import RunwellError
from runwell.core.schemas import RunError, RunObject
from runwell.core.statuses import RunStatus
from runwell.django.framework import Task, TaskError, TaskResult, TaskResultStatus, normalize

if TYPE_CHECKING:
    from runwell.django.framework import AnyResult, AnyTask

_RUNNING = {RunStatus.DEQUEUED, RunStatus.EXECUTING, RunStatus.FROZEN}
_NO_CLASS = "runwell.RunwellError"


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """The payload of a run: which function, with what, and as which task."""

    path: str
    args: list[Any]
    kwargs: dict[str, Any]
    backend: str
    queue_name: str
    priority: int
    run_after: str | None

    @classmethod
    def of_task(cls, task: "AnyTask", args: Sequence[object], kwargs: Mapping[str, object]) -> Self:
        """A call of a task; raises TypeError for arguments that are not JSON."""
        return cls(
            path=task.module_path,
            args=cast("list[Any]", normalize(list(args))),
            kwargs=cast("dict[str, Any]", normalize(dict(kwargs))),
            backend=task.backend,
            queue_name=task.queue_name,
            priority=task.priority,
            run_after=None if task.run_after is None else task.run_after.isoformat(),
        )

    @classmethod
    def of_payload(cls, payload: object) -> Self:
        """The request in a payload; raises RunwellError for what no backend has written."""
        try:
            return cls(**cast("dict[str, Any]", payload))
        except TypeError:
            raise RunwellError(
                f"{payload!r} is no task of Django: such runs are triggered by enqueue() only"
            ) from None

    @property
    def payload(self) -> dict[str, object]:
        """The request as JSON."""
        return dict(self.__dict__)

    def find_task(self) -> "AnyTask":
        """The task as it was enqueued; raises RunwellError when there is none any more."""
        try:
            found: object = import_string(self.path)
        except ImportError as error:
            raise RunwellError(f"Django's task {self.path!r} can't be imported: {error}") from error
        if not isinstance(found, Task):
            raise RunwellError(f"{self.path!r} is no task of Django: decorate it with @task")
        task = cast("AnyTask", found)
        moment = None if self.run_after is None else datetime.fromisoformat(self.run_after)
        return task.using(
            backend=self.backend,
            queue_name=self.queue_name,
            priority=self.priority,
            run_after=moment,
        )


def make_result(
    request: TaskRequest,
    task: "AnyTask",
    backend: str,
    *,
    result_id: str = "",
    status: "TaskResultStatus" = TaskResultStatus.READY,
    enqueued_at: datetime | None = None,
    started_at: datetime | None = None,
    worker_ids: list[str] | None = None,
) -> "AnyResult":
    """The result of a call that has not finished."""
    return TaskResult(
        task=task,
        id=result_id,
        status=status,
        enqueued_at=enqueued_at,
        started_at=started_at,
        last_attempted_at=started_at,
        finished_at=None,
        args=request.args,
        kwargs=request.kwargs,
        backend=backend,
        errors=[],
        worker_ids=worker_ids or [],
    )


def read_result(run: RunObject) -> "AnyResult":
    """A run as the result of its task, with an error for each attempt that failed."""
    request = TaskRequest.of_payload(run.payload)
    attempts = [attempt for attempt in run.attempts if attempt.started_at is not None]
    attempts.sort(key=lambda attempt: attempt.created_at)
    result = make_result(
        request,
        request.find_task(),
        request.backend,
        result_id=run.id,
        status=read_status(run),
        enqueued_at=run.created_at,
        started_at=run.started_at,
        worker_ids=[attempt.id for attempt in attempts],
    )
    errors = [attempt.error for attempt in attempts if attempt.error is not None]
    if run.error is not None and not errors:
        errors.append(run.error)
    result.errors.extend(read_error(error) for error in errors)
    if attempts:
        object.__setattr__(result, "last_attempted_at", attempts[-1].started_at)
    object.__setattr__(result, "finished_at", run.finished_at)
    object.__setattr__(result, "_return_value", run.output)
    return result


def read_status(run: RunObject) -> "TaskResultStatus":
    """The status of a run in Django's four: one that waits for its next attempt is READY."""
    if run.is_completed:
        return TaskResultStatus.SUCCESSFUL if run.is_success else TaskResultStatus.FAILED
    return TaskResultStatus.RUNNING if run.status in _RUNNING else TaskResultStatus.READY


def read_error(error: RunError) -> "TaskError":
    """An error as Django knows it; one that no exception caused has the class RunwellError."""
    return TaskError(
        exception_class_path=find_class_path(error),
        traceback=error.stack_trace or error.message,
    )


def find_class_path(error: RunError) -> str:
    """The path of an exception's class: tracebacks name it in full, those of Python without."""
    if not error.name or not error.stack_trace:
        return _NO_CLASS
    pattern = rf"^((?:[\w.<>]+\.)?{re.escape(error.name)})(?::|$)"
    found = re.findall(pattern, error.stack_trace, re.MULTILINE)
    if not found:
        return _NO_CLASS
    path = str(found[-1])
    return path if "." in path else f"builtins.{path}"
