"""Tasks of Django."""

from typing import Any, cast

from django_tasks import TaskContext, TaskResult, task


class NoSuchCustomerError(Exception):
    """What a task raises."""


@task(queue_name="mails")
def write_mail(customer: str, *, copies: int = 1) -> dict[str, Any]:
    """Return a value of JSON."""
    if customer == "nobody":
        raise NoSuchCustomerError(customer)
    return {"to": customer, "copies": copies, "pair": (1, 2)}


@task(takes_context=True)
async def name_result(context: TaskContext, word: str) -> list[Any]:
    """Say what the context says."""
    # A result of anything: the annotation there is open.
    result = cast("TaskResult[Any]", context.task_result)  # pyright: ignore[reportUnknownMemberType]
    return [result.id, context.attempt, word]


@task(backend="patient", queue_name="slow", takes_context=True)
def work_later(context: TaskContext) -> int:
    """Fail at first."""
    if context.attempt == 1:
        raise ValueError("not yet")
    return context.attempt
