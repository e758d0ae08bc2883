"""Django's tasks in a worker: the Runwell task that executes whichever was enqueued."""

import os
import traceback
from typing import TYPE_CHECKING

import django
from django.conf import ENVIRONMENT_VARIABLE
from django.db import close_old_connections, connections
from django.utils import timezone

from runwell.core.errors import ConfigurationError
from runwell.core.payloads import Json
from runwell.django.backend import RunwellBackend
from runwell.django.framework import (
    TaskContext,
    TaskError,
    TaskResultStatus,
    normalize,
    task_backends,
    task_finished,
    task_started,
)
from runwell.django.requests import TaskRequest, make_result
from runwell.sdk.definitions import queue
from runwell.sdk.definitions import task as define_task
from runwell.sdk.runtime import RunContext
from runwell.sdk.task import Task

if TYPE_CHECKING:
    from runwell.django.framework import AnyResult


def define_django_tasks(
    settings_module: str | None = None, *, backend: str = "default"
) -> Task[Json, object]:
    """Let the workers of this project execute what Django enqueues; called in a task file.

    Sets Django up with `settings_module`, unless `DJANGO_SETTINGS_MODULE` says which settings; and
    defines the Runwell task of the backend of this alias, and the queues of all backends with the
    same `task_id`. Raises ConfigurationError when that backend is not a RunwellBackend.

    Example:
        # trigger/django_tasks.py
        from runwell.django import define_django_tasks
        django_task = define_django_tasks("mysite.settings")
    """
    if settings_module is not None:
        os.environ.setdefault(ENVIRONMENT_VARIABLE, settings_module)
    django.setup()
    found: object = task_backends[backend]
    if not isinstance(found, RunwellBackend):
        raise ConfigurationError(
            f"TASKS['{backend}'] is no RunwellBackend: its BACKEND is to be "
            "'runwell.django.RunwellBackend'"
        )
    for name in sorted(list_queues(found.task_id)):
        queue(name)

    def django_task(request: Json, *, ctx: RunContext) -> object:
        return execute(TaskRequest.of_payload(request), ctx)

    # Runs are forked from the process that calls this: none of them inherits a connection.
    connections.close_all()
    define = define_task(id=found.task_id, description="Tasks of Django")
    return define(django_task)


def list_queues(task_id: str) -> set[str]:
    """The names of the queues of all backends whose tasks are runs of a Runwell task."""
    backends: list[object] = [task_backends[alias] for alias in task_backends]
    ours = [each for each in backends if isinstance(each, RunwellBackend)]
    return {name for each in ours if each.task_id == task_id for name in each.queues}


def execute(request: TaskRequest, ctx: RunContext) -> object:
    """Call the function that was enqueued, with the signals that Django's own backends send."""
    task = request.find_task()
    sender = type(task.get_backend())
    result = make_result(
        request,
        task,
        request.backend,
        result_id=ctx.run.id,
        status=TaskResultStatus.RUNNING,
        enqueued_at=ctx.run.created_at,
        started_at=ctx.attempt.started_at,
        worker_ids=name_attempts(ctx),
    )
    context = (TaskContext(task_result=result),) if task.takes_context else ()
    close_old_connections()
    task_started.send(sender, task_result=result)
    try:
        value = normalize(task.call(*context, *request.args, **request.kwargs))
    except BaseException as error:
        result.errors.append(describe(error))
        finish(result, TaskResultStatus.FAILED)
        task_finished.send(sender, task_result=result)
        raise
    finally:
        close_old_connections()
    object.__setattr__(result, "_return_value", value)
    finish(result, TaskResultStatus.SUCCESSFUL)
    task_finished.send(sender, task_result=result)
    return value


def finish(result: "AnyResult", status: "TaskResultStatus") -> None:
    """Note how a result ended; they are frozen, for everybody but a backend."""
    object.__setattr__(result, "finished_at", timezone.now())
    object.__setattr__(result, "status", status)


def describe(error: BaseException) -> "TaskError":
    """An exception as Django knows it."""
    kind = type(error)
    return TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
        traceback="".join(traceback.format_exception(error)),
    )


def name_attempts(ctx: RunContext) -> list[str]:
    """The ids of the attempts up to this one: that of the run, and their number."""
    stem = ctx.attempt.id.removesuffix(str(ctx.attempt.number))
    return [f"{stem}{number}" for number in range(1, ctx.attempt.number + 1)]
