"""Background tasks and durable runs for Python.

    from runwell import task

    @task(id="hello-world")
    async def hello(name: str) -> str:
        return f"Hello {name}"

    handle = await hello.trigger("Ada")

All names that user code may rely on are here; the blocking ones are in `runwell.sync`.
"""

import importlib
from typing import TYPE_CHECKING

from runwell._version import __version__

# Each name is imported when it is first asked for (PEP 562): a program pays for what it uses, and
# `import runwell` costs next to nothing. Type checkers, and readers, see plain imports.
if TYPE_CHECKING:
    from runwell.client.batching import BatchHandle
    from runwell.client.bulk_actions import BulkAction
    from runwell.client.metadata_changes import MetadataChanges
    from runwell.client.options import Debounce, Machine, Queue, RateLimit, Retry, timeout
    from runwell.client.queues import BlockingQueuePage, QueuePage
    from runwell.client.realtime import LiveRun, RunSubscription
    from runwell.client.recording import RawResponse
    from runwell.client.run_pages import BlockingRunPage, RunPage
    from runwell.client.runs import Run, RunHandle
    from runwell.client.schedule_pages import BlockingSchedulePage, SchedulePage
    from runwell.client.transport import (
        ApiAnswerError,
        ApiConnectionError,
        ApiError,
        AuthenticationError,
        BadRequestError,
        ConflictError,
        InternalServerError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        RequestOptions,
        UnprocessableEntityError,
    )
    from runwell.client.webhooks import WebhookError, webhooks
    from runwell.core.errors import (
        AbortTaskRunError,
        ConfigurationError,
        InvalidPayloadError,
        OutOfMemoryError,
        RunCanceled,
        RunStopped,
        RunTimedOut,
        RunwellError,
        TaskPayloadParsedError,
    )
    from runwell.core.schedules import ScheduledPayload, ScheduleObject
    from runwell.core.webhook_events import (
        DeploymentFailedEvent,
        DeploymentSucceededEvent,
        RunFailedEvent,
    )
    from runwell.sdk.and_wait import BatchResult
    from runwell.sdk.batch import batch, item
    from runwell.sdk.client import auth, bulk_actions, configure, envvars, queues, runs, tasks
    from runwell.sdk.config import Config, Retries, define_config
    from runwell.sdk.definitions import queue, task
    from runwell.sdk.hooks import ErrorHandling
    from runwell.sdk.idempotency import idempotency_keys
    from runwell.sdk.locals import LocalKey, locals  # noqa: A004 (the documentation's name)
    from runwell.sdk.logger import logger
    from runwell.sdk.metadata import metadata
    from runwell.sdk.python import PythonError, PythonResult, python
    from runwell.sdk.retry import RetryByHeaders, retry
    from runwell.sdk.runtime import RunContext
    from runwell.sdk.schedules import Cron, schedules
    from runwell.sdk.subtasks import Failed, Ok, SubtaskError, SubtaskUnwrapError
    from runwell.sdk.tags import tags
    from runwell.sdk.task import Task
    from runwell.sdk.telemetry import Telemetry
    from runwell.sdk.tokens import TokenResult, WaitTimeoutError
    from runwell.sdk.tools import Tool, Toolbox, ToolTask, tool_task
    from runwell.sdk.usage import Measurement, RunUsage, usage
    from runwell.sdk.wait import wait
    from runwell.sdk.waiting import WaitRefusedError

