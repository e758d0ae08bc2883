"""Whether a trigger is let in: not when too many runs wait, unless its run is there already."""

from runwell.engine import backlogs
from runwell.engine.environments import Environment
from runwell.server.backend import Backend


async def admit_run(
    backend: Backend,
    environment: Environment,
    task_id: str,
    *,
    request_key: str | None,
    idempotency_key: str | None = None,
) -> None:
    """Let one run in; raises RequestError 422 with what to do when too many wait."""
    if backend.backlogs.has_room(environment):
        return
    # Asked only now: whoever has lost the answer, or has the key of a run, adds nothing.
    is_known = await backlogs.is_known_run(
        backend.db,
        environment,
        task_id,
        request_key=request_key,
        idempotency_key=idempotency_key,
        now=backend.now(),
    )
    if not is_known:
        raise backend.backlogs.refusal(environment)


async def admit_batch(
    backend: Backend,
    environment: Environment,
    runs: int,
    *,
    request_key: str | None,
    idempotency_key: str | None,
) -> None:
    """Let a batch of so many runs in, or none of it; raises as `admit_run` does."""
    if backend.backlogs.has_room(environment, runs):
        return
    is_known = await backlogs.is_known_batch(
        backend.db,
        environment,
        request_key=request_key,
        idempotency_key=idempotency_key,
        now=backend.now(),
    )
    if not is_known:
        raise backend.backlogs.refusal(environment, runs)
