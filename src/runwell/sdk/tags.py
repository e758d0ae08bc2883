"""`tags`: add tags to the current run (docs `tags.md`)."""

from collections.abc import Sequence
from typing import Final

from runwell.client.transport import RequestOptions, UnprocessableEntityError
from runwell.core.errors import RunwellError
from runwell.sdk.client import blocking_runs, runs
from runwell.sdk.logger import logger
from runwell.sdk.runtime import find_runtime


class RunTags:
    """Adds tags to the current run.

    Example:
        >>> from runwell import tags, task
        >>> @task(id="import-user")
        ... async def import_user(user_id: str) -> None:
        ...     await tags.add(f"user_{user_id}")
    """

    __slots__ = ()

    async def add(
        self, tags: str | Sequence[str], *, request_options: RequestOptions | None = None
    ) -> None:
        """Add a tag or several; if that makes more than ten, none: an error line tells of it.

        `ctx.run.tags` stays as it was. Raises RunwellError outside of a run.
        """
        run_id = _current_run_id()
        try:
            await runs.add_tags(run_id, tags, request_options=request_options)
        except UnprocessableEntityError as error:
            _log(tags, error)


class BlockingRunTags:
    """Adds tags to the current run, blocking the caller.

    Example:
        >>> from runwell import task
        >>> from runwell.sync import tags
        >>> @task(id="import-user")
        ... def import_user(user_id: str) -> None:
        ...     tags.add(f"user_{user_id}")
    """

    __slots__ = ()

    def add(
        self, tags: str | Sequence[str], *, request_options: RequestOptions | None = None
    ) -> None:
        """Add a tag or several; if that makes more than ten, none: an error line tells of it.

        `ctx.run.tags` stays as it was. Raises RunwellError outside of a run.
        """
        run_id = _current_run_id()
        try:
            blocking_runs.add_tags(run_id, tags, request_options=request_options)
        except UnprocessableEntityError as error:
            _log(tags, error)


tags: Final = RunTags()
blocking_tags: Final = BlockingRunTags()


def _current_run_id() -> str:
    runtime = find_runtime()
    if runtime is None:
        raise RunwellError(
            "tags.add works inside of a run: give tags=[...] to the trigger, or use "
            "runs.add_tags(run_id, ...)"
        )
    return runtime.ctx.run.id


def _log(given: str | Sequence[str], error: UnprocessableEntityError) -> None:
    logger.error("tags were not added", tags=given, reason=str(error))
