"""Django's tasks wherever they come from: Django 6 itself, or the `django-tasks` package before it.

The one module that knows both. Where both are there, Django's own are meant.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from runwell.core.errors import ConfigurationError

if TYPE_CHECKING:
    from django_tasks import task_backends
    from django_tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django_tasks.exceptions import TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started

    #: A task of Django, whatever it takes and returns.
    AnyTask = Task[..., Any]
    AnyResult = TaskResult[Any]

    class BaseTaskBackend:
        """What a backend has from Django; the annotations there leave some types open."""

        alias: str
        queues: set[str]
        options: dict[str, Any]

        def __init__(self, alias: str, params: dict[str, Any]) -> None: ...
        def validate_task(self, task: AnyTask) -> None:
            """Raise for a task that the backend can't have."""


_ORIGINS = ("django.tasks", "django_tasks")
_PLACES = {
    "task_backends": "",
    "BaseTaskBackend": ".backends.base",
    "Task": ".base",
    "TaskContext": ".base",
    "TaskError": ".base",
    "TaskResult": ".base",
    "TaskResultStatus": ".base",
    "TaskResultDoesNotExist": ".exceptions",
    "task_enqueued": ".signals",
    "task_finished": ".signals",
    "task_started": ".signals",
}


def find_origin(
    load: Callable[[str], object] = importlib.import_module, origins: tuple[str, ...] = _ORIGINS
) -> str:
    """The name of the package that has Django's tasks; raises ConfigurationError without one."""
    for name in origins:
        try:
            load(name)
        except ModuleNotFoundError as error:
            if error.name not in {name, name.partition(".")[0]}:
                raise
        else:
            return name
    raise ConfigurationError(
        "runwell.django needs Django's tasks: install Django 6 or later, or, with Django 4.2 to "
        "5.2, the package django-tasks (pip install django-tasks)"
    )


def normalize(value: object) -> object:
    """A value as it is after its way through JSON; raises TypeError for what has none."""
    return _normalize(value)


_origin = find_origin()
_normalize = cast(
    "Callable[[object], object]",
    importlib.import_module(
        "django.utils.json" if _origin == "django.tasks" else "django_tasks.utils"
    ).normalize_json,
)
for _name, _place in _PLACES.items():
    globals()[_name] = getattr(importlib.import_module(_origin + _place), _name)

__all__ = [
    "BaseTaskBackend",
    "Task",
    "TaskContext",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "TaskResultStatus",
    "find_origin",
    "normalize",
    "task_backends",
    "task_enqueued",
    "task_finished",
    "task_started",
]