_MODULES = {
    "runwell.client.batching": ("BatchHandle",),
    "runwell.client.bulk_actions": ("BulkAction",),
    "runwell.client.metadata_changes": ("MetadataChanges",),
    "runwell.client.options": ("Debounce", "Machine", "Queue", "RateLimit", "Retry", "timeout"),
    "runwell.client.queues": ("BlockingQueuePage", "QueuePage"),
    "runwell.client.recording": ("RawResponse",),
    "runwell.client.realtime": ("LiveRun", "RunSubscription"),
    "runwell.client.run_pages": ("BlockingRunPage", "RunPage"),
    "runwell.client.runs": ("Run", "RunHandle"),
    "runwell.client.schedule_pages": ("BlockingSchedulePage", "SchedulePage"),
    "runwell.client.transport": (
        "ApiAnswerError",
        "ApiConnectionError",
        "ApiError",
        "AuthenticationError",
        "BadRequestError",
        "ConflictError",
        "InternalServerError",
        "NotFoundError",
        "PermissionDeniedError",
        "RateLimitError",
        "RequestOptions",
        "UnprocessableEntityError",
    ),
    "runwell.client.webhooks": ("WebhookError", "webhooks"),
    "runwell.core.errors": (
        "AbortTaskRunError",
        "ConfigurationError",
        "InvalidPayloadError",
        "OutOfMemoryError",
        "RunCanceled",
        "RunStopped",
        "RunTimedOut",
        "RunwellError",
        "TaskPayloadParsedError",
    ),
    "runwell.core.schedules": ("ScheduledPayload", "ScheduleObject"),
    "runwell.core.webhook_events": (
        "DeploymentFailedEvent",
        "DeploymentSucceededEvent",
        "RunFailedEvent",
    ),
    "runwell.sdk.batch": ("batch", "item"),
    "runwell.sdk.client": (
        "auth",
        "bulk_actions",
        "configure",
        "envvars",
        "queues",
        "runs",
        "tasks",
    ),
    "runwell.sdk.config": ("Config", "Retries", "define_config"),
    "runwell.sdk.definitions": ("queue", "task"),
    "runwell.sdk.hooks": ("ErrorHandling",),
    "runwell.sdk.idempotency": ("idempotency_keys",),
    "runwell.sdk.locals": ("LocalKey", "locals"),
    "runwell.sdk.logger": ("logger",),
    "runwell.sdk.metadata": ("metadata",),
    "runwell.sdk.python": ("PythonError", "PythonResult", "python"),
    "runwell.sdk.retry": ("RetryByHeaders", "retry"),
    "runwell.sdk.runtime": ("RunContext",),
    "runwell.sdk.schedules": ("Cron", "schedules"),
    "runwell.sdk.and_wait": ("BatchResult",),
    "runwell.sdk.subtasks": ("Failed", "Ok", "SubtaskError", "SubtaskUnwrapError"),
    "runwell.sdk.tags": ("tags",),
    "runwell.sdk.task": ("Task",),
    "runwell.sdk.telemetry": ("Telemetry",),
    "runwell.sdk.tokens": ("TokenResult", "WaitTimeoutError"),
    "runwell.sdk.usage": ("Measurement", "RunUsage", "usage"),
    "runwell.sdk.tools": ("Tool", "Toolbox", "ToolTask", "tool_task"),
    "runwell.sdk.wait": ("wait",),
    "runwell.sdk.waiting": ("WaitRefusedError",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AbortTaskRunError",
    "ApiAnswerError",
    "ApiConnectionError",
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "BatchHandle",
    "BatchResult",
    "BlockingQueuePage",
    "BlockingRunPage",
    "BlockingSchedulePage",
    "BulkAction",
    "Config",
    "ConfigurationError",
    "ConflictError",
    "Cron",
    "Debounce",
    "DeploymentFailedEvent",
    "DeploymentSucceededEvent",
    "ErrorHandling",
    "Failed",
    "InternalServerError",
    "InvalidPayloadError",
    "LiveRun",
    "LocalKey",
    "Machine",
    "Measurement",
    "MetadataChanges",
    "NotFoundError",
    "Ok",
    "OutOfMemoryError",
    "PermissionDeniedError",
    "PythonError",
    "PythonResult",
    "Queue",
    "QueuePage",
    "RateLimit",
    "RateLimitError",
    "RawResponse",
    "RequestOptions",
    "Retries",
    "Retry",
    "RetryByHeaders",
    "Run",
    "RunCanceled",
    "RunContext",
    "RunFailedEvent",
    "RunHandle",
    "RunPage",
    "RunStopped",
    "RunSubscription",
    "RunTimedOut",
    "RunUsage",
    "RunwellError",
    "ScheduleObject",
    "SchedulePage",
    "ScheduledPayload",
    "SubtaskError",
    "SubtaskUnwrapError",
    "Task",
    "TaskPayloadParsedError",
    "Telemetry",
    "TokenResult",
    "Tool",
    "ToolTask",
    "Toolbox",
    "UnprocessableEntityError",
    "WaitRefusedError",
    "WaitTimeoutError",
    "WebhookError",
    "__version__",
    "auth",
    "batch",
    "bulk_actions",
    "configure",
    "define_config",
    "envvars",
    "idempotency_keys",
    "item",
    "locals",
    "logger",
    "metadata",
    "python",
    "queue",
    "queues",
    "retry",
    "runs",
    "schedules",
    "tags",
    "task",
    "tasks",
    "timeout",
    "tool_task",
    "usage",
    "wait",
    "webhooks",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'runwell' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted((*globals(), *_MODULE_OF))
