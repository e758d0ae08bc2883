"""The blocking twins of Runwell's functions, for Django, Flask, scripts and plain `def` tasks.

    from runwell.sync import batch, runs, schedules, tasks

A task has its own: `hello.sync.trigger(...)`.
"""

from runwell.client.webhooks import webhooks
from runwell.sdk.batch import blocking_batch as batch
from runwell.sdk.blocking_wait import blocking_wait as wait
from runwell.sdk.client import blocking_auth as auth
from runwell.sdk.client import blocking_bulk_actions as bulk_actions
from runwell.sdk.client import blocking_envvars as envvars
from runwell.sdk.client import blocking_queues as queues
from runwell.sdk.client import blocking_runs as runs
from runwell.sdk.client import blocking_tasks as tasks
from runwell.sdk.idempotency import blocking_idempotency_keys as idempotency_keys
from runwell.sdk.metadata import blocking_metadata as metadata
from runwell.sdk.python import blocking_python as python
from runwell.sdk.retry import blocking_retry as retry
from runwell.sdk.schedules import blocking_schedules as schedules
from runwell.sdk.tags import blocking_tags as tags

__all__ = [
    "auth",
    "batch",
    "bulk_actions",
    "envvars",
    "idempotency_keys",
    "metadata",
    "python",
    "queues",
    "retry",
    "runs",
    "schedules",
    "tags",
    "tasks",
    "wait",
    "webhooks",
]
