"""A run that the credential of a request may read."""

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.scopes import Resource
from runwell.engine import runs
from runwell.engine.db import Transaction
from runwell.engine.environments import Environment
from runwell.engine.runs import Run
from runwell.server import auth


def resources_of(run: Run) -> list[Resource]:
    """What a run is, as scopes name it: itself, its tags, its batch, its task."""
    found = [Resource("runs", run.id), Resource("tasks", run.task_id)]
    found += [Resource("tags", tag) for tag in run.tags]
    if run.batch_id is not None:
        found.append(Resource("batch", run.batch_id))
    return found


async def get_allowed_run(
    request: Request, tx: Transaction, environment: Environment, run_id: str
) -> Run:
    """A run that a request may read.

    Raises RequestError 404 without one, but 403 for a public token that doesn't name the run: it is
    not told what there is.
    """
    try:
        run = await runs.get_run(tx, environment, run_id)
    except RequestError:
        auth.require(request, Resource("runs", run_id))
        raise
    auth.require(request, *resources_of(run))
    return run
