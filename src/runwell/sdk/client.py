"""The client that `runs`, `tasks` and others use by default, and `configure` for it."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from runwell.client.api import ApiClient
from runwell.client.options import Retry, read_duration
from runwell.client.raw_responses import (
    AuthWithRaw,
    BlockingAuthWithRaw,
    BlockingBulkActionsWithRaw,
    BlockingEnvVarsWithRaw,
    BlockingQueuesWithRaw,
    BlockingTasksWithRaw,
    BulkActionsWithRaw,
    EnvVarsWithRaw,
    QueuesWithRaw,
    TasksWithRaw,
)
from runwell.client.raw_runs import BlockingRunsWithRaw, RunsWithRaw
from runwell.client.transport import ClientSettings, check_url, read_environment
from runwell.core.timing import Duration
from runwell.sdk.runtime import find_runtime

# What `configure` was called with; the environment gives the rest.
_configured: dict[str, object] = {}
# What `auth.with_auth` says, within its block.
_scoped: ContextVar[dict[str, object] | None] = ContextVar("runwell.auth", default=None)


def configure(
    *,
    secret_key: str | None = None,
    base_url: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
) -> None:
    """Say how the API is called from here on, in place of the environment.

    Without a call, `TRIGGER_SECRET_KEY` and `TRIGGER_API_URL` say where runs go. `retry` and
    `timeout` hold for every call that brings no `request_options`: by default a call is sent up to
    5 times and each answer is waited for up to 60 seconds. What is not given is reset.

    Example:
        >>> from runwell import Retry, configure
        >>> configure(base_url="http://127.0.0.1:3030", retry=Retry(max_attempts=2))
        >>> configure()
    """
    given: dict[str, object] = {}
    if secret_key is not None:
        given["secret_key"] = secret_key
    if base_url is not None:
        given["base_url"] = check_url(base_url)
    if retry is not None:
        given["retry"] = retry
    if timeout is not None:
        given["timeout"] = read_duration("timeout", timeout)
    _configured.clear()
    _configured.update(given)


def current_settings() -> ClientSettings:
    """The settings of the next call."""
    settings = read_environment()
    runtime = find_runtime()
    if runtime is not None:
        settings = replace(settings, parent_run_id=runtime.ctx.run.id)
    scoped = _scoped.get()
    if _configured or scoped is not None:
        settings = replace(settings, **{**_configured, **(scoped or {})})
    return settings


class _WithAuth:
    """What both kinds of `auth` have."""

    @contextmanager
    def with_auth(self, credential: str, *, base_url: str | None = None) -> Generator[None]:
        """Call with another secret key or a public access token, within the block.

        It holds for this thread, or this asyncio task and what it starts. What is triggered is no
        child of the current run: it may be in another environment.

        Example:
            >>> from runwell import auth, runs
            >>> async def status_in_production(run_id: str, key: str) -> str:
            ...     with auth.with_auth(key):
            ...         return (await runs.retrieve(run_id)).status
        """
        given: dict[str, object] = {"secret_key": credential, "parent_run_id": None}
        if base_url is not None:
            given["base_url"] = check_url(base_url)
        # A version of this environment says nothing in another one.
        given["version"] = None
        token = _scoped.set({**(_scoped.get() or {}), **given})
        try:
            yield
        finally:
            _scoped.reset(token)


class AuthNamespace(_WithAuth, AuthWithRaw):
    """Make public access tokens; call with another credential for a while.

    Example:
        >>> from runwell import auth
        >>> async def token_for(run_id: str) -> str:
        ...     return await auth.create_public_token({"read": {"runs": [run_id]}})
    """


class BlockingAuthNamespace(_WithAuth, BlockingAuthWithRaw):
    """Make public access tokens, blocking the caller; call with another credential for a while.

    Example:
        >>> from runwell.sync import auth
        >>> def token_for(tag: str) -> str:
        ...     return auth.create_public_token({"read": {"tags": tag}}, expiration_time="1hr")
    """


default_client = ApiClient(current_settings)
auth = AuthNamespace(default_client)
blocking_auth = BlockingAuthNamespace(default_client)
envvars = EnvVarsWithRaw(default_client)
blocking_envvars = BlockingEnvVarsWithRaw(default_client)
queues = QueuesWithRaw(default_client)
bulk_actions = BulkActionsWithRaw(default_client)
blocking_bulk_actions = BlockingBulkActionsWithRaw(default_client)
runs = RunsWithRaw(default_client)
tasks = TasksWithRaw(default_client)
blocking_queues = BlockingQueuesWithRaw(default_client)
blocking_runs = BlockingRunsWithRaw(default_client)
blocking_tasks = BlockingTasksWithRaw(default_client)
